"""The end of a server under clients: they are sent away one after the other, so that they do not all come to the next
one at once."""

from __future__ import annotations

import asyncio
from math import ceil

import structlog

from tradeback._fast.listener import ClientListener
from tradeback.errors import CloseCode
from tradeback.server.hub import Hub

TICK = 0.05  # seconds between two batches of closings
SLOWEST = 100  # closings a second: a few clients are not sent away more slowly than that

log = structlog.get_logger(__name__)


async def drain(hub: Hub, seconds: float) -> None:
    """From now on let nobody in, and close every client with 1012 within `seconds`, each after all that was traded
    up to then. The feeds go on meanwhile: who is not closed yet is served."""
    hub.refuse_all()
    leaving = list(hub.clients.values())
    seconds = min(seconds, len(leaving) / SLOWEST)
    loop = asyncio.get_running_loop()
    began = loop.time()
    end = began + seconds
    clients = len(leaving)
    while leaving:
        ticks = max(1, ceil((end - loop.time()) / TICK))
        for _ in range(ceil(len(leaving) / ticks)):
            _send_away(hub, leaving.pop())
        if leaving:
            await asyncio.sleep(TICK)
    log.info("clients were sent away", clients=clients, seconds=round(loop.time() - began, 3))


def _send_away(hub: Hub, listener: ClientListener) -> None:
    if listener.handle >= 0:
        hub.fanout.drain(listener.handle)
    listener.close(CloseCode.SERVICE_RESTART, "the server restarts")
