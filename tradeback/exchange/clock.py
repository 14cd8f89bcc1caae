"""The exchange's wall clock. Our own may be wrong, and jump; what is old, or closed, is so by the exchange's time."""

from __future__ import annotations

import time

from tradeback.exchange.rest import ExchangeRest

ASKED_EVERY_S = 600.0


class ExchangeClock:
    """Asked of the exchange now and then, and carried on by the monotonic clock. One asyncio loop owns it."""

    def __init__(self, rest: ExchangeRest) -> None:
        self._rest = rest
        self._told_ns = 0
        self._told_at = 0.0  # monotonic seconds

    async def ask(self) -> None:
        """Ask the exchange, where it was not asked lately. Raises ExchangeError where it does not answer."""
        if self._told_ns and time.monotonic() - self._told_at < ASKED_EVERY_S:
            return
        self._told_ns = await self._rest.server_time()
        # The answer was made a little earlier, so this clock never runs ahead of the exchange's.
        self._told_at = time.monotonic()

    def now_ns(self) -> int:
        """Unix ns. Our own wall clock until the first answer."""
        if not self._told_ns:
            return time.time_ns()
        return self._told_ns + int((time.monotonic() - self._told_at) * 1e9)
