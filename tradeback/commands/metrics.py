"""`tradeback metrics doc`."""

from __future__ import annotations

import click
from prometheus_client.metrics_core import Metric

from tradeback._fast.stats import SERVER_HISTOGRAMS, START_TIME
from tradeback.api.metrics import families, running
from tradeback.api.requests import METHODS, Requests
from tradeback.recorder.counters import RECORDER_HISTOGRAMS, RECORDER_VALUES
from tradeback.resources import RESOURCE_VALUES
from tradeback.server.counters import SERVER_VALUES
from tradeback.store.stats import Histogram, Reading, Value

_INTRODUCTION = """\
# Metrics

*Printed from the code by `tradeback metrics doc`; a test holds the two equal.*

`GET /api/v1/metrics` tells them in Prometheus' text format: one scrape has every process that shares the data folder
with the API, and what several workers of the API count is added up; of their gauges that of the worker which has least
left is told. Counters begin at 0 when their process starts. A metric with labels is told once for each of their values.
The [runbook](runbook.md) has the alerts on them.

Server and recorder count in plain integers of a mapped file (`stats/` in the data folder), which the API reads when it
is asked: counting costs the same whether anybody asks or not.
"""
_PARTS = {
    "up": "Which processes run",
    "server": "Server",
    "recorder": "Recorder",
    "api": "API",
}


@click.group()
def metrics() -> None:
    """The metrics at /api/v1/metrics: describe them."""


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
