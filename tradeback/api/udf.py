"""TradingView's Universal Data Feed, as the adapter of its charting library reads it (versions 27 to 30).

The adapter reads every body as JSON whatever the status is: errors are `{"s":"error","errmsg"}` (`answers.py`). It
sends parameters of its own invention too, so unknown ones are passed over here.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

from falcon import Request

from tradeback.api import params
from tradeback.api.answers import Answer, Refused, write_bytes, write_json
from tradeback.api.bars import LAST_TIME, MAX_BARS, switched_off
from tradeback.api.kept_bars import BarsReader
from tradeback.api.params import SECOND_NS
from tradeback.api.stores import Stores
from tradeback.api.symbols import SymbolBook, current_price
from tradeback.config import Config
from tradeback.model import RESOLUTIONS, Gap, Symbol

# TradingView's names of our resolutions.
SERVED = {"1": "1m", "5": "5m", "15": "15m", "60": "1h", "240": "4h", "1D": "1d"}
SHORT = {"D": "1D"}
INTRADAY = [name for name in SERVED if name != "1D"]
MAX_FOUND = 100
MAX_QUOTES = 100
MARKS_A_BAR = 10
MARK_COLOR = "#d9534f"
FAR = 10**15  # seconds; the adapter asks for times far ahead


class UdfResource:
    """All its endpoints; `routes` names them."""

    routes = ("config", "symbols", "search", "history", "time", "quotes", "marks", "timescale_marks")

    def __init__(self, book: SymbolBook, stores: Stores, config: Config) -> None:
        self._book = book
        self._stores = stores
        self._bars = BarsReader(stores)
        self._bars_served = config.features.aggregation_enabled
        self._exchange = config.exchange.name.upper()

    def on_get_config(self, request: Request, response: Answer) -> None:
        write_json(
            response,
            {
                "supports_search": True,
                "supports_group_request": False,
                "supports_marks": True,
                "supports_timescale_marks": True,
                "supports_time": True,
                "exchanges": [
                    {"value": "", "name": "All exchanges", "desc": ""},
                    {"value": self._exchange, "name": self._exchange, "desc": self._exchange},
                ],
                "symbols_types": [{"name": "All types", "value": ""}, {"name": "Crypto", "value": "crypto"}],
                "supported_resolutions": list(SERVED) if self._bars_served else [],
            },
        )

    def on_get_symbols(self, request: Request, response: Answer) -> None:
        symbol = self._symbol(params.query(request, ("symbol",), strict=False))
        info = symbol.info
        write_json(
            response,
            {
                "name": info.symbol,
                "ticker": info.symbol,
                "description": _description(symbol),
                "type": "crypto",
                "session": "24x7",
                "timezone": "Etc/UTC",
                "exchange": self._exchange,
                "listed_exchange": self._exchange,
                "format": "price",
                "pricescale": 10**info.price_precision,
                "minmov": 1,
                "has_intraday": self._bars_served,
                "has_daily": self._bars_served,
                "supported_resolutions": list(SERVED) if self._bars_served else [],
                "intraday_multipliers": INTRADAY if self._bars_served else [],
                "volume_precision": info.quantity_precision,
                "data_status": "streaming",
                "currency_code": info.quote_currency,
            },
        )

    def on_get_search(self, request: Request, response: Answer) -> None:
        given = params.query(request, ("query", "type", "exchange", "limit"), strict=False)
        limit = params.integer(given, "limit", 1, FAR) or MAX_FOUND
        ours = given.get("type", "") in ("", "crypto") and given.get("exchange", "") in ("", self._exchange)
        text = given.get("query", "").rpartition(":")[2][: params.MAX_TEXT]
        found = self._book.search(text)[: min(limit, MAX_FOUND)] if ours else []
        write_json(
            response,
            [
                {
                    "symbol": symbol.name,
                    "full_name": f"{self._exchange}:{symbol.name}",
                    "description": _description(symbol),
                    "exchange": self._exchange,
                    "ticker": symbol.name,
                    "type": "crypto",
                }
                for symbol in found
            ],
        )

    def on_get_history(self, request: Request, response: Answer) -> None:
        names = ("symbol", "resolution", "from", "to", "countback")
        given = params.query(request, names, strict=False)
        resolution = _resolution(given)
        start, end = _range(given)
        countback = params.integer(given, "countback", 0, FAR)
        symbol = self._symbol(given)
        if not self._bars_served:
            raise switched_off("FEATURE_AGGREGATION_ENABLED")
        first = 0 if countback else start
        count = min(countback or MAX_BARS, MAX_BARS)
        bars = self._bars.newest(symbol, resolution, first, end, count, time.time_ns())
        if not bars:
            with self._stores.history.use() as history:
                older = history.bars(symbol.stream_id, resolution, 0, min(first, end), 1)
            place = {"nextTime": older[0].open_time // SECOND_NS} if older else {}
            write_json(response, {"s": "no_data", **place})
            return
        write_json(
            response,
            {
                "s": "ok",
                "t": [bar.open_time // SECOND_NS for bar in bars],
                "o": [bar.open for bar in bars],
                "h": [bar.high for bar in bars],
                "l": [bar.low for bar in bars],
                "c": [bar.close for bar in bars],
                "v": [bar.volume for bar in bars],
            },
        )

    def on_get_time(self, request: Request, response: Answer) -> None:
        write_bytes(response, str(int(time.time())).encode(), kind="text/plain; charset=utf-8")

    def on_get_quotes(self, request: Request, response: Answer) -> None:
        given = params.query(request, ("symbols",), strict=False)
        names = [name for name in given.get("symbols", "").split(",") if name]
        if not 1 <= len(names) <= MAX_QUOTES:
            raise params.bad("symbols", f"give 1 to {MAX_QUOTES} symbols, separated by commas")
        write_json(response, {"s": "ok", "d": [self._quote(name) for name in names]})

    def on_get_marks(self, request: Request, response: Answer) -> None:
        write_json(
            response,
            [
                {
                    "id": f"gap-{gap.first_id}",
                    "time": at,
                    "color": MARK_COLOR,
                    "text": _what_is_missing(gap),
                    "label": "G",
                    "labelFontColor": "#ffffff",
                    "minSize": 14,
                }
                for at, gap in self._gaps(request)
            ],
        )

    def on_get_timescale_marks(self, request: Request, response: Answer) -> None:
        by_time: dict[int, list[Gap]] = {}
        for at, gap in self._gaps(request):
            by_time.setdefault(at, []).append(gap)
        write_json(
            response,
            [
                {
                    "id": f"gaps-{at}",
                    "time": at,
                    "color": MARK_COLOR,
                    "label": "G",
                    "tooltip": list(map(_what_is_missing, gaps)),
                }
                for at, gaps in by_time.items()
            ],
        )

    def _symbol(self, given: dict[str, str]) -> Symbol:
        text = given.get("symbol", "")
        prefix, _, name = text.rpartition(":")
        if not name or prefix.upper() not in ("", "BINANCE", self._exchange):
            raise Refused(404, "unknown_symbol", f"unknown symbol {text[: params.MAX_TEXT]}")
        return self._book.symbol(name)

    def _quote(self, text: str) -> dict[str, Any]:
        now_ns = time.time_ns()
        try:
            symbol = self._symbol({"symbol": text})
        except Refused as error:
            return {"s": "error", "n": text, "v": {}, "errmsg": error.description}
        price = current_price(self._stores, symbol, now_ns)
        if price is None:
            return {"s": "error", "n": text, "v": {}, "errmsg": f"no trade of {symbol.name} has arrived yet"}
        day = RESOLUTIONS["1d"]
        midnight = now_ns - now_ns % day
        bars = []
        if self._bars_served:
            with self._stores.history.use() as history:
                bars = history.bars(symbol.stream_id, "1d", midnight - day, midnight + day)
        today = next((bar for bar in bars if bar.open_time == midnight), None)
        yesterday = next((bar for bar in bars if bar.open_time < midnight), None)
        opened = today.open if today else price.price
        before = yesterday.close if yesterday else opened
        values = {
            "lp": price.price,
            "bid": price.bid,
            "ask": price.ask,
            "ch": round(price.price - before, symbol.info.price_precision),
            "chp": round(100 * (price.price - before) / before, 2) if before else 0.0,
            "open_price": opened,
            "high_price": max(today.high, price.price) if today else price.price,
            "low_price": min(today.low, price.price) if today else price.price,
            "prev_close_price": before,
            "volume": price.volume,
            "short_name": symbol.name,
            "exchange": self._exchange,
            "description": _description(symbol),
        }
        return {"s": "ok", "n": text, "v": values}

    def _gaps(self, request: Request) -> Iterator[tuple[int, Gap]]:
        """Ranges of trades that are missing, at the time of the bar that lacks them, MARKS_A_BAR at most each."""
        given = params.query(request, ("symbol", "resolution", "from", "to"), strict=False)
        resolution = _resolution(given)
        start, end = _range(given)
        symbol = self._symbol(given)
        if not self._bars_served:
            return
        length = RESOLUTIONS[resolution]
        with self._stores.history.use() as history:
            bars = history.bars(symbol.stream_id, resolution, start, end, MAX_BARS)
            gaps = history.gaps(symbol.stream_id)
        times = {bar.open_time for bar in bars}
        marks: Counter[int] = Counter()
        for gap in sorted(gaps, key=lambda gap: (gap.ts_event, gap.first_id)):
            at = gap.ts_event - gap.ts_event % length
            if at in times and marks[at] < MARKS_A_BAR:
                marks[at] += 1
                yield at // SECOND_NS, gap


def _description(symbol: Symbol) -> str:
    return f"{symbol.info.base_currency} / {symbol.info.quote_currency}"


def _what_is_missing(gap: Gap) -> str:
    count = gap.last_id - gap.first_id + 1
    return f"{count} trades are missing: {gap.unfillable or 'they are being fetched'}"


def _resolution(given: dict[str, str]) -> str:
    text = given.get("resolution", "")
    name = SERVED.get(SHORT.get(text, text))
    if name is None:
        raise params.bad("resolution", f"give one of {', '.join(SERVED)}, not {text[: params.MAX_TEXT]!r}")
    return name


def _range(given: dict[str, str]) -> tuple[int, int]:
    """`from` and `to` in ns; any time is taken, ever so far ahead or back."""
    start = params.integer(given, "from", -FAR, FAR)
    end = params.integer(given, "to", -FAR, FAR)
    return _ns(start or 0), LAST_TIME if end is None else _ns(end)


def _ns(seconds: int) -> int:
    return min(max(seconds, 0), params.MAX_SECONDS) * SECOND_NS
