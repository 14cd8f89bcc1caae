"""EpollLoop: what it does beyond asyncio's own loops, and corners. That it is an asyncio loop, tests/stdlib shows."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import logging
import os
import random
import resource
import signal
import socket
import struct
import threading
import time
import weakref
from collections.abc import Iterator
from typing import Any

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


def run_iterations(loop: asyncio.AbstractEventLoop, count: int = 1) -> None:
    for _ in range(count):
        loop.call_soon(loop.stop)
        loop.run_forever()


def collect_errors(loop: asyncio.AbstractEventLoop) -> list[dict[str, Any]]:
    errors: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: errors.append(context))
    return errors


def test_runner_runs_on_it() -> None:
    async def main() -> int:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, EpollLoop)
        await asyncio.sleep(0.0002)
        return await loop.run_in_executor(None, lambda: 5)

    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        assert runner.run(main()) == 5


# Timers


@pytest.mark.parametrize("coarse", [False, True], ids=["pwait2", "milliseconds"])
@pytest.mark.parametrize("spin", [0, 0.0005, -1])
def test_timers_fire_in_order_and_never_early(loop: EpollLoop, coarse: bool, spin: float) -> None:
    # coarse is what a kernel without epoll_pwait2 leads to.
    loop._selector.coarse = coarse
    loop.spin = spin
    fired: list[tuple[float, float]] = []
    begin = loop.time()
    for _ in range(300):
        when = begin + random.random() * 0.02
        loop.call_at(when, lambda when=when: fired.append((when, loop.time())))
    loop.call_at(begin + 0.021, loop.stop)
    loop.run_forever()
    assert len(fired) == 300
    assert fired == sorted(fired)
    # asyncio's own iteration, which debug mode runs, may fire early by the clock's resolution.
    slack = loop._clock_resolution if loop.get_debug() else 0
    assert all(now >= when - slack for when, now in fired)


def test_time_is_time_monotonic(loop: EpollLoop) -> None:
    before = time.monotonic()
    now = loop.time()
    assert before <= now <= time.monotonic()


def test_cancelled_timers_are_let_go(loop: EpollLoop) -> None:
    timers = [loop.call_later(3600 + i, int) for i in range(1000)]
    for timer in timers[:900]:
        timer.cancel()
    run_iterations(loop)
    assert len(loop._scheduled) == 100
    assert loop._timer_cancelled_count == 0
    for timer in timers[900:960]:
        timer.cancel()
    run_iterations(loop)
    assert len(loop._scheduled) == 100 - 60


def test_a_timer_years_away_does_not_keep_the_loop_from_waking(loop: EpollLoop) -> None:
    loop.call_later(1e12, int)
    loop.call_later(0.001, loop.stop)
    loop.run_forever()
    thread = threading.Timer(0.001, loop.call_soon_threadsafe, [loop.stop])
    thread.start()
    loop.run_forever()
    thread.join()


# The iteration hook


def test_hook_runs_at_the_end_of_each_iteration(loop: EpollLoop) -> None:
    log: list[str] = []
    loop.set_iteration_hook(lambda: log.append("hook"))  # append returns None: nothing more to do
    loop.call_soon(log.append, "a")
    loop.call_soon(lambda: loop.call_soon(log.append, "c"))
    loop.call_soon(log.append, "b")
    run_iterations(loop, 2)
    assert log == ["a", "b", "hook", "c", "hook"]
    log.clear()
    loop.set_iteration_hook(None)
    run_iterations(loop)
    assert log == []


def test_hook_runs_after_a_timer_and_after_a_reader_woke_an_idle_loop(
    loop: EpollLoop, pairs: list[tuple[socket.socket, socket.socket]]
) -> None:
    log: list[str] = []
    ours, theirs = pairs[0]

    def readable() -> None:
        ours.recv(1)
        log.append("read")
        loop.stop()

    loop.add_reader(ours, readable)
    loop.call_later(0.001, lambda: (log.append("timer"), theirs.send(b"x")))
    loop.set_iteration_hook(lambda: log.append("hook"))
    loop.run_forever()
    loop.remove_reader(ours)
    while log[0] == "hook":  # iterations before the timer was due
        log.pop(0)
    assert log == ["timer", "hook", "read", "hook"]


def test_hook_with_more_to_do_runs_again_without_waiting(loop: EpollLoop) -> None:
    rounds = iter([True, True, True, False])

    def hook() -> bool:
        more = next(rounds)
        if not more:
            loop.stop()
        return more

    loop.set_iteration_hook(hook)
    loop.call_soon(int)
    loop.run_forever()  # after the first iteration nothing else would wake it
    assert loop.iterations == 4


def test_error_in_the_hook_is_reported_and_the_hook_stays(loop: EpollLoop) -> None:
    errors = collect_errors(loop)
    loop.set_iteration_hook(lambda: 1 / 0)
    run_iterations(loop, 2)
    assert [error["message"] for error in errors] == ["Exception in the iteration hook"] * 2
    assert all(isinstance(error["exception"], ZeroDivisionError) for error in errors)


def test_keyboard_interrupt_in_the_hook_leaves_the_loop_usable(loop: EpollLoop) -> None:
    def hook() -> None:
        raise KeyboardInterrupt

    loop.set_iteration_hook(hook)
    with pytest.raises(KeyboardInterrupt):
        run_iterations(loop)
    loop.set_iteration_hook(None)
    run_iterations(loop)


def test_hook_must_be_callable(loop: EpollLoop) -> None:
    with pytest.raises(TypeError, match="the iteration hook is 5: pass"):
        loop.set_iteration_hook(5)  # type: ignore[arg-type]


# Spinning


@pytest.mark.parametrize("spin", [0, 0.002, 60, -1])
def test_wakes_from_another_thread(loop: EpollLoop, spin: float) -> None:
    loop.spin = spin
    asked = threading.Event()

    def wake() -> None:
        asked.wait()
        loop.call_soon_threadsafe(loop.stop)  # takes the GIL, which the spinning thread must give

    thread = threading.Thread(target=wake)
    thread.start()
    loop.call_soon(asked.set)
    loop.run_forever()
    thread.join()


@pytest.mark.parametrize("spin", [0, 60, -1])
def test_signal_handlers_run_while_it_waits(loop: EpollLoop, spin: float) -> None:
    class Rung(Exception):
        pass

    def ring(*_: object) -> None:
        raise Rung

    loop.spin = spin
    before = signal.signal(signal.SIGALRM, ring)
    try:
        # Again and again, since one that arrives just before the loop blocks goes unseen, as with any loop.
        signal.setitimer(signal.ITIMER_REAL, 0.005, 0.005)
        with pytest.raises(Rung):
            loop.run_forever()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    run_iterations(loop)


@pytest.mark.parametrize("spin", [0, -1])
def test_asyncio_signal_handlers(loop: EpollLoop, spin: float) -> None:
    loop.spin = spin
    loop.add_signal_handler(signal.SIGUSR1, loop.stop)
    loop.call_soon(os.kill, os.getpid(), signal.SIGUSR1)
    loop.run_forever()
    assert loop.remove_signal_handler(signal.SIGUSR1)


def test_spin_reads_back(loop: EpollLoop) -> None:
    assert loop.spin == 0
    loop.spin = 0.00005
    assert loop.spin == pytest.approx(0.00005)
    loop.spin = -3
    assert loop.spin < 0


# Descriptors


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


# Callbacks


def test_errors_reach_the_exception_handler_with_asyncios_keys(
    loop: EpollLoop, pairs: list[tuple[socket.socket, socket.socket]]
) -> None:
    errors = collect_errors(loop)

    def fail() -> None:
        raise ValueError("on purpose")

    handle = loop.call_soon(fail)
    ours, theirs = pairs[0]
    loop.add_reader(ours, fail)
    theirs.send(b"x")
    run_iterations(loop)
    loop.remove_reader(ours)
    assert [str(error["exception"]) for error in errors] == ["on purpose"] * 2
    assert errors[0]["handle"] is handle
    assert "Exception in callback" in errors[0]["message"]
    assert "fail() at " in errors[0]["message"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_base_exceptions_leave_the_loop_and_lose_nothing(
    loop: EpollLoop, pairs: list[tuple[socket.socket, socket.socket]], error: type[BaseException]
) -> None:
    called: list[int] = []

    def readable(which: int) -> None:
        pairs[which][0].recv(1)
        called.append(which)
        if len(called) == 1:
            raise error

    for which, (ours, theirs) in enumerate(pairs):
        loop.add_reader(ours, readable, which)
        theirs.send(b"x")
    with pytest.raises(error):
        run_iterations(loop)
    run_iterations(loop)
    assert sorted(called) == [0, 1, 2]
    for ours, _ in pairs:
        loop.remove_reader(ours)


def test_contexts_are_honoured(loop: EpollLoop, pairs: list[tuple[socket.socket, socket.socket]]) -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="outside")
    seen: list[str] = []
    other = contextvars.copy_context()
    other.run(variable.set, "given")
    ours, theirs = pairs[0]
    theirs.send(b"x")

    def note() -> None:
        seen.append(variable.get())
        variable.set("changed inside")

    handle = loop.call_soon(note, context=other)
    assert handle._context is other  # get_context() came with Python 3.12
    token = variable.set("at registration")
    loop.add_reader(ours, note)
    loop.call_soon(note)
    variable.reset(token)
    run_iterations(loop)
    loop.remove_reader(ours)
    assert sorted(seen) == ["at registration", "at registration", "given"]
    assert variable.get() == "outside"


def test_a_context_that_is_already_entered_is_reported(
    loop: EpollLoop, caplog: pytest.LogCaptureFixture
) -> None:
    context = contextvars.copy_context()
    loop.call_soon(int, context=context)
    context.run(run_iterations, loop)
    assert "cannot enter context" in caplog.text


def test_handle_says_what_it_is(loop: EpollLoop) -> None:
    handle = loop.call_soon(loop.get_debug)
    assert "get_debug" in repr(handle)
    handle.cancel()
    handle.cancel()
    assert handle.cancelled()
    assert "cancelled" in repr(handle)


def test_a_cancelled_handle_may_be_run() -> None:
    loop = new_event_loop()
    handle = loop.call_soon(lambda: 1 / 0)
    handle.cancel()
    handle._run()
    loop.close()


def test_debug_mode_can_be_switched_while_running(
    loop: EpollLoop, pairs: list[tuple[socket.socket, socket.socket]]
) -> None:
    called: list[int] = []
    ours, theirs = pairs[0]
    theirs.send(b"x")
    loop.add_reader(ours, called.append, 1)
    loop.call_soon(lambda: loop.set_debug(not loop.get_debug()))
    run_iterations(loop, 2)
    assert called == [1, 1]
    loop.add_reader(ours, called.append, 2)
    loop.set_debug(not loop.get_debug())
    run_iterations(loop)
    assert called == [1, 1, 2]
    loop.remove_reader(ours)


def test_debug_mode_warns_of_a_slow_callback_and_of_the_wrong_thread(
    caplog: pytest.LogCaptureFixture, pairs: list[tuple[socket.socket, socket.socket]]
) -> None:
    loop = new_event_loop()
    loop.set_debug(True)
    loop.slow_callback_duration = 0
    ours, theirs = pairs[0]
    theirs.send(b"x")
    loop.add_reader(ours, ours.recv, 1)
    with caplog.at_level(logging.WARNING, "asyncio"):
        run_iterations(loop)
    assert any("socket.recv" in record.message or "recv" in record.message for record in caplog.records)

    async def from_another_thread() -> None:
        await loop.run_in_executor(None, loop.call_soon, int)

    with pytest.raises(RuntimeError, match="Non-thread-safe operation"):
        loop.run_until_complete(from_another_thread())
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.remove_reader(ours)
    loop.close()


# The end


def test_a_closed_loop_refuses(pairs: list[tuple[socket.socket, socket.socket]]) -> None:
    loop = new_event_loop()
    loop.add_reader(pairs[0][0], int)
    loop.close()
    loop.close()
    assert loop.is_closed()
    for refused in (
        lambda: loop.call_soon(int),
        lambda: loop.call_later(0, int),
        lambda: loop.add_reader(pairs[0][0], int),
        lambda: loop.add_writer(pairs[0][0], int),
        loop.run_forever,
    ):
        with pytest.raises(RuntimeError, match="Event loop is closed"):
            refused()
    assert not loop.remove_reader(pairs[0][0])
    assert not loop.remove_writer(pairs[0][0])


def test_close_within_a_callback_is_refused(loop: EpollLoop) -> None:
    errors = collect_errors(loop)
    loop.call_soon(loop.close)
    run_iterations(loop)
    assert "Cannot close a running event loop" in str(errors[0]["exception"])
    assert not loop.is_closed()


def test_nothing_is_left_of_a_closed_loop() -> None:
    async def main() -> None:
        await asyncio.sleep(0)

    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    loops = []
    for _ in range(10):
        loop = new_event_loop()
        loop.run_until_complete(main())
        loop.close()
        loops.append(weakref.ref(loop))
    del loop
    gc.collect()
    assert [ref() for ref in loops] == [None] * 10
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_loop_that_was_not_closed_is_collected_with_a_warning() -> None:
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    reference = weakref.ref(new_event_loop())
    with pytest.warns(ResourceWarning, match="unclosed event loop"):
        gc.collect()
    assert reference() is None
    assert len(os.listdir("/proc/self/fd")) == before
