"""Ctrl-C and SIGTERM are never lost, also where Python drops what a signal's handler raises."""

from __future__ import annotations

import gc
import os
import signal
import weakref
from collections.abc import Iterator

import pytest

from tradeback.commands.interruption import Interruption

SIGNALS = pytest.mark.parametrize(
    ("signum", "raised"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)]
)


class Thing:
    """Something whose end is watched."""


@SIGNALS
def test_a_signal_is_raised_at_the_next_look(signum: signal.Signals, raised: type[BaseException]) -> None:
    before = signal.getsignal(signum)
    with Interruption() as interruption:
        interruption.check()
        os.kill(os.getpid(), signum)
        with pytest.raises(raised):
            interruption.check()
    assert signal.getsignal(signum) == before


@SIGNALS
def test_a_second_signal_does_not_wait(signum: signal.Signals, raised: type[BaseException]) -> None:
    with Interruption():
        os.kill(os.getpid(), signum)
        with pytest.raises(raised):
            os.kill(os.getpid(), signum)


@SIGNALS
def test_one_that_strikes_in_the_garbage_collector_ends_the_items(
    signum: signal.Signals, raised: type[BaseException]
) -> None:
    seen: list[int] = []

    def items() -> Iterator[int]:
        for number in range(10):
            if number == 4:
                watched = Thing()
                reference = weakref.ref(watched, lambda _: os.kill(os.getpid(), signum))
                del watched
                gc.collect()
                assert reference() is None
            yield number

    with pytest.raises(raised), Interruption() as interruption:
        seen.extend(interruption.watch(items()))
    assert len(seen) <= 5
