"""The simulated exchange under whatever comes: any request is answered, any rows are found again."""

from __future__ import annotations

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from tradeback.exchange.sim.connection import METHODS, Connection
from tradeback.exchange.sim.faults import Faults
from tradeback.exchange.sim.ledger import CHUNK_ROWS, Ledger, Rows
from tradeback.exchange.sim.messages import text, to_units
from tradeback.exchange.sim.streams import StreamHub, StreamLimits

values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)
names = st.lists(
    st.sampled_from(["a@trade", "b@trade", "c@aggTrade", "\u20ac@x", "d@trade"]) | values, max_size=4
)
requests = st.fixed_dictionaries(
    {},
    optional={
        "method": st.sampled_from(METHODS) | values,
        "params": names | st.tuples(st.just("combined"), st.booleans()).map(list) | values,
        "id": st.integers(0, 9) | values,
    },
)


@settings(max_examples=300, deadline=None)
@given(st.lists(requests | values, max_size=8))
def test_every_request_is_answered_and_nothing_is_left_behind(sent: list[object]) -> None:
    hub = StreamHub(StreamLimits(streams=3), Faults())
    connection = Connection(hub, [], False, False)
    hub.connected(connection)
    for request in sent:
        answer = orjson.loads(connection.answer(orjson.dumps(request)))
        assert ("result" in answer) != ("code" in answer)
        assert "msg" in answer or "result" in answer
        assert len(connection.streams) <= 3
        assert set(hub.streams) == set(connection.streams)
        combined = [len(stream.combined_ms) for stream in hub.streams.values()]
        assert combined == [int(connection.combined)] * len(combined)
        assert all(stream.wanted for stream in hub.streams.values())
    hub.disconnected(connection)
    assert hub.streams == {}


@given(st.binary(max_size=40))
def test_any_bytes_are_answered(data: bytes) -> None:
    hub = StreamHub(StreamLimits(), Faults())
    connection = Connection(hub, [], False, False)
    hub.connected(connection)
    assert b'"code"' in connection.answer(data) or b'"result"' in connection.answer(data)


@settings(deadline=None)
@given(st.integers(0, 3 * CHUNK_ROWS), st.integers(1, 3), st.data())
def test_rows_are_found_as_in_a_list(count: int, step: int, data: st.DataObject) -> None:
    rows = Rows(3)
    listed = [(number * step, number // 7, number % 11) for number in range(count)]
    for row in listed:
        rows.append(row)
    for _ in range(data.draw(st.integers(0, 4))):
        listed = listed[rows.drop_oldest() :]
    assert len(rows) == len(listed)
    key = data.draw(st.integers(0, count * step + 2))
    assert list(rows.from_value(key)) == [row for row in listed if row[0] >= key]
    assert list(rows.from_value(key, 1)) == [row for row in listed if row[1] >= key]
    newest = data.draw(st.integers(1, count + 2))
    assert rows.latest(newest) == listed[-newest:]


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=4_000), st.integers(0, 3_000))
def test_the_ledger_holds_no_more_than_it_may(symbols: list[int], limit: int) -> None:
    ledger = Ledger(limit)
    for number, which in enumerate(symbols * 4):
        ledger.add_trade(ledger.of(f"S{which}"), number, number, 5, 7, False)
    held = sum(len(of.trades) for of in ledger.symbols.values())
    assert held <= limit + CHUNK_ROWS * len(ledger.symbols)
    assert sum(of.trade_count for of in ledger.symbols.values()) == 4 * len(symbols)
    assert sum(of.total for of in ledger.symbols.values()) == 4 * len(symbols) * 7


@given(st.integers(0, 10**18))
def test_numbers_are_printed_and_read_exactly(units: int) -> None:
    assert to_units(text(units)) == units
