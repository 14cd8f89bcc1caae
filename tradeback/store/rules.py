"""What holds for every history: which resolutions there are, which bars can be, what is too old."""

from __future__ import annotations

import math
from collections.abc import Iterable

from tradeback.config.sections import HistoryConfig
from tradeback.model import MINUTE_NS, RESOLUTIONS, Bar

FIRST, LAST = -(2**63), 2**63 - 1  # what an i64 can hold


def length_of(resolution: str) -> int:
    """The length of a resolution's bars in ns. ValueError where there is no such resolution."""
    try:
        return RESOLUTIONS[resolution]
    except KeyError:
        raise ValueError(
            f"There are no bars of the resolution {resolution!r}: choose of {', '.join(RESOLUTIONS)}"
        ) from None


def row_limit(limit: int | None) -> int:
    """How many rows are asked for. ValueError where that is less than none."""
    if limit is None:
        return LAST
    if limit < 0:
        raise ValueError(f"The limit {limit} is less than nothing: give 0 or more rows, or none for all")
    return min(limit, LAST)


def check_opening(resolution: str, bar: Bar) -> None:
    """ValueError where a bar of the resolution cannot open then."""
    if bar.open_time % RESOLUTIONS[resolution]:
        raise ValueError(f"A {resolution} bar cannot open at {bar.open_time} ns: that is between two")


def check_bars(resolution: str, bars: Iterable[Bar]) -> None:
    """ValueError where one of them cannot be: between two, or with a price or volume that is none."""
    for bar in bars:
        check_opening(resolution, bar)
        if not all(0.0 <= value < math.inf for value in bar[1:6]):
            raise ValueError(
                f"The history takes no such bar ({bar}): prices and volumes must be finite and not negative"
            )


def too_old_before(ages: HistoryConfig, what: str, now: int) -> int:
    """What opens or happens before it is too old; nothing where the age is 0. `what` is `ticks`, `enigma` or a
    resolution; 1m bars go by whole UTC days."""
    age_s: float = getattr(ages, f"keep_{what}")
    if age_s == 0:
        return FIRST
    before = now - round(age_s * 1e9)
    return max(before - before % (RESOLUTIONS["1d"] if what == "1m" else MINUTE_NS), FIRST)
