"""Bars and Enigma levels."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

import orjson
from falcon import Request

from tradeback.api import params
from tradeback.api.answers import NO_STORE, Answer, Refused, write_bytes, write_json, write_tagged
from tradeback.api.kept_bars import SETTLED_NS, BarsReader
from tradeback.api.params import SECOND_NS
from tradeback.api.stores import Stores
from tradeback.api.symbols import SymbolBook
from tradeback.config import FeaturesConfig
from tradeback.model import MS_NS, RESOLUTIONS, Bar

DEFAULT_BARS = 300
MAX_BARS = 5_000
LAST_TIME = params.MAX_SECONDS * SECOND_NS
# Until a bar is settled its answer is kept if it is asked after each time, from then on for a minute.
CLOSING, CLOSED = "public, no-cache", "public, max-age=60"


def switched_off(feature: str) -> Refused:
    """The refusal of what a setting has switched off."""
    return Refused(404, "switched_off", f"{feature} is false: the operator has switched this off.")


def as_json(bars: Iterable[Bar]) -> list[dict[str, Any]]:
    """Bars as answers have them; their times in unix seconds."""
    return [
        {
            "time": time_ns // SECOND_NS,
            "open": open_,
            "high": high,
            "low": low,
            "close": close,
            "volume": volume,
        }
        for time_ns, open_, high, low, close, volume, _ in bars
    ]


class BarsResource:
    """`GET /symbols/{symbol}/bars`."""

    def __init__(self, book: SymbolBook, stores: Stores, features: FeaturesConfig) -> None:
        self._book = book
        self._bars = BarsReader(stores)
        self._features = features

    def on_get(self, request: Request, response: Answer, symbol: str) -> None:
        given = params.query(request, ("resolution", "from", "to", "limit"))
        resolution = params.resolution(given)
        start = params.seconds(given, "from")
        end = params.seconds(given, "to")
        limit = params.integer(given, "limit", 1, MAX_BARS)
        if start is not None and end is not None and start >= end:
            raise params.bad("from", "it must lie before `to`")
        if not self._features.aggregation_enabled:
            raise switched_off("FEATURE_AGGREGATION_ENABLED")
        known = self._book.symbol(symbol)
        count = limit or (DEFAULT_BARS if start is None else MAX_BARS)
        now_ns = time.time_ns()
        bars = self._bars.newest(
            known, resolution, start or 0, LAST_TIME if end is None else end, count + 1, now_ns
        )
        body = orjson.dumps(
            {
                "symbol": symbol,
                "resolution": resolution,
                "bars": as_json(bars[-count:]),
                "truncated": start is not None and len(bars) > count,
            }
        )
        if end is not None and end <= now_ns - now_ns % RESOLUTIONS[resolution]:
            settled = end <= now_ns - SETTLED_NS
            write_tagged(request, response, body, cache=CLOSED if settled else CLOSING)
        else:
            write_bytes(response, body, cache=NO_STORE)


class EnigmaResource:
    """`GET /symbols/{symbol}/enigma`."""

    def __init__(self, book: SymbolBook, stores: Stores, features: FeaturesConfig) -> None:
        self._book = book
        self._stores = stores
        self._features = features

    def on_get(self, request: Request, response: Answer, symbol: str) -> None:
        params.query(request, ())
        if not self._features.enigma_enabled:
            raise switched_off("FEATURE_ENIGMA_ENABLED")
        known = self._book.symbol(symbol)
        with self._stores.history.use() as history:
            level = history.enigma(known.stream_id)
        if level is None:
            raise Refused(404, "no_level", f"No trade of {symbol} is stored yet, so it has no level.")
        write_json(
            response,
            {
                "symbol": symbol,
                "level": level.level,
                "ath": level.ath,
                "atl": level.atl,
                "current_price": level.price,
                "fib_levels": level.fib_levels,
                "timestamp": level.ts_event // MS_NS,
            },
        )
