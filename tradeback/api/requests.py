"""What the API counts, for Prometheus: requests by route, method and status and how long they took, questions to the
stores, problems that were logged, what is said of changed accounts, how much is left of each resource, and when it
was started.

Counted here, under one lock, and told when it asks: its own counters look a child up by its labels for each request,
which takes longer than reading a price. Where several processes answer, each writes its counts to a file of its own
now and then, and the one that is asked adds them up.
"""

from __future__ import annotations

import os
import secrets
import threading
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import accumulate
from math import ceil
from pathlib import Path
from typing import Any

import orjson
import structlog
from falcon import http_status_to_code
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from tradeback.api.metrics import families
from tradeback.resources import LOOK_EVERY, RESOURCE_VALUES
from tradeback.store.stats import PROBLEMS, Reading, Value
from tradeback.store.timing import QUESTIONS

QUERIES = "One question to a database or to Redis."
# By the names of `Announcements.counts`.
ANNOUNCED = {
    "announcements": "Times that accounts were said to have changed.",
    "announcement_errors": "Times that it could not be said that accounts changed.",
}
# Modules that log, and `libraries`; what is of no module here is counted as `other`.
COMPONENTS = (
    *(f"api.{name}" for name in ("app", "auth", "health", "kept_bars", "limits", "requests", "symbols")),
    *(
        f"store.{name}"
        for name in ("announcements", "catalog", "histories", "influx", "influx_restore", "requests_nats")
    ),
    *(f"commands.{name}" for name in ("api", "log", "reloading", "supervisor")),
    *("control", "log", "resources", "libraries", "other"),
)
METHODS = {"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"}
BUCKETS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
WRITE_EVERY_S = 0.5
GAUGES_S = 5 * LOOK_EVERY  # who has not looked for so long may have ended: its gauges are not told

log = structlog.get_logger(__name__)


class _Timed:
    """How many took how long, and all their seconds; by name, how many of each sort there were."""

    __slots__ = ("buckets", "seconds", "sorts")

    def __init__(self) -> None:
        self.sorts: dict[str, int] = {}
        self.buckets = [0] * (len(BUCKETS_S) + 1)
        self.seconds = 0.0

    def count(self, sort: str, seconds: float) -> None:
        """One more."""
        self.sorts[sort] = self.sorts.get(sort, 0) + 1
        self.buckets[bisect_left(BUCKETS_S, seconds)] += 1
        self.seconds += seconds

    def add(self, told: Mapping[str, Any]) -> None:
        """Add what another process counted."""
        for sort, number in told["sorts"].items():
            self.sorts[sort] = self.sorts.get(sort, 0) + number
        self.buckets = [one + other for one, other in zip(self.buckets, told["buckets"], strict=True)]
        self.seconds += told["seconds"]

    def told(self) -> dict[str, Any]:
        """For `add`."""
        return {"sorts": dict(self.sorts), "buckets": self.buckets.copy(), "seconds": self.seconds}

    def cumulative(self) -> list[tuple[str, float]]:
        """The buckets as Prometheus wants them."""
        return list(zip((*map(repr, BUCKETS_S), "+Inf"), map(float, accumulate(self.buckets)), strict=True))


