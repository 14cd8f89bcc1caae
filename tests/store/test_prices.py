"""What every `Prices` does: the mapped table of this machine, and what a recorder wrote of it to Redis."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.servers.redis import RedisServer
from tests.store.conftest import sqlite_config
from tradeback._fast.table import SymbolTable
from tradeback.model import DAY_NS, Price, Symbol, SymbolInfo
from tradeback.recorder.table_rows import TableRows
from tradeback.store.base import Prices
from tradeback.store.cache_local import TABLE_FILE, open_prices
from tradeback.store.cache_prices import CachePrices
from tradeback.store.cache_redis import RedisCache

TRADE, QUOTE = 1, 3
NOON = 20_000 * DAY_NS + DAY_NS // 2
MS_NS = 1_000_000
SYMBOLS = [Symbol(SymbolInfo(f"S{n}USDT", f"S{n}", "USDT", True, 2, 2), n) for n in range(1, 6)]


class Market:
    """A server's table with SYMBOLS, and prices that are read from it, or from where `tell` brings them."""

    def __init__(self, table: SymbolTable, prices: Prices, tell: Callable[[], None]) -> None:
        self.table = table
        self.prices = prices
        self.tell = tell
        self.ids = 0
        self.slots = [table.add(symbol.name, symbol.stream_id, 2) for symbol in SYMBOLS]

    def trade(self, number: int, price: float, ts_event: int) -> None:
        self.ids += 1
        name = SYMBOLS[number].name
        self.table.take(
            TRADE, name, self.ids, self.ids, price=price, mantissa=25, scale=1, ts_event=ts_event, recv_ns=ts_event
        )  # fmt: skip
        self.table.publish_slot(self.slots[number], self.ids)

    def price(self, number: int, now_ns: int = NOON) -> Price | None:
        return self.prices.price(SYMBOLS[number], now_ns)


def nothing() -> None:
    """What is in the table is there at once."""


@pytest.fixture(params=["table", "redis"])
def market(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Market]:
    config = sqlite_config(tmp_path)
    folder = config.data.of("sim")
    folder.mkdir()
    with ExitStack() as stack:
        table = SymbolTable.open(str(folder / TABLE_FILE), "sim")
        stack.callback(table.close)
        if request.param == "table":
            prices: Prices = open_prices(config)
            tell = nothing
        else:
            server: RedisServer = request.getfixturevalue("redis_server")
            server.empty()
            cache = RedisCache(
                sqlite_config(tmp_path, REDIS_ADDR=server.addr, REDIS_TIMEOUT="30s").cache.redis
            )
            rows = TableRows(folder)
            stack.callback(rows.close)

            def tell() -> None:
                assert rows.open()
                read = {symbol.name: rows.read(symbol.stream_id) for symbol in SYMBOLS}
                cache.write_prices(
                    {name: Price.of_row(row, NOON) for name, row in read.items() if row is not None}
                )
                cache.vouch_for_prices()

            prices = CachePrices(cache)
            tell()
        stack.callback(prices.close)
        yield Market(table, prices, tell)


def test_before_the_first_trade_there_is_none(market: Market) -> None:
    market.tell()
    assert market.price(0) is None
    assert market.prices.prices(SYMBOLS, NOON) == []
    assert market.prices.prices([], NOON) == []


def test_the_last_trade_is_the_price_with_the_volume_of_its_day(market: Market) -> None:
    market.trade(1, 8.0, NOON)
    market.trade(1, 7.5, NOON + 3 * MS_NS)
    market.tell()
    assert market.price(1) == Price(7.5, None, None, 5.0, NOON + 3 * MS_NS, NOON + 3 * MS_NS)
    assert market.price(1, NOON + DAY_NS) == Price(7.5, None, None, 0.0, NOON + 3 * MS_NS, NOON + 3 * MS_NS)
    assert market.price(0) is None


def test_bid_and_ask_are_those_of_the_last_quote(market: Market) -> None:
    market.table.take(QUOTE, "S3USDT", 0, 9, quote=(99.5, 2.0, 100.5, 3.0), recv_ns=NOON, now_ns=NOON)
    market.table.publish_slot(market.slots[2], 0)
    market.tell()
    assert market.price(2) is None  # a quote alone is no price
    market.trade(2, 100.0, NOON)
    market.tell()
    told = market.price(2)
    assert told is not None
    assert (told.price, told.bid, told.ask) == (100.0, 99.5, 100.5)


def test_several_are_told_of_those_that_have_one(market: Market) -> None:
    market.trade(3, 3.0, NOON)
    market.trade(1, 1.0, NOON)
    market.tell()
    assert [price.price for price in market.prices.prices(SYMBOLS, NOON)] == [1.0, 3.0]
    assert [price.volume for price in market.prices.prices(SYMBOLS, NOON + DAY_NS)] == [0.0, 0.0]


@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 4), st.floats(1e-8, 1e8)), max_size=8))
def test_every_digit_comes_back(market: Market, trades: Sequence[tuple[int, float]]) -> None:
    for number, price in trades:
        market.trade(number, price, NOON)
    market.tell()
    for number, last in dict(trades).items():
        told = market.price(number)
        assert told is not None
        assert told.price == last
