"""Gaps as points in InfluxDB: for readers without the recorder's data folder, whose `history.sqlite` has them too.

    gaps    tags exchange, symbol, part; first_id, missing, reason, state, ts_event

A point's time is the millisecond in which the gap was given up plus `first_id` modulo 10**6, in ns; its tag `part` is
`first_id` // 10**6. So gaps of one time are as many points, and one that is written again is the same point: shorter,
or with `missing` 0, which is a gap no more. A point is never deleted, since InfluxDB takes its time for that.
`state` is `open`, or tells why the trades cannot be had. It is never empty: beside an empty text InfluxDB 2.7 reads the
texts of other points in its place.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from tradeback.model import Gap
from tradeback.store.influx import escape_tag, escape_text, nanoseconds
from tradeback.store.influx_points import OF_EXCHANGE, OF_SYMBOL

IDS_A_PART = MS = 1_000_000
OPEN = "open"
FIELDS = frozenset({"first_id", "missing", "reason", "state", "ts_event"})

GAPS = OF_SYMBOL + ' |> keep(columns: ["_time", "part", "_field", "_value"])'
ALL_GAPS = OF_EXCHANGE + ' |> keep(columns: ["_time", "symbol", "part", "_field", "_value"])'
# (symbol, part, time): which point it is
Key = tuple[str, int, int]


def key_of(symbol: str, gap: Gap) -> Key:
    """Which point a gap is."""
    part, rest = divmod(gap.first_id, IDS_A_PART)
    return symbol, part, gap.ts_event - gap.ts_event % MS + rest


def gap_line(exchange: str, symbol: str, gap: Gap) -> bytes:
    """A gap's line."""
    missing = gap.last_id - gap.first_id + 1
    fields = (
        f"first_id={gap.first_id}i,missing={missing}i,reason={gap.reason}i,"
        f'state="{escape_text(gap.unfillable or OPEN)}",ts_event={gap.ts_event}i'
    )
    return _line(exchange, key_of(symbol, gap), fields)


def filled_line(exchange: str, key: Key) -> bytes:
    """The line that says of a gap that it is none any more."""
    return _line(exchange, key, "missing=0i")


def _line(exchange: str, key: Key, fields: str) -> bytes:
    symbol, part, time = key
    tags = f"exchange={escape_tag(exchange)},symbol={escape_tag(symbol)},part={part}"
    return f"gaps,{tags} {fields} {time}\n".encode()


def gaps_of(rows: Iterable[Mapping[str, str]], symbol: str = "") -> dict[Key, Gap]:
    """The gaps by their points, without their stream ids. The rows are those of GAPS for a symbol, or of ALL_GAPS."""
    points: dict[Key, dict[str, str]] = {}
    for row in rows:
        key = row.get("symbol", symbol), int(row["part"]), nanoseconds(row["_time"])
        points.setdefault(key, {})[row["_field"]] = row["_value"]
    return {
        key: Gap(
            0,
            int(fields["first_id"]),
            int(fields["first_id"]) + int(fields["missing"]) - 1,
            int(fields["ts_event"]),
            int(fields["reason"]),
            "" if fields["state"] == OPEN else fields["state"],
        )
        for key, fields in points.items()
        if fields.keys() >= FIELDS and fields["missing"] != "0"
    }
