"""Bars of real data: equal to the exchange's own, and coarser ones equal to a sum in decimals, to the last digit."""

from __future__ import annotations

import asyncio
import csv
import gzip
import json
import random
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.playback.replaying import record_replay
from tests.reference.bars import DecimalBar, as_decimals, decimal_fold
from tradeback.config import Config
from tradeback.exchange.recording import read_recording
from tradeback.exchange.rest import ExchangeRest
from tradeback.exchange.rows import KlineRow
from tradeback.exchange.sim import Sim, SimConfig
from tradeback.model import RESOLUTIONS, Bar
from tradeback.store.catalog import open_catalog
from tradeback.store.histories import open_history

MONTH = "klines_btcusdt_1m_202412.csv.gz"
PAGE = 1_000  # rows in one answer of the exchange
EVER = 2**62


@pytest.fixture(scope="module")
def month(recordings: Path) -> list[DecimalBar]:
    """The exchange's 1m bars of a month, as it wrote them."""
    with gzip.open(recordings / MONTH, "rt", newline="") as file:
        return [
            DecimalBar(
                int(row["open_time"]) * 1_000_000,
                *(Decimal(row[name]) for name in ("open", "high", "low", "close", "volume")),
                int(row["count"]),
            )
            for row in csv.DictReader(file)
        ]


def as_stored(bar: DecimalBar) -> Bar:
    return Bar(bar.open_time, *map(float, bar[1:6]), bar.trade_count)


@pytest.mark.parametrize("shuffled", [False, True], ids=["in order", "pages in any order"])
def test_the_coarser_bars_of_a_month_equal_a_sum_in_decimals(
    month: list[DecimalBar], tmp_path: Path, shuffled: bool
) -> None:
    config = Config.model_validate({"data": {"folder": tmp_path}, "exchange": {"name": "sim"}})
    pages = [month[at : at + PAGE] for at in range(0, len(month), PAGE)]
    if shuffled:
        random.Random(1).shuffle(pages)
    history = open_history(config, write=True)
    try:
        for page in pages:
            assert history.write_bars(1, "1m", [as_stored(bar) for bar in page]) == len(page)
        for resolution, length in RESOLUTIONS.items():
            stored = [as_decimals(bar) for bar in history.bars(1, resolution, 0, EVER)]
            assert stored == decimal_fold(month, length), resolution
            assert sum(bar.volume for bar in stored) == sum(bar.volume for bar in month)
    finally:
        history.close()
    assert len(month) == 41_761


async def klines(rest: ExchangeRest, symbol: str, interval: str, start_ms: int) -> list[DecimalBar]:
    """Every bar of a resolution from a time on, as the exchange tells it."""
    rows: list[KlineRow] = []
    while True:
        page = await rest.klines(symbol, interval, start_ms=start_ms)
        rows += page
        if len(page) < PAGE:
            break
        start_ms = page[-1].open_time // 1_000_000 + 1
    return [
        DecimalBar(row.open_time, row.open, row.high, row.low, row.close, row.volume, row.trades)
        for row in rows
    ]


def test_coarser_bars_equal_the_simulated_exchanges_own(tmp_path: Path) -> None:
    """Two days of made-up minutes, and those in which there was trade just now, the bars in progress among them."""
    config = Config.model_validate({"data": {"folder": tmp_path}, "exchange": {"name": "sim"}})

    async def told() -> dict[str, dict[str, list[DecimalBar]]]:
        async with (
            Sim(SimConfig(symbols=2, rate=5_000, steady=True, paused=True)) as sim,
            ExchangeRest(sim.rest_url) as rest,
        ):
            sim.resume(2_000)
            async with asyncio.timeout(60):
                while not sim.paused:
                    await asyncio.sleep(0.01)
            now = await rest.server_time()
            day = RESOLUTIONS["1d"] // 1_000_000
            start_ms = now // 1_000_000 // day * day - 2 * day
            return {
                symbol: {
                    resolution: await klines(rest, symbol, resolution, start_ms) for resolution in RESOLUTIONS
                }
                for symbol in sim.symbols
            }

    history = open_history(config, write=True)
    try:
        for stream_id, (symbol, bars) in enumerate(asyncio.run(told()).items(), 1):
            assert sum(bar.trade_count for bar in bars["1d"]) > 1_000, symbol
            for at in range(0, len(bars["1m"]), PAGE):
                history.write_bars(stream_id, "1m", list(map(as_stored, bars["1m"][at : at + PAGE])))
            for resolution in RESOLUTIONS:
                stored = [as_decimals(bar) for bar in history.bars(stream_id, resolution, 0, EVER)]
                assert stored == [bar for bar in bars[resolution] if bar.trade_count], resolution
    finally:
        history.close()


def told_bar(kline: dict[str, Any]) -> DecimalBar:
    return DecimalBar(kline["t"] * 1_000_000, *(Decimal(kline[key]) for key in "ohlcv"), kline["n"])


def cut_at_whole_klines(path: Path, cut: Path) -> dict[str, DecimalBar]:
    """Write the recording without the trades behind each symbol's last kline event of which it holds every trade.

    Returns what these events say. A minute that began before the recording is never whole.
    """
    held: dict[str, set[int]] = {}
    whole: dict[str, dict[str, Any]] = {}
    messages = [(received, text, json.loads(text)["data"]) for received, text in read_recording(path)]
    for _, _, data in messages:
        if data.get("e") == "aggTrade":
            held.setdefault(data["s"], set()).update(range(data["f"], data["l"] + 1))
    for _, _, data in messages:
        if data.get("e") == "kline" and held.get(data["s"], set()).issuperset(
            range(data["k"]["f"], data["k"]["L"] + 1)
        ):
            whole[data["s"]] = data["k"]
    with cut.open("w") as file:
        for received, text, data in messages:
            if data.get("e") == "aggTrade" and data["s"] in whole and data["f"] > whole[data["s"]]["L"]:
                continue
            file.write(json.dumps({"t": received, "m": text}) + "\n")
    return {symbol: told_bar(kline) for symbol, kline in whole.items()}


@pytest.mark.parametrize(
    ("name", "symbols"),
    [
        ("ws_binance_spot_20210404_btc_eth_dot.jsonl.gz", {"BTCUSDT", "DOTUSDT", "ETHUSDT"}),
        ("ws_binance_spot_20210417_10sym.jsonl.gz", {"ONTTRY", "QSPBTC"}),
    ],
)
def test_bars_made_of_recorded_aggtrades_equal_the_recorded_klines(
    recordings: Path, tmp_path: Path, name: str, symbols: set[str]
) -> None:
    cut = tmp_path / "cut.jsonl"
    told = cut_at_whole_klines(recordings / name, cut)
    assert told.keys() == symbols
    config = record_replay(cut, tmp_path / "data")
    with closing(open_catalog(config)) as catalog, closing(open_history(config, write=False)) as history:
        for symbol in symbols:
            known = catalog.symbol(symbol)
            assert known is not None
            minute = told[symbol]
            (made,) = history.bars(known.stream_id, "1m", minute.open_time, minute.open_time + 1)
            assert as_decimals(made) == minute
            # All other resolutions hold the same trades, and those of the minute before.
            minutes = [as_decimals(bar) for bar in history.bars(known.stream_id, "1m", 0, EVER)]
            for resolution, length in RESOLUTIONS.items():
                stored = [as_decimals(bar) for bar in history.bars(known.stream_id, resolution, 0, EVER)]
                assert stored == decimal_fold(minutes, length), resolution
