from __future__ import annotations

import pytest

from tradeback._fast.decode import (
    DECODED_MALFORMED,
    DECODED_OTHER,
    DECODED_SHUTDOWN,
    decode,
)

TRADE = (
    b'{"e":"trade","E":1672515782136,"s":"BNBBTC","t":12345,"p":"0.00100000","q":"100.50","T":1672515782135,'
    b'"m":true,"M":true}'
)
AGG_TRADE = (
    b'{"e":"aggTrade","E":1672515782136,"s":"BNBBTC","a":12345,"p":"0.001","q":"100","f":100,"l":105,'
    b'"T":1672515782136,"m":false,"M":true}'
)
QUOTE = (
    b'{"u":400900217,"s":"BNBUSDT","b":"25.35190000","B":"31.21000000","a":"25.36520000","A":"40.66000000"}'
)


def combined(stream: str, payload: bytes) -> bytes:
    return b'{"stream":"%s","data":%s}' % (stream.encode(), payload)


def event(data: bytes) -> dict[str, object]:
    found = decode(data)
    assert isinstance(found, dict), f"status {found} for {data!r}"
    return found


def test_trade() -> None:
    expected = {
        "kind": 1,
        "flags": 1,
        "symbol": "BNBBTC",
        "id": 12345,
        "first_id": 12345,
        "last_id": 12345,
        "ts_event": 1672515782135_000_000,
        "ts_sent": 1672515782136_000_000,
        "price": 0.001,
        "qty": 100.5,
        "qty_mantissa": 10050,
        "qty_scale": 2,
        "bid": 0.0,
        "bid_qty": 0.0,
        "ask": 0.0,
        "ask_qty": 0.0,
    }
    assert decode(TRADE) == expected
    assert decode(combined("bnbbtc@trade", TRADE)) == expected


def test_aggregate_trade_keeps_its_range() -> None:
    found = event(combined("bnbbtc@aggTrade", AGG_TRADE))
    assert (found["kind"], found["id"], found["first_id"], found["last_id"]) == (2, 12345, 100, 105)
    assert (found["flags"], found["qty_mantissa"], found["qty_scale"]) == (0, 100, 0)
    assert decode(AGG_TRADE) == found


def test_quote() -> None:
    found = event(combined("bnbusdt@bookTicker", QUOTE))
    assert (found["kind"], found["id"], found["ts_event"], found["price"]) == (3, 400900217, 0, 0.0)
    assert (found["bid"], found["bid_qty"], found["ask"], found["ask_qty"]) == (
        25.3519,
        31.21,
        25.3652,
        40.66,
    )
    assert decode(QUOTE) == found


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b'{"result":null,"id":1}', DECODED_OTHER),
        (b'{"code":2,"msg":"Invalid request: unknown method"}', DECODED_OTHER),
        (b'{"e":"serverShutdown","E":1770123456789}', DECODED_SHUTDOWN),
        (combined("!serverShutdown", b'{"e":"serverShutdown","E":1770123456789}'), DECODED_SHUTDOWN),
        (combined("bnbbtc@kline_1m", b'{"e":"kline","E":1,"s":"BNBBTC","k":{"t":1}}'), DECODED_OTHER),
        (b"", DECODED_MALFORMED),
        (b"<html>", DECODED_MALFORMED),
        (combined("bnbusdt@trade", TRADE), DECODED_MALFORMED),
    ],
)
def test_what_is_no_event(data: bytes, status: int) -> None:
    assert decode(data) == status


@pytest.mark.parametrize(
    "number", ["0", "9", "10000000", "100000001", "9999999999999999", "9223372036854775807"]
)
def test_integers_of_every_length(number: str) -> None:
    found = event(combined("bnbbtc@trade", TRADE.replace(b"12345", number.encode())))
    assert found["id"] == int(number)


@pytest.mark.parametrize(
    "number",
    ["00", "01", "00000000", "000000001", "0000000000000001", "-1", "1.0", "1e3", "", "9223372036854775808"],
)
def test_what_is_no_integer_is_malformed(number: str) -> None:
    assert decode(combined("bnbbtc@trade", TRADE.replace(b"12345", number.encode()))) == DECODED_MALFORMED
    late = AGG_TRADE.replace(b'"l":105', b'"l":' + number.encode())
    assert decode(combined("bnbbtc@aggTrade", late)) == DECODED_MALFORMED
    assert decode(combined("bnbbtc@aggTrade", AGG_TRADE.replace(b"1672515782136", number.encode(), 1))) == 3


def test_cut_short_anywhere_is_malformed_whatever_lies_behind() -> None:
    whole = combined("bnbbtc@trade", TRADE)
    for size in range(len(whole)):
        assert decode(whole[:size], padding=whole[size:]) == DECODED_MALFORMED
