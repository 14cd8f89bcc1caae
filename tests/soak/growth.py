"""Whether a series of measurements grows.

Medians decide, so that a burst, or a process that was held up for a while, does not. What creeps is found by the
slope of Theil and Sen, the median of the slopes between all pairs of points (P. K. Sen, Estimates of the Regression
Coefficient Based on Kendall's Tau, 1968); what jumps, by the medians of the first and the last quarter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import median

# The pairs of more points would take minutes, and say the same.
POINTS_MAX = 200


@dataclass(frozen=True)
class Series:
    """What was measured of one thing, as (seconds, value), and by how much it may grow over all that time."""

    name: str
    unit: str
    points: Sequence[tuple[float, float]]
    allowed: float

    @property
    def growth(self) -> float:
        """By how much it rose over the time that it covers, in `unit`; below 0 where it fell."""
        if len(self.points) < 3:
            raise AssertionError(f"{self.name} was measured {len(self.points)} times: that tells no growth")
        thinned = self.points[:: len(self.points) // POINTS_MAX + 1]
        slopes = [(y - x) / (t - s) for (s, x), (t, y) in combinations(thinned, 2) if t > s]
        crept = median(slopes) * (self.points[-1][0] - self.points[0][0])
        values = [value for _, value in self.points]
        quarter = len(values) // 4 + 1
        return max(crept, median(values[-quarter:]) - median(values[:quarter]))

    @property
    def grows(self) -> bool:
        return self.growth > self.allowed

    @property
    def row(self) -> str:
        """A line of a Markdown table."""
        values = [value for _, value in self.points]
        figures = (values[0], median(values), max(values), values[-1], self.growth, self.allowed)
        return f"| {self.name} ({self.unit}) | " + " | ".join(f"{figure:,.1f}" for figure in figures) + " |"


HEADER = "| what | first | median | most | last | growth | allowed |\n|---|---:|---:|---:|---:|---:|---:|"
