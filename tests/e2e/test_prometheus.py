"""What is there for Prometheus: metrics by its conventions, rules that fire, and a dashboard of metrics that exist."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import CHECKOUT
from tests.documents.blocks import blocks
from tests.e2e.api import ApiProcess
from tests.e2e.running import Audit, RecorderProcess, ServerProcess, SimProcess
from tests.servers.services import ASKED_FOR
from tradeback.api.requests import COMPONENTS as OF_THE_API
from tradeback.recorder.counters import COMPONENTS as OF_THE_RECORDER
from tradeback.recorder.sinks import journal_end
from tradeback.server.counters import COMPONENTS as OF_THE_SERVER
from tradeback.store.stats import read_stats
from tradeback.store.timing import QUESTIONS

DEPLOY = CHECKOUT / "deploy"
RUNBOOK = CHECKOUT / "docs" / "runbook.md"
METRICS = CHECKOUT / "docs" / "metrics.md"
SAFETY = 60.0
METRIC = re.compile(r"\btradeback_[a-z0-9_]+")
COMPONENTS = {"server": OF_THE_SERVER, "recorder": OF_THE_RECORDER, "api": OF_THE_API}
INSTALL = "promtool is not installed: apt-get install -y --no-install-recommends prometheus"


def position(folder: Path) -> int:
    """The journal's position as the server told it last."""
    return read_stats(folder / "sim" / "stats" / "server").values["journal_next_seq"].value


def promtool(*arguments: str, said: str | None = None) -> str:
    """What promtool prints; AssertionError where it finds a fault."""
    if shutil.which("promtool") is None:
        if os.environ.get("CI"):
            raise AssertionError(INSTALL)
        pytest.skip(INSTALL)
    done = subprocess.run(
        ["promtool", *arguments],
        input=said,
        capture_output=True,
        text=True,
        timeout=60,
        cwd=DEPLOY / "prometheus",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@dataclass(frozen=True)
class Told:
    """What all processes told of themselves, after some trades and requests."""

    scraped: str  # over REST
    printed: str  # by `tradeback metrics print`


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Told]:
    folder: Path = tmp_path_factory.mktemp("metrics")
    with SimProcess("--symbols", "2", "--rate", "500") as sim:
        names = sorted(sim.get("/sim/ledger"))
        with (
            ServerProcess(folder, sim, EXCHANGE_SYMBOLS=",".join(names)) as server,
            RecorderProcess(folder, sim) as recorder,
            ApiProcess(folder) as api,
            Audit(server.ws_port, 1, names),
        ):
            server.await_subscribed(2)
            sim.pause_and_drain()
            recorder.await_stored()
            api.ask("/api/v1/symbols")
            deadline = time.monotonic() + SAFETY
            while position(folder) < journal_end(folder / "sim" / "journal"):
                assert time.monotonic() < deadline, "the server does not tell the position of its journal"
                time.sleep(0.05)
            printed = subprocess.run(
                [sys.executable, "-m", "tradeback", "metrics", "print", "--data-dir", folder],
                env={**os.environ, "TRADEBACK_EXCHANGE": "sim"},
                capture_output=True,
                text=True,
                check=True,
            )
            yield Told(api.ask("/api/v1/metrics").body.decode(), printed.stdout)


@pytest.fixture(scope="module")
def scraped(told: Told) -> str:
    return told.scraped


def test_metrics_keep_the_conventions(scraped: str) -> None:
    promtool("check", "metrics", said=scraped)


def test_what_is_printed_is_what_is_scraped_but_the_api(told: Told) -> None:
    """As node_exporter takes it, which says itself when its file was written: without times."""
    promtool("check", "metrics", said=told.printed)
    described = r"^# (?:TYPE|HELP) (?!tradeback_api_).*$"
    assert re.findall(described, told.printed, re.MULTILINE) == re.findall(
        described, told.scraped, re.MULTILINE
    )
    assert 'tradeback_up{process="server"} 1.0\n' in told.printed
    samples = [line for line in told.printed.splitlines() if not line.startswith("#")]
    assert all(len(sample.rpartition("}")[2].split()) <= 2 for sample in samples)


def test_one_scrape_has_every_process(scraped: str) -> None:
    for process in ("server", "recorder"):
        assert f'tradeback_up{{process="{process}"}} 1.0' in scraped
    assert 'tradeback_api_requests_total{method="GET",route="/api/v1/symbols",status="200"}' in scraped


def test_the_page_of_metrics_has_what_is_told(scraped: str) -> None:
    told = dict(re.findall(r"^# TYPE (\w+) (\w+)$", scraped, re.MULTILINE))
    written = dict(re.findall(r"^\| `(\w+)` \| (\w+) \|", METRICS.read_text(), re.MULTILINE))
    assert told == written


def labelled(scraped: str, name: str) -> dict[str, float]:
    """The samples of a metric with one label that tells them apart, by its value."""
    return {
        label: float(value)
        for label, value in re.findall(rf'^{name}\{{[^}}]*?"([^"]*)"\}} (\S+)$', scraped, re.MULTILINE)
    }


def test_each_feed_that_brought_something_tells_its_age(scraped: str) -> None:
    ages = labelled(scraped, "tradeback_server_feed_message_age_seconds")
    assert set(ages) == {"trade-0", "aggTrade-0", "bookTicker-0"}
    assert all(0 <= age < 60 for age in ages.values())


