"""Health, with each component failing for real: files that go, processes that are killed, an exchange gone silent."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.api import ApiProcess
from tests.e2e.running import RecorderProcess, ServerProcess, SimProcess, trade_and_drain
from tests.servers.services import settings_of

DETAILED = "/api/v1/health/detailed"
READY = "/api/v1/health/ready"
ALIVE = "/api/v1/health"
COMPONENTS = ("catalog", "history", "prices", "counters")
SECRET = "a-secret-that-nobody-may-be-told"
SECRETS = {
    "SESSION_SECRET": SECRET,
    "MYSQL_PASSWORD": SECRET,
    "INFLUX_TOKEN": SECRET,
    "REDIS_PASSWORD": SECRET,
}
AWAIT_S = 60
EMBEDDED = pytest.mark.embedded("its file is moved away")


@dataclass(frozen=True)
class There:
    """A simulated exchange that trades, and an API that takes it for silent after two seconds."""

    folder: Path
    sim: SimProcess
    api: ApiProcess

    def file(self, name: str) -> Path:
        return self.folder / "sim" / name

    def detailed(self, status: int = 200) -> Any:
        answer = self.api.ask(DETAILED)
        assert answer.status == status, answer
        return answer.json

    def awaited(self, told: Callable[[Any], bool]) -> Any:
        """What is said once it is so."""
        deadline = time.monotonic() + AWAIT_S
        while not told(said := self.api.ask(DETAILED).json):
            assert time.monotonic() < deadline, said
            time.sleep(0.05)
        return said


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, SimProcess, ServerProcess]]:
    folder = tmp_path_factory.mktemp("health")
    with (
        SimProcess("--symbols", "3", "--rate", "200", "--paused") as sim,
        ServerProcess(folder, sim, EXCHANGE_SYMBOLS="BTCUSDT,ETHUSDT") as server,
    ):
        server.await_subscribed(2)
        yield folder, sim, server


@pytest.fixture(scope="module")
def there(server: tuple[Path, SimProcess, ServerProcess]) -> Iterator[There]:
    folder, sim, _ = server
    with RecorderProcess(folder, sim) as recorder:
        trade_and_drain(sim.rest_endpoint, 1_000)
        recorder.await_stored()
        recorder.stop()
    given = {"EXCHANGE_MUTE_LIMIT": "2s", "EXCHANGE_PING_INTERVAL": "1s"}
    used = settings_of(folder)  # the services have passwords of their own, or none
    given |= {
        name: secret for name, secret in SECRETS.items() if f"{name.partition('_')[0]}_" not in str(used)
    }
    with ApiProcess(folder, **given) as api:
        yield There(folder, sim, api)


def test_all_is_well_and_the_recorder_is_killed(there: There) -> None:
    there.sim.get("/sim/resume")
    try:
        with RecorderProcess(there.folder, there.sim) as recorder:
            said = there.awaited(lambda said: said["status"] == "ok")
            assert set(said["components"]) == set(COMPONENTS)
            for component in said["components"].values():
                assert component["state"] == "ok"
                assert component["latency_ms"] >= 0
            assert said["components"]["prices"]["symbols_with_price"] == 2
            assert said["components"]["catalog"]["active_symbols"] == 3
            assert said["feed"]["state"] == "ok"
            # They are told once a second.
            sinks = there.awaited(lambda said: {"history", "indicators"} <= said["sinks"].keys())["sinks"]
            assert {sink["state"] for sink in sinks.values()} == {"ok"}
            assert 0 <= said["feed"]["age_ms"] <= 2_000
            assert {name: told["state"] for name, told in said["processes"].items()} == {
                "recorder": "running",
                "server": "running",
            }
            assert abs(said["processes"]["recorder"]["started_ms"] - time.time() * 1000) < 600_000
            recorder.kill()
        said = there.awaited(lambda said: said["processes"]["recorder"]["state"] == "ended")
        assert said["status"] == "degraded"
        assert there.detailed()["processes"]["server"]["state"] == "running"
        assert there.api.get(READY)["status"] == "ok"
        with RecorderProcess(there.folder, there.sim):
            there.awaited(lambda said: said["status"] == "ok")
    finally:
        there.sim.get("/sim/pause")


def test_an_exchange_gone_silent(there: There) -> None:
    with RecorderProcess(there.folder, there.sim):
        there.sim.get("/sim/resume")
        there.awaited(lambda said: said["status"] == "ok")
        there.sim.get("/sim/pause")
        said = there.awaited(lambda said: said["feed"]["state"] == "silent")
        assert said["status"] == "degraded"
        assert said["feed"]["age_ms"] > 2_000
        older = there.awaited(lambda later: later["feed"]["age_ms"] > said["feed"]["age_ms"])
        assert older["feed"]["state"] == "silent"
        assert there.api.get(READY)["status"] == "ok"


@pytest.mark.parametrize(
    ("name", "component"),
    [
        pytest.param("catalog.sqlite", "catalog", marks=EMBEDDED),
        pytest.param("history.sqlite", "history", marks=EMBEDDED),
        pytest.param(
            "table", "prices", marks=pytest.mark.embedded("where it is away prices are in the cache")
        ),
    ],
)
def test_a_file_that_goes_and_comes_again(there: There, name: str, component: str) -> None:
    file = there.file(name)
    kept = file.with_name(f"{name}.kept")
    file.rename(kept)
    try:
        # Whether the table is still the same file is looked after now and then only.
        said = there.awaited(lambda said: said["components"][component]["state"] == "unavailable")
        assert said["status"] == "unavailable"
        assert there.detailed(503)["components"][component]["state"] == "unavailable"
        assert said["components"][component]["latency_ms"] >= 0
        assert there.api.ask(READY).status == 503
        assert there.api.ask(READY).json["components"][component] == "unavailable"
        assert there.api.get(ALIVE) == {"status": "ok"}
        if component != "catalog":  # without which there are no symbols whose prices could be asked
            others = {
                other: told["state"] for other, told in said["components"].items() if other != component
            }
            assert set(others.values()) == {"ok"}
    finally:
        kept.rename(file)
    there.awaited(lambda said: said["components"][component]["state"] == "ok")
    assert there.api.get(READY)["status"] == "ok"


def test_counters_that_are_torn(there: There) -> None:
    torn = there.file("stats") / "torn"
    torn.write_bytes(b"nothing that was ever counted")
    try:
        said = there.detailed(503)
        assert said["components"]["counters"]["state"] == "unavailable"
        assert {told["state"] for told in said["processes"].values()} == {"unknown"}
        assert there.api.get(READY)["status"] == "ok"
    finally:
        torn.unlink()
    assert there.detailed()["components"]["counters"]["state"] == "ok"


def test_no_secret_is_told(there: There) -> None:
    for path in (ALIVE, READY, DETAILED, "/api/v1/metrics", "/api/v1/openapi.json", "/api/v1/docs"):
        text = there.api.ask(path).body.decode()
        assert SECRET not in text
        assert str(there.folder) not in text
        assert "sqlite" not in text
    kept = there.file("history.kept")
    there.file("history.sqlite").rename(kept)
    try:
        text = there.api.ask(DETAILED).body.decode()
    finally:
        kept.rename(there.file("history.sqlite"))
    assert str(there.folder) not in text
    assert "sqlite" not in text


@pytest.mark.embedded("services are there though nothing ever ran")
def test_where_nothing_ever_ran(tmp_path: Path) -> None:
    with ApiProcess(tmp_path) as api:
        answer = api.ask(DETAILED)
    assert answer.status == 503
    assert {answer.json["components"][name]["state"] for name in COMPONENTS[:3]} == {"unavailable"}
    assert answer.json["feed"] == {"state": "silent", "age_ms": None}
    never = {"state": "never started", "started_ms": None}
    assert answer.json["processes"] == {"server": never, "recorder": never}


def test_a_server_that_is_killed(there: There, server: tuple[Path, SimProcess, ServerProcess]) -> None:
    """The last one: nobody starts it again."""
    server[2].kill()
    said = there.awaited(lambda said: said["processes"]["server"]["state"] == "ended")
    assert said["status"] == "degraded"
    # What it wrote is answered all the same.
    assert said["components"]["prices"]["symbols_with_price"] == 2
    assert there.api.ask("/api/v1/symbols/BTCUSDT/price").status == 200
