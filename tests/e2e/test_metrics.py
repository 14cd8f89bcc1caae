"""What the processes tell Prometheus of themselves beside their traffic: problems, announcements, several workers."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path

from tests.e2e.api import ApiProcess
from tests.e2e.running import ServerProcess, SimProcess
from tradeback._fast.fanout import FanOut
from tradeback._fast.ingest import Ingest
from tradeback._fast.journal import JournalWriter
from tradeback._fast.stats import Stats
from tradeback._fast.table import SymbolTable
from tradeback.config import ExchangeConfig
from tradeback.server.counters import MORE, SERVER_VALUES, SHARDS_TOLD, tell_levels_now
from tradeback.server.feed import Feeds
from tradeback.store.stats import read_stats

SAFETY = 60.0


def until(reached: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SAFETY
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.05)


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
        until(lambda: read_stats(path).values[name].value > before)


def test_workers_of_the_api_add_up_what_they_count(tmp_path: Path) -> None:
    # There is no catalog: each request asks in vain, and says so in the log.
    with ApiProcess(tmp_path, SERVER_WORKERS="2", REDIS_ADDR="127.0.0.1:1") as api:
        for _ in range(20):
            assert api.ask("/api/v1/symbols").status == 503

        def problems() -> float:
            text = api.ask("/api/v1/metrics").body.decode()
            return total(text, "tradeback_api_problems_total", component="api.app", level="warning")

        until(lambda: problems() == 20)


def test_feeds_beyond_those_that_are_told_one_by_one_share_a_name(tmp_path: Path) -> None:
    stats = Stats.in_memory(SERVER_VALUES)
    with JournalWriter.open(tmp_path / "journal", "sim") as journal:
        table = SymbolTable.open(str(tmp_path / "table"), "sim")
        ingest = Ingest(table, journal, FanOut(table, stats), stats)
        feeds = Feeds(ingest, ExchangeConfig(max_connections=3 * (SHARDS_TOLD + 3)), None)
        for number in range(SHARDS_TOLD + 3):
            feeds.want(f"S{number}USDT")
        for number, shard in enumerate(feeds.shards):
            shard.feeds[0]._heard_ns = 1_000 + number
        tell_levels_now(feeds, ingest, stats)
        table.close()
    kind = feeds.shards[0].feeds[0].stream_type
    told = [stats.value(f'feed_message_at_ns{{feed="{kind}-{name}"}}') for name in (0, SHARDS_TOLD - 1, MORE)]
    assert told == [1_000, 1_000 + SHARDS_TOLD - 1, 1_000 + SHARDS_TOLD]