@pytest.mark.parametrize("process", ["server", "recorder", "api"])
def test_each_process_tells_when_it_was_started(scraped: str, process: str) -> None:
    (started,) = re.findall(rf"^tradeback_{process}_start_time_seconds (\S+)$", scraped, re.MULTILINE)
    assert 0 <= time.time() - float(started) < 600


def test_the_first_problem_of_each_component_is_an_increase(scraped: str) -> None:
    """What is not there at 0 has no increase when it comes with its first value."""
    for process, components in COMPONENTS.items():
        told = re.findall(
            rf'^tradeback_{process}_problems_total\{{component="(\S+)",level="(\w+)"\}} ',
            scraped,
            re.MULTILINE,
        )
        wanted = [(component, level) for component in components for level in ("warning", "error")]
        assert sorted(told) == sorted(wanted)


def test_the_position_of_the_journal_is_that_of_its_records(scraped: str) -> None:
    (position,) = re.findall(r"^tradeback_server_journal_next_seq (\S+)$", scraped, re.MULTILINE)
    (records,) = re.findall(r"^tradeback_server_journal_records_total (\S+)$", scraped, re.MULTILINE)
    assert 0 < float(records) <= float(position)


@pytest.mark.parametrize("process", ["recorder", "api"])
def test_questions_to_databases_are_timed(scraped: str, process: str) -> None:
    name = f"tradeback_{process}_query_seconds_count"
    counts = {
        (store, kind): float(value)
        for kind, store, value in re.findall(
            rf'^{name}\{{kind="(\w+)",store="(\w+)"\}} (\S+)$', scraped, re.MULTILINE
        )
    }
    assert set(counts) == set(QUESTIONS)
    assert counts["database", "read"] > 0
    assert (counts["history", "write"] > 0) == (process == "recorder")
    assert ASKED_FOR or counts["cache", "read"] == 0  # without Redis there is none


def test_rules_are_good_and_each_fires() -> None:
    promtool("check", "rules", "rules.yml")
    promtool("check", "config", "prometheus.yml")
    promtool("test", "rules", "rules_test.yml")
    alerts = re.findall(r"alert: (\w+)", (DEPLOY / "prometheus" / "rules.yml").read_text())
    tried = re.findall(r"alertname=\"(\w+)\"", (DEPLOY / "prometheus" / "rules_test.yml").read_text())
    assert alerts == list(dict.fromkeys(tried))
    assert alerts == re.findall(r"^## (\w+)$", RUNBOOK.read_text(), re.MULTILINE)


def test_what_the_page_on_scale_adds_is_good(tmp_path: Path) -> None:
    targets, alert = [yaml.safe_load(body) for info, body in blocks("docs/howto/scale.md") if info == "yaml"]
    config = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
    config["scrape_configs"][0] |= targets
    rules = [*yaml.safe_load((DEPLOY / "prometheus" / "rules.yml").read_text())["groups"][0]["rules"], *alert]
    (tmp_path / "rules.yml").write_text(yaml.safe_dump({"groups": [{"name": "tradeback", "rules": rules}]}))
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(config))
    assert f"{len(rules)} rules found" in promtool("check", "config", str(tmp_path / "prometheus.yml"))


def test_the_runbook_names_metrics_that_exist(scraped: str) -> None:
    named = set(re.findall(r"tradeback_(?:server|recorder|api)_\w+", RUNBOOK.read_text()))
    assert len(named) > 4
    assert not {name for name in named if f"\n{name}" not in scraped}


def panels() -> list[dict[str, Any]]:
    return json.loads((DEPLOY / "grafana" / "dashboard.json").read_text())["panels"]  # type: ignore[no-any-return]


@pytest.mark.parametrize("path", ["prometheus/rules.yml", "grafana/dashboard.json"])
def test_every_query_names_metrics_that_exist(scraped: str, path: str) -> None:
    if path.endswith(".json"):
        queries = [target["expr"] for panel in panels() for target in panel["targets"]]
    else:
        queries = re.findall(r"expr: (.*)", (DEPLOY / path).read_text())
    assert len(queries) > 10
    # What has labels and did not happen yet is told by its type alone.
    known = set(re.findall(r"^(?:# TYPE )?(tradeback_\w+)", scraped, re.MULTILINE))
    for query in queries:
        named = set(METRIC.findall(query))
        assert named <= known, query
        assert named or 'up{job="tradeback"}' in query


def test_every_query_of_the_dashboard_is_one(tmp_path: Path) -> None:
    """As rules that record, for promtool knows no dashboards; what Grafana puts in is put in."""
    rules = [
        {
            "record": f"panel_{panel['id']}:{target['refId']}",
            "expr": target["expr"].replace("$__rate_interval", "1m"),
        }
        for panel in panels()
        for target in panel["targets"]
    ]
    file = tmp_path / "dashboard.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    assert f"{len(rules)} rules found" in promtool("check", "rules", str(file))


def test_panels_lie_beside_each_other_and_say_what_each_line_is() -> None:
    ids = [panel["id"] for panel in panels()]
    assert len(set(ids)) == len(ids)
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels()]
    assert len(set(places)) == len(places)
    for panel in panels():
        names = [target["legendFormat"] for target in panel["targets"]]
        assert len(set(names)) == len(names), panel["title"]


@pytest.mark.parametrize("name", ["memory_used_bytes", "descriptors_open", "disk_free_bytes"])
def test_resources_of_every_process_have_a_panel(name: str) -> None:
    shown = [{target["expr"] for target in panel["targets"]} for panel in panels()]
    assert any({f"tradeback_{process}_{name}" for process in COMPONENTS} <= one for one in shown)