class Requests(Collector):
    """The counts of this process, and, where they share a folder, of all that ever answered from it."""

    def __init__(self, shared: Path | None = None) -> None:
        self._lock = threading.Lock()
        self._routes: dict[str, _Timed] = {}  # whose sorts are "METHOD status"
        self._answers: dict[tuple[str, Any], str] = {}  # of those sorts, by method and status
        self._questions = {f"{store} {kind}": _Timed() for store, kind in QUESTIONS}
        # By "component level". All from the beginning: the first of a counter that was not there at 0 is no increase.
        self._problems = {
            f"{component} {level}": 0 for component in COMPONENTS for level in ("warning", "error")
        }
        self._started = int(time.time())
        self._gauges: dict[str, int] = {}  # by the names of RESOURCE_VALUES
        self._looked = 0.0  # by time.monotonic(), which all processes of a machine share
        self.announced: Callable[[], Mapping[str, int]] = dict  # what is counted elsewhere, by name
        self._shared = shared
        # A process may get the id of one that ended: its counts still count.
        self._file = None if shared is None else shared / f"{os.getpid()}-{secrets.token_hex(8)}.json"
        self._changed = False
        if shared is not None:
            threading.Thread(target=self._keep_writing, name="request counts", daemon=True).start()

    def count(self, route: str, method: str, status: Any, seconds: float) -> None:
        """One request, its status as Falcon has it. A method of the client's own invention is counted as `other`."""
        answer = self._answers.get((method, status)) or self._answer(method, status)
        with self._lock:
            counted = self._routes.get(route)
            if counted is None:
                counted = self._routes[route] = _Timed()
            counted.count(answer, seconds)
            self._changed = True

    def _answer(self, method: str, status: Any) -> str:
        if method not in METHODS:
            return f"other {http_status_to_code(status)}"
        answer = self._answers[method, status] = f"{method} {http_status_to_code(status)}"
        return answer

    def count_question(self, store: str, kind: str, ns: int) -> None:
        """One question to a store; both names are of QUESTIONS."""
        with self._lock:
            self._questions[f"{store} {kind}"].count("", ns / 1e9)
            self._changed = True

    def count_problem(self, component: str, level: str) -> None:
        """One warning or error of the log."""
        with self._lock:
            self._problems[f"{component if component in COMPONENTS else 'other'} {level}"] += 1
            self._changed = True

    def put(self, name: str, value: int) -> None:
        """How a resource of this process stands now; `name` is of RESOURCE_VALUES."""
        with self._lock:
            self._gauges[name] = value
            self._looked = time.monotonic()
            self._changed = True

    def gauges(self) -> dict[str, int]:
        """How resources stand, by the names of RESOURCE_VALUES: where several processes answer, with the one that has
        least left."""
        return _worst([self._told(), *self._others()])

    def tell_performance(self, every: float) -> None:
        """From now on log every so many seconds what this process answered since the last time."""
        threading.Thread(target=self._keep_telling, args=(every,), name="performance", daemon=True).start()

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        count = CounterMetricFamily(
            "tradeback_api_requests", "Requests that were answered.", labels=("route", "method", "status")
        )
        times = HistogramMetricFamily(
            "tradeback_api_request_seconds",
            "From the request's arrival at the application to its answer.",
            labels=("route",),
        )
        asked = HistogramMetricFamily("tradeback_api_query_seconds", QUERIES, labels=("store", "kind"))
        problems = CounterMetricFamily("tradeback_api_problems", PROBLEMS, labels=("component", "level"))
        told = [self._told(), *self._others()]
        for route, counted in _summed(one["routes"] for one in told).items():
            for answer, number in counted.sorts.items():
                count.add_metric((route, *answer.split(" ")), number)
            times.add_metric((route,), counted.cumulative(), counted.seconds)
        for question, counted in _summed(one["questions"] for one in told).items():
            asked.add_metric(question.split(" "), counted.cumulative(), counted.seconds)
        for problem, number in _added(one["problems"] for one in told).items():
            problems.add_metric(problem.split(" "), number)
        # So each that takes the place of one that ended is seen.
        start = GaugeMetricFamily(
            "tradeback_api_start_time_seconds",
            "When the process that answers was started, of several the last one, in unix seconds.",
            value=max(one["started"] for one in told),
        )
        yield from (count, times, asked, problems, start)
        announced = _added(one["announced"] for one in told)
        for name, meaning in ANNOUNCED.items():
            yield CounterMetricFamily(f"tradeback_api_{name}", meaning, value=announced.get(name, 0))
        gauges = _worst(told)
        values = {
            name: Value(name, kind, meaning, gauges[name])
            for name, kind, meaning in RESOURCE_VALUES
            if name in gauges
        }
        yield from families(Reading("api", 0, 0, True, values, {}), 0)

    def _told(self) -> dict[str, Any]:
        announced = dict(self.announced())
        with self._lock:
            return {
                "routes": {route: counted.told() for route, counted in self._routes.items()},
                "questions": {question: counted.told() for question, counted in self._questions.items()},
                "problems": dict(self._problems),
                "announced": announced,
                "started": self._started,
                "gauges": self._gauges.copy(),
                "looked": self._looked,
            }

    def _others(self) -> Iterable[dict[str, Any]]:
        if self._shared is None:
            return
        for path in self._shared.glob("*.json"):
            if path != self._file:
                yield orjson.loads(path.read_bytes())

    def _keep_telling(self, every: float) -> None:
        wait = threading.Event()
        before, slower = self._sums()
        while not wait.wait(every):
            now, times = self._sums()
            took = [new - old for new, old in zip(times, slower, strict=True)]
            log.info(
                "performance",
                seconds=every,
                requests=sum(took),
                **{f"status_{status}": now[status] - before[status] for status in now},
                **{f"p{share}_ms": _within_ms(took, share) for share in (50, 95, 99)},
            )
            before, slower = now, times

    def _sums(self) -> tuple[Counter[str], list[int]]:
        """Requests by status, and how many took how long."""
        by_status: Counter[str] = Counter()
        times = [0] * (len(BUCKETS_S) + 1)
        for counted in self._told()["routes"].values():
            for answer, number in counted["sorts"].items():
                by_status[answer.split(" ")[1]] += number
            times = [one + other for one, other in zip(times, counted["buckets"], strict=True)]
        return by_status, times

    def _keep_writing(self) -> None:
        wait = threading.Event()
        announced: Mapping[str, int] = {}
        while not wait.wait(WRITE_EVERY_S):
            if self._file is not None and (self._changed or self.announced() != announced):
                self._changed = False
                announced = dict(self.announced())
                try:
                    self._write(self._file)
                except OSError as error:
                    # Counted is this warning too: it is tried again as long as it fails.
                    log.warning(
                        "counts cannot be shared with the other processes of the API: make room there",
                        file=str(self._file),
                        reason=error.strerror,
                    )

    def _write(self, file: Path) -> None:
        part = file.with_suffix(".part")
        part.write_bytes(orjson.dumps(self._told()))
        part.replace(file)  # whole or not at all


