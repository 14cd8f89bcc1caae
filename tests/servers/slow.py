"""A way to a server that takes its time: every piece that goes over it, either way, is held up for `delay` seconds."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from types import TracebackType
from typing import Self

from tests.servers.server import free_port

PIECE = 1 << 16


class SlowWay:
    """Listens on `port` of loopback and passes on to another, in threads of its own. `delay` may be set at any time.

    Where nobody listens behind it, a connection is taken and closed at once.
    """

    def __init__(self, to: int) -> None:
        self.delay = 0.0
        self.port = free_port()
        self._to = to
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self._start(self._accept)

    def _start(self, work: object, *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments, name=f"way to {self._to}")  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                theirs, _ = self._listener.accept()
            except OSError:
                return  # it was closed
            try:
                its = socket.create_connection(("127.0.0.1", self._to))
            except OSError:
                theirs.close()
                continue
            with self._lock:
                self._open |= {theirs, its}
            ends = [False, False]
            self._start(self._pass, theirs, its, ends, 0)
            self._start(self._pass, its, theirs, ends, 1)

    def _pass(self, source: socket.socket, target: socket.socket, ends: list[bool], which: int) -> None:
        with contextlib.suppress(OSError):
            while piece := source.recv(PIECE):
                time.sleep(self.delay)
                target.sendall(piece)
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        with self._lock:
            ends[which] = True
            if all(ends):
                for end in (source, target):
                    end.close()
                    self._open.discard(end)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # A close alone would leave the thread in its accept.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._threads[0].join()
        self._listener.close()
        with self._lock:
            for end in self._open:
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
