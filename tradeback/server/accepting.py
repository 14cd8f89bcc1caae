"""The listening socket, which takes connections in at a bounded rate and leaves the rest in the backlog."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable
from time import monotonic
from typing import Any

import structlog

BACKLOG = 4096
ACCEPT_TICK = 0.05  # seconds between two batches of connections while more come than may
EXHAUSTED_PAUSE = 1.0  # seconds without accepting after the process ran out of descriptors or memory
EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
SO_NOTSENT_LOWAT = getattr(socket, "TCP_NOTSENT_LOWAT", 25)

log = structlog.get_logger(__name__)


class AcceptingSocket(socket.socket):
    """A listening socket whose `accept` answers BlockingIOError beyond `rate` connections a second.

    It then stops being watched by the loop until there is room again: `watch` begins, `unwatch` ends that.
    """

    __slots__ = ("_loop", "_rate", "_resume", "_tokens", "_tokens_at", "_watch")

    def __init__(self, family: int, loop: asyncio.AbstractEventLoop, rate: float) -> None:
        super().__init__(family, socket.SOCK_STREAM)
        self._loop = loop
        self._rate = rate
        self._tokens = self._most
        self._tokens_at = monotonic()
        self._resume: asyncio.TimerHandle | None = None
        self._watch: Callable[[], None] | None = None

    @property
    def _most(self) -> float:
        return max(1.0, self._rate * ACCEPT_TICK)

    def on_room(self, watch: Callable[[], None]) -> None:
        """`watch` has the loop watch the socket again."""
        self._watch = watch

    def accept(self) -> tuple[socket.socket, Any]:
        now = monotonic()
        self._tokens = min(self._most, self._tokens + (now - self._tokens_at) * self._rate)
        self._tokens_at = now
        if self._tokens < 1.0:
            self._pause(max(ACCEPT_TICK, (1.0 - self._tokens) / self._rate))
            raise BlockingIOError(errno.EAGAIN, "no more connections are accepted for the moment")
        try:
            accepted = super().accept()
        except OSError as error:
            if error.errno not in EXHAUSTED:
                raise
            log.error("cannot accept connections: raise the limit of open files", error=str(error))
            self._pause(EXHAUSTED_PAUSE)
            raise BlockingIOError(errno.EAGAIN, "out of descriptors or memory") from error
        self._tokens -= 1.0
        return accepted

    def close(self) -> None:
        if self._resume is not None:
            self._resume.cancel()
            self._resume = None
        super().close()

    def _pause(self, seconds: float) -> None:
        if self._resume is None and self._watch is not None:
            self._loop.remove_reader(self.fileno())
            self._resume = self._loop.call_later(seconds, self._go_on, self._watch)

    def _go_on(self, watch: Callable[[], None]) -> None:
        self._resume = None
        if self.fileno() >= 0:
            watch()


def bind(
    loop: asyncio.AbstractEventLoop,
    host: str,
    port: int,
    *,
    rate: float,
    receive_buffer: int,
    notsent_lowat: int,
) -> AcceptingSocket:
    """A bound socket, not listening yet. Accepted sockets inherit its options: no call for each of them.

    A small receive buffer bounds what picows' read buffer grows to, which never shrinks; it has to be set
    before `listen`. TCP_NOTSENT_LOWAT makes a slow client visible after 16 KiB instead of megabytes.
    """
    family, _, _, _, address = socket.getaddrinfo(
        host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    sock = AcceptingSocket(family, loop, rate)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if receive_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        if notsent_lowat:
            sock.setsockopt(socket.IPPROTO_TCP, SO_NOTSENT_LOWAT, notsent_lowat)
        sock.bind(address)
        sock.setblocking(False)
    except BaseException:
        sock.close()
        raise
    return sock
