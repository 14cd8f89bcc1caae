"""What the recorder's book says, out of InfluxDB: for a data folder that was lost while InfluxDB was kept.

Which ids are stored is told by the ticks themselves of the last minutes, of which some were still on their way when the
folder was lost; before that all ids are that are in no gap. So no trade counts twice in a bar, and what was on its
way is seen to be missing. The extremes are those of bars and levels. How far backfills were is lost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

import structlog

from tradeback.errors import HistoryError
from tradeback.model import DAY_NS, MINUTE_NS, Range, without
from tradeback.store.base import HistoryBatch
from tradeback.store.influx import FIRST_NS, LAST_NS, Influx, nanoseconds
from tradeback.store.influx_gaps import ALL_GAPS, gaps_of
from tradeback.store.influx_points import NEWEST_BY_SYMBOL, OF_EXCHANGE, SPARSE, by_time, whole

log = structlog.get_logger(__name__)

SLICE_NS = 10_000_000_000  # of ticks that are read at once
_ID_FIELDS = frozenset({"sequence", "trade_count", "flags", "price"})
_ANY_OF_THEM = " or ".join(f'r._field == "{name}"' for name in sorted(_ID_FIELDS))
_IDS = OF_EXCHANGE + f" |> filter(fn: (r) => {_ANY_OF_THEM})"
_KEPT = ' |> keep(columns: ["_time", "symbol", "_field", "_value"])'
IDS, FIRST_IDS, LAST_IDS = (_IDS + part + _KEPT for part in ("", " |> first()", " |> last()"))
_FIELD = OF_EXCHANGE + " |> filter(fn: (r) => r._field == field)"
MAX, MIN = (_FIELD + f' |> {of}() |> keep(columns: ["symbol", "_value"])' for of in ("max", "min"))

Rows = Iterable[Mapping[str, str]]


class _Ids(NamedTuple):
    """Of a tick."""

    first: int
    last: int
    sparse: bool
    time: int
    price: float


def restored(influx: Influx, exchange: str, stream_ids: Callable[[], Mapping[str, int]]) -> HistoryBatch:
    """What a book must hold of the points of an exchange; empty where there are none.

    HistoryError where the catalog, by `stream_ids`, has no symbols yet: then it cannot be told of whom the points are.
    """

    def ask(flux: str, name: str, start: int = FIRST_NS, stop: int = LAST_NS, **more: str) -> Rows:
        return influx.query(flux, measurement=name, exchange=exchange, start=start, stop=stop, **more)

    newest = _by_symbol(ask(LAST_IDS, "trades"))
    oldest = _by_symbol(ask(FIRST_IDS, "trades"))
    gaps = gaps_of(ask(ALL_GAPS, "gaps"))
    prices: dict[str, list[float]] = {}
    _widen(prices, ask, "ohlcv_1d", FIRST_NS, ("high", "low"))
    minutes = [nanoseconds(row["_time"]) for row in ask(NEWEST_BY_SYMBOL, "ohlcv_1m")]
    if minutes:
        # What is of no whole day yet.
        _widen(prices, ask, "ohlcv_1m", max(minutes) - 2 * DAY_NS, ("high", "low"))
    for row in ask(NEWEST_BY_SYMBOL, "enigma"):
        if row["_field"] in ("ath", "atl"):
            prices.setdefault(row["symbol"], []).append(float(row["_value"]))
    recent: dict[str, list[_Ids]] = {}
    if newest:
        last = max(tick.time for ticks in newest.values() for tick in ticks)
        start = last - last % MINUTE_NS - MINUTE_NS
        for at in range(start, last + 1, SLICE_NS):
            for symbol, ticks in _by_symbol(ask(IDS, "trades", at, min(at + SLICE_NS, last + 1))).items():
                recent.setdefault(symbol, []).extend(ticks)
    for symbol, ticks in (*oldest.items(), *newest.items(), *recent.items()):
        prices.setdefault(symbol, []).extend(tick.price for tick in ticks)
    if not prices and not gaps:
        return HistoryBatch()
    known = stream_ids()
    if not known:
        raise HistoryError(
            f"InfluxDB at {influx.place} has the history of {len(prices)} symbols, and the catalog has no symbols "
            "yet: it comes from the exchange, or by `tradeback symbols sync`"
        )
    missing: dict[str, list[Range]] = {}
    for (symbol, _, _), gap in gaps.items():
        missing.setdefault(symbol, []).append((gap.first_id, gap.last_id))
    log.warning(
        "the data folder has no history and InfluxDB has: which trades are stored and which are missing is taken "
        "over from there",
        symbols=len(known.keys() & prices.keys()),
        symbols_unknown=len(prices.keys() - known.keys()),
        gaps=len(gaps),
    )
    return HistoryBatch(
        covered=[
            (known[symbol], first, last)
            for symbol in known.keys() & newest.keys() & oldest.keys()
            for first, last in without(
                list(_joined(_stored(oldest[symbol][0], newest[symbol][0], recent.get(symbol, [])))),
                sorted(missing.get(symbol, [])),
            )
        ],
        gaps=[gap._replace(stream_id=known[key[0]]) for key, gap in gaps.items() if key[0] in known],
        extremes=[
            (known[symbol], max(values), min(values)) for symbol, values in prices.items() if symbol in known
        ],
    )


def _stored(oldest: _Ids, newest: _Ids, recent: list[_Ids]) -> list[Range]:
    """The ids from the oldest tick to the newest, of the `recent` ones those alone that there are."""
    if not recent or any(tick.sparse for tick in recent):  # of whose ids only the last is known
        return [(oldest.first, max(newest.last, *(tick.last for tick in recent), oldest.first))]
    before = min(tick.first for tick in recent) - 1
    ranges = [(tick.first, tick.last) for tick in recent]
    return [(oldest.first, before), *ranges] if oldest.first <= before else ranges


def _joined(ranges: list[Range]) -> Iterator[Range]:
    """The same ids in ranges that rise and do not touch."""
    ranges.sort()
    first, last = ranges[0]
    for low, high in ranges[1:]:
        if low > last + 1:
            yield first, last
            first = low
        last = max(last, high)
    yield first, last


def _by_symbol(rows: Rows) -> dict[str, list[_Ids]]:
    of_symbol: dict[str, list[Mapping[str, str]]] = {}
    for row in rows:
        of_symbol.setdefault(row["symbol"], []).append(row)
    ticks = {symbol: list(_ids(some)) for symbol, some in of_symbol.items()}
    return {symbol: some for symbol, some in ticks.items() if some}


def _ids(rows: Rows) -> Iterator[_Ids]:
    for time, fields in whole(by_time(rows), _ID_FIELDS):
        last, sparse = int(fields["sequence"]), bool(int(fields["flags"]) & SPARSE)
        first = last if sparse else last - int(fields["trade_count"]) + 1
        yield _Ids(first, last, sparse, time, float(fields["price"]))


def _widen(
    prices: dict[str, list[float]],
    ask: Callable[..., Rows],
    name: str,
    start: int,
    fields: tuple[str, str],
) -> None:
    """Add the highest and the lowest price of each symbol's points from `start` on."""
    for flux, field in zip((MAX, MIN), fields, strict=True):
        for row in ask(flux, name, start, field=field):
            prices.setdefault(row["symbol"], []).append(float(row["_value"]))
