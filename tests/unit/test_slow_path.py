from __future__ import annotations

import pytest

from tests.reference.decode import decode_reference, resolve
from tradeback._fast.decode import (
    DECODED_MALFORMED,
    DECODED_OTHER,
    DECODED_SHUTDOWN,
    DECODED_UNUSUAL,
    decode,
)
from tradeback.errors import ExchangeError
from tradeback.exchange.binance import can_carry, canonical_message, stream_name, time_to_ns

TRADE = (
    b'{"e":"trade","E":1672515782136,"s":"BNBBTC","t":12345,"p":"0.001","q":"100","T":1672515782135,"m":true}'
)
MEGABYTES = 10 << 20


def with_price(price: str) -> bytes:
    return TRADE.replace(b"0.001", price.encode())


def with_quantity(quantity: str) -> bytes:
    return TRADE.replace(b'"q":"100"', b'"q":"%s"' % quantity.encode())


@pytest.mark.parametrize(
    ("data", "price"),
    [
        (with_price("1e-3"), 0.001),
        (with_price("+0.5"), 0.5),
        (with_price(".5"), 0.5),
        (with_price("5."), 5.0),
        (with_price("1." + "0" * 100), 1.0),
        (TRADE.replace(b"BNBBTC", b"BNB\\u0042TC"), 0.001),
        (TRADE.replace(b'"e"', b'"note":"\xc3\xa9","e"'), 0.001),
    ],
)
def test_what_is_unusual_is_rewritten_and_decoded(data: bytes, price: float) -> None:
    assert decode(data) == DECODED_UNUSUAL
    found = resolve(data)
    assert isinstance(found, dict)
    assert (found["symbol"], found["price"], found["ts_event"]) == ("BNBBTC", price, 1672515782135_000_000)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (with_price("-1.5"), "no decimal from 0 up in 'p'"),
        (with_quantity("1e-19"), "a decimal in 'q' that does not fit"),
        (with_quantity("99999999999.123456789"), "a decimal in 'q' that does not fit"),
        (with_price("1e400"), "a decimal in 'p' that does not fit"),
        (TRADE.replace(b'"e"', b'"\xff":1,"e"'), "is no JSON"),
        (TRADE.replace(b'"m":true', b'"m":1,"x":"\\n"'), "'m' that is neither true nor false"),
        (TRADE.replace(b'"m"', b'"\\u0070":"2","m"'), "has 'p' twice"),
        (b'{"stream":"ethbtc@trade","data":' + TRADE.replace(b"BNB", b"\\u0042NB") + b"}", "is about BNBBTC"),
        (b"[" * 100_000, "is no JSON"),
    ],
)
def test_what_is_malformed_is_named(data: bytes, words: str) -> None:
    assert decode(data) == DECODED_UNUSUAL
    with pytest.raises(ExchangeError, match=words.replace("(", r"\(")) as caught:
        canonical_message(data)
    assert len(str(caught.value)) < 1200


@pytest.mark.parametrize("symbol", ["币安人生USDT", "btcusdt", "A" * 51, "BTC USDT", "BTC/USDT"])
def test_a_symbol_that_cannot_be_carried_is_no_event_and_no_error(symbol: str) -> None:
    data = TRADE.replace(b"BNBBTC", symbol.encode())
    assert not can_carry(symbol)
    assert decode(data) == DECODED_UNUSUAL
    assert canonical_message(data) is None


@pytest.mark.parametrize("symbol", ["A", "1000SATSUSDT", "BTCUSDT_210625", "A" * 16, "A" * 17, "A" * 50])
def test_a_symbol_that_can_be_carried_needs_no_slow_path(symbol: str) -> None:
    payload = TRADE.replace(b"BNBBTC", symbol.encode())
    found = decode(b'{"stream":"%s","data":%s}' % (stream_name(symbol, "trade").encode(), payload))
    assert isinstance(found, dict)
    assert found["symbol"] == symbol
    assert can_carry(symbol)


def test_a_shutdown_is_seen_in_an_unusual_message_too() -> None:
    assert resolve(b'{"e":"serverShutdown","why":"\\u00e9"}') == DECODED_SHUTDOWN


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"[" * MEGABYTES, DECODED_MALFORMED),
        (b'{"x":"' + b"x" * MEGABYTES + b'"}', DECODED_OTHER),
        (b'{"x":"' + b"x" * MEGABYTES, DECODED_MALFORMED),
        (b"[" + b"1," * (MEGABYTES // 2) + b"1]", DECODED_OTHER),
        (b"9" * MEGABYTES, DECODED_OTHER),
        (bytes(MEGABYTES), DECODED_MALFORMED),
        (TRADE + bytes(MEGABYTES), DECODED_MALFORMED),
        (TRADE.replace(b"0.001", b"1" * MEGABYTES), DECODED_MALFORMED),
        (TRADE.replace(b"12345", b"1" * MEGABYTES), DECODED_MALFORMED),
        (TRADE.replace(b"BNBBTC", b"B" * MEGABYTES), DECODED_OTHER),
        (TRADE.replace(b"BNBBTC", b"BNB\x00BTC"), DECODED_MALFORMED),
        (TRADE.replace(b"0.001", b"0.0\x0001"), DECODED_MALFORMED),
        (TRADE + b"\x00", DECODED_MALFORMED),
    ],
    ids=lambda value: f"{value[:20]!r}" if isinstance(value, bytes) else str(value),
)
def test_large_and_hostile_messages(data: bytes, status: int) -> None:
    assert resolve(data) == decode_reference(data) == status


def test_times_are_told_by_their_magnitude() -> None:
    assert time_to_ns(1_700_000_000_123) == 1_700_000_000_123_000_000
    assert time_to_ns(1_700_000_000_123_456) == 1_700_000_000_123_456_000
    assert time_to_ns(1_700_000_000_123_456_789) == 1_700_000_000_123_456_789
    for wrong in (-1, 9_223_372_036_855, 2**63):
        with pytest.raises(ValueError, match="outside 1970 to 2262"):
            time_to_ns(wrong)