def _summed(told: Iterable[Mapping[str, Any]]) -> dict[str, _Timed]:
    """What several processes counted, by name."""
    found: dict[str, _Timed] = {}
    for one in told:
        for name, counted in one.items():
            found.setdefault(name, _Timed()).add(counted)
    return found


def _added(told: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """What several processes counted, by name; what is at 0 as well."""
    found: dict[str, int] = {}
    for one in told:
        for name, number in one.items():
            found[name] = found.get(name, 0) + number
    return found


def _worst(told: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """Of gauges that several processes told lately, the highest of each; of what is free, the lowest."""
    now = time.monotonic()
    found: dict[str, int] = {}
    for one in told:
        if now - one["looked"] < GAUGES_S:
            for name, value in one["gauges"].items():
                worst = min if name == "disk_free_bytes" else max
                found[name] = worst(found.get(name, value), value)
    return found


def _within_ms(took: list[int], share: int) -> float | None:
    """The bucket's end, in ms, within which so many of a hundred were answered; None: none was, or it has no end."""
    wanted = max(1, ceil(sum(took) * share / 100))
    reached = (end for end, below in zip(BUCKETS_S, accumulate(took), strict=False) if below >= wanted)
    end = next(reached, None)
    return None if end is None else end * 1000


def open_shared(folder: Path) -> Path:
    """An empty folder for the counts of several processes; what was counted before the last start is over."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.iterdir():
        if path.suffix in (".json", ".part"):
            path.unlink()
    return folder
