"""How ticks, bars and Enigma levels are points in InfluxDB, and the questions that bring them back.

A question answers one table a field, each by rising time, which `Influx.points` puts together: Flux's own `pivot`
takes several times as long. Points are the fields of each, by its time in unix ns.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping

from tradeback._fast.record import FLAGS
from tradeback.model import Bar, EnigmaLevel, Tick
from tradeback.store.influx import escape_tag, nanoseconds
from tradeback.store.rules import length_of

POINTS_A_MILLISECOND = 1_000_000  # a tick's point lies its id modulo this above its time, in ns
SPARSE = FLAGS["sparse"]

TICK_FIELDS = frozenset({"price", "volume", "bid", "ask", "sequence", "trade_count", "flags"})
BAR_FIELDS = frozenset({"open", "high", "low", "close", "volume", "trade_count"})
LEVEL_FIELDS = frozenset({"price", "ath", "atl"})

OF_EXCHANGE = """
from(bucket: bucket) |> range(start: time(v: start), stop: time(v: stop))
    |> filter(fn: (r) => r._measurement == measurement and r.exchange == exchange)
"""
OF_SYMBOL = OF_EXCHANGE + " |> filter(fn: (r) => r.symbol == symbol)"
POINTS = OF_SYMBOL + ' |> keep(columns: ["_time", "_field", "_value"])'
FIRST = OF_SYMBOL + ' |> first() |> keep(columns: ["_time", "_field", "_value"])'
LAST = OF_SYMBOL + ' |> last() |> keep(columns: ["_time", "_field", "_value"])'
NEWEST_BY_SYMBOL = OF_EXCHANGE + ' |> last() |> keep(columns: ["_time", "symbol", "_field", "_value"])'
COUNT = OF_EXCHANGE + ' |> filter(fn: (r) => r._field == field) |> count() |> keep(columns: ["_value"])'


def measurement(resolution: str) -> str:
    """Where the bars of a resolution are."""
    length_of(resolution)
    return f"ohlcv_{resolution}"


def point_key(name: str, exchange: str, symbol: str) -> bytes:
    """What stands before a point's fields: measurement and tags."""
    return f"{name},exchange={escape_tag(exchange)},symbol={escape_tag(symbol)} ".encode()


def bar_line(key: bytes, bar: Bar) -> bytes:
    """A bar's line."""
    open_time, first, high, low, close, volume, count = bar
    fields = (
        f"open={first!r},high={high!r},low={low!r},close={close!r},volume={volume!r},"
        f"trade_count={count}i {open_time}\n"
    )
    return key + fields.encode()


def level_line(key: bytes, level: EnigmaLevel) -> bytes:
    """An Enigma level's line. ValueError where it holds what no number is."""
    fields = {"price": level.price, "ath": level.ath, "atl": level.atl}
    if level.level is not None:
        fields["level"] = level.level
    if not all(map(math.isfinite, fields.values())):
        raise ValueError(f"The history takes no such level ({level}): it must be finite, or None")
    fields |= {f"fib_{share.replace('.', '_')}": price for share, price in level.fib_levels.items()}
    return (
        key + f"{','.join(f'{name}={value!r}' for name, value in fields.items())} {level.ts_event}\n".encode()
    )


Points = Mapping[int, Mapping[str, str]]


def by_time(rows: Iterable[Mapping[str, str]]) -> Points:
    """The points of rows, where those came with others."""
    points: dict[int, dict[str, str]] = {}
    for row in rows:
        points.setdefault(nanoseconds(row["_time"]), {})[row["_field"]] = row["_value"]
    return points


def whole(points: Points, fields: frozenset[str]) -> Iterator[tuple[int, Mapping[str, str]]]:
    """The points that have all their fields. InfluxDB reads one field after the other: of a point that is written
    meanwhile some come and others do not, so it is not there yet."""
    for time, point in points.items():
        if fields <= point.keys():
            yield time, point


def ticks_of(stream_id: int, points: Points) -> Iterator[Tick]:
    """Ticks in no order."""
    for time, fields in whole(points, TICK_FIELDS):
        trade_id = int(fields["sequence"])
        yield Tick(
            stream_id,
            trade_id,
            int(fields["trade_count"]),
            float(fields["price"]),
            float(fields["volume"]),
            float(fields["bid"]),
            float(fields["ask"]),
            time - trade_id % POINTS_A_MILLISECOND,
            int(fields["flags"]),
        )


def first_id_of(tick: Tick) -> int:
    """The lowest id that a tick stands for, as far as it tells: of a sparse one only the last is known."""
    return tick.trade_id if tick.flags & SPARSE else tick.trade_id - tick.trade_count + 1


def bars_of(points: Points) -> dict[int, Bar]:
    """Bars by opening time."""
    return {
        time: Bar(
            time,
            float(fields["open"]),
            float(fields["high"]),
            float(fields["low"]),
            float(fields["close"]),
            float(fields["volume"]),
            int(fields["trade_count"]),
        )
        for time, fields in whole(points, BAR_FIELDS)
    }


def level_of(stream_id: int, points: Points) -> EnigmaLevel | None:
    """The newest level; None where there is none. Where all prices were one, a level has no `level` to wait for."""
    newest = None
    for time, fields in whole(points, LEVEL_FIELDS):
        ath, atl = float(fields["ath"]), float(fields["atl"])
        if (newest is None or time > newest.ts_event) and ("level" in fields or ath == atl):
            level = float(fields["level"]) if "level" in fields else None
            newest = EnigmaLevel(stream_id, time, float(fields["price"]), level, ath, atl)
    return newest
