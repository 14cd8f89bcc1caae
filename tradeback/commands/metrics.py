"""`tradeback metrics print` and `doc`."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping

import click
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from tradeback._fast.stats import SERVER_HISTOGRAMS, START_TIME
from tradeback.api.metrics import families, running
from tradeback.api.requests import METHODS, Requests
from tradeback.commands.options import with_config
from tradeback.config import Config
from tradeback.errors import DataFolderError
from tradeback.recorder.counters import RECORDER_HISTOGRAMS, RECORDER_VALUES
from tradeback.resources import RESOURCE_VALUES
from tradeback.server.counters import SERVER_VALUES
from tradeback.store.stats import Histogram, Reading, Value, read_all

_INTRODUCTION = """\
# Metrics

*Printed from the code by `tradeback metrics doc`; a test holds the two equal.*

`GET /api/v1/metrics` tells them in Prometheus' text format: one scrape has every process that shares the data folder
with the API, and what several workers of the API count is added up; of their gauges that of the worker which has least
left is told. Counters begin at 0 when their process starts. A metric with labels is told once for each of their values.
The [runbook](runbook.md) has the alerts on them.

Server and recorder count in plain integers of a mapped file (`stats/` in the data folder), which the API reads when it
is asked: counting costs the same whether anybody asks or not. An API on another machine does not see them. There,
`tradeback metrics print` prints those of server and recorder in the same format, without any API:
[watching each machine](howto/scale.md#watching-each-machine).
"""
_PARTS = {
    "up": "Which processes run",
    "server": "Server",
    "recorder": "Recorder",
    "api": "API",
}


@click.group()
def metrics() -> None:
    """The metrics at /api/v1/metrics: describe them, or print those of this machine's server and recorder."""


@metrics.command("print")
@with_config
def print_(config: Config) -> None:
    """Print what server and recorder of this machine count, in Prometheus' text format.

    For a machine without an API that could be scraped. They need not run: the last numbers of one that ended stay, and
    `tradeback_up` says so. The file that node_exporter reads must be replaced as a whole: print into another one beside
    it, and move that.
    """
    registry = CollectorRegistry()
    registry.register(_Counted(_readings(config)))
    click.echo(generate_latest(registry).decode(), nl=False)


class _Counted(Collector):
    def __init__(self, readings: Mapping[str, Reading]) -> None:
        self._readings = readings

    def collect(self) -> Iterator[Metric]:
        yield running({process: reading.running for process, reading in self._readings.items()})
        for reading in self._readings.values():
            yield from families(reading, time.monotonic_ns())


def _readings(config: Config) -> Mapping[str, Reading]:
    """Of an exchange that is left to `auto`, those of the one that something runs on. DataFolderError: of none."""
    folders = [folder / "stats" for folder in config.folders()]
    found = [readings for folder in folders if (readings := read_all(folder))]
    if not found:
        raise DataFolderError(
            f"no process has counted anything in {' or '.join(map(str, folders))}: start the server, or name its data "
            "folder with DATA_DIR and its exchange with TRADEBACK_EXCHANGE"
        )
    return max(found, key=lambda readings: any(one.running for one in readings.values()))


@metrics.command()
def doc() -> None:
    """Print the reference page of all metrics, in Markdown."""
    click.echo(reference_page(), nl=False)


def reference_page() -> str:
    """The text of docs/metrics.md."""
    parts = [_INTRODUCTION]
    for part, title in _PARTS.items():
        parts.append(f"\n## {title}\n\n| metric | type | labels | meaning |\n|---|---|---|---|\n")
        parts += [_line(family) for family in described() if family.name.split("_")[1] == part]
    return "".join(parts)


def described() -> list[Metric]:
    """Every metric there is, each with some sample."""
    requests = Requests()
    requests.count("/api/v1/symbols", min(METHODS), 200, 0.0)
    for name, _, _ in RESOURCE_VALUES:
        requests.put(name, 0)
    found = [running({"server": True}), *requests.collect()]
    for process, values, histograms in (
        ("server", SERVER_VALUES, SERVER_HISTOGRAMS),
        ("recorder", RECORDER_VALUES, RECORDER_HISTOGRAMS),
    ):
        reading = Reading(
            process,
            0,
            0,
            True,
            {
                name: Value(name, kind, meaning, 1)
                for name, kind, meaning in (*(value[1:] for value in values), START_TIME)
            },
            {name: Histogram(name, meaning, 0, ()) for _, name, meaning in histograms},
        )
        found += families(reading, now_ns=1)
    return found


def _line(family: Metric) -> str:
    labels = [f"`{name}`" for name in family.samples[0].labels if name != "le"]
    name = f"{family.name}_total" if family.type == "counter" else family.name
    meaning = family.documentation.removesuffix(".").replace("|", "\\|")
    return f"| `{name}` | {family.type} | {', '.join(labels)} | {meaning[0].upper()}{meaning[1:]} |\n"
