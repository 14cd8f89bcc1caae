"""An event loop, run a number of iterations and listened to."""

from __future__ import annotations

import asyncio
from typing import Any


def run_iterations(loop: asyncio.AbstractEventLoop, count: int = 1) -> None:
    for _ in range(count):
        loop.call_soon(loop.stop)
        loop.run_forever()


def collect_errors(loop: asyncio.AbstractEventLoop) -> list[dict[str, Any]]:
    errors: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: errors.append(context))
    return errors
