"""A REST client that is to find out that the simulated exchange stalls, and takes no slow machine for that."""

from __future__ import annotations

from dataclasses import replace

from tests.waiting import until
from tradeback.exchange.rest import ExchangeRest
from tradeback.exchange.sim import Sim

HASTE_S = 1.0


async def hasty_until_stalled(sim: Sim, rest: ExchangeRest, count: int) -> None:
    """Wait until so many answers have stalled. What the client asks meanwhile it gives up after a second; with what it
    asks later it has its own patience."""
    patient = rest.policy
    rest.policy = replace(patient, timeout=HASTE_S)
    await until(lambda: sim.faults.done["stall"] >= count)
    rest.policy = patient
