"""A market under which server, recorder, exchange connections, disk and clock fail, and once the services that all is
stored in too: what is stored is what was traded.

The seed of a run is printed; `TRADEBACK_SEED` repeats one. `make chaos` runs for ten minutes each.
"""

from __future__ import annotations

import os
import random
import subprocess
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.chaos.disturbances import Disturbed
from tests.chaos.service_disturbances import DisturbedServices
from tests.conftest import private
from tests.e2e.fake_clock import FakeClock
from tests.e2e.running import SimProcess, await_given_up, stream_ids
from tests.e2e.test_recorder import FOR_EVER, opened_history
from tests.reference.ledger import bar_differences, bars_of, read_ledger, tick_differences
from tests.scale import CHAOS
from tests.servers.influx import InfluxServer
from tests.servers.mariadb import MariadbServer
from tests.servers.nats import NatsServer
from tests.servers.redis import RedisServer
from tests.servers.server import RealServer
from tests.servers.services import config_of, give
from tests.waiting import await_true
from tradeback.model import RESOLUTIONS
from tradeback.recorder.indicators import enigma_message
from tradeback.store.cache_redis import open_cache

SECONDS = 600.0 if CHAOS else 60.0
SECONDS_WITH_SERVICES = 600.0 if CHAOS else 30.0
SYMBOLS = 20
RATE = 5_000
DISK = "2g" if CHAOS else "300m"
SAFETY = 120.0
MS_NS = 1_000_000


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of its own, which can be filled."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def until_all_trade(sim: SimProcess) -> None:
    """Wait until every symbol was traded again: what was missed before is then known as missing."""
    counts = {name: row["count"] for name, row in sim.get("/sim/ledger").items()}
    await_true(
        lambda: all(row["count"] > counts[name] for name, row in sim.get("/sim/ledger").items()),
        "a symbol was not traded again",
        SAFETY,
    )


@pytest.mark.timeout(int(SECONDS) + 500)
def test_what_is_stored_is_what_was_traded_whatever_fails(disk: Path, tmp_path: Path) -> None:
    trade_and_fail(disk, tmp_path, SECONDS)


@pytest.mark.timeout(int(SECONDS_WITH_SERVICES) + 700)
def test_so_it_is_where_the_services_fail_too(disk: Path, tmp_path: Path) -> None:
    with ExitStack() as stack:
        kinds = (RedisServer, NatsServer, MariadbServer, InfluxServer)
        servers = [stack.enter_context(private(kind, tmp_path / kind.PROGRAM)) for kind in kinds]
        settings = {key: value for server in servers for key, value in server.environment.items()}
        give(disk, settings | {"INFLUX_TIMEOUT": "3s", "MYSQL_TIMEOUT": "2s", "REDIS_TIMEOUT": "500ms"})
        trade_and_fail(disk, tmp_path, SECONDS_WITH_SERVICES, servers)


def trade_and_fail(disk: Path, tmp_path: Path, seconds: float, servers: Sequence[RealServer] = ()) -> None:
    seed = int(os.environ.get("TRADEBACK_SEED") or random.randrange(2**32))
    print(f"seed {seed}")
    market = ("--symbols", str(SYMBOLS), "--rate", str(RATE), "--seed", str(seed), "--paused", "--no-history")
    tolerant = ("--weight-limit", "1000000", "--max-attempts", "1000000")
    with (
        SimProcess(*market, *tolerant) as sim,
        FakeClock(tmp_path) as clock,
        Disturbed(disk, sim, clock, random.Random(seed)) as disturbed,
    ):
        disturbed.server.await_subscribed(SYMBOLS)
        sim.get("/sim/resume")
        with services_disturbed(servers, seed, seconds):
            try:
                disturbed.disturb(seconds)
            finally:
                print("\n".join(disturbed.done))
        disturbed.calm()
        disturbed.server.await_subscribed(SYMBOLS)
        until_all_trade(sim)
        sim.pause_and_drain()
        await_given_up(disturbed.server)
        status = disturbed.recorder.await_stored(repaired=True)
        disturbed.assert_alive()
        assert status["gaps"] == {"open": 0, "unfillable": 0}
        assert_stored_is_traded(disk, sim, seconds)
        assert_told_is_true(disk, sim)
        assert disturbed.recorder.stop() == 0
        assert disturbed.server.stop() == 0
    for log in ("server.log", "recorder.log"):
        assert "Traceback" not in (disk / log).read_text()


@contextmanager
def services_disturbed(servers: Sequence[RealServer], seed: int, seconds: float) -> Iterator[None]:
    """Within the block the servers, if there are any, have troubles; after it all of them answer."""
    if not servers:
        yield
        return
    troubles = DisturbedServices([*servers], random.Random(seed + 1))
    ended = threading.Event()
    with ThreadPoolExecutor(1) as thread:
        future = thread.submit(troubles.disturb, seconds, ended)
        try:
            yield
        finally:
            ended.set()
            future.result()
            print("\n".join(troubles.done))


def assert_stored_is_traded(folder: Path, sim: SimProcess, seconds: float) -> None:
    ids = stream_ids(folder)
    total = records = 0
    with opened_history(folder) as history:
        covered = history.covered()
        for name in sorted(sim.get("/sim/ledger")):
            trades = read_ledger(sim.get, name)
            stream_id = ids[name]
            assert covered[stream_id] == [(trades[0].trade_id, trades[-1].trade_id)], name
            ticks = list(history.ticks(stream_id, 0, FOR_EVER))
            assert tick_differences(ticks, trades) == [], name
            for resolution, length in RESOLUTIONS.items():
                stored = history.bars(stream_id, resolution, 0, FOR_EVER)
                assert bar_differences(stored, bars_of(trades, length)) == [], (name, resolution)
            total += len(trades)
            records += len(ticks)
    print(f"{total} trades of {len(ids)} symbols in {records} records")
    assert total > seconds * 100


def assert_told_is_true(folder: Path, sim: SimProcess) -> None:
    """The newest level of each symbol is that of all of its trades; where there is a Redis, it tells the same, and the
    last price."""
    ids, config = stream_ids(folder), config_of(folder)
    cache = open_cache(config)
    with opened_history(folder) as history:
        for name in sorted(sim.get("/sim/ledger")):
            trades = read_ledger(sim.get, name)
            newest_ms = trades[-1].ts_event // MS_NS
            prices = {float(trade.price) for trade in trades}
            last = {float(trade.price) for trade in trades if trade.ts_event // MS_NS == newest_ms}

            def level_is_right(stream_id: int = ids[name], prices: set[float] = prices) -> bool:
                level = history.enigma(stream_id)
                return level is not None and (level.ath, level.atl) == (max(prices), min(prices))

            await_true(level_is_right, f"the level of all trades of {name} is stored")
            level = history.enigma(ids[name])
            assert level is not None
            assert level.price in last, name
            if cache is not None:
                await_true(
                    lambda name=name, level=level: cache.enigma(name) == enigma_message(name, level)["data"],
                    f"the level of {name} is in Redis",
                )
                price = cache.price(name)
                assert price is not None
                assert (price.price, price.ts_event // MS_NS) == (float(trades[-1].price), newest_ms), name
    if cache is not None:
        cache.close()
