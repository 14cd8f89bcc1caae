"""EpollLoop and file descriptors: replaced, closed, reused, reset, by the thousand."""

from __future__ import annotations

import asyncio
import os
import resource
import socket
import struct
from typing import Any

import pytest

from tests.unit.epoll.iterations import run_iterations
from tradeback._fast.epoll import EpollLoop


def test_what_epoll_cannot_watch_is_an_error_as_in_asyncio(loop: EpollLoop, tmp_path: Any) -> None:
    with open(tmp_path / "regular", "wb") as file, pytest.raises(PermissionError):
        loop.add_reader(file, int)
    with pytest.raises(OSError, match="cannot watch file descriptor 1000000"):
        loop.add_writer(1_000_000, int)
    with pytest.raises(ValueError, match="Invalid file object"):
        loop.add_reader("socket", int)
    with pytest.raises(ValueError, match="negative"):
        loop.add_reader(-1, int)
    assert not loop.remove_reader(1_000_000)


def test_a_new_reader_takes_the_place_of_the_old(
    loop: EpollLoop, pairs: list[tuple[socket.socket, socket.socket]]
) -> None:
    called: list[str] = []
    ours, theirs = pairs[0]
    old = loop._add_reader(ours.fileno(), called.append, "old")
    loop.add_reader(ours, called.append, "new")
    theirs.send(b"x")
    run_iterations(loop)
    assert old.cancelled()
    assert called == ["new"]
    assert loop.remove_reader(ours)
    assert not loop.remove_reader(ours)
    run_iterations(loop)
    assert called == ["new"]


def test_a_cancelled_handle_is_not_called_and_does_not_spin(
    loop: EpollLoop, pairs: list[tuple[socket.socket, socket.socket]]
) -> None:
    ours, theirs = pairs[0]
    loop._add_reader(ours.fileno(), lambda: 1 / 0).cancel()
    theirs.send(b"x")
    run_iterations(loop)
    assert not loop.remove_reader(ours)


def test_removed_while_its_event_waits(
    loop: EpollLoop, pairs: list[tuple[socket.socket, socket.socket]]
) -> None:
    called: list[int] = []

    def readable(which: int) -> None:
        called.append(which)
        for ours, _ in pairs:
            loop.remove_reader(ours)

    for which, (ours, theirs) in enumerate(pairs):
        loop.add_reader(ours, readable, which)
        theirs.send(b"x")
    run_iterations(loop, 2)
    assert len(called) == 1


def test_number_in_use_again_within_the_batch(
    loop: EpollLoop, pairs: list[tuple[socket.socket, socket.socket]]
) -> None:
    """The first reader closes the second's socket; a new one gets its number, and must not get its event."""
    log: list[str] = []
    fresh: list[socket.socket] = []

    def readable(which: int) -> None:
        log.append("old")
        loop.remove_reader(pairs[0][0])
        loop.remove_reader(pairs[1][0])
        number = pairs[1 - which][0].fileno()
        pairs[1 - which][0].close()
        fresh.extend(socket.socketpair())
        assert number in (fresh[0].fileno(), fresh[1].fileno())
        loop.add_reader(number, log.append, "new")

    for which, (ours, theirs) in enumerate(pairs[:2]):
        loop.add_reader(ours, readable, which)
        theirs.send(b"x")
    run_iterations(loop, 3)
    assert log == ["old"]
    for end in fresh:
        loop.remove_reader(end)
        end.close()


def test_number_in_use_again_without_having_been_removed(loop: EpollLoop) -> None:
    """Closing without removing is a mistake that asyncio answers with FileNotFoundError; here it heals."""
    log: list[str] = []
    ours, theirs = socket.socketpair()
    number = ours.fileno()
    loop.add_reader(ours, log.append, "stale")
    ours.close()
    theirs.close()
    ours, theirs = socket.socketpair()
    assert number in (ours.fileno(), theirs.fileno())
    loop.add_writer(number, log.append, "writer")
    run_iterations(loop)
    assert log == ["writer"]
    loop.remove_writer(number)
    loop.add_reader(number, log.append, "reader")
    (theirs if ours.fileno() == number else ours).send(b"x")
    run_iterations(loop)
    assert log == ["writer", "reader"]
    loop.remove_reader(number)
    ours.close()
    theirs.close()


def test_an_event_of_a_closed_file_is_not_the_new_one_s(loop: EpollLoop) -> None:
    """A duplicate keeps the closed file alive in epoll, under a number that is in use again."""
    log: list[str] = []
    ours, theirs = socket.socketpair()
    number = ours.fileno()
    duplicate = ours.dup()
    loop.add_reader(number, log.append, "old")
    ours.close()
    assert loop.remove_reader(number)  # epoll cannot be told: the number is closed
    fresh = os.eventfd(0)
    assert fresh == number
    loop.add_reader(fresh, log.append, "new")
    theirs.send(b"x")
    run_iterations(loop, 2)
    assert log == []
    loop.remove_reader(fresh)
    os.close(fresh)
    for end in (duplicate, theirs):
        end.close()


def test_a_reset_reaches_reader_and_writer(loop: EpollLoop) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    ours = socket.create_connection(listener.getsockname())
    theirs, _ = listener.accept()
    log: list[str] = []
    loop.add_reader(ours, log.append, "reader")
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    theirs.close()
    loop.add_writer(ours, log.append, "writer")
    run_iterations(loop)
    assert log == ["reader", "writer"]
    loop.remove_reader(ours)
    loop.remove_writer(ours)
    ours.close()
    listener.close()


def test_reset_by_a_callback_of_the_same_batch(loop: EpollLoop) -> None:
    """Streams: both ends are readable, and the first to run aborts its connection."""
    ended: list[BaseException | None] = []

    class End(asyncio.Protocol):
        transport: asyncio.Transport

        def connection_made(self, transport: Any) -> None:
            self.transport = transport

        def data_received(self, data: bytes) -> None:
            self.transport.abort()

        def connection_lost(self, error: BaseException | None) -> None:
            ended.append(error)
            if len(ended) == 2:
                loop.stop()

    async def connect() -> list[asyncio.Transport]:
        ours, theirs = socket.socketpair()
        return [(await loop.create_connection(End, sock=end))[0] for end in (ours, theirs)]

    for transport in loop.run_until_complete(connect()):
        transport.write(b"x")
    loop.run_forever()
    assert len(ended) == 2


def test_thousands_of_descriptors(loop: EpollLoop) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 3000
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, wanted + 500) if hard > 0 else wanted + 500, hard))
    counters: list[int] = []
    seen: set[int] = set()
    try:
        counters.extend(os.eventfd(0, os.EFD_NONBLOCK) for _ in range(wanted))

        def readable(fd: int) -> None:
            os.eventfd_read(fd)
            seen.add(fd)

        for fd in counters:
            loop.add_reader(fd, readable, fd)
            os.eventfd_write(fd, 1)
        run_iterations(loop, 4)  # a wait fetches 1024
        assert seen == set(counters)
        highest = os.dup2(counters[0], resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 1)
        counters.append(highest)
        loop.add_writer(highest, seen.clear)
        run_iterations(loop)
        assert not seen
    finally:
        for fd in counters:
            loop.remove_reader(fd)
            loop.remove_writer(fd)
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
