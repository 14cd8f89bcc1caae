"""Line protocol: what is written is read back as the same, by a reader of plain Python."""

from __future__ import annotations

import math
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tradeback._fast.lineproto import encode_ticks
from tradeback.model import Tick

KEY = b"trades,exchange=sim,symbol=BTCUSDT "
PREFIXES = {1: KEY, 65_535: b"m,s=" + "A\\ B\\,ü".encode() * 40 + b" "}

numbers = st.one_of(
    st.floats(0.0, allow_nan=False, allow_infinity=False),
    # What exchanges trade in: decimals of a few digits.
    st.builds(lambda mantissa, places: mantissa / 10**places, st.integers(0, 2**53), st.integers(0, 8)),
)
ids = st.integers(0, 2**63 - 1)
times = st.integers(-(2**62), 2**62)
ticks = st.builds(
    Tick,
    st.sampled_from([1, 65_535]),
    ids,
    st.integers(1, 2**32 - 1),
    numbers,
    numbers,
    numbers,
    numbers,
    times,
    st.integers(0, 255),
)


def read(stream_id: int, line: bytes) -> Tick:
    """A line's tick, as InfluxDB understands its text."""
    prefix = PREFIXES[stream_id]
    assert line.startswith(prefix)
    text, _, time = line[len(prefix) :].decode().rpartition(" ")
    fields = dict(field.split("=") for field in text.split(","))
    integers = {name: int(value[:-1]) for name, value in fields.items() if value.endswith("i")}
    doubles = {name: value for name, value in fields.items() if name not in integers}
    # Doubles may have a sign, digits, a point and an exponent; nothing else is a number there.
    assert all(re.fullmatch(r"\d+(\.\d+)?(e[+-]?\d+)?", value) for value in doubles.values()), text
    sequence = integers["sequence"]
    return Tick(
        stream_id,
        sequence,
        integers["trade_count"],
        float(doubles["price"]),
        float(doubles["volume"]),
        float(doubles["bid"]),
        float(doubles["ask"]),
        int(time) - sequence % 1_000_000,
        integers["flags"],
    )


@given(st.lists(ticks, max_size=20))
@example([Tick(1, 2**63 - 1, 1, 2**53 / 1e8, math.nextafter(2**53 / 1e8, 0.0), 5e-324, 1e22, 2**62, 0)])
@example([Tick(1, 0, 1, 1e-8, 0.1 + 0.2, 123456.789, 90071992.54740992, -1, 0)])
def test_what_is_written_is_read_back(written: list[Tick]) -> None:
    lines = encode_ticks(written, PREFIXES).split(b"\n")
    assert lines.pop() == b""
    assert [read(tick.stream_id, line) for tick, line in zip(written, lines, strict=True)] == written


def test_a_line_as_it_is() -> None:
    tick = Tick(1, 4_000_123, 2, 97_000.1, 0.00012, 0.0, 97_000.11, 1_700_000_000_000_000_000, 5)
    assert encode_ticks([tick], PREFIXES) == KEY + (
        b"price=97000.1,volume=0.00012,bid=0,ask=97000.11,sequence=4000123i,trade_count=2i,flags=5i "
        b"1700000000000000123\n"
    )


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -1e-300])
@pytest.mark.parametrize("column", ["price", "volume", "bid", "ask"])
def test_what_no_number_is(column: str, value: float) -> None:
    tick = Tick(1, 1, 1, 1.0, 1.0, 1.0, 1.0, 0, 0)._replace(**{column: value})
    with pytest.raises(ValueError, match="must be finite and not negative"):
        encode_ticks([tick], PREFIXES)


def test_what_no_tick_is() -> None:
    tick = Tick(1, 1, 1, 1.0, 1.0, 1.0, 1.0, 0, 0)
    with pytest.raises(KeyError):
        encode_ticks([tick._replace(stream_id=2)], PREFIXES)
    with pytest.raises(OverflowError):
        encode_ticks([tick._replace(trade_id=2**63)], PREFIXES)
    with pytest.raises(TypeError, match="a tick is a tuple"):
        encode_ticks(["not one"], PREFIXES)  # type: ignore[list-item]
    with pytest.raises(ValueError, match="unpack"):
        encode_ticks([(1, 2)], PREFIXES)  # type: ignore[list-item]
