"""EpollLoop waits: timers, busy polling, signals and wakes from other threads, the hook after each iteration."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import socket
import threading
import time

import pytest

from tests.unit.epoll.iterations import collect_errors, run_iterations
from tradeback._fast.epoll import EpollLoop, new_event_loop


def test_runner_runs_on_it() -> None:
    async def main() -> int:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, EpollLoop)
        await asyncio.sleep(0.0002)
        return await loop.run_in_executor(None, lambda: 5)

    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        assert runner.run(main()) == 5


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
