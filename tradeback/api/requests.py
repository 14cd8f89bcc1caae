"""Requests by route, method and status, and how long they took, for Prometheus.

Counted here, under one lock, and told when it asks: its own counters look a child up by its labels for each request,
which takes longer than reading a price. Where several processes answer, each writes its counts to a file of its own
now and then, and the one that is asked adds them up.
"""

from __future__ import annotations

import os
import secrets
import threading
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate
from math import ceil
from pathlib import Path
from typing import Any

import orjson
import structlog
from prometheus_client.metrics_core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

METHODS = {"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"}
BUCKETS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
WRITE_EVERY_S = 0.5

log = structlog.get_logger(__name__)


class _Route:
    """What was asked of one route: requests by method and status, how many took how long, and all their seconds."""

    __slots__ = ("answered", "buckets", "seconds")

    def __init__(self) -> None:
        self.answered: dict[str, int] = {}  # by "METHOD status"
        self.buckets = [0] * (len(BUCKETS_S) + 1)
        self.seconds = 0.0

    def add(self, told: Mapping[str, Any]) -> None:
        """Add what another process counted."""
        for answer, number in told["answered"].items():
            self.answered[answer] = self.answered.get(answer, 0) + number
        self.buckets = [one + other for one, other in zip(self.buckets, told["buckets"], strict=True)]
        self.seconds += told["seconds"]


class Requests(Collector):
    """The counts of this process, and, where they share a folder, of all that ever answered from it."""

    def __init__(self, shared: Path | None = None) -> None:
        self._lock = threading.Lock()
        self._routes: dict[str, _Route] = {}
        self._shared = shared
        # A process may get the id of one that ended: its counts still count.
        self._file = None if shared is None else shared / f"{os.getpid()}-{secrets.token_hex(8)}.json"
        self._changed = False
        if shared is not None:
            threading.Thread(target=self._keep_writing, name="request counts", daemon=True).start()

    def count(self, route: str, method: str, status: int, seconds: float) -> None:
        """One request. A method of the client's own invention is counted as `other`."""
        answer = f"{method if method in METHODS else 'other'} {status}"
        bucket = bisect_left(BUCKETS_S, seconds)
        with self._lock:
            counted = self._routes.get(route)
            if counted is None:
                counted = self._routes[route] = _Route()
            counted.answered[answer] = counted.answered.get(answer, 0) + 1
            counted.buckets[bucket] += 1
            counted.seconds += seconds
            self._changed = True

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
        for route, counted in self._everybodys().items():
            for answer, number in counted.answered.items():
                count.add_metric((route, *answer.split(" ")), number)
            totals = map(float, accumulate(counted.buckets))
            buckets = list(zip((*map(repr, BUCKETS_S), "+Inf"), totals, strict=True))
            times.add_metric((route,), buckets, counted.seconds)
        yield count
        yield times

    def _everybodys(self) -> dict[str, _Route]:
        routes: dict[str, _Route] = {}
        for told in [self._told(), *self._others()]:
            for route, counted in told.items():
                routes.setdefault(route, _Route()).add(counted)
        return routes

    def _told(self) -> dict[str, Any]:
        with self._lock:
            return {
                route: {
                    "answered": dict(counted.answered),
                    "buckets": counted.buckets.copy(),
                    "seconds": counted.seconds,
                }
                for route, counted in self._routes.items()
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
        for counted in self._told().values():
            for answer, number in counted["answered"].items():
                by_status[answer.split(" ")[1]] += number
            times = [one + other for one, other in zip(times, counted["buckets"], strict=True)]
        return by_status, times

    def _keep_writing(self) -> None:
        wait = threading.Event()
        while not wait.wait(WRITE_EVERY_S):
            if self._file is not None and self._changed:
                self._changed = False
                part = self._file.with_suffix(".part")
                part.write_bytes(orjson.dumps(self._told()))
                part.replace(self._file)  # whole or not at all


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
