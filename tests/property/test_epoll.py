"""EpollLoop against models: timers against a sorted list, readers and writers against poll(2)."""

from __future__ import annotations

import asyncio
import select
import socket

from hypothesis import given, settings
from hypothesis import strategies as st

from tradeback._fast.epoll import new_event_loop

SOCKETS = 6


@settings(max_examples=60, deadline=None)
@given(
    delays=st.lists(st.floats(0, 0.004, allow_subnormal=False), min_size=1, max_size=60),
    cancelled=st.sets(st.integers(0, 59)),
    debug=st.booleans(),
    spin=st.sampled_from([0.0, 0.0003, -1.0]),
)
def test_timers(delays: list[float], cancelled: set[int], debug: bool, spin: float) -> None:
    loop = new_event_loop()
    try:
        loop.set_debug(debug)
        loop.spin = spin
        fired: list[int] = []
        begin = loop.time()
        timers = [loop.call_at(begin + delay, fired.append, i) for i, delay in enumerate(delays)]
        for i in cancelled & set(range(len(delays))):
            timers[i].cancel()
        loop.call_at(begin + 0.0041, loop.stop)
        loop.run_forever()
        expected = [i for i in range(len(delays)) if i not in cancelled]
        assert sorted(fired) == expected
        whens = [timers[i].when() for i in fired]
        assert whens == sorted(whens)
    finally:
        loop.close()


@st.composite
def steps(draw: st.DrawFn) -> list[tuple[str, int]]:
    kinds = ["read", "write", "unread", "unwrite", "send", "drain", "fill", "reopen", "hangup"]
    return draw(st.lists(st.tuples(st.sampled_from(kinds), st.integers(0, SOCKETS - 1)), max_size=60))


def fill(sock: socket.socket) -> None:
    try:
        while True:
            sock.send(bytes(65536))
    except OSError:
        return


def drain(sock: socket.socket) -> None:
    try:
        while sock.recv(1 << 20):
            pass
    except OSError:
        return


def pair() -> tuple[socket.socket, socket.socket]:
    ends = socket.socketpair()
    for end in ends:
        end.setblocking(False)
    return ends


def run_one_iteration(loop: asyncio.AbstractEventLoop) -> None:
    loop.call_soon(loop.stop)
    loop.run_forever()


@settings(max_examples=150, deadline=None)
@given(steps=steps(), debug=st.booleans())
def test_readers_and_writers(steps: list[tuple[str, int]], debug: bool) -> None:
    """After each step one iteration calls exactly those that poll(2) says are ready."""
    loop = new_event_loop()
    loop.set_debug(debug)
    loop.slow_callback_duration = 60
    pairs = [pair() for _ in range(SOCKETS)]
    watched: dict[tuple[int, str], int] = {}  # (socket, direction) -> the registration's number
    called: set[tuple[int, str, int]] = set()
    try:
        for number, (kind, i) in enumerate(steps):
            ours, theirs = pairs[i]
            if kind in ("read", "write"):
                add = loop.add_reader if kind == "read" else loop.add_writer
                add(ours, called.add, (i, kind, number))
                watched[i, kind] = number
            elif kind in ("unread", "unwrite"):
                remove = loop.remove_reader if kind == "unread" else loop.remove_writer
                assert remove(ours) == (watched.pop((i, kind[2:]), None) is not None)
            elif kind == "send" and theirs.fileno() >= 0:
                fill(theirs) if number % 2 else theirs.send(b"x") if not is_full(theirs) else None
            elif kind == "drain":
                drain(ours)
            elif kind == "fill":
                fill(ours)
            elif kind == "hangup":
                theirs.close()
            elif kind == "reopen":  # removed first or closed under the loop's feet, by turns
                if number % 2:
                    loop.remove_reader(ours)
                    loop.remove_writer(ours)
                old = ours.fileno()
                ours.close()
                theirs.close()
                pairs[i] = pair()
                watched.pop((i, "read"), None)
                watched.pop((i, "write"), None)
                if (
                    number % 2 == 0
                ):  # nobody else has the number now, or the new pair does: either way it is over
                    loop.remove_reader(old)
                    loop.remove_writer(old)
            called.clear()
            run_one_iteration(loop)
            assert called == ready_by_poll(pairs, watched)
    finally:
        for ours, theirs in pairs:
            loop.remove_reader(ours)
            loop.remove_writer(ours)
            ours.close()
            theirs.close()
        loop.close()


def is_full(sock: socket.socket) -> bool:
    return not select.select([], [sock], [], 0)[1]


def ready_by_poll(
    pairs: list[tuple[socket.socket, socket.socket]], watched: dict[tuple[int, str], int]
) -> set[tuple[int, str, int]]:
    ready = set()
    for (i, direction), number in watched.items():
        poll = select.poll()
        poll.register(pairs[i][0], select.POLLIN if direction == "read" else select.POLLOUT)
        if poll.poll(0):
            ready.add((i, direction, number))
    return ready
