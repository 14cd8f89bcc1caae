"""The synthetic market: what every seed's orders have in common."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from tradeback.exchange.sim.market import Market, make_symbols

markets = st.tuples(st.integers(1, 400), st.integers(0, 2**32), st.booleans())


@settings(max_examples=40, deadline=None)
@given(markets)
def test_orders_are_what_an_exchange_can_make(made: tuple[int, int, bool]) -> None:
    count, seed, steady = made
    symbols = make_symbols(count, seed, 1_000)
    market = Market(symbols, 1_000.0, seed, steady=steady)
    last = {symbol.name: (999, 999, 1_000) for symbol in symbols}
    for _ in range(600):
        gap, order = market.next()
        symbol = order.symbol
        trade_id, agg_id, update = last[symbol.name]
        assert gap >= 0.0
        assert order.messages == len(order.fills) + len(order.aggs) + 1
        assert order.first_trade == trade_id + 1
        for price, quantity in order.fills:
            assert price > 0
            assert price % symbol.tick == 0
            assert quantity > 0
            assert quantity % symbol.step == 0
        covered = []
        for agg, price, quantity, first, final in order.aggs:
            agg_id += 1
            assert agg == agg_id
            singles = order.fills[first - order.first_trade : final + 1 - order.first_trade]
            assert {single for single, _ in singles} == {price}
            assert quantity == sum(single for _, single in singles)
            covered.extend(range(first, final + 1))
        assert covered == list(range(trade_id + 1, trade_id + 1 + len(order.fills)))
        prices = [price for price, _ in order.fills]
        assert prices == sorted(prices, reverse=order.maker)
        assert order.quote is not None
        u, bid, bid_qty, ask, ask_qty = order.quote
        assert u > update
        assert 0 < bid < ask
        assert bid_qty > 0
        assert ask_qty > 0
        assert (bid % symbol.tick, ask % symbol.tick) == (0, 0)
        last[symbol.name] = (trade_id + len(order.fills), agg_id, u)


def test_a_seed_decides_everything() -> None:
    def run(seed: int) -> list[object]:
        market = Market(make_symbols(30, seed, 5), 1_000.0, seed)
        made = [market.next() for _ in range(500)]
        return [(gap, order.symbol.name, order.fills, order.aggs, order.quote) for gap, order in made]

    assert run(7) == run(7)
    assert run(7) != run(8)


def test_the_rate_is_met_on_the_average_and_comes_in_bursts() -> None:
    market = Market(make_symbols(100, 3, 1), 1_000.0, 3)
    now = 0.0
    seconds: dict[int, int] = {}
    total = 0
    while now < 600.0:
        gap, order = market.next()
        now += gap
        total += order.messages
        tenth = int(now * 10)
        seconds[tenth] = seconds.get(tenth, 0) + order.messages
    assert 0.85 < total / now / 1_000.0 < 1.15
    assert max(seconds.values()) > 3 * 100


def test_names_and_prices_are_plausible() -> None:
    symbols = {symbol.name: symbol for symbol in make_symbols(1_000, 1, 1)}
    assert len(symbols) == 1_000
    assert list(symbols)[:2] == ["BTCUSDT", "ETHUSDT"]
    bitcoin = symbols["BTCUSDT"]
    assert (bitcoin.price_precision, bitcoin.quantity_precision) == (2, 5)
    assert all(name.isascii() and name.isalnum() and name.isupper() for name in symbols)
