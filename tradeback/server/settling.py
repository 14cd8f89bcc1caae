"""Settling: brings clients in line with what is known of their logins.

A logout everywhere, or a change of a watchlist, may concern thousands of clients, and none of that may hold up prices:
they are settled in slices of BUDGET_NS, between which feeds and frames have their turn. A client is brought to how
things stand then, not told one change after the other, so a client that takes no data at the moment costs no memory:
its turn comes when it takes data again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from time import monotonic_ns
from typing import TYPE_CHECKING

import structlog

from tradeback._fast.stats import Stats
from tradeback.errors import CloseCode
from tradeback.server.sessions import Sessions

if TYPE_CHECKING:
    from tradeback.server.client import Client

BUDGET_NS = 500_000
HELD_BYTES = 4 * 1024 * 1024  # of commands of all who wait: so much comes from nobody who means well
WAIT_LIMIT = 12.0  # seconds; a recorder that runs looks at the accounts twice in that time, on MySQL too
LACK_RETRY = 60.0  # seconds between two looks at symbols of watchlists that could not be had

log = structlog.get_logger(__name__)


class Settling:
    """Owned by the hub, which calls `tick` ten times a second. One loop, one thread."""

    def __init__(self, sessions: Sessions[Client], stats: Stats) -> None:
        self._sessions = sessions
        self._stats = stats
        self._queue: dict[Client, None] = {}
        self._turn: asyncio.Handle | None = None
        self._blocked: set[Client] = set()
        self._lacking: set[Client] = set()
        self._retry_at = 0.0
        self._deadlines: dict[Client, float] = {}  # of those that wait, the first first
        self._held_bytes = 0

    def join(self, client: Client) -> None:
        """A client came with a credential: settle it now, or once it is known."""
        if not client.settle():
            self._blocked.add(client)
        if client.waits:
            self._deadlines[client] = time.monotonic() + WAIT_LIMIT

    def hold(self, size: int) -> bool:
        """Whether there is room to keep a command of so many bytes; give it back with a negative size."""
        if self._held_bytes + size > HELD_BYTES:
            return False
        self._held_bytes += size
        return True

    def leave(self, client: Client) -> None:
        """Its connection is gone."""
        self._queue.pop(client, None)
        self._deadlines.pop(client, None)
        self._blocked.discard(client)
        self._lacking.discard(client)

    def lacks(self, client: Client) -> None:
        """A symbol of its watchlist cannot be had now: try again later."""
        self._lacking.add(client)

    def settle(self, clients: Iterable[Client]) -> None:
        """Have these brought in line, in turns that begin soon."""
        self._queue.update(dict.fromkeys(clients))
        if self._queue and self._turn is None:
            self._turn = asyncio.get_running_loop().call_soon(self._go_on)

    def settle_lacking(self) -> None:
        """Symbols came that watchlists may have waited for."""
        lacking, self._lacking = self._lacking, set()
        self._retry_at = time.monotonic() + LACK_RETRY
        self.settle(lacking)

    def settle_now(self, client: Client) -> None:
        """It takes data again: before it gets any more, what it may have is settled."""
        if client in self._blocked:
            self._blocked.discard(client)
            self._settle(client)

    def tick(self) -> None:
        """End what has expired and what has waited for too long, and see to those whose turn has come."""
        now = time.time()
        due = self._sessions.next_expiry()
        if due is not None and due <= now:
            self.settle(self._sessions.expire(now))
        if self._blocked:
            blocked, self._blocked = self._blocked, set()
            self.settle(blocked)
        monotonic = time.monotonic()
        while self._deadlines:
            client, deadline = next(iter(self._deadlines.items()))
            if deadline > monotonic:
                break
            del self._deadlines[client]
            if client.waits:
                client.listener.close(
                    CloseCode.SERVICE_RESTART, "it cannot be told yet who is logged in: the recorder is away"
                )
        if self._lacking and monotonic >= self._retry_at:
            self.settle_lacking()
        self.count()

    def count(self) -> None:
        """Write the gauges."""
        self._stats.put("sessions", len(self._sessions))
        self._stats.put("clients_waiting", self._sessions.waiting)

    def stop(self) -> None:
        """Settle no more."""
        if self._turn is not None:
            self._turn.cancel()
        self._turn = None
        self._queue.clear()

    def _go_on(self) -> None:
        self._turn = None
        until = monotonic_ns() + BUDGET_NS
        while self._queue:
            client = next(iter(self._queue))
            del self._queue[client]
            self._settle(client)
            if monotonic_ns() >= until and self._queue:
                self._turn = asyncio.get_running_loop().call_soon(self._go_on)
                return

    def _settle(self, client: Client) -> None:
        try:
            settled = client.settle()
        except Exception:  # one client's connection is no reason to leave out the others
            log.exception("settling a client raised")
            client.abort()
            return
        if not settled:
            self._blocked.add(client)
        if not client.waits:
            self._deadlines.pop(client, None)
