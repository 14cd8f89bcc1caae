"""The recorder killed again and again while it repairs: every id is stored once, and fetched ones are appended once."""

from __future__ import annotations

import asyncio
import random
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.consumer import SAFETY_SECONDS
from tests.e2e.running import RecorderProcess
from tests.repairing import Folder, Range, assert_whole
from tests.scale import CHAOS
from tests.unit.test_sim_streams import config, run_messages
from tradeback._fast.journal import JournalCursor, JournalTrade
from tradeback.config import Config
from tradeback.exchange.rows import symbol_row
from tradeback.exchange.sim import Sim
from tradeback.store.base import History
from tradeback.store.catalog import open_catalog
from tradeback.store.histories import open_history

KILLS = 30 if CHAOS else 4
MESSAGES = 400_000 if CHAOS else 60_000


def killed_while_repairing(path: Path, sim: Any, rng: random.Random, history: History) -> int:
    """Start a recorder and kill it once it has repaired something; how many gaps were open when last looked at."""
    with RecorderProcess(path, sim) as recorder:
        left = 1
        while left:
            status = recorder.control(type="status")
            behind = any(journal["lag"] for sink in status["sinks"] for journal in sink["journals"].values())
            left = len(history.gaps(open_only=True)) or (1 if behind or not history.covered() else 0)
            if status["repair"]["repaired"] and left and rng.random() < 0.7:
                break
        recorder.kill()
        return left


@pytest.mark.timeout(1200 if CHAOS else 240)
@pytest.mark.parametrize("market_data_only", [False, True], ids=["trades", "aggTrades"])
def test_a_recorder_that_is_killed_while_it_repairs(tmp_path: Path, market_data_only: bool) -> None:
    rng = random.Random(3)

    async def run() -> None:
        async with Sim(config(symbols=3, market_data_only=market_data_only)) as sim:
            await run_messages(sim, MESSAGES)
            with closing(
                open_catalog(
                    Config.model_validate({"data": {"folder": tmp_path}, "exchange": {"name": "sim"}})
                )
            ) as catalog:
                catalog.sync_symbols([symbol_row(row.row) for row in sim.symbol_rows.values()])
                symbols = catalog.symbols()
            folder = Folder(tmp_path)
            missing = 0
            for symbol in symbols:
                rows = sim.ledger.of(symbol.name).trades.latest(10**9)
                gaps: list[Range] = []
                first = rows[0][0] + 3
                while first < rows[-1][0] - 2_000:
                    last = first + rng.choice([0, 1, 2, 5, 40, 700])
                    gaps.append((first, last))
                    missing += last - first + 1
                    first = last + rng.randint(2, 300)
                folder.write(sim, symbol, gaps)
            folder.close()

            endpoints = SimpleNamespace(ws_endpoint=sim.ws_url, rest_endpoint=sim.rest_url)
            async with asyncio.timeout(SAFETY_SECONDS * 10):
                interrupted = 0
                open_history(folder.config, write=True).close()  # it is there for readers from the start
                with closing(open_history(folder.config, write=False)) as history:
                    for _ in range(KILLS):
                        if not await asyncio.to_thread(
                            killed_while_repairing, tmp_path, endpoints, rng, history
                        ):
                            break
                        interrupted += 1
                assert interrupted
                with await asyncio.to_thread(RecorderProcess, tmp_path, endpoints) as recorder:
                    await asyncio.to_thread(recorder.await_stored, repaired=True)
                    assert await asyncio.to_thread(recorder.stop) == 0
            with closing(open_history(folder.config, write=False)) as history:
                for symbol in symbols:
                    assert_whole(history, sim, symbol)
            with JournalCursor.open(folder.folder / "repairs") as cursor:
                appended = [record for record in cursor if isinstance(record, JournalTrade)]
            assert sum(record.trade_count for record in appended) == missing

    asyncio.run(run())
