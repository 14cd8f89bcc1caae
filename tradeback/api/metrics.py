"""Prometheus: what the API counts itself (`requests.py`), and what server and recorder count in mapped files."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate
from typing import Any

from falcon import Request
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from tradeback.api import params
from tradeback.api.answers import Answer, write_bytes
from tradeback.api.stores import Stores, Unavailable
from tradeback.errors import DataFolderError
from tradeback.store.stats import AT, Reading, bucket_start
from tradeback.store.stats import Histogram as MappedHistogram

TEXT = "text/plain; version=0.0.4; charset=utf-8"
# Powers of two in ns between which durations are told, 1 us to 68 s: the mapped histograms have 8 times as many.
FIRST_POWER, LAST_POWER = 10, 36
_LABEL = re.compile(r'(\w+)="([^"]*)"')


class MappedCounters(Collector):
    """The counters of the other processes at the moment of asking."""

    def __init__(self, stores: Stores) -> None:
        self._stores = stores

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        readings = read_counters(self._stores)
        yield running({process: reading.running for process, reading in readings.items()})
        for reading in readings.values():
            yield from families(reading, time.monotonic_ns())


def read_counters(stores: Stores) -> Mapping[str, Reading]:
    """Every process's counters, by its name. `Unavailable` where a file of them is damaged."""
    try:
        return stores.counters()
    except DataFolderError as error:
        raise Unavailable("counters", str(error)) from error


def running(processes: Mapping[str, bool]) -> Metric:
    """Which of them run."""
    up = GaugeMetricFamily("tradeback_up", "Whether a process runs.", labels=["process"])
    for process, runs in processes.items():
        up.add_metric([process], float(runs))
    return up


def families(reading: Reading, now_ns: int) -> Iterable[Metric]:
    """The metrics of one process, those that differ in their labels alone put together."""
    found: dict[str, Any] = {}

    def family(kind: type[Metric], name: str, meaning: str, labels: dict[str, str]) -> Any:
        full = f"tradeback_{reading.process}_{name}"
        if full not in found:
            found[full] = kind(full, meaning, labels=tuple(labels))  # type: ignore[call-arg]
        return found[full]

    for value in reading.values.values():
        name, labels = _named(value.name)
        if name.endswith(AT):
            ages = family(GaugeMetricFamily, f"{name.removesuffix(AT)}_age_seconds", value.meaning, labels)
            # A moment of before this machine was started says nothing.
            if 0 < value.value <= now_ns:
                ages.add_metric(tuple(labels.values()), (now_ns - value.value) / 1e9)
        else:
            kind = CounterMetricFamily if value.kind == "counter" else GaugeMetricFamily
            family(kind, name, value.meaning, labels).add_metric(tuple(labels.values()), float(value.value))
    for histogram in reading.histograms.values():
        name, labels = _named(histogram.name)
        times = family(HistogramMetricFamily, f"{name}_seconds", histogram.meaning, labels)
        times.add_metric(tuple(labels.values()), _buckets(histogram), histogram.sum_ns / 1e9)
    return found.values()


def _named(name: str) -> tuple[str, dict[str, str]]:
    """Name and labels of a mapped value."""
    return name.partition("{")[0], dict(_LABEL.findall(name))


def _buckets(histogram: MappedHistogram) -> list[tuple[str, float]]:
    totals = [0, *accumulate(histogram.buckets)]
    buckets = []
    for power in range(FIRST_POWER, LAST_POWER + 1):
        place = 8 * (power - 2)  # the bucket that starts at 2**power ns
        below = totals[min(place, len(totals) - 1)]
        buckets.append((repr(bucket_start(place) / 1e9), float(below)))
    buckets.append(("+Inf", float(totals[-1])))
    return buckets


class MetricsResource:
    """`GET /metrics`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def on_get(self, request: Request, response: Answer) -> None:
        params.query(request, ())
        write_bytes(response, generate_latest(self._registry), kind=TEXT)
