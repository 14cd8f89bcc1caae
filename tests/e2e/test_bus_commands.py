"""The commands of docs/bus.md with NATS' own command line, beside a real recorder that keeps trades in a stream."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import private
from tests.documents.blocks import commands
from tests.e2e.running import RecorderProcess, ServerProcess, SimProcess, trade_and_drain
from tests.e2e.test_bus_requests import await_listening
from tests.servers.nats import NatsServer, kept
from tests.waiting import await_true

PAGE = "docs/bus.md"
SETTINGS = {"EXCHANGE_SYMBOLS": "BTCUSDT", "RECORDER_HISTORY_DAYS": "0"}
# No package of Debian's or PyPI's has it, so a missing one is a skip under CI too.
HOW_TO_GET = "https://github.com/nats-io/natscli has the program"


def test_the_commands_of_the_page_say_what_it_says(tmp_path: Path) -> None:
    if shutil.which("nats") is None:
        pytest.skip(f"no program nats here, and the commands of {PAGE} are not typed: {HOW_TO_GET}")
    typed = commands(PAGE)
    assert len(typed) == 3
    folder = tmp_path / "data"
    folder.mkdir()
    with (
        private(NatsServer, tmp_path / "nats", "-js") as nats,
        SimProcess("--symbols", "3", "--rate", "2000", "--paused") as sim,
        ServerProcess(folder, sim, **SETTINGS) as server,
        RecorderProcess(folder, sim, **SETTINGS, **nats.environment, NATS_JETSTREAM="true") as recorder,
    ):
        server.await_subscribed(1)
        trade_and_drain(sim.rest_endpoint, 1_000)
        await_true(lambda: bool(kept(nats)), "no trade is kept")
        await_listening(recorder)

        def answer(command: str) -> str:
            done = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", command],
                env={**os.environ, "NATS_URL": nats.url, "HOME": str(tmp_path)},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
            assert done.returncode == 0, (command, done.stdout, done.stderr)
            return done.stdout

        made, first, price = [answer(command) for command in typed]
        assert "Pull Mode: true" in made
        assert first.split()[:3] == ["0000000", "01", "01"]  # version and kind: trades
        assert json.loads(price)["symbol"] == "BTCUSDT"
