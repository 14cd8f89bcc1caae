"""`tradeback up --replay FILE --exit-at-end`: the end of a replay, in the order in which nothing is lost."""

from __future__ import annotations

import asyncio
import contextlib
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from pathlib import Path

import structlog

from tradeback.commands.children import Child, keep_all_running
from tradeback.config import Config
from tradeback.control import SERVER_SOCKET, ControlClient
from tradeback.errors import ControlError, TradebackError
from tradeback.exchange.sim import Sim
from tradeback.store.catalog import open_catalog
from tradeback.store.histories import open_history

log = structlog.get_logger(__name__)

STATUS_POLL = 0.05


async def play_to_the_end(
    sim: Sim, server: Child, recorder: Child, config: Config, symbols: Iterable[str]
) -> None:
    """Keep both running until the server has journaled the recording; end it, and wait until the recorder has all.

    The recorder is one with `--exit-at-end`; `symbols` are those carried. TradebackError where a process ends too
    often, or where anything of the recording is not stored in the end.
    """
    folder = config.data.of(config.exchange.name)
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
    missing = await asyncio.to_thread(_missing, sim, config, symbols)
    if missing:
        raise TradebackError(
            f"{sum(missing.values()):,} trades of the recording are not stored ({', '.join(sorted(missing)[:5])}): a "
            "process or a connection was down while they were played; play it into another data folder"
        )


def _missing(sim: Sim, config: Config, symbols: Iterable[str]) -> dict[str, int]:
    """How many trades that were played are not stored, by symbol. What came before a symbol's first is none of them."""
    with (
        contextlib.closing(open_catalog(config, create=False)) as catalog,
        contextlib.closing(open_history(config, write=False)) as history,
    ):
        ids = {symbol.name: symbol.stream_id for symbol in catalog.symbols()}
        covered = history.covered()
    found = {}
    for name in symbols:
        played = sim.ledger.of(name)
        ranges = [row[5:7] for row in played.aggs.from_value(0)]
        ranges = ranges or [(row[0], row[0]) for row in played.trades.from_value(0)]
        lacking = _uncovered(ranges, covered.get(ids[name], []) if name in ids else [])
        if lacking:
            found[name] = lacking
    return found


def _uncovered(ranges: Iterable[tuple[int, ...]], covered: Sequence[tuple[int, int]]) -> int:
    """How many ids of the ranges, above the lowest that is covered, are not."""
    firsts = [first for first, _ in covered]
    count = 0
    for low, high in ranges:
        at = max(low, firsts[0] if firsts else low)
        count += max(high + 1 - at, 0)
        for first, last in covered[max(bisect_right(firsts, at) - 1, 0) : bisect_right(firsts, high)]:
            count -= max(min(last, high) + 1 - max(first, at), 0)
    return count


async def _journaled(sim: Sim, folder: Path) -> None:
    """Return when the recording was sent, and the server has read it and waits for nothing more of it."""
    await sim.replayed()
    server = ControlClient(folder / SERVER_SOCKET)
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
