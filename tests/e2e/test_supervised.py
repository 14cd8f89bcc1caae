"""The processes under systemd: what they tell it; and deploy/'s units and Caddyfile as their tools judge them."""

from __future__ import annotations

import configparser
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import CHECKOUT
from tests.e2e.api import ApiProcess
from tests.e2e.child import SIM_EXCHANGE
from tests.e2e.running import RecorderProcess, ServerProcess, SimProcess, Up
from tradeback.config import load_config

UNITS = sorted((CHECKOUT / "deploy" / "systemd").glob("*.service"))
SAFETY = 60.0


# Programs that judge what is in deploy/, and the Debian package that brings each.
PACKAGES = {"systemd-analyze": "systemd", "caddy": "caddy"}


def tool(name: str) -> str:
    """Where the program is. The test is skipped where it is not installed, and fails under CI, which installs it."""
    found = shutil.which(name)
    if found is None:
        said = f"{name} is not installed: apt-get install -y --no-install-recommends {PACKAGES[name]}"
        if os.environ.get("CI"):
            pytest.fail(said)
        pytest.skip(said)
    return found


@pytest.mark.parametrize("process", ["server", "recorder", "api", "up"])
def test_systemd_is_told(tmp_path: Path, process: str) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard, SimProcess("--paused") as sim:
        heard.settimeout(SAFETY)
        heard.bind(str(tmp_path / "notify"))
        told = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "100000"}
        folder = tmp_path / "data"
        folder.mkdir()
        starting = {
            "server": lambda: ServerProcess(folder, sim, **told),
            "recorder": lambda: RecorderProcess(folder, sim, **told),
            "api": lambda: ApiProcess(folder, **told),
            "up": lambda: Up(folder, "--sim-paused", environment=told),
        }
        with starting[process]() as running:
            states = [heard.recv(100)]
            while states.count(b"WATCHDOG=1") < 3 or b"READY=1" not in states:
                states.append(heard.recv(100))
            assert states.count(b"READY=1") == 1
            assert states.count(b"WATCHDOG=1") == len(states) - 1
            running.process.send_signal(signal.SIGTERM)
            while (state := heard.recv(100)) != b"STOPPING=1":
                assert state == b"WATCHDOG=1"
            assert running.process.wait(SAFETY) == 0


def test_a_recorder_that_waits_for_its_database_is_waited_for(tmp_path: Path) -> None:
    """Else systemd would end it after TimeoutStartSec, again and again, for as long as MySQL is away."""
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard,
        socket.socket() as nobody,
        SimProcess("--paused") as sim,
    ):
        heard.settimeout(SAFETY)
        heard.bind(str(tmp_path / "notify"))
        nobody.bind(("127.0.0.1", 0))  # and does not listen
        environment = {
            **os.environ,
            **SIM_EXCHANGE,
            "EXCHANGE_WS_ENDPOINT": sim.ws_endpoint,
            "EXCHANGE_REST_ENDPOINT": sim.rest_endpoint,
            "DATA_DIR": str(tmp_path / "data"),
            "NOTIFY_SOCKET": str(tmp_path / "notify"),
            "MYSQL_HOST": "127.0.0.1",
            "MYSQL_PORT": str(nobody.getsockname()[1]),
            "MYSQL_PASSWORD": "secret",
        }
        process = subprocess.Popen([sys.executable, "-m", "tradeback", "recorder"], env=environment)
        try:
            for _ in range(3):
                name, _, value = heard.recv(100).decode().partition("=")
                assert name == "EXTEND_TIMEOUT_USEC"
                assert int(value) >= 60_000_000
            process.send_signal(signal.SIGTERM)
            assert process.wait(SAFETY) == 0
        finally:
            process.kill()
            process.wait()


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_units_are_good_and_closed(unit: Path, tmp_path: Path) -> None:
    program = tmp_path / "tradeback"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    here = tmp_path / unit.name
    here.write_text(unit.read_text().replace("/opt/tradeback/.venv/bin/tradeback", str(program)))
    done = subprocess.run(
        [tool("systemd-analyze"), "verify", "--man=no", str(here)], capture_output=True, text=True, timeout=60
    )
    said = [line for line in done.stderr.splitlines() if unit.name in line]
    assert (done.returncode, said) == (0, [])
    done = subprocess.run(
        [tool("systemd-analyze"), "security", "--offline=true", "--threshold=25", str(here)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout[-2000:]
    assert re.search(r"exposure level .*: [0-9.]+ OK", done.stdout), done.stdout[-200:]


def settings_of_unit(process: str) -> configparser.SectionProxy:
    """`[Service]` of its unit; of what stands there twice, the last."""
    parser = configparser.ConfigParser(strict=False, interpolation=None, delimiters="=")
    parser.optionxform = str  # type: ignore[method-assign, assignment]
    parser.read(CHECKOUT / "deploy" / "systemd" / f"tradeback-{process}.service")
    return parser["Service"]


def test_the_main_process_of_the_api_tells_its_others_to_end() -> None:
    """As in tests/e2e/test_ending.py: those that answer would end at once, were they told by systemd too."""
    assert settings_of_unit("api")["KillMode"] == "mixed"


@pytest.mark.parametrize("process", ["api", "server"])
def test_units_listen_for_a_proxy_on_this_machine_alone(process: str) -> None:
    text = (CHECKOUT / "deploy" / "systemd" / f"tradeback-{process}.service").read_text()
    assert "\nEnvironment=SERVER_HOST=127.0.0.1\n" in text
    # What an administrator sets comes later, and so counts.
    assert text.index("SERVER_HOST=") < text.index("\nEnvironmentFile=-/etc/tradeback/environment\n")


def test_the_settings_beside_the_units_are_good() -> None:
    config = load_config(CHECKOUT / "deploy" / "systemd" / "config.yaml", environ={})
    for process in ("api", "server", "recorder"):
        assert (
            f"DATA_DIR={config.data.folder}\n"
            in (CHECKOUT / "deploy" / "systemd" / f"tradeback-{process}.service").read_text()
        )
    assert [str(one) for one in config.server.trusted_proxies] == ["127.0.0.1/32"]


def test_the_caddyfile_is_good(tmp_path: Path) -> None:
    path = CHECKOUT / "deploy" / "caddy" / "Caddyfile"
    done = subprocess.run(
        [tool("caddy"), "validate", "--config", str(path), "--adapter", "caddyfile"],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "HOME": str(tmp_path), "XDG_DATA_HOME": str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr
    assert "Valid configuration" in done.stdout + done.stderr
