"""What a measurement yields, and the table of it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True, slots=True)
class Goal:
    """A bound on a figure's ratio, or, where `of_ratio` is false, on the figure itself."""

    bound: float
    at_most: bool
    of_ratio: bool = True

    def __str__(self) -> str:
        return f"{'<=' if self.at_most else '>='} {self.bound:g}{'x' if self.of_ratio else ''}"


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the table: the medians over the rounds of one run.

    `spread` is half the range of the ratios (of the figures, where there is no peer), relative to the median.
    """

    name: str
    figure: float
    unit: str
    peer: str = ""
    peer_figure: float = math.nan
    ratio: float = math.nan
    spread: float = math.nan
    goal: Goal | None = None

    @property
    def met(self) -> bool | None:
        """Whether the goal is met; None where there is none."""
        if self.goal is None:
            return None
        value = self.ratio if self.goal.of_ratio else self.figure
        return value <= self.goal.bound if self.goal.at_most else value >= self.goal.bound


@dataclass(frozen=True, slots=True)
class Skipped:
    """A measurement that this machine cannot make, and why."""

    name: str
    reason: str


Row = Figure | Skipped


@dataclass(frozen=True, slots=True)
class Effort:
    """How much to measure. A quick run proves that everything works; its figures say little."""

    rounds: int
    seconds: float
    quick: bool

    def of(self, full: int, quick: int) -> int:
        """A size: of clients, messages, symbols."""
        return quick if self.quick else full


FULL = Effort(rounds=5, seconds=2.0, quick=False)
QUICK = Effort(rounds=1, seconds=0.2, quick=True)


def compare(
    name: str,
    unit: str,
    ours: list[float],
    peer: str = "",
    theirs: list[float] | None = None,
    goal: Goal | None = None,
    *,
    speedup: bool = False,
) -> Figure:
    """The figure of several rounds. `ours[i]` and `theirs[i]` were measured one after the other, so the ratio
    is taken round by round, and its median says more than the ratio of the medians.

    The ratio is ours to theirs; with `speedup`, for times, theirs to ours: how many times as fast we are.
    """
    if theirs is None:
        return Figure(name, median(ours), unit, spread=_spread(ours), goal=goal)
    pairs = zip(theirs, ours, strict=True) if speedup else zip(ours, theirs, strict=True)
    ratios = [above / below for above, below in pairs]
    return Figure(name, median(ours), unit, peer, median(theirs), median(ratios), _spread(ratios), goal)


def _spread(values: list[float]) -> float:
    return (
        (max(values) - min(values)) / 2 / median(values) if len(values) > 1 and median(values) else math.nan
    )


def render(rows: list[Row]) -> str:
    """The table as text."""
    cells = [["what", "figure", "unit", "peer", "its figure", "ratio", "+-", "goal", ""]]
    for row in rows:
        if isinstance(row, Skipped):
            cells.append([row.name, "skipped:", row.reason])
            continue
        verdict = {None: "", True: "met", False: "NOT MET"}[row.met]
        cells.append(
            [
                row.name,
                number(row.figure),
                row.unit,
                row.peer,
                number(row.peer_figure),
                number(row.ratio),
                "" if math.isnan(row.spread) else f"{row.spread:.0%}",
                str(row.goal or ""),
                verdict,
            ]
        )
    full = [line for line in cells if len(line) > 3]
    widths = [max(len(line[column]) for line in full) for column in range(len(cells[0]))]
    widths[0] = max(len(line[0]) for line in cells)
    right = {1, 4, 5, 6}
    return "\n".join(
        "  ".join(
            text.rjust(widths[i]) if i in right and len(line) > 3 else text.ljust(widths[i])
            for i, text in enumerate(line)
        ).rstrip()
        for line in cells
    )


def number(value: float) -> str:
    """Three or four significant digits, thousands apart; nothing for what was not measured."""
    if math.isnan(value):
        return ""
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
