"""`tradeback up` and `tradeback server` where something is in the way: one sentence, exit code 1, no traceback."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from http.client import HTTPException
from pathlib import Path
from urllib.parse import urlsplit

import orjson
import pytest

from tests.e2e.api import ask
from tests.e2e.child import SIM_EXCHANGE
from tests.e2e.processes import Watched, children_of
from tests.e2e.running import Up, ask_control
from tests.servers.services import settings_of
from tradeback.config import ExchangeConfig
from tradeback.exchange.choice import DEFAULT_SIM, DEFAULT_SIM_REST, Choice

UP = ["up", "--port", "0", "--sim-rate", "10", "--sim-symbols", "5"]


def program(*arguments: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tradeback", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, **SIM_EXCHANGE, **environment},
    )


def refused(*arguments: str, **environment: str) -> str:
    """What it prints before it ends with 1."""
    process = program(*arguments, **environment)
    text, _ = process.communicate(timeout=90)
    assert process.returncode == 1, text
    assert "Traceback" not in text
    return text


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("taken", "words"), [("--ws-port", r"another address \(.*WS_PORT\)"), ("--sim-port", "--sim-port")]
)
def test_a_taken_port_is_a_sentence(tmp_path: Path, taken: str, words: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        free = "--sim-port" if taken == "--ws-port" else "--ws-port"
        text = refused(*UP, "--data-dir", str(tmp_path), taken, port, free, "0")
    assert re.search(rf"Error: .*cannot listen on .*{port}", text)
    assert re.search(words, text)


@pytest.mark.timeout(120)
def test_a_second_server_a_crash_and_the_end(tmp_path: Path) -> None:
    with Up(tmp_path, "--sim-rate", "10", "--sim-symbols", "5") as up:
        ports = ["--ws-port", "0", "--sim-port", "0"]
        text = refused(*UP, *ports, "--data-dir", str(tmp_path), **settings_of(tmp_path))
        assert "is being written by process" in text
        match = re.search(r"is being written by process (\d+)", text)
        assert match is not None
        before = up.ws_port
        os.kill(int(match[1]), signal.SIGKILL)
        deadline = time.monotonic() + 60
        while True:
            try:
                ask_control(tmp_path / "sim" / "control.sock", {"type": "status"})
                break
            except OSError:
                assert time.monotonic() < deadline, "the server was not started again"
                time.sleep(0.05)
        with socket.create_connection(("127.0.0.1", before)):
            pass
        assert up.stop() == 0
    assert "Traceback" not in (tmp_path / "up.log").read_text()
    with pytest.raises(ConnectionRefusedError), socket.create_connection(("127.0.0.1", before)):
        pass


def is_server(pid: int) -> bool:
    try:
        return b"server" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False  # it ended


def await_child(up: Up, but: int = 0) -> int:
    """The id of its server, once that is another than `but`; 0 where `up` ended."""
    deadline = time.monotonic() + 60
    while up.process.poll() is None:
        assert time.monotonic() < deadline, "no child was started"
        if others := [pid for pid in children_of(up.process.pid) if pid != but and is_server(pid)]:
            return others[0]
        time.sleep(0.01)
    return 0


@pytest.mark.timeout(120)
@pytest.mark.parametrize("when", ["ready", "starting"])
def test_up_killed_outright_leaves_nothing_running(tmp_path: Path, when: str) -> None:
    up = Up(tmp_path, "--sim-rate", "10", "--sim-symbols", "5")
    child = await_child(up)
    if when == "starting":
        os.kill(child, signal.SIGKILL)
        child = await_child(up, but=child)
    with ExitStack() as stack:
        others = [stack.enter_context(Watched(pid)) for pid in children_of(up.process.pid)]
        up.process.kill()
        assert all(process.ended(60) for process in others), "a process outlived the one that started it"
    assert up.stop() == -signal.SIGKILL
    # It let go of everything: the next one finds nothing in its way.
    with Up(tmp_path, "--sim-rate", "10", "--sim-symbols", "5") as up:
        assert up.stop() == 0


@pytest.mark.timeout(180)
def test_an_api_that_is_killed_is_back_at_its_address(tmp_path: Path) -> None:
    """The process that answers, or its parent; with connections open, one in the middle of a request."""
    with Up(tmp_path, "--sim-rate", "10", "--sim-symbols", "5") as up:
        address, _ = up.await_login()
        port = urlsplit(address).port
        assert port is not None
        for which in ("the process that answers", "its parent"):
            (parent,) = [pid for pid in children_of(up.process.pid) if b"api" in command_of(pid)]
            (worker,) = children_of(parent)
            with ExitStack() as stack:
                for begun in (b"GET /api/v1/health HTTP/1.1\r\nHost: a\r\n\r\n", b"GET /api/v1/he"):
                    connection = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
                    connection.sendall(begun)
                victim = worker if which == "the process that answers" else parent
                both = [stack.enter_context(Watched(pid)) for pid in (worker, victim)]
                os.kill(victim, signal.SIGKILL)
                assert all(process.ended(60) for process in both)
                deadline = time.monotonic() + 60
                while True:
                    try:
                        assert ask(port, "/api/v1/health").status == 200
                        break
                    except (OSError, HTTPException):
                        assert time.monotonic() < deadline, "the API was not started again"
                        time.sleep(0.05)
        assert up.stop() == 0
    log = (tmp_path / "up.log").read_text()
    assert "could not be started again" not in log
    assert "Traceback" not in log


def command_of(pid: int) -> list[bytes]:
    return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")


@pytest.mark.timeout(120)
def test_a_server_that_crashes_again_and_again(tmp_path: Path) -> None:
    with Up(tmp_path, "--sim-rate", "10", "--sim-symbols", "5") as up:
        child = 0
        while child := await_child(up, but=child):
            os.kill(child, signal.SIGKILL)
        assert up.stop() == 1
    log = (tmp_path / "up.log").read_text()
    assert re.search(r"Error: server ended 6 times within a minute, and is not started again: .*", log)
    assert "Traceback" not in log


@pytest.mark.timeout(120)
def test_a_recording_that_is_broken_in_its_middle_ends_it_all(tmp_path: Path) -> None:
    """An exchange that plays no more would look like a quiet market for ever."""
    recording = tmp_path / "recording.jsonl"
    message = (
        '{"stream":"btcusdt@trade","data":{"e":"trade","E":1700000000000,"s":"BTCUSDT","t":%d,"p":"1.5",'
    )
    message += '"q":"2","T":1700000000000,"m":true,"M":true}}'
    lines = [orjson.dumps({"t": 1_700_000_000 + n / 1000, "m": message % n}).decode() for n in range(1, 3000)]
    recording.write_text("\n".join(lines) + "\n")
    with Up(tmp_path, "--replay", str(recording), "--speed", "100", "--sim-paused") as up:
        recording.write_text("\n".join([*lines[:10], "no message"]) + "\n")
        up.sim("/sim/resume")
        up.process.wait(60)
        assert up.stop() == 1
    log = (tmp_path / "up.log").read_text()
    assert "is no recorded message" in log
    assert "Traceback" not in log


@pytest.mark.timeout(120)
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_asked_to_end_while_it_starts(tmp_path: Path, signum: signal.Signals) -> None:
    arguments = [*UP, "--data-dir", str(tmp_path), "--ws-port", "0", "--sim-port", "0"]
    with program(*arguments) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signum)
        text = process.stdout.read()
        assert process.wait(60) == 0, text
    assert "Traceback" not in text


@pytest.mark.timeout(120)
def test_an_exchange_that_cannot_be_reached(tmp_path: Path) -> None:
    closed = {"EXCHANGE_WS_ENDPOINT": "ws://127.0.0.1:1", "EXCHANGE_REST_ENDPOINT": "http://127.0.0.1:1"}
    text = refused("server", "--ws-port", "0", "--data-dir", str(tmp_path), **closed)
    assert "no symbol is known: the catalog is empty" in text


def test_falling_back_to_the_simulated_exchange_leaves_what_could_not_be_reached() -> None:
    config = ExchangeConfig(ws_endpoint="ws://127.0.0.1:1", rest_endpoint="http://127.0.0.1:1")
    assert config.name == "auto"
    chosen = Choice("sim", "it cannot be reached").apply(config)
    assert (chosen.name, chosen.ws_endpoint, chosen.rest_endpoint) == ("sim", DEFAULT_SIM, DEFAULT_SIM_REST)
    asked_for = config.model_copy(update={"name": "sim"})
    assert Choice("sim", "it was asked for").apply(asked_for) == asked_for
