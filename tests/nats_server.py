"""A real nats-server on a free port, and a subscriber of plain sockets."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

PROGRAM = Path(sys.executable).with_name("nats-server")
NET = 30.0  # seconds, a safety net


def await_true(true: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + NET
    while not true():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


class NatsServer:
    """`nats-server` in a folder of its own; it can be started again on the port that it had."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.folder = folder
        self.arguments = arguments
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"nats://127.0.0.1:{self.port}"
        folder.mkdir(exist_ok=True)
        self.start()

    def start(self) -> None:
        with (self.folder / "nats.log").open("ab") as log:
            self.process = subprocess.Popen(
                [str(PROGRAM), "-a", "127.0.0.1", "-p", str(self.port), *self.arguments], stderr=log
            )
        await_true(self._listens, "nats-server never listened")

    def _listens(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), NET).close()
        except ConnectionRefusedError:
            return False
        return True

    def stop_answering(self) -> None:
        os.kill(self.process.pid, signal.SIGSTOP)

    def answer_again(self) -> None:
        os.kill(self.process.pid, signal.SIGCONT)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(NET)

    def __enter__(self) -> NatsServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()


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
