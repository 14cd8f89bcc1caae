"""What processes log: whose request it was, at which level, and that a log that nobody reads holds up nothing."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.accounts import PASSWORD, Accounts, accounts_api
from tests.e2e.child import SIM_EXCHANGE
from tests.e2e.running import Audit, ServerProcess, SimProcess, await_sums_of_ledger, quantity_decimals
from tests.servers.services import settings_of
from tradeback.tokens import session_name, token_hash

SYMBOL = "BTCUSDT"
SAFETY = 60.0


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Accounts]:
    with accounts_api(tmp_path_factory.mktemp("logs")) as accounts:
        accounts.user("ann")
        yield accounts


def lines(log: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.read_text().splitlines()]


def test_a_line_tells_the_request_and_the_session_and_never_a_token(there: Accounts) -> None:
    answer = there.login("ann")
    token = answer.json["token"]
    there.ask("marketwatch", token)
    there.api.ask("/api/v1/marketwatch", Cookie=f"session_token={token}")
    (line,) = [line for line in lines(there.api.log) if line.get("request") == answer.headers["x-request-id"]]
    assert (line["event"], line["user"], line["logger"]) == ("logged in", "ann", "api.auth")
    assert line["session"] == session_name(token_hash(token))
    text = there.api.log.read_text()
    assert token not in text
    assert token_hash(token).hex() not in text
    assert PASSWORD not in text


def test_what_is_sent_forges_no_line(there: Accounts) -> None:
    forged = '\n{"event":"logged in","user":"root","level":"info"}\r\n\x1b[2J\u2028'
    for name in (forged, "x" * 100_000, "\udc80"):
        there.login(name)
        there.login("ann", name)
        # The server of HTTP itself complains of these.
        there.api.raw(f"GET /{name[:100]!a} HTTP/9.9\r\n\r\n".encode())
        there.api.raw(b"\x1b[2J\x00\xff / HTTP/1.1\r\n\r\n")
    assert all(line.get("user") != "root" for line in lines(there.api.log))


def tradeback(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tradeback", *words],
        env={**os.environ, **settings_of(folder), **SIM_EXCHANGE},
        capture_output=True,
        text=True,
        check=False,
    )


def test_levels_are_changed_while_processes_run(there: Accounts, tmp_path: Path) -> None:
    def login_is_told() -> bool:
        answer = there.login("ann")
        assert answer.status == 200
        return any(line.get("request") == answer.headers["x-request-id"] for line in lines(there.api.log))

    def await_login(told: bool) -> None:
        deadline = time.monotonic() + SAFETY
        while login_is_told() != told:
            assert time.monotonic() < deadline

    for level, told in (("warning", False), ("info", True)):
        done = tradeback(there.folder, "log", level, "api")
        assert done.returncode == 0, done.stderr
        assert f"api from {level} up, within a second" in done.stdout
        await_login(told)
    tradeback(there.folder, "log", "error")
    await_login(False)
    there.api.process.send_signal(signal.SIGHUP)  # the configuration holds again
    await_login(True)
    with SimProcess("--symbols", "1", "--rate", "10") as sim, ServerProcess(tmp_path, sim) as server:
        done = tradeback(tmp_path, "log", "debug", "server.feed")
        assert "server: server.feed from debug up" in done.stdout
        assert "recorder: not told" in done.stdout
        assert server.control(type="log")["levels"] == {"all": "info", "server.feed": "debug"}


def test_a_level_that_cannot_be_is_a_sentence(tmp_path: Path) -> None:
    for words, said in (
        (("log", "loud"), "'loud' is not one of"),
        (("log", "debug", "--data-dir", str(tmp_path / "nowhere")), "nothing ever ran on this data folder"),
    ):
        done = tradeback(tmp_path, *words)
        assert done.returncode != 0
        assert said in done.stderr


def test_a_server_whose_log_nobody_reads_serves_all_the_same(tmp_path: Path) -> None:
    """Its standard error is a pipe that is full before it starts."""
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    os.write(writing, b"x" * 4095 + b"\n")
    ready, tell = os.pipe()
    with SimProcess("--symbols", "2", "--rate", "500", "--paused") as sim:
        environment = {
            **os.environ,
            **settings_of(tmp_path),
            **SIM_EXCHANGE,
            "EXCHANGE_WS_ENDPOINT": sim.ws_endpoint,
            "EXCHANGE_REST_ENDPOINT": sim.rest_endpoint,
            "EXCHANGE_SYMBOLS": SYMBOL,
            "WS_PORT": "0",
            "WS_ANONYMOUS": "true",
            "LOG_LEVEL": "debug",
            "LOG_PERFORMANCE": "100ms",
        }
        server = subprocess.Popen(
            [sys.executable, "-m", "tradeback", "server", f"--ready-fd={tell}"],
            env=environment,
            stderr=writing,
            pass_fds=(tell,),
        )
        os.close(tell)
        try:
            with os.fdopen(ready) as told:
                address = json.loads(told.readline())["websocket"]
            port = int(address.split(":")[2].split("/")[0])
            with Audit(port, 5, [SYMBOL]) as audit:
                sim.get("/sim/resume")
                deadline = time.monotonic() + SAFETY
                while sim.ledger(SYMBOL)["count"] < 200:
                    assert time.monotonic() < deadline
                sim.pause_and_drain()
                decimals = quantity_decimals(sim.rest_endpoint)
                await_sums_of_ledger(sim, audit, {SYMBOL: decimals[SYMBOL]})
            # Now somebody reads: what was lost is told, in whole lines.
            with os.fdopen(reading) as log:
                assert log.readline() == "x" * 4095 + "\n"
                first = json.loads(log.readline())
                assert first["event"] == "lines of the log could not be written"
                assert first["lost"] > 3
                assert json.loads(log.readline())["event"]
                server.send_signal(signal.SIGTERM)
                os.close(writing)
                assert [json.loads(line) for line in log][-1]["event"] == "server stopped"
            assert server.wait(SAFETY) == 0
        finally:
            server.kill()
            server.wait()
