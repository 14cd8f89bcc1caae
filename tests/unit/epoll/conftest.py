"""What the tests of EpollLoop run on."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from tradeback._fast.epoll import EpollLoop, new_event_loop


@pytest.fixture(params=[False, True], ids=["plain", "debug"])
def loop(request: pytest.FixtureRequest) -> Iterator[EpollLoop]:
    """A loop in either mode: in debug mode asyncio's own iteration runs."""
    loop = new_event_loop()
    loop.set_debug(request.param)
    loop.slow_callback_duration = 60
    yield loop
    loop.close()


@pytest.fixture
def pairs() -> Iterator[list[tuple[socket.socket, socket.socket]]]:
    pairs = [socket.socketpair() for _ in range(3)]
    for pair in pairs:
        for end in pair:
            end.setblocking(False)
    yield pairs
    for pair in pairs:
        for end in pair:
            end.close()
