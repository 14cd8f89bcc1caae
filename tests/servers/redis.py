"""A real Redis, that can be filled and asked in its own words too."""

from __future__ import annotations

import socket
from typing import ClassVar

from tests.servers.server import RealServer


class RedisServer(RealServer):
    """`redis-server` that keeps nothing on its disk: after a kill it is empty."""

    PROGRAM: ClassVar[str] = "redis-server"
    HOW_TO_GET: ClassVar[str] = "apt-get install -y --no-install-recommends redis-server"

    @property
    def addr(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        return {"REDIS_ADDR": self.addr}

    def command(self, program: str) -> list[str]:
        return [
            *(program, "--port", str(self.port), "--bind", "127.0.0.1", "--save", ""),
            *("--appendonly", "no", "--dir", str(self.folder)),
        ]

    def answers(self) -> bool:
        # It answers something, with a password too.
        return self.ask("PING").startswith(("+PONG", "-NOAUTH"))

    def ask(self, *words: str, password: str = "") -> str:
        """The first line of its answer to a command, as it comes over the wire."""
        with (
            socket.create_connection(("127.0.0.1", self.port), timeout=60) as connection,
            connection.makefile("rwb") as lines,
        ):
            if password:
                lines.write(f"AUTH {password}\r\n".encode())
            lines.write((" ".join(words) + "\r\n").encode())
            lines.flush()
            if password:
                assert lines.readline() == b"+OK\r\n"
            return lines.readline().decode().rstrip()

    def empty(self) -> None:
        """Delete all that was written, in all of its databases."""
        assert self.ask("FLUSHALL") == "+OK"
