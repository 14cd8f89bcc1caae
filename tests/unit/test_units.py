from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tradeback.config import format_duration, format_size, parse_duration, parse_size


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("15s", 15.0), ("5m", 300.0), ("250ms", 0.25), ("24h", 86_400.0), ("7d", 604_800.0), ("1h30m", 5_400.0),
     ("1.5s", 1.5), ("50us", 5e-5), ("50µs", 5e-5), ("10ns", 1e-8), ("0s", 0.0), ("0", 0.0),
     ("2.5", 2.5), (" 5s ", 5.0)],
)  # fmt: skip
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "s", "-1s", "5 s", "5sec", "1e3s", "٣s", "5s!", "infs", "nan", "1s,2s"])
def test_no_durations(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration"):
        parse_duration(text)


@given(st.floats(0, 1e12))
def test_a_printed_duration_is_read_as_the_same(seconds: float) -> None:
    assert parse_duration(format_duration(seconds)) == seconds


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0, "0s"), (0.25, "250ms"), (90.0, "90s"), (120.0, "2m"), (5e-5, "50us"), (82_800.0, "23h")],
)
def test_printed_durations(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@pytest.mark.parametrize(
    ("text", "size"),
    [("64MiB", 64 << 20), ("2GiB", 2 << 30), ("16 KiB", 16384), ("16384", 16384), ("1kB", 1000),
     ("1KB", 1000), ("1B", 1), ("0", 0), ("1TiB", 1 << 40)],
)  # fmt: skip
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "MiB", "-1", "1.5GiB", "64Mi", "64m", "٣"])
def test_no_sizes(text: str) -> None:
    with pytest.raises(ValueError, match="is not a size"):
        parse_size(text)


@given(st.integers(0, 2**62))
def test_a_printed_size_is_read_as_the_same(size: int) -> None:
    assert parse_size(format_size(size)) == size
