"""A real Redis of one test: on a port of its own, with a folder of its own, that can be killed, halted and filled."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

START_TIMEOUT = 30.0


class RedisServer:
    """`redis-server` on loopback that keeps nothing on its disk."""

    PROGRAM: ClassVar[str] = "redis-server"
    HOW_TO_GET: ClassVar[str] = "apt-get install -y --no-install-recommends redis-server"

    def __init__(self, folder: Path, *arguments: str) -> None:
        self._folder = folder
        with socket.create_server(("127.0.0.1", 0)) as free:
            self._port = free.getsockname()[1]
        self.addr = f"127.0.0.1:{self._port}"
        self._process: subprocess.Popen[bytes] | None = None
        self.start(*arguments)

    @classmethod
    def program(cls) -> str | None:
        """Its path, None where it is not installed."""
        return shutil.which(cls.PROGRAM)

    def start(self, *arguments: str) -> None:
        """Start it, empty, on the port that it always has; it answers when this returns."""
        with (self._folder / "redis.log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *(self.PROGRAM, "--port", str(self._port), "--bind", "127.0.0.1", "--save", ""),
                    *("--appendonly", "no", "--dir", str(self._folder), *arguments),
                ],
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + START_TIMEOUT
        while True:
            try:
                # It answers something, with a password too.
                assert self.ask("PING").startswith(("+", "-NOAUTH"))
                return
            except OSError:
                assert time.monotonic() < deadline, (self._folder / "redis.log").read_text()
                time.sleep(0.01)

    def ask(self, *words: str, password: str = "") -> str:
        """The first line of its answer to a command, as it comes over the wire."""
        with (
            socket.create_connection(("127.0.0.1", self._port), timeout=5) as connection,
            connection.makefile("rwb") as lines,
        ):
            if password:
                lines.write(f"AUTH {password}\r\n".encode())
            lines.write((" ".join(words) + "\r\n").encode())
            lines.flush()
            if password:
                assert lines.readline() == b"+OK\r\n"
            return lines.readline().decode().rstrip()

    def signal(self, number: int) -> None:
        """SIGSTOP has it hang, with its connections open; SIGCONT has it go on."""
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        """SIGKILL, at once; what it had is gone."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
