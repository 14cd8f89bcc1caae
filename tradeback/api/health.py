"""Health: alive, ready, and what each component says; and where the WebSocket is."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import structlog
from falcon import Request

from tradeback.api import params
from tradeback.api.answers import Answer, Refused, write_bytes, write_json
from tradeback.api.metrics import read_counters
from tradeback.api.stores import Stores, Unavailable
from tradeback.api.symbols import MS_NS, SymbolBook, current_price
from tradeback.errors import HistoryError
from tradeback.store.stats import Reading

log = structlog.get_logger(__name__)

PROCESSES = ("server", "recorder")
# Of the recorder, as it counts them: `recorder/counters.py`.
SINKS = ("history", "indicators", "cache", "bus")
SINK_STATES = {1: "ok", 2: "failing"}
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
            history.check()
            places: dict[str, int] = {}
            with suppress(HistoryError):  # they are not kept where this machine could read them
                places = history.places()
            return {"journal_places": places}

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
        return _took(began, told)


class HealthResource:
    """`GET /health`: it touches nothing; `/health/ready` and `/health/detailed` ask.

    503 where something cannot be read. Where all can be read, but a process is not running, one of the recorder's sinks
    fails, or the exchange has been silent for `mute_limit` seconds, the detailed one says `degraded` with 200: what is
    stored is answered all the same.
    """

    def __init__(self, components: Components, stores: Stores, mute_limit: float) -> None:
        self._components = components
        self._stores = stores
        self._mute_ms = mute_limit * 1000

    def on_get(self, request: Request, response: Answer) -> None:
        write_bytes(response, ALIVE)

    def on_get_ready(self, request: Request, response: Answer) -> None:
        params.query(request, ())
        states = {name: self._components.ask(name)["state"] for name in self._components.questions}
        self._answer(response, {"components": states}, all(state == "ok" for state in states.values()))

    def on_get_detailed(self, request: Request, response: Answer) -> None:
        params.query(request, ())
        components = {name: self._components.ask(name) for name in self._components.questions}
        feed = self._feed(components["prices"].pop("feed_age_ms", None))
        began = time.perf_counter()
        try:
            read = read_counters(self._stores)
        except Unavailable as error:
            log.warning("a component cannot be read", component=error.component, reason=str(error))
            components["counters"] = _took(began, {"state": "unavailable"})
            processes = {name: _process("unknown") for name in PROCESSES}
            sinks: dict[str, dict[str, Any]] = {}
        else:
            components["counters"] = _took(began, {"state": "ok"})
            processes = {name: _process("never started") for name in PROCESSES} | {
                name: _process("running" if reading.running else "ended", reading.started_ns)
                for name, reading in read.items()
            }
            sinks = _sinks(read.get("recorder"))
        running = all(processes[name]["state"] == "running" for name in PROCESSES)
        self._answer(
            response,
            {"components": components, "feed": feed, "processes": processes, "sinks": sinks},
            all(told["state"] == "ok" for told in components.values()),
            fresh=running and feed["state"] == "ok" and all(sink["state"] == "ok" for sink in sinks.values()),
        )

    def _feed(self, age_ms: int | None) -> dict[str, Any]:
        """Whether the exchange was heard of lately: a connection that is silent for longer is given up."""
        silent = age_ms is None or age_ms > self._mute_ms
        return {"state": "silent" if silent else "ok", "age_ms": age_ms}

    @staticmethod
    def _answer(response: Answer, content: dict[str, Any], readable: bool, *, fresh: bool = True) -> None:
        response.status = 200 if readable else 503
        state = ("ok" if fresh else "degraded") if readable else "unavailable"
        write_json(response, {"status": state, **content})


def _took(began: float, told: dict[str, Any]) -> dict[str, Any]:
    return {**told, "latency_ms": round((time.perf_counter() - began) * 1000, 3)}


def _process(state: str, started_ns: int | None = None) -> dict[str, Any]:
    return {"state": state, "started_ms": None if started_ns is None else started_ns // MS_NS}


def _sinks(recorder: Reading | None) -> dict[str, dict[str, Any]]:
    """What the recorder's sinks said last, those that there are: their state, and how many records they are behind."""
    if recorder is None or not recorder.running:
        return {}
    found = {}
    for name in SINKS:
        state = recorder.values.get(f"sink_{name}")
        lag = recorder.values.get(f"lag_{name}")
        if state is not None and lag is not None and state.value in SINK_STATES:
            found[name] = {"state": SINK_STATES[state.value], "lag": lag.value}
    return found


class WebSocketResource:
    """`GET /ws` on this port: 426, with the address at which the event server takes WebSockets."""

    def __init__(self, port: int) -> None:
        self._port = port

    def on_get(self, request: Request, response: Answer) -> None:
        host = f"[{request.host}]" if ":" in request.host else request.host
        address = f"ws://{host}:{self._port}/api/v1/ws"
        raise Refused(
            426,
            "upgrade_required",
            f"WebSockets are taken at {address}.",
            websocket=address,
            headers={"Upgrade": "websocket", "Connection": "Upgrade"},
        )
