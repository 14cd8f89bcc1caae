"""Health: alive, ready, and what each component says; and where the WebSocket is."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import structlog
from falcon import Request, Response

from tradeback.api import params
from tradeback.api.answers import Refused, write_bytes, write_json
from tradeback.api.metrics import read_counters
from tradeback.api.stores import Stores, Unavailable
from tradeback.api.symbols import MS_NS, SymbolBook, current_price

log = structlog.get_logger(__name__)

ALIVE = b'{"status":"ok"}'


class Components:
    """Asks each component one question that it must be able to answer."""

    def __init__(self, book: SymbolBook, stores: Stores) -> None:
        self._book = book
        self._stores = stores
        self.questions: dict[str, Callable[[], dict[str, Any]]] = {
            "catalog": self._catalog,
            "history": self._history,
            "prices": self._prices,
        }

    def _catalog(self) -> dict[str, Any]:
        with self._stores.catalog.use() as catalog:
            catalog.symbol("")
        return {"active_symbols": len(self._book.listing().active)}

    def _history(self) -> dict[str, Any]:
        with self._stores.history.use() as history:
            return {"journal_places": history.places()}

    def _prices(self) -> dict[str, Any]:
        now_ns = time.time_ns()
        prices = [current_price(self._stores, symbol, now_ns) for symbol in self._book.listing().active]
        heard = [price.ts_recv for price in prices if price is not None]
        age = max(0, now_ns - max(heard)) // MS_NS if heard else None
        return {"symbols_with_price": len(heard), "feed_age_ms": age}

    def ask(self, name: str) -> dict[str, Any]:
        """Its state, `ok` or `unavailable`, and how long it took to say so."""
        began = time.perf_counter()
        try:
            told = {"state": "ok", **self.questions[name]()}
        except Unavailable as error:
            log.warning("a component cannot be read", component=error.component, reason=str(error))
            told = {"state": "unavailable"}
        return {**told, "latency_ms": round((time.perf_counter() - began) * 1000, 3)}


class HealthResource:
    """`GET /health`: it touches nothing; `/health/ready` and `/health/detailed` ask."""

    def __init__(self, components: Components, stores: Stores) -> None:
        self._components = components
        self._stores = stores

    def on_get(self, request: Request, response: Response) -> None:
        write_bytes(response, ALIVE)

    def on_get_ready(self, request: Request, response: Response) -> None:
        params.query(request, ())
        states = {name: self._components.ask(name)["state"] for name in self._components.questions}
        self._answer(response, {"components": states}, all(state == "ok" for state in states.values()))

    def on_get_detailed(self, request: Request, response: Response) -> None:
        params.query(request, ())
        components = {name: self._components.ask(name) for name in self._components.questions}
        try:
            processes = {
                name: {
                    "state": "running" if reading.running else "ended",
                    "started_ms": reading.started_ns // MS_NS,
                }
                for name, reading in read_counters(self._stores).items()
            }
        except Unavailable as error:
            log.warning("a component cannot be read", component=error.component, reason=str(error))
            components["counters"] = {"state": "unavailable"}
            processes = {}
        fine = all(told["state"] == "ok" for told in components.values())
        self._answer(response, {"components": components, "processes": processes}, fine)

    @staticmethod
    def _answer(response: Response, content: dict[str, Any], fine: bool) -> None:
        response.status = 200 if fine else 503
        write_json(response, {"status": "ok" if fine else "unavailable", **content})


class WebSocketResource:
    """`GET /ws` on this port: 426, with the address at which the event server takes WebSockets."""

    def __init__(self, port: int) -> None:
        self._port = port

    def on_get(self, request: Request, response: Response) -> None:
        host = f"[{request.host}]" if ":" in request.host else request.host
        address = f"ws://{host}:{self._port}/api/v1/ws"
        raise Refused(
            426,
            "upgrade_required",
            f"WebSockets are taken at {address}.",
            websocket=address,
            headers={"Upgrade": "websocket", "Connection": "Upgrade"},
        )
