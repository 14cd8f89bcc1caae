"""Kline streams and rows of the simulated exchange against bars computed from its trades."""

from __future__ import annotations

import asyncio
from decimal import Decimal

import httpx
import pytest

from tests.consumer import Consumer
from tests.unit.test_sim_streams import config, run_messages
from tradeback.exchange.sim import Sim
from tradeback.exchange.sim.klines import INTERVALS_MS, kline_rows
from tradeback.exchange.sim.ledger import Ledger, SymbolLedger

MINUTE_US = 60_000_000


def test_the_stream_tells_of_the_bar_in_progress_as_rest_does() -> None:
    async def scenario() -> None:
        async with Sim(config(kline_interval=0.02, first_id=10**9)) as sim:
            consumer = await Consumer.open(f"{sim.ws_url}/ws/btcusdt@kline_1d")
            micro = await Consumer.open(f"{sim.ws_url}/ws/btcusdt@kline_1d?timeUnit=MICROSECOND")
            await run_messages(sim, 2_000)
            of = sim.ledger.of("BTCUSDT")
            for each in (consumer, micro):
                await each.until(
                    lambda each=each: bool(each.texts) and each.events()[-1]["k"]["L"] == of.last_trade
                )
            bar, bar_us = consumer.events()[-1]["k"], micro.events()[-1]["k"]
            async with httpx.AsyncClient(base_url=sim.rest_url) as http:
                row = (await http.get("/api/v3/klines?symbol=BTCUSDT&interval=1d")).json()[-1]
            assert [bar[key] for key in "tohlcvTqnVQ"] == row[:11]
            assert (bar["s"], bar["i"], bar["x"]) == ("BTCUSDT", "1d", False)
            # The day holds what was traded before the exchange was started, too.
            assert bar["L"] - bar["f"] + 1 == bar["n"] >= of.trade_count
            assert (bar_us["t"], bar_us["T"]) == (bar["t"] * 1_000, bar["T"] * 1_000 + 999)
            for each in (consumer, micro):
                await each.close()

    asyncio.run(scenario())


def test_a_bar_is_told_of_once_more_when_its_minute_is_over() -> None:
    async def scenario() -> None:
        async with Sim(config(kline_interval=1_000.0)) as sim:
            consumer = await Consumer.open(f"{sim.ws_url}/ws/btcusdt@kline_1m")
            of = sim.ledger.of("BTCUSDT")
            for now_ms, trade in (
                (60_000, 1),
                (60_500, 2),
                (60_700, None),
                (121_000, 3),
                (250_000, None),
                (251_000, None),
            ):
                if trade is not None:
                    sim.ledger.add_trade(of, trade, now_ms * 1_000, 100, 10 * trade, False)
                sim.klines_now(now_ms)
            await consumer.until(lambda: len(consumer.texts) == 5)
            told = [(event["k"]["t"], event["k"]["n"], event["k"]["x"]) for event in consumer.events()]
            assert told == [
                (60_000, 1, False),
                (60_000, 2, False),
                (60_000, 2, True),
                (120_000, 1, False),
                (120_000, 1, True),
            ]
            await consumer.close()

    asyncio.run(scenario())


@pytest.mark.parametrize("interval", ["1m", "3m", "1h"])
def test_rows_are_the_bars_of_the_trades(interval: str) -> None:
    ledger = Ledger(1_000_000)
    of: SymbolLedger = ledger.of("AUSDT")
    trades = [
        (number, number * 7_777_777 + 10**12, 500 + number * 37 % 101, number % 13 + 1)
        for number in range(3_000)
    ]
    for number, time_us, price, quantity in trades:
        ledger.add_trade(of, number, time_us, price, quantity, number % 3 == 0)
    length = INTERVALS_MS[interval]
    rows = kline_rows(of, interval, 0, None, 1_000)
    expected: dict[int, list[tuple[int, int, int, int]]] = {}
    for trade in trades:
        expected.setdefault(trade[1] // 1_000 // length * length, []).append(trade)
    assert [row[0] for row in rows] == list(expected)
    for row, inside in zip(rows, expected.values(), strict=True):
        prices = [price for _, _, price, _ in inside]
        units = [Decimal(value) * 10**8 for value in row[1:6]]
        assert units == [prices[0], max(prices), min(prices), prices[-1], sum(trade[3] for trade in inside)]
        assert (row[6], row[8]) == (row[0] + length - 1, len(inside))
        taker = sum(quantity for number, _, _, quantity in inside if number % 3)
        assert Decimal(row[9]) * 10**8 == taker
    assert kline_rows(of, interval, rows[1][0], rows[2][0], 1_000) == rows[1:3]
    assert kline_rows(of, interval, None, None, 2) == rows[-2:]
