"""Prometheus: what the API counts itself (`requests.py`), and what server and recorder count in mapped files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import accumulate

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
from tradeback.store.stats import Histogram as MappedHistogram
from tradeback.store.stats import Reading, bucket_start

TEXT = "text/plain; version=0.0.4; charset=utf-8"
# Powers of two in ns between which durations are told, 1 us to 68 s: the mapped histograms have 8 times as many.
FIRST_POWER, LAST_POWER = 10, 36


class MappedCounters(Collector):
    """The counters of the other processes at the moment of asking."""

    def __init__(self, stores: Stores) -> None:
        self._stores = stores

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        readings = read_counters(self._stores)
        up = GaugeMetricFamily("tradeback_up", "Whether a process runs.", labels=["process"])
        for process, reading in readings.items():
            up.add_metric([process], float(reading.running))
        yield up
        for process, reading in readings.items():
            for value in reading.values.values():
                name = f"tradeback_{process}_{value.name}"
                family = CounterMetricFamily if value.kind == "counter" else GaugeMetricFamily
                yield family(name, value.meaning, value=float(value.value))
            for histogram in reading.histograms.values():
                yield _histogram(f"tradeback_{process}_{histogram.name}_seconds", histogram)


def read_counters(stores: Stores) -> Mapping[str, Reading]:
    """Every process's counters, by its name. `Unavailable` where a file of them is damaged."""
    try:
        return stores.counters()
    except DataFolderError as error:
        raise Unavailable("counters", str(error)) from error


def _histogram(name: str, histogram: MappedHistogram) -> Metric:
    totals = [0, *accumulate(histogram.buckets)]
    buckets = []
    for power in range(FIRST_POWER, LAST_POWER + 1):
        place = 8 * (power - 2)  # the bucket that starts at 2**power ns
        below = totals[min(place, len(totals) - 1)]
        buckets.append((repr(bucket_start(place) / 1e9), float(below)))
    buckets.append(("+Inf", float(totals[-1])))
    return HistogramMetricFamily(name, histogram.meaning, buckets=buckets, sum_value=histogram.sum_ns / 1e9)


class MetricsResource:
    """`GET /metrics`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def on_get(self, request: Request, response: Answer) -> None:
        params.query(request, ())
        write_bytes(response, generate_latest(self._registry), kind=TEXT)
