"""Waiting for what nobody announces: it is looked at now and then, until it is so."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

PATIENCE_S = 180.0  # a safety net: no test waits so long unless it fails
LOOK_EVERY_S = 0.05  # of who is asked, some answer 1200 times a minute and no more
TURN_EVERY_S = 0.005  # in a loop whose other tasks bring it about

T = TypeVar("T")
Said = str | Callable[[], object]


def await_true(condition: Callable[[], T], said: Said = "", patience: float = PATIENCE_S) -> T:
    """Wait until it is true, for so many seconds at most; what it is then. Where it never is, an AssertionError has
    what is to be said of that."""
    deadline = time.monotonic() + patience
    while not (found := condition()):
        assert time.monotonic() < deadline, _in_vain(said, patience)
        time.sleep(LOOK_EVERY_S)
    return found


async def until(condition: Callable[[], T], said: Said = "") -> T:
    """As `await_true`, while the loop goes on."""
    deadline = time.monotonic() + PATIENCE_S
    while not (found := condition()):
        assert time.monotonic() < deadline, _in_vain(said, PATIENCE_S)
        await asyncio.sleep(TURN_EVERY_S)
    return found


def _in_vain(said: Said, patience: float) -> str:
    return f"waited for {patience:.0f} s in vain: {said if isinstance(said, str) else said()}"
