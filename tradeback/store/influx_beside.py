"""The ticks beside missing ids in InfluxDB, where it is nearly known when those were traded: all points of a minute
are looked at there, which takes as long as looking at one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from tradeback.model import Tick
from tradeback.store.influx import FIRST_NS, LAST_NS, nanoseconds
from tradeback.store.influx_points import OF_SYMBOL, POINTS, by_time, ticks_of

NEAR_NS = 30 * 1_000_000_000  # before and after the time that is told

# `first` and `last` are Flux's own words.
BESIDE = f"""
ids = {OF_SYMBOL} |> filter(fn: (r) => r._field == "sequence") |> keep(columns: ["_time", "_value"])
points = (from_ns, to_ns) => {OF_SYMBOL.replace("v: start", "v: from_ns").replace("v: stop", "v: to_ns")}
bare = (tables=<-) => tables |> keep(columns: ["_time", "_field", "_value"])
ids |> filter(fn: (r) => r._value < lowest) |> max() |> yield(name: "before")
ids |> filter(fn: (r) => r._value > highest) |> min() |> yield(name: "after")
points(from_ns: oldest, to_ns: start) |> last() |> bare() |> yield(name: "earlier")
points(from_ns: stop, to_ns: newest) |> first() |> bare() |> yield(name: "later")
"""

Ask = Callable[..., Iterator[dict[str, str]]]


class NotNearError(Exception):
    """The ids were not traded near that time, or something is being written there."""


def beside_near(
    ask: Ask, stream_id: int, first: int, last: int, near: int
) -> tuple[Tick | None, Tick | None]:
    """What `History.beside` returns. `ask(flux, start, stop, **parameters)` asks for ticks of the symbol.
    NotNearError where that cannot be said."""
    found: dict[str, list[dict[str, str]]] = {}
    parameters = {"lowest": first, "highest": last, "oldest": FIRST_NS, "newest": LAST_NS}
    for row in ask(BESIDE, near - NEAR_NS, near + NEAR_NS, **parameters):
        found.setdefault(row["result"], []).append(row)

    def tick(within: str, beyond: str, fits: Callable[[int], bool]) -> Tick | None:
        rows: Iterator[Mapping[str, str]]
        if within in found:
            (point,) = found[within]
            time = nanoseconds(point["_time"])
            rows = ask(POINTS, time, time + 1)
        elif beyond in found:
            rows = iter(found[beyond])
        else:
            return None
        ticks = list(ticks_of(stream_id, by_time(rows)))
        if len(ticks) != 1 or not fits(ticks[0].trade_id):
            raise NotNearError
        return ticks[0]

    before = tick("before", "earlier", lambda trade_id: trade_id < first)
    return before, tick("after", "later", lambda trade_id: trade_id > last)
