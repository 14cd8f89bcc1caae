"""Each way that a message can go is counted under its name."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.playback.test_ingest import ingest_of
from tradeback._fast.ingest import Ingest

SECOND = 10**9
T0_MS = 1_672_515_782_136


@pytest.fixture
def ingest(tmp_path: Path) -> Iterator[Ingest]:
    with ingest_of(tmp_path, ["BTCUSDT"]) as ingest:
        yield ingest


def trade(number: int, *, symbol: str = "BTCUSDT", quantity: str = "1.00000000") -> bytes:
    return (
        f'{{"e":"trade","E":{T0_MS},"s":"{symbol}","t":{number},"p":"2.50000000","q":"{quantity}",'
        f'"T":{T0_MS},"m":true,"M":true}}'
    ).encode()


def aggregate(first: int, last: int, quantity: str = "9.00000000") -> bytes:
    return (
        f'{{"e":"aggTrade","E":{T0_MS},"s":"BTCUSDT","a":{last},"p":"2.50000000","q":"{quantity}",'
        f'"f":{first},"l":{last},"T":{T0_MS},"m":true,"M":true}}'
    ).encode()


def quote(number: int) -> bytes:
    return f'{{"u":{number},"s":"BTCUSDT","b":"2.4","B":"1.0","a":"2.6","A":"1.0"}}'.encode()


@pytest.mark.parametrize(
    ("name", "messages"),
    [
        ("messages_trade", [trade(1)]),
        ("messages_agg_trade", [aggregate(1, 2)]),
        ("messages_quote", [quote(1)]),
        ("messages_other", [b'{"result":null,"id":1}']),
        ("duplicates", [trade(1), trade(1)]),
        ("stale_quotes", [quote(2), quote(1)]),
        ("held", [trade(1), aggregate(2, 3)]),
        ("unknown_symbol", [trade(1, symbol="NOSUCH")]),
        ("refused", [trade(1, quantity="0.00000000")]),
        ("malformed", [b'{"e":"trade","E":']),
        ("unusual", [trade(1).replace(b"BTC", rb"\u0042TC")]),
        ("late_trades", [trade(1), trade(3), trade(2)]),
        ("rounded", [trade(1, quantity="1.000000001")]),
        ("held_overflows", [trade(1), *(aggregate(n, n + 1) for n in range(2, 68, 2))]),
        ("open_overflows", [trade(n) for n in range(1, 133, 2)]),
        ("unknown_quantities", [trade(1), trade(3), aggregate(1, 3, "0.00000001")]),
    ],
)
def test_each_way_of_a_message_is_counted(ingest: Ingest, name: str, messages: list[bytes]) -> None:
    for message in messages[:-1]:
        ingest.take(message, now_ns=SECOND)
    ingest.tick(SECOND)
    assert ingest.stats.value(name) == 0
    ingest.take(messages[-1], now_ns=SECOND)
    ingest.tick(SECOND + SECOND // 2)
    assert ingest.stats.value(name) == 1


def test_gaps_are_counted_with_their_trades(ingest: Ingest) -> None:
    ingest.take(trade(1), now_ns=SECOND)
    ingest.take(trade(5), now_ns=SECOND)
    ingest.tick(2 * SECOND)
    assert (ingest.stats.value("gaps"), ingest.stats.value("gap_trades")) == (1, 3)
    assert ingest.stats.value("journal_records") == 4  # the first says that the symbol begins


def test_what_the_journal_has_no_room_for_is_counted_and_becomes_a_gap(tmp_path: Path) -> None:
    with ingest_of(tmp_path, ["BTCUSDT"], segment_bytes=1 << 16) as ingest:
        number = 0
        while not ingest.stats.value("journal_unwritten"):
            number += 1
            ingest.take(trade(number), now_ns=SECOND)
        assert ingest.unwritten_symbols == 1
        assert ingest.stats.value("journal_records") == number  # less the trade, and the symbol's beginning
        ingest.journal.prepare()
        ingest.tick(SECOND)
        assert ingest.unwritten_symbols == 0
        assert (ingest.stats.value("gaps"), ingest.stats.value("gap_trades")) == (1, 1)
