"""The times that people write: `--from` and `--to` of every command that reads a range, in one place."""

from __future__ import annotations

import functools
import re
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import click

from tradeback.config.units import parse_duration

TIME_WORDS = "2024-12-01, 2024-12-01T08:30:00Z, unix seconds, -2h or now"

_ISO = re.compile(
    r"(?P<date>\d{4}-\d{2}-\d{2})"
    r"(?:[T ](?P<clock>\d{2}:\d{2}(?::\d{2})?)(?:\.(?P<fraction>\d{1,9}))?(?P<zone>Z|[+-]\d{2}:\d{2})?)?",
    re.ASCII,
)
_UNIX = re.compile(r"\d+(?:\.\d{1,9})?", re.ASCII)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# What int64 ns can hold, by whole years. A number of seconds beyond it is one of milliseconds or less.
_END = datetime(2262, 1, 1, tzinfo=UTC)
_END_NS = int((_END - _EPOCH).total_seconds()) * 1_000_000_000


def parse_time(text: str, now_ns: int) -> int:
    """Unix ns of an ISO 8601 date or time (UTC where it names no zone), of unix seconds, of `now`, or of a
    duration before now (`-2h`).

    Raises ValueError, a sentence, where it is none of them or lies outside 1970 to 2261.
    """
    text = text.strip()
    if text == "now":
        return now_ns
    if text.startswith("-"):
        ns = now_ns - round(Decimal(repr(_duration(text))) * 1_000_000_000)
    elif _UNIX.fullmatch(text):
        ns = int(Decimal(text) * 1_000_000_000)
        if ns >= _END_NS:
            raise ValueError(
                f"{text} is no time in unix seconds before 2262: milliseconds are not understood"
            )
    else:
        ns = _iso(text)
    if not 0 <= ns < _END_NS:
        raise ValueError(f"{text} lies outside the years 1970 to 2261")
    return ns


def format_time(ns: int) -> str:
    """ISO 8601 in UTC with as many decimals as there are; `parse_time` reads it back exactly."""
    seconds, fraction = divmod(ns, 1_000_000_000)
    text = (_EPOCH + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{text}.{fraction:09d}".rstrip("0") + "Z" if fraction else f"{text}Z"


def with_range(default_from: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorates a command: adds `--from` (with this default) and `--to` (now), and calls it with `start` and
    `end`, unix ns of one and the same now. A range that is empty or cannot be read is wrong usage."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        @click.option("--from", "start", default=default_from, show_default=True, help=f"Start: {TIME_WORDS}")
        @click.option("--to", "end", default="now", show_default=True, help="End, exclusive: the same")
        @functools.wraps(command)
        def ranged(*, start: str, end: str, **options: Any) -> Any:
            now_ns = time.time_ns()
            first, last = _option("--from", start, now_ns), _option("--to", end, now_ns)
            if first >= last:
                raise click.BadParameter(
                    f"{format_time(first)} is not before --to, {format_time(last)}", param_hint="--from"
                )
            return command(start=first, end=last, **options)

        return ranged

    return decorate


def _option(name: str, text: str, now_ns: int) -> int:
    try:
        return parse_time(text, now_ns)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint=name) from error


def _duration(text: str) -> float:
    try:
        return parse_duration(text[1:])
    except ValueError as error:
        raise ValueError(f"{text!r} is no time: give {TIME_WORDS}") from error


def _iso(text: str) -> int:
    match = _ISO.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is no time: give {TIME_WORDS}")
    zone = (match["zone"] or "Z").replace("Z", "+00:00")
    try:
        moment = datetime.fromisoformat(f"{match['date']}T{match['clock'] or '00:00'}{zone}")
    except ValueError as error:
        raise ValueError(f"{text} is no time: {error}") from error
    seconds = (moment - _EPOCH) // timedelta(seconds=1)
    return seconds * 1_000_000_000 + int((match["fraction"] or "0").ljust(9, "0"))
