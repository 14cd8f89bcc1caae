"""Health: alive, ready, and what each component says; and where the WebSocket is."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import structlog
from falcon import Request

from tradeback.api import params
from tradeback.api.answers import Answer, Refused, write_bytes, write_json
from tradeback.api.metrics import read_counters
from tradeback.api.stores import Stores, Unavailable
from tradeback.api.symbols import SymbolBook
from tradeback.errors import BusError, HistoryError
from tradeback.model import MS_NS
from tradeback.resources import LEVELS, RESOURCES
from tradeback.store.base import Elsewhere
from tradeback.store.stats import Reading

log = structlog.get_logger(__name__)

PROCESSES = ("server", "recorder")
# Of the recorder, as it counts them: `recorder/counters.py`.
SINKS = ("history", "indicators", "cache", "bus")
SINK_STATES = {1: "ok", 2: "failing"}
PROCESS_STATES = ("running", "ended", "never started")
ASK_AGAIN_S = 1.0  # another machine
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
        active = self._book.listing().active
        with self._stores.prices.use() as prices:
            heard = [price.ts_recv for price in prices.prices(active, now_ns)]
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


@dataclass(frozen=True, slots=True)
class Told:
    """What a recorder said: when, in unix ms, how long before that the exchange was heard of, processes and sinks."""

    as_of_ms: int
    age_ms: int | None
    processes: dict[str, Any]
    sinks: dict[str, Any]


class Heard:
    """What was heard of the machine of server and recorder, asked once a second at most, however many want to know.
    Others may speak on the bus too: of what comes, only what could be so is told."""

    def __init__(self, elsewhere: Elsewhere) -> None:
        self._elsewhere = elsewhere
        self._lock = threading.Lock()
        self._heard: Told | BusError = BusError("nobody was asked yet")
        self._ask_at = float("-inf")

    def health(self) -> Told:
        """The last answer. BusError where there was none."""
        with self._lock:
            if time.monotonic() >= self._ask_at:
                try:
                    self._heard = _understood(self._elsewhere.health())
                except BusError as error:
                    self._heard = error
                self._ask_at = time.monotonic() + ASK_AGAIN_S
            if isinstance(self._heard, BusError):
                raise BusError(str(self._heard))
            return self._heard


def _understood(said: dict[str, Any]) -> Told:
    try:
        processes = {
            name: {key: said["processes"][name][key] for key in ("state", "started_ms")} for name in PROCESSES
        }
        sinks = {
            name: {key: said["sinks"][name][key] for key in ("state", "lag")}
            for name in SINKS
            if name in said["sinks"]
        }
        told = Told(said["as_of_ms"], said["feed"]["age_ms"], processes, sinks)
    except (KeyError, TypeError) as error:
        raise BusError(
            f"the answer to request.health lacks {error}: is the recorder of another version?"
        ) from error
    whole = [told.as_of_ms, *(sink["lag"] for sink in sinks.values())]
    may_lack = (told.age_ms, *(process["started_ms"] for process in processes.values()))
    whole += [one for one in may_lack if one is not None]
    known = [process["state"] in PROCESS_STATES for process in processes.values()]
    known += [sink["state"] in SINK_STATES.values() for sink in sinks.values()]
    if not all(known) or not all(type(one) is int and 0 <= one < 2**53 for one in whole):
        raise BusError(
            "the answer to request.health has values that cannot be: is it our recorder that answers?"
        )
    return told


class HealthResource:
    """`GET /health`: it touches nothing; `/health/ready` and `/health/detailed` ask.

    Ready is 503 once the process ends (`ends`). Both are where something cannot be read. Where all can be read, but a
    process is not running or is short of a resource, one of the recorder's sinks fails, or the exchange has been silent
    for `mute_limit` seconds, the detailed one says `degraded` with 200: what is stored is answered all the same. How
    the API's own resources stand is told by `own`.
    """

    def __init__(
        self,
        components: Components,
        stores: Stores,
        mute_limit: float,
        own: Callable[[], Mapping[str, int]],
        ends: Callable[[], bool] = lambda: False,
    ) -> None:
        self._own = own
        self._ends = ends
        self._components = components
        self._stores = stores
        self._elsewhere = None if stores.elsewhere is None else Heard(stores.elsewhere)
        self._mute_ms = mute_limit * 1000

    def on_get(self, request: Request, response: Answer) -> None:
        write_bytes(response, ALIVE)

    def on_get_ready(self, request: Request, response: Answer) -> None:
        params.query(request, ())
        states = {name: self._components.ask(name)["state"] for name in self._components.questions}
        self._answer(response, {"components": states}, all(state == "ok" for state in states.values()))
        if self._ends():
            response.status = 503
            write_json(response, {"status": "draining", "components": states})

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
            resources: dict[str, dict[str, str]] = {}
        else:
            components["counters"] = _took(began, {"state": "ok"})
            processes = {name: _process("never started") for name in PROCESSES} | {
                name: _process("running" if reading.running else "ended", reading.started_ns)
                for name, reading in read.items()
            }
            sinks = _sinks(read.get("recorder"))
            resources = {
                name: _resources({gauge: value.value for gauge, value in read[name].values.items()})
                for name in PROCESSES
                if name in read and read[name].running
            }
            if not read and self._elsewhere is not None:
                components["recorder"], feed, processes, sinks = self._asked(self._elsewhere)
        resources["api"] = _resources(self._own())
        well = all(processes[name]["state"] == "running" for name in PROCESSES) and feed["state"] == "ok"
        well = well and all(sink["state"] == "ok" for sink in sinks.values())
        well = well and all(state == "ok" for told in resources.values() for state in told.values())
        self._answer(
            response,
            {
                "components": components,
                "feed": feed,
                "processes": processes,
                "sinks": sinks,
                "resources": resources,
            },
            all(told["state"] == "ok" for name, told in components.items() if name != "recorder"),
            fresh=well,
        )

    def _asked(
        self, elsewhere: Heard
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any], dict[str, Any]]:
        """Component `recorder`, feed, processes and sinks, as the recorder of another machine tells them.
        Where it does not answer nothing is known of them, and that keeps nobody from reading what is stored."""
        began = time.perf_counter()
        try:
            told = elsewhere.health()
        except BusError as error:
            log.warning("a component cannot be read", component="recorder", reason=str(error))
            unknown = {name: _process("unknown") for name in PROCESSES}
            return _took(began, {"state": "unavailable"}), self._feed(None), unknown, {}
        component = _took(began, {"state": "ok", "as_of_ms": told.as_of_ms})
        return component, self._feed(told.age_ms), told.processes, told.sinks

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


def _resources(gauges: Mapping[str, int]) -> dict[str, str]:
    """How the resources of a process stood when it last looked, those that it has looked at."""
    found = {}
    for name in RESOURCES:
        level = gauges.get(f'resource_level{{resource="{name}"}}')
        if level in LEVELS:
            found[name] = LEVELS[level]
    return found


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
