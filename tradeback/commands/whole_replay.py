"""`tradeback up --replay FILE --exit-at-end`: the end of a replay, in the order in which nothing is lost."""

from __future__ import annotations

import asyncio
from pathlib import Path

import structlog

from tradeback.commands.children import Child, keep_all_running
from tradeback.control import ControlClient
from tradeback.errors import ControlError, TradebackError
from tradeback.exchange.sim import Sim

log = structlog.get_logger(__name__)

STATUS_POLL = 0.05


async def play_to_the_end(sim: Sim, server: Child, recorder: Child, folder: Path) -> None:
    """Keep both running until the server has journaled the recording; end it, and wait until the recorder has all.

    The recorder is one with `--exit-at-end`. TradebackError where a process ends too often, or the recorder fails.
    """
    keeping = asyncio.create_task(keep_all_running([server, recorder]), name="keep running")
    ending = asyncio.create_task(_journaled(sim, folder), name="replay")
    try:
        await asyncio.wait({keeping, ending}, return_when=asyncio.FIRST_COMPLETED)
        if keeping.done():
            await keeping
        await ending
    finally:
        for task in (keeping, ending):
            task.cancel()
        await asyncio.gather(keeping, ending, return_exceptions=True)
    if not recorder.running:
        # It was about to be started again.
        await recorder.start()
    await server.stop()
    code = await recorder.wait()
    if code:
        raise TradebackError(
            f"the recorder ended with code {code} before all was stored: its messages say why"
        )


async def _journaled(sim: Sim, folder: Path) -> None:
    """Return when the recording was sent, and the server has read it and waits for nothing more of it."""
    await sim.replayed()
    server = ControlClient(folder / "control.sock")
    try:
        while True:
            try:
                journal = (await server.ask({"type": "status"}))["journal"]
            except ControlError as error:
                log.warning(
                    "the server does not tell whether it has it all, it is asked again", reason=str(error)
                )
            else:
                if not journal["waiting"] and not journal["unwritten_symbols"]:
                    return
            await asyncio.sleep(STATUS_POLL)
    finally:
        server.close()
