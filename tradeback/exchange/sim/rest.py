"""The HTTP side: market data as the exchange's REST API answers it, with weights, refusals and faults.

Errors have the exchange's own shape, `{"code": -1121, "msg": "Invalid symbol."}`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import orjson
from aiohttp import web

from tradeback.exchange.binance import REST_WEIGHTS, REST_WEIGHTS_ALL
from tradeback.exchange.sim.faults import Fault, Faults
from tradeback.exchange.sim.history import History
from tradeback.exchange.sim.klines import INTERVALS_MS, kline_rows
from tradeback.exchange.sim.ledger import Ledger, SymbolLedger
from tradeback.exchange.sim.market import MarketSymbol
from tradeback.exchange.sim.messages import text

# After so many requests over the limit the address is banned.
TOLERATED_OVER_LIMIT = 20
BAN_SECONDS = 120
STALL_SECONDS = 30.0
DAY_MS = 86_400_000

Query = dict[str, str]
Answer = tuple[int, Any]


@dataclass(frozen=True, slots=True)
class SymbolRow:
    """A symbol in exchangeInfo: the row as the exchange gives it, `tickSize` and all."""

    name: str
    row: dict[str, Any]


class Refusal(Exception):
    """An answer that is the exchange's error body."""

    def __init__(self, code: int, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message


def symbol_row(name: str, base: str, quote: str, tick: str, step: str) -> SymbolRow:
    """A row of exchangeInfo with the filters that matter here."""
    row = {
        "symbol": name,
        "status": "TRADING",
        "baseAsset": base,
        "baseAssetPrecision": 8,
        "quoteAsset": quote,
        "quotePrecision": 8,
        "quoteAssetPrecision": 8,
        "orderTypes": ["LIMIT", "LIMIT_MAKER", "MARKET"],
        "isSpotTradingAllowed": True,
        "isMarginTradingAllowed": False,
        "filters": [
            {
                "filterType": "PRICE_FILTER",
                "minPrice": tick,
                "maxPrice": "1000000.00000000",
                "tickSize": tick,
            },
            {"filterType": "LOT_SIZE", "minQty": step, "maxQty": "92141578.00000000", "stepSize": step},
            {"filterType": "NOTIONAL", "minNotional": "5.00000000", "applyMinToMarket": True},
        ],
        "permissions": ["SPOT"],
    }
    return SymbolRow(name, row)


def rows_of_market(symbols: Iterable[MarketSymbol]) -> dict[str, SymbolRow]:
    return {s.name: symbol_row(s.name, s.base, s.quote, text(s.tick), text(s.step)) for s in symbols}


class MarketRest:
    """The routes of `/api/v3`, and the weight each costs."""

    def __init__(
        self,
        symbols: dict[str, SymbolRow],
        ledger: Ledger,
        faults: Faults,
        weight_limit: int,
        history: History | None = None,
        *,
        market_data_only: bool = False,
    ) -> None:
        self.symbols = symbols
        self.ledger = ledger
        self.history = history
        self.faults = faults
        self.weight_limit = weight_limit
        self.requests = 0
        # Unix seconds by which weights are counted; a test may stop it.
        self.clock: Callable[[], float] = time.time
        self.stopping = asyncio.Event()
        self.runner: web.AppRunner | None = None
        self._used = 0
        self._minute = 0
        self._over = 0
        self._banned_until = 0.0
        self._html = 0
        self.routes: dict[str, Callable[[Query], Any]] = {
            "ping": lambda query: {},
            "time": lambda query: {"serverTime": _now_ms()},
            "exchangeInfo": self._exchange_info,
            "klines": self._klines,
            "trades": self._trades,
            "historicalTrades": self._historical_trades,
            "aggTrades": self._agg_trades,
            "ticker/24hr": self._ticker_24hr,
            "ticker/price": self._ticker_price,
            "ticker/bookTicker": self._ticker_book,
        }
        if market_data_only:
            del self.routes["historicalTrades"]

    async def stop(self) -> None:
        self.stopping.set()
        if self.runner is not None:
            await self.runner.cleanup()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.requests += 1
        path = request.match_info["path"]
        fault = self.faults.on_rest(path)
        if fault is not None:
            spoiled = await self._spoil(fault)
            if spoiled is not None:
                return spoiled
        now = self.clock()
        if int(now // 60) != self._minute:
            self._minute, self._used, self._over = int(now // 60), 0, 0
        if now < self._banned_until:
            return self._refuse(418, self._banned_until - now)
        query = dict(request.query)
        answer = self.routes.get(path)
        if answer is None:
            return web.Response(
                status=404, text="<html><body><h2>404 Not found</h2></body></html>", content_type="text/html"
            )
        self._used += (
            REST_WEIGHTS[path] if "symbol" in query else REST_WEIGHTS_ALL.get(path, REST_WEIGHTS[path])
        )
        if self._used > self.weight_limit:
            self._over += 1
            if self._over > TOLERATED_OVER_LIMIT:
                self._banned_until = now + BAN_SECONDS
                return self._refuse(418, BAN_SECONDS)
            return self._refuse(429, 60 - now % 60)
        try:
            body = answer(query)
        except Refusal as refusal:
            return self._json({"code": refusal.code, "msg": refusal.message}, refusal.status)
        if isinstance(body, list) and body and self.faults.on_rows(path):
            body = [_wrong_columns(row) for row in body]
        data = orjson.dumps(body)
        if fault is not None:
            data = data[: len(data) * 2 // 3]
        return self._answer(data, 200)

    def _json(self, body: object, status: int, headers: dict[str, str] | None = None) -> web.Response:
        return self._answer(orjson.dumps(body), status, headers)

    def _answer(self, data: bytes, status: int, headers: dict[str, str] | None = None) -> web.Response:
        all_headers = {
            "X-MBX-USED-WEIGHT": str(self._used),
            "X-MBX-USED-WEIGHT-1M": str(self._used),
            **(headers or {}),
        }
        return web.Response(body=data, status=status, headers=all_headers, content_type="application/json")

    def _refuse(self, status: int, seconds: float) -> web.Response:
        wait = max(int(seconds) + 1, 1)
        until = _now_ms() + wait * 1_000
        message = (
            f"Way too much request weight used; IP banned until {until}. "
            "Please use WebSocket Streams for live updates to avoid bans."
            if status == 418
            else f"Too much request weight used; current limit is {self.weight_limit} per 1 MINUTE. "
            "Please use WebSocket Streams for live updates to avoid polling the API."
        )
        return self._json({"code": -1003, "msg": message}, status, {"Retry-After": str(wait)})

    async def _spoil(self, fault: Fault) -> web.Response | None:
        """The answer that a fault puts in place of the right one; None: the right one, to be cut short."""
        kind = fault.kind
        left = 0.0 if fault.until is None else max(fault.until - time.monotonic(), 0.0)
        if kind == "rest429":
            return self._refuse(429, left)
        if kind == "rest418":
            return self._refuse(418, left)
        if kind == "rest5xx":
            return self._json(
                {"code": -1000, "msg": "An unknown error occurred while processing the request."}, 503
            )
        if kind == "html":
            self._html += 1
            page = "<html><head><title>502 Bad Gateway</title></head><body>nginx</body></html>"
            return web.Response(status=200 if self._html % 2 else 502, text=page, content_type="text/html")
        if kind == "stall":
            until = time.monotonic() + (left or STALL_SECONDS)
            while not fault.cleared and time.monotonic() < until:
                if self.stopping.is_set():
                    return web.Response(status=503)
                await asyncio.sleep(0.05)
            message = "Timeout waiting for response from backend server."
            return self._json({"code": -1007, "msg": message}, 504)
        return None

    # Parameters.

    def _symbol(self, query: Query) -> SymbolLedger:
        name = query.get("symbol", "")
        if not name:
            raise Refusal(-1102, "Mandatory parameter 'symbol' was not sent, was empty/null, or malformed.")
        if name not in self.symbols:
            raise Refusal(-1121, "Invalid symbol.")
        return self.ledger.of(name)

    def _several(self, query: Query) -> list[str] | None:
        """The symbols asked for: None is all of them."""
        if "symbol" in query:
            return [self._symbol(query).symbol]
        if "symbols" not in query:
            return None
        try:
            names = orjson.loads(query["symbols"])
        except orjson.JSONDecodeError:
            names = None
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise Refusal(-1100, "Illegal characters found in parameter 'symbols'.")
        if not self.symbols.keys() >= set(names):
            raise Refusal(-1121, "Invalid symbol.")
        return names

    # Answers.

    def _exchange_info(self, query: Query) -> Any:
        wanted = self._several(query)
        return {
            "timezone": "UTC",
            "serverTime": _now_ms(),
            "rateLimits": [
                {
                    "rateLimitType": "REQUEST_WEIGHT",
                    "interval": "MINUTE",
                    "intervalNum": 1,
                    "limit": self.weight_limit,
                },
                {"rateLimitType": "ORDERS", "interval": "SECOND", "intervalNum": 10, "limit": 100},
                {"rateLimitType": "RAW_REQUESTS", "interval": "MINUTE", "intervalNum": 5, "limit": 61_000},
            ],
            "exchangeFilters": [],
            "symbols": [self.symbols[name].row for name in (self.symbols if wanted is None else wanted)],
        }

    def _klines(self, query: Query) -> Any:
        ledger = self._symbol(query)
        interval = query.get("interval", "")
        if not interval:
            raise Refusal(-1102, "Mandatory parameter 'interval' was not sent, was empty/null, or malformed.")
        if interval not in INTERVALS_MS:
            raise Refusal(-1120, "Invalid interval.")
        start, end = _number(query, "startTime"), _number(query, "endTime")
        return kline_rows(ledger, interval, start, end, _limit(query), self.history)

    def _trades(self, query: Query) -> Any:
        ledger = self._symbol(query)
        return [_trade_row(row) for row in ledger.trades.latest(_limit(query))]

    def _historical_trades(self, query: Query) -> Any:
        ledger = self._symbol(query)
        limit, first = _limit(query), _number(query, "fromId")
        if first is None:
            return [_trade_row(row) for row in ledger.trades.latest(limit)]
        return [
            _trade_row(row) for row, _ in zip(ledger.trades.from_value(first), range(limit), strict=False)
        ]

    def _agg_trades(self, query: Query) -> Any:
        ledger = self._symbol(query)
        limit, first = _limit(query), _number(query, "fromId")
        start, end = _number(query, "startTime"), _number(query, "endTime")
        if first is not None and (start is not None or end is not None):
            raise Refusal(-1128, "Combination of optional parameters invalid.")
        if first is not None:
            rows = ledger.aggs.from_value(first)
        elif start is not None:
            rows = ledger.aggs.from_value(start * 1_000, 1)
        elif end is not None:
            before = [row for row in ledger.aggs.from_value(0) if row[1] // 1_000 <= end]
            return [_agg_row(row) for row in before[-limit:]]
        else:
            return [_agg_row(row) for row in ledger.aggs.latest(limit)]
        found: list[dict[str, Any]] = []
        for row in rows:
            if len(found) == limit or (end is not None and row[1] // 1_000 > end):
                break
            found.append(_agg_row(row))
        return found

    def _tickers(self, query: Query, make: Callable[[SymbolLedger], dict[str, Any]]) -> Any:
        wanted = self._several(query)
        if "symbol" in query:
            return make(self.ledger.of(query["symbol"]))
        return [make(self.ledger.of(name)) for name in (self.symbols if wanted is None else wanted)]

    def _last_price(self, of: SymbolLedger) -> int:
        if of.bars:
            return of.bars[next(reversed(of.bars))].close
        if self.history is not None:
            return self.history.last_price(of.symbol)
        return of.last_quote[1] if of.last_quote else 0

    def _ticker_price(self, query: Query) -> Any:
        return self._tickers(query, lambda of: {"symbol": of.symbol, "price": text(self._last_price(of))})

    def _ticker_book(self, query: Query) -> Any:
        def make(of: SymbolLedger) -> dict[str, Any]:
            _, bid, bid_qty, ask, ask_qty = of.last_quote or (0, 0, 0, 0, 0)
            return {
                "symbol": of.symbol,
                "bidPrice": text(bid),
                "bidQty": text(bid_qty),
                "askPrice": text(ask),
                "askQty": text(ask_qty),
            }

        return self._tickers(query, make)

    def _ticker_24hr(self, query: Query) -> Any:
        now = _now_ms()

        def make(of: SymbolLedger) -> dict[str, Any]:
            bars = [bar for minute, bar in of.bars.items() if minute > now - DAY_MS]
            count = sum(bar.trades for bar in bars)
            first_id, last_id = (bars[0].first_id, bars[-1].last_id) if bars else (-1, -1)
            before = self.history and self.history.since(of.symbol, now - DAY_MS)
            if before:
                bars.insert(0, before)
                count += before.trades
                first_id = max(last_id - count + 1, -1)
            last = self._last_price(of)
            first = bars[0].open if bars else last
            volume = sum(bar.volume for bar in bars)
            quote = sum(bar.quote_volume for bar in bars) // 100_000_000
            change = last - first
            _, bid, bid_qty, ask, ask_qty = of.last_quote or (0, 0, 0, 0, 0)
            return {
                "symbol": of.symbol,
                "priceChange": ("-" if change < 0 else "") + text(abs(change)),
                "priceChangePercent": f"{100 * change / first if first else 0.0:.3f}",
                "weightedAvgPrice": text(quote * 100_000_000 // volume if volume else 0),
                "prevClosePrice": text(first),
                "lastPrice": text(last),
                "lastQty": text(of.trades.latest(1)[0][3] if len(of.trades) else 0),
                "bidPrice": text(bid),
                "bidQty": text(bid_qty),
                "askPrice": text(ask),
                "askQty": text(ask_qty),
                "openPrice": text(first),
                "highPrice": text(max((bar.high for bar in bars), default=last)),
                "lowPrice": text(min((bar.low for bar in bars), default=last)),
                "volume": text(volume),
                "quoteVolume": text(quote),
                "openTime": now - DAY_MS,
                "closeTime": now,
                "firstId": first_id,
                "lastId": last_id,
                "count": count,
            }

        return self._tickers(query, make)


async def serve(rest: MarketRest, control: list[web.RouteDef], host: str, port: int) -> int:
    """Listen with the exchange's routes and the `/sim/` ones; gives the port."""
    app = web.Application()
    app.router.add_get("/api/v3/{path:.+}", rest.handle)
    app.add_routes(control)
    rest.runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
    await rest.runner.setup()
    site = web.TCPSite(rest.runner, host, port)
    await site.start()
    return int(rest.runner.addresses[0][1])


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _number(query: Query, name: str) -> int | None:
    value = query.get(name)
    if value is None:
        return None
    if not value.isascii() or not value.isdigit() or len(value) > 19:
        raise Refusal(
            -1100, f"Illegal characters found in parameter '{name}'; legal range is '^[0-9]{{1,20}}$'."
        )
    return int(value)


def _limit(query: Query) -> int:
    limit = _number(query, "limit")
    if limit == 0:
        raise Refusal(-1130, "Data sent for parameter 'limit' is not valid.")
    return min(500 if limit is None else limit, 1_000)


def _trade_row(row: tuple[int, ...]) -> dict[str, Any]:
    trade_id, time_us, price, quantity, maker = row
    return {
        "id": trade_id,
        "price": text(price),
        "qty": text(quantity),
        "quoteQty": text(price * quantity // 100_000_000),
        "time": time_us // 1_000,
        "isBuyerMaker": bool(maker),
        "isBestMatch": True,
    }


def _agg_row(row: tuple[int, ...]) -> dict[str, Any]:
    agg_id, time_us, price, quantity, maker, first, last = row
    return {
        "a": agg_id,
        "p": text(price),
        "q": text(quantity),
        "f": first,
        "l": last,
        "T": time_us // 1_000,
        "m": bool(maker),
        "M": True,
    }


def _wrong_columns(row: Any) -> Any:
    if isinstance(row, list):
        return [*row[:3], "not a price", None]
    return {("x" + name): value for name, value in row.items()}
