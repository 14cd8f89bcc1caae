"""Coarser bars out of minutes, in plain decimals: what every store must give back."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from typing import NamedTuple


class DecimalBar(NamedTuple):
    """Open time in unix ns, prices and volume as the exchange wrote them, number of trades."""

    open_time: int
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    volume: Decimal
    trade_count: int


def decimal_fold(minutes: Iterable[DecimalBar], length_ns: int) -> list[DecimalBar]:
    """Bars of `length_ns` out of 1m bars in any order; none where there was no trade."""
    groups: dict[int, list[DecimalBar]] = {}
    for bar in sorted(minutes):
        if bar.trade_count:
            groups.setdefault(bar.open_time // length_ns * length_ns, []).append(bar)
    return [
        DecimalBar(
            open_time,
            group[0].open,
            max(bar.high for bar in group),
            min(bar.low for bar in group),
            group[-1].close,
            sum((bar.volume for bar in group), Decimal()),
            sum(bar.trade_count for bar in group),
        )
        for open_time, group in groups.items()
    ]


def as_decimals(bar: tuple[int, float, float, float, float, float, int]) -> DecimalBar:
    """A stored bar: each double stands for the decimal that its repr shows."""
    open_time, *values, trade_count = bar
    return DecimalBar(open_time, *(Decimal(repr(value)) for value in values), trade_count)  # type: ignore[arg-type]
