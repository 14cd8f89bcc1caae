"""Scenarios in one process, on the server's own event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from tradeback._fast.epoll import new_event_loop


def run(scenario: Coroutine[Any, Any, None]) -> None:
    """Run it to its end on an EpollLoop."""
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(scenario)
