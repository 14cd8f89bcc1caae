"""Random gaps over a real ledger: afterwards each id is stored once, with its price and quantity."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.repairing import Folder, Range, assert_whole, repairing, symbols_of
from tests.unit.test_sim_streams import config, run_messages
from tradeback.exchange.sim import Sim

# Parts of the ledger in thousandths: where a gap begins and how long it is. Short ones cut aggTrades in two.
GAPS = st.lists(
    st.tuples(st.integers(1, 998), st.one_of(st.integers(1, 4).map(lambda n: -n), st.integers(1, 300))),
    min_size=1,
    max_size=25,
)


def gaps_of(drawn: list[tuple[int, int]], lowest: int, highest: int) -> list[Range]:
    """Ranges inside of lowest..highest that do not touch; a negative length is in ids."""
    found: list[Range] = []
    for at, length in sorted(drawn):
        first = lowest + 1 + (highest - lowest) * at // 1000
        last = first - length - 1 if length < 0 else first + (highest - lowest) * length // 1000
        last = min(last, highest - 1)
        if first <= last and (not found or first > found[-1][1] + 1):
            found.append((first, last))
    return found


@pytest.mark.parametrize("market_data_only", [False, True])
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(drawn=st.tuples(GAPS, GAPS), aggregates=st.booleans(), seed=st.integers(1, 50))
def test_every_gap_is_filled_once(
    market_data_only: bool,
    drawn: tuple[list[tuple[int, int]], list[tuple[int, int]]],
    aggregates: bool,
    seed: int,
) -> None:
    async def run(path: Path) -> None:
        async with Sim(config(symbols=2, seed=seed, history=False, market_data_only=market_data_only)) as sim:
            await run_messages(sim, 4_000)
            folder = Folder(path)
            symbols = symbols_of(sim)
            for symbol, parts in zip(symbols.values(), drawn, strict=True):
                rows = sim.ledger.of(symbol.name).trades.latest(10**9)
                folder.write(sim, symbol, gaps_of(parts, rows[0][0], rows[-1][0]), aggregates=aggregates)
            async with repairing(folder, sim.rest_url, symbols) as running:
                await running.until()
                for symbol in symbols.values():
                    assert_whole(running.history, sim, symbol)
                assert running.repair.by_aggregates == market_data_only
                assert running.repair.failures == 0, running.repair.last_failure
            folder.close()

    with tempfile.TemporaryDirectory() as path:
        asyncio.run(run(Path(path)))
