"""The `/sim/...` side: what a person or a test asks of the simulated exchange itself."""

from __future__ import annotations

import math
import time
from collections.abc import Awaitable, Callable
from itertools import islice
from typing import TYPE_CHECKING, Any

import orjson
from aiohttp import web

from tradeback.exchange.sim.klines import kline_rows
from tradeback.exchange.sim.ledger import MAX_BARS
from tradeback.exchange.sim.messages import text

if TYPE_CHECKING:
    from tradeback.exchange.sim.app import Sim

# Rows in one answer of /sim/trades.
TRADE_ROWS_MAX = 50_000

Query = dict[str, str]


class ControlApi:
    """The routes under `/sim/`. A bad parameter is answered 400 with a sentence."""

    def __init__(self, sim: Sim) -> None:
        self._sim = sim

    def routes(self) -> list[web.RouteDef]:
        return [
            _route("state", (), lambda query: self.state()),
            _route("pause", (), self._pause),
            _route("resume", ("messages",), self._resume),
            _route("fault", ("kind", "stream", "path", "count", "seconds"), self._fault),
            _route("clear", (), self._clear),
            _route("ledger", ("symbol",), self._ledger),
            _route("trades", ("symbol", "from_id", "limit"), self._trades),
            _route("list", ("symbol",), self._list),
            _route("delist", ("symbol",), self._delist),
            _route("bars", ("symbol",), self._bars),
            web.get("/sim/read", self._read),
        ]

    def state(self) -> dict[str, Any]:
        """Counts since the start; `drained` says whether all that was made has left this process."""
        sim, hub = self._sim, self._sim.hub
        return {
            "paused": sim.paused,
            "ended": sim.ended,
            "trades": sim.trades,
            "agg_trades": sim.agg_trades,
            "quotes": sim.quotes,
            "messages": sim.messages,
            "sent": hub.sent,
            "drained": sim.drained(),
            "behind_seconds": round(sim.behind_seconds, 3),
            "connects": hub.connects,
            "refused_connects": hub.refused,
            "rate_cuts": hub.rate_cuts,
            "slow_cuts": hub.slow_cuts,
            "connections": [
                {
                    "streams": list(connection.streams),
                    "combined": connection.combined,
                    "sent": connection.sent,
                    "unsent_bytes": connection.unsent(),
                    "age_seconds": round(time.monotonic() - connection.opened, 3),
                }
                for connection in hub.connections
            ],
            "faults": [
                {
                    "kind": fault.kind,
                    "stream": fault.stream,
                    "path": fault.path,
                    "left": fault.left,
                    "done": fault.done,
                }
                for fault in sim.faults.active
                if not fault.over()
            ],
            "faults_done": dict(sim.faults.done),
        }

    def totals(self, symbol: str) -> dict[str, Any]:
        """What was really traded: `sum` is the exact quantity, `first_kept` the oldest id still held."""
        of = self._sim.ledger.of(symbol)
        oldest = next(of.trades.from_value(0), None)
        return {
            "symbol": symbol,
            "last_id": of.last_trade,
            "count": of.trade_count,
            "sum": of.sum_text(),
            "last_agg_id": of.last_agg,
            "agg_count": of.agg_count,
            "first_kept": None if oldest is None else oldest[0],
        }

    def _pause(self, query: Query) -> dict[str, Any]:
        self._sim.pause()
        return {"paused": True}

    def _resume(self, query: Query) -> dict[str, Any]:
        messages = _count(query, "messages")
        self._sim.resume(messages)
        return {"paused": False, "messages": messages}

    def _fault(self, query: Query) -> dict[str, Any]:
        count, seconds = _count(query, "count"), _seconds(query)
        stream, path = query.get("stream"), query.get("path")
        self._sim.fault(query.get("kind", ""), stream, count, seconds, path)
        return {"kind": query["kind"], "stream": stream, "path": path, "count": count, "seconds": seconds}

    def _list(self, query: Query) -> dict[str, Any]:
        self._sim.list_symbol(query.get("symbol", ""))
        return {"listed": query["symbol"]}

    def _delist(self, query: Query) -> dict[str, Any]:
        self._sim.delist_symbol(query.get("symbol", ""))
        return {"delisted": query["symbol"]}

    def _clear(self, query: Query) -> dict[str, Any]:
        self._sim.clear_faults()
        return {"faults": []}

    def _ledger(self, query: Query) -> dict[str, Any]:
        if "symbol" not in query:
            return {name: self.totals(name) for name in self._sim.symbols}
        return self.totals(self._symbol(query))

    def _trades(self, query: Query) -> list[list[Any]]:
        """Single trades as they were made, by rising id: [id, time in µs, price, quantity, buyer is maker]."""
        of = self._sim.ledger.of(self._symbol(query))
        limit = _count(query, "limit") or TRADE_ROWS_MAX
        if limit > TRADE_ROWS_MAX:
            raise ValueError(f"limit must be at most {TRADE_ROWS_MAX}, not {limit}")
        rows = of.trades.from_value(_count(query, "from_id", 2**62) or 0)
        return [
            [trade_id, time_us, text(price), text(quantity), bool(maker)]
            for trade_id, time_us, price, quantity, maker in islice(rows, limit)
        ]

    def _bars(self, query: Query) -> list[list[Any]]:
        """The ledger's one-minute bars by rising time, in the columns of klines."""
        return kline_rows(self._sim.ledger.of(self._symbol(query)), "1m", 0, None, MAX_BARS)

    async def _read(self, request: web.Request) -> web.Response:
        """Answered once every consumer has read what it was sent until now."""
        await self._sim.hub.read_by_all()
        return web.json_response({"read": True})

    def _symbol(self, query: Query) -> str:
        symbol = query.get("symbol")
        if symbol is None or symbol not in self._sim.symbols:
            raise ValueError(f"symbol {symbol!r} is not traded here; /api/v3/exchangeInfo lists the symbols")
        return symbol


def _route(name: str, parameters: tuple[str, ...], answer: Callable[[Query], Any]) -> web.RouteDef:
    async def handle(request: web.Request) -> web.Response:
        query = dict(request.query)
        try:
            for given in query:
                if given not in parameters:
                    allowed = ", ".join(parameters) or "none"
                    raise ValueError(f"parameter {given!r} is unknown to /sim/{name}; it takes: {allowed}")
            body, status = answer(query), 200
        except ValueError as error:
            body, status = {"error": str(error)}, 400
        return web.Response(body=orjson.dumps(body), status=status, content_type="application/json")

    handler: Callable[[web.Request], Awaitable[web.StreamResponse]] = handle
    return web.get(f"/sim/{name}", handler)


def _count(query: Query, name: str, most: int = 1_000_000_000) -> int | None:
    value = query.get(name)
    if value is None:
        return None
    if not value.isascii() or not value.isdigit() or len(value) > 18 or not 1 <= int(value) <= most:
        raise ValueError(f"{name} must be a whole number from 1 to {most}, not {value!r}")
    return int(value)


def _seconds(query: Query) -> float | None:
    value = query.get("seconds")
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        seconds = math.nan
    if not 0.0 < seconds <= 86_400.0:
        raise ValueError(f"seconds must be a number above 0 and at most 86400, not {value!r}")
    return seconds
