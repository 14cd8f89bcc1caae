"""Stored bars against the exchange's own, field by field, to the last digit. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from tradeback.exchange.rows import KlineRow
from tradeback.model import Bar

_FIELDS = Bar._fields[1:]
# What a bar lacks: open time, and the number of trades that are stored and that the exchange has. Empty: nothing.
Lacking = Callable[[int, int, int], str]


class Difference(NamedTuple):
    """One field of one bar, or `bar` where one side has none: then its value is None, and the other's its number
    of trades. `open_time` in unix ns."""

    resolution: str
    open_time: int
    field: str
    stored: float | None
    exchange: float | None


class NotCompared(NamedTuple):
    """Bars that could not be judged: `bars` of them, the first opening at `first`, the last at `last`, unix ns."""

    resolution: str
    first: int
    last: int
    bars: int
    why: str


@dataclass(slots=True)
class BarsReport:
    """How the bars of one resolution compare. `compared` = `equal` + those that differ, each of which has one
    difference or more."""

    resolution: str
    compared: int = 0
    equal: int = 0
    differences: list[Difference] = field(default_factory=list)
    not_compared: list[NotCompared] = field(default_factory=list)


def bar_of(row: KlineRow) -> Bar:
    """The exchange's bar in the types of the store: each number the double nearest to the decimal."""
    prices = (float(row.open), float(row.high), float(row.low), float(row.close))
    return Bar(row.open_time, *prices, float(row.volume), row.trades)


def compare_bars(
    resolution: str, stored: Iterable[Bar], exchange: Iterable[Bar], lacking: Lacking
) -> BarsReport:
    """Compare bars of the same range. One that the exchange tells without a trade counts as none.

    `lacking` is asked where they differ and fewer trades are stored than the exchange has: a bar whose trades are
    not all there is no wrong one.
    """
    report = BarsReport(resolution)
    ours = {bar.open_time: bar for bar in stored}
    theirs = {bar.open_time: bar for bar in exchange if bar.trade_count > 0}
    for open_time in sorted(ours.keys() | theirs.keys()):
        mine, other = ours.get(open_time), theirs.get(open_time)
        if mine == other:
            report.compared += 1
            report.equal += 1
            continue
        have, there_are = mine.trade_count if mine else 0, other.trade_count if other else 0
        why = lacking(open_time, have, there_are) if have < there_are else ""
        if why:
            skip(report, open_time, why)
        else:
            report.compared += 1
            report.differences += _differences(resolution, open_time, mine, other)
    return report


def skip(report: BarsReport, open_time: int, why: str) -> None:
    """Note a bar that cannot be compared, together with the one before it where that has the same reason."""
    last = report.not_compared[-1] if report.not_compared else None
    if last is not None and last.why == why:
        report.not_compared[-1] = last._replace(last=open_time, bars=last.bars + 1)
    else:
        report.not_compared.append(NotCompared(report.resolution, open_time, open_time, 1, why))


def _differences(
    resolution: str, open_time: int, mine: Bar | None, other: Bar | None
) -> Sequence[Difference]:
    if mine is None or other is None:
        return [
            Difference(
                resolution,
                open_time,
                "bar",
                None if mine is None else mine.trade_count,
                None if other is None else other.trade_count,
            )
        ]
    return [
        Difference(resolution, open_time, name, getattr(mine, name), getattr(other, name))
        for name in _FIELDS
        if getattr(mine, name) != getattr(other, name)
    ]
