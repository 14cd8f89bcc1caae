"""Texts: JSON messages about symbols, from the control socket to the clients that are subscribed to them.

They are no prices, and must not hold up prices. What comes within GATHER_SECONDS leaves together, one write a client,
and clients are served in slices of BUDGET_NS between which feeds and frames have their turn. What comes during a round
is for the next one: the more clients, the more is gathered, and nothing falls behind.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from time import monotonic_ns
from typing import Any

import structlog

from tradeback._fast.fanout import FanOut
from tradeback._fast.listener import ClientListener, text_frame

log = structlog.get_logger(__name__)

GATHER_SECONDS = 0.2
BUDGET_NS = 500_000


class Texts:
    """`clients` are the connections, owned by the hub. Of each symbol and type the latest message waits: memory is
    bounded by the symbols."""

    def __init__(self, fanout: FanOut, clients: Mapping[Any, ClientListener]) -> None:
        self._fanout = fanout
        self._clients = clients
        self._gathered: dict[int, dict[str, bytes]] = {}  # by slot and type: whole frames
        self._leaving: dict[int, dict[str, bytes]] = {}
        self._left: list[ClientListener] = []
        self._timer: asyncio.Handle | None = None

    def put(self, slot: int, kind: str, text: bytes) -> None:
        """Have a text of this type sent to those who are subscribed to the slot when it leaves."""
        self._gathered.setdefault(slot, {})[kind] = text_frame(text)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(GATHER_SECONDS, self._begin)

    def stop(self) -> None:
        """Send no more."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None

    def _begin(self) -> None:
        self._leaving, self._gathered = self._gathered, {}
        self._left = list(self._clients.values())
        self._go_on()

    def _go_on(self) -> None:
        loop = asyncio.get_running_loop()
        until = monotonic_ns() + BUDGET_NS
        while self._left:
            self._send(self._left.pop())
            if monotonic_ns() >= until:
                self._timer = loop.call_soon(self._go_on)
                return
        self._leaving = {}
        self._timer = loop.call_later(GATHER_SECONDS, self._begin) if self._gathered else None

    def _send(self, listener: ClientListener) -> None:
        """A client that takes no data at the moment does not get it: there is no bound to what could pile up."""
        handle = listener.handle
        if handle < 0 or self._fanout.blocked_ns(handle):
            return
        leaving = self._leaving
        slots = self._fanout.slots_of(handle)
        found = [frame for slot in slots if slot in leaving for frame in leaving[slot].values()]
        if not found:
            return
        try:
            listener.send_frames(b"".join(found))
        except Exception:  # one client's transport is no reason to leave out the others
            log.exception("writing to a client raised")
            listener.abort()
