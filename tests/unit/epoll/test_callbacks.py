"""EpollLoop calls back: errors, contexts, debug mode; and how it ends."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import logging
import os
import socket
import weakref

import pytest

from tests.unit.epoll.iterations import collect_errors, run_iterations
from tradeback._fast.epoll import EpollLoop, new_event_loop


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
