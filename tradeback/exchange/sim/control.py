"""The `/sim/...` side: what a person or a test asks of the simulated exchange itself."""

from __future__ import annotations

import math
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import orjson
from aiohttp import web

if TYPE_CHECKING:
    from tradeback.exchange.sim.app import Sim

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
            _route("fault", ("kind", "stream", "count", "seconds"), self._fault),
            _route("clear", (), self._clear),
            _route("ledger", ("symbol",), self._ledger),
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
                {"kind": fault.kind, "stream": fault.stream, "left": fault.left, "done": fault.done}
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
        stream = query.get("stream")
        self._sim.fault(query.get("kind", ""), stream, count, seconds)
        return {"kind": query["kind"], "stream": stream, "count": count, "seconds": seconds}

    def _clear(self, query: Query) -> dict[str, Any]:
        self._sim.clear_faults()
        return {"faults": []}

    def _ledger(self, query: Query) -> dict[str, Any]:
        symbol = query.get("symbol")
        if symbol is None:
            return {name: self.totals(name) for name in self._sim.symbols}
        if symbol not in self._sim.symbols:
            raise ValueError(f"symbol {symbol!r} is not traded here; /api/v3/exchangeInfo lists the symbols")
        return self.totals(symbol)


def _route(name: str, parameters: tuple[str, ...], answer: Callable[[Query], dict[str, Any]]) -> web.RouteDef:
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


def _count(query: Query, name: str) -> int | None:
    value = query.get(name)
    if value is None:
        return None
    if not value.isascii() or not value.isdigit() or not 1 <= int(value) <= 1_000_000_000:
        raise ValueError(f"{name} must be a whole number from 1 on, not {value!r}")
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
