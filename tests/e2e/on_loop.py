"""Scenarios in one process, on the server's own event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from tradeback._fast.epoll import new_event_loop


async def until(condition: Callable[[], bool], safety: float = 40.0) -> None:
    """Wait for what other tasks bring about; the loop has no event for it, so it is looked at now and then.

    `safety` is in seconds, a net for a condition that never comes.
    """
    async with asyncio.timeout(safety):
        while not condition():
            await asyncio.sleep(0.01)


def run(scenario: Coroutine[Any, Any, None]) -> None:
    """Run it to its end on an EpollLoop."""
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(scenario)
