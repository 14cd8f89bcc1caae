"""What the processes tell Prometheus of themselves beside their traffic: problems, announcements, several workers."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import CHECKOUT
from tests.e2e.api import ApiProcess
from tests.e2e.running import ServerProcess, SimProcess
from tests.waiting import await_true
from tradeback._fast.fanout import FanOut
from tradeback._fast.ingest import Ingest
from tradeback._fast.journal import JournalWriter
from tradeback._fast.stats import Stats
from tradeback._fast.table import SymbolTable
from tradeback.api.requests import COMPONENTS, Requests
from tradeback.config import ExchangeConfig
from tradeback.exchange.binance import STREAM_TYPES
from tradeback.server.counters import MORE, SERVER_VALUES, SHARDS_TOLD, tell_levels_now
from tradeback.server.feed import Feeds
from tradeback.store.stats import read_stats


def total(text: str, name: str, **labels: str) -> float:
    """All samples of that name that have these labels, added up."""
    found = re.findall(rf"^{name}(?:\{{([^}}]*)\}})? (\S+)$", text, re.MULTILINE)
    wanted = [f'{label}="{value}"' for label, value in labels.items()]
    return sum(float(value) for given, value in found if all(one in given for one in wanted))


def test_problems_are_counted(tmp_path: Path) -> None:
    with (
        SimProcess("--symbols", "2", "--rate", "100") as sim,
        ServerProcess(tmp_path, sim, EXCHANGE_SYMBOLS=",".join(sim.get("/sim/ledger"))) as server,
    ):
        path = tmp_path / "sim" / "stats" / "server"
        name = 'problems{component="server.feed",level="warning"}'
        server.await_subscribed(2)
        before = read_stats(path).values[name].value
        sim.get("/sim/fault", kind="cut", stream="trade", count=1)
        await_true(lambda: read_stats(path).values[name].value > before)


def test_workers_of_the_api_add_up_what_they_count(tmp_path: Path) -> None:
    # There is no catalog: each request asks in vain, and says so in the log.
    with ApiProcess(tmp_path, SERVER_WORKERS="2", REDIS_ADDR="127.0.0.1:1") as api:
        for _ in range(20):
            assert api.ask("/api/v1/symbols").status == 503

        def problems() -> float:
            text = api.ask("/api/v1/metrics").body.decode()
            return total(text, "tradeback_api_problems_total", component="api.app", level="warning")

        await_true(lambda: problems() == 20)


@contextmanager
def feeds_of(folder: Path, stats: Stats, connections: int) -> Iterator[tuple[Feeds, Ingest]]:
    """Feeds that are not started, and so never connected."""
    with JournalWriter.open(folder / "journal", "sim") as journal:
        table = SymbolTable.open(str(folder / "table"), "sim")
        ingest = Ingest(table, journal, FanOut(table, stats), stats)
        try:
            yield Feeds(ingest, ExchangeConfig(max_connections=connections), None), ingest
        finally:
            table.close()


def test_feeds_beyond_those_that_are_told_one_by_one_share_a_name(tmp_path: Path) -> None:
    stats = Stats.in_memory(SERVER_VALUES)
    with feeds_of(tmp_path, stats, 3 * (SHARDS_TOLD + 3)) as (feeds, ingest):
        for number in range(SHARDS_TOLD + 3):
            feeds.want(f"S{number}USDT")
        later = time.monotonic_ns()
        for number, shard in enumerate(feeds.shards):
            shard.feeds[0]._heard_ns = later + number
        tell_levels_now(feeds, ingest, stats)
    kind = feeds.shards[0].feeds[0].stream_type
    told = [stats.value(f'feed_message_at_ns{{feed="{kind}-{name}"}}') for name in (0, SHARDS_TOLD - 1, MORE)]
    assert told == [later, later + SHARDS_TOLD - 1, later + SHARDS_TOLD]


def test_a_feed_that_never_brought_anything_is_silent_since_it_carries_something(tmp_path: Path) -> None:
    stats = Stats.in_memory(SERVER_VALUES)
    name = f'feed_message_at_ns{{feed="{STREAM_TYPES[0]}-0"}}'
    with feeds_of(tmp_path, stats, 3) as (feeds, ingest):
        before = time.monotonic_ns()
        feeds.want("S0USDT")
        feeds.want("S1USDT")
        after = time.monotonic_ns()
        tell_levels_now(feeds, ingest, stats)
        assert before <= (first := stats.value(name)) <= after
        feeds.drop("S0USDT")
        tell_levels_now(feeds, ingest, stats)
        assert stats.value(name) == first
        # Nothing is missed of one that carries nothing.
        feeds.drop("S1USDT")
        tell_levels_now(feeds, ingest, stats)
        assert stats.value(name) == 0
        feeds.want("S1USDT")
        tell_levels_now(feeds, ingest, stats)
        assert stats.value(name) > after


def test_the_api_counts_every_module_that_logs_in_it() -> None:
    """Those that it loads at once, and of the stores also those that it opens later."""
    log = "log = structlog.get_logger(__name__)"
    listed = subprocess.run(
        [sys.executable, "-c", "import sys, tradeback.commands.api; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = {name.removeprefix("tradeback.") for name in listed.stdout.split()}
    sources = {
        ".".join(path.relative_to(CHECKOUT / "tradeback").with_suffix("").parts): path.read_text()
        for path in (CHECKOUT / "tradeback").rglob("*.py")
    }
    logging = {
        name
        for name, text in sources.items()
        if log in text and (name in loaded or name.startswith("store."))
    }
    assert {"api.app", "store.influx", "control"} < logging <= set(COMPONENTS)
    assert {name for name in COMPONENTS if name not in ("log", "libraries", "other")} <= logging


def test_problems_of_the_api_are_told_from_the_beginning_and_strangers_are_others() -> None:
    requests = Requests()

    def problems() -> dict[str, float]:
        families = {family.name: family for family in requests.collect()}
        return {
            sample.labels["component"]: sample.value
            for sample in families["tradeback_api_problems"].samples
            if sample.labels["level"] == "error"
        }

    assert problems() == dict.fromkeys(COMPONENTS, 0)
    requests.count_problem("api.auth", "error")
    requests.count_problem("recorder.app", "error")
    assert problems() == {**dict.fromkeys(COMPONENTS, 0), "api.auth": 1, "other": 1}


def test_the_api_tells_when_the_newest_of_its_processes_was_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def started() -> float:
        families = {family.name: family for family in asked.collect()}
        (sample,) = families["tradeback_api_start_time_seconds"].samples
        return sample.value

    monkeypatch.setattr(time, "time", lambda: 1_000.5)
    asked = Requests(tmp_path)
    assert started() == 1_000
    monkeypatch.setattr(time, "time", lambda: 1_060.0)
    other = Requests(tmp_path)
    other.count("/", "GET", 200, 0.1)
    await_true(lambda: started() == 1_060)
