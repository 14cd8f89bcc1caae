"""`--from` and `--to`: every way to write a time, and a sentence where it is none."""

from __future__ import annotations

import datetime
import time

import click
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from tradeback.commands.times import format_time, parse_time, with_range

SECOND = 1_000_000_000
DAY = 86_400 * SECOND
NOW = 1_733_011_200 * SECOND + 5  # 2024-12-01


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("now", NOW),
        ("-2h", NOW - 7_200 * SECOND),
        ("-1d12h", NOW - DAY - DAY // 2),
        ("-0s", NOW),
        ("-90", NOW - 90 * SECOND),
        ("1733011200", NOW - 5),
        ("1733011200.000000005", NOW),
        ("0", 0),
        ("2024-12-01", NOW - 5),
        (" 2024-12-01T00:00Z ", NOW - 5),
        ("2024-12-01 00:00:00", NOW - 5),
        ("2024-12-01T02:00:00.000000005+02:00", NOW),
        ("2024-11-30T19:00:00-05:00", NOW - 5),
        ("1970-01-01T00:00:00.5Z", SECOND // 2),
    ],
)
def test_what_is_a_time(text: str, ns: int) -> None:
    assert parse_time(text, NOW) == ns


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is no time: give 2024-12-01"),
        ("yesterday", "is no time: give"),
        ("-", "is no time: give"),
        ("-2 hours", "'-2 hours' is no time"),
        ("2024-13-01", "month must be"),
        ("2024-12-01T25:00Z", "is no time"),
        ("2024-12-01T00:00:00.0000000001Z", "is no time"),
        ("1733011200000", "milliseconds are not understood"),
        ("1e9", "is no time"),
        ("nan", "is no time"),
        ("٣", "is no time"),
        ("1969-12-31", "outside the years 1970 to 2261"),
        ("-100000d", "outside the years 1970 to 2261"),
        ("2262-01-01", "outside the years 1970 to 2261"),
    ],
)
def test_what_is_none(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse_time(text, NOW)


@given(st.integers(0, 9_214_646_400 * SECOND - 1))
def test_what_is_printed_is_read_back(ns: int) -> None:
    text = format_time(ns)
    assert parse_time(text, NOW) == ns
    seconds = datetime.datetime.fromtimestamp(ns // SECOND, datetime.UTC)
    assert text.startswith(seconds.strftime("%Y-%m-%dT%H:%M:%S"))


@click.command()
@with_range("-1h")
@click.argument("symbol")
def command(symbol: str, start: int, end: int) -> None:
    click.echo(f"{symbol} {start} {end}")


def test_a_command_gets_a_range_of_one_now() -> None:
    before = time.time_ns()
    printed = CliRunner().invoke(command, ["BTCUSDT"]).output.split()
    assert printed[0] == "BTCUSDT"
    assert int(printed[2]) - int(printed[1]) == 3_600 * SECOND
    assert before <= int(printed[2]) <= time.time_ns()
    given_both = CliRunner().invoke(command, ["A", "--from", "2024-12-01", "--to", "2024-12-02"])
    assert given_both.output.split() == ["A", str(NOW - 5), str(NOW - 5 + DAY)]
    assert CliRunner().invoke(command, ["A", "--from", "-2h"]).exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--from", "now"], "is not before --to"),
        (["--from", "soon"], "Invalid value for --from: 'soon' is no time"),
        (["--to", "soon"], "Invalid value for --to"),
    ],
)
def test_a_wrong_range_is_wrong_usage(arguments: list[str], words: str) -> None:
    result = CliRunner().invoke(command, ["A", *arguments])
    assert result.exit_code == 2
    assert words in result.output
