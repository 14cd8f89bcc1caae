"""SIGHUP: each process reads its configuration again, and refuses a wrong one without any change."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import Any

from tests.e2e.api import ApiProcess
from tests.e2e.child import Child, logged
from tests.e2e.hubs import RawClient
from tests.e2e.running import RecorderProcess, ServerProcess, SimProcess
from tests.waiting import await_true

AGAIN = "the configuration was read again"
REFUSED = "the configuration is refused, nothing changes"


def hang_up(child: Child, path: Path, event: str) -> dict[str, Any]:
    """Send SIGHUP and wait for the line that says what came of it."""
    before = len(logged(path, event=event))
    child.process.send_signal(signal.SIGHUP)
    return await_true(lambda: logged(path, event=event)[before:], lambda: path.read_text()[-3000:])[0]


def upgrade(port: int, origin: str) -> bool:
    """Whether a page of that origin may connect."""

    async def attempt() -> bool:
        try:
            client = await RawClient.connect(port, headers={"Origin": origin})
        except AssertionError as refused:
            if b" 403 " not in refused.args[0]:
                raise
            return False
        await client.leave()
        return True

    return asyncio.run(attempt())


def test_the_server_takes_over_origins_and_levels(tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("log: {level: info}\n")
    with SimProcess("--paused") as sim, ServerProcess(tmp_path, sim, "--config", str(file)) as server:
        page = "https://page.example"
        assert not upgrade(server.ws_port, page)
        file.write_text(f"websocket: {{allowed_origins: ['{page}']}}\n")
        hang_up(server, server.log, AGAIN)
        assert upgrade(server.ws_port, page)
        file.write_text("websocket: {allowed_origins: [], max_clients: many}\n")
        said = hang_up(server, server.log, REFUSED)
        assert "max_clients" in said["reason"]
        assert upgrade(server.ws_port, page)
        file.write_text("log: {level: error}\n")
        server.process.send_signal(signal.SIGHUP)
        await_true(lambda: not upgrade(server.ws_port, page), server.said)
        assert server.stop() == 0
        assert logged(server.log)[-1]["event"] != "server stopped"  # below the level that is logged now


def test_the_recorder_stays_and_takes_over_its_level(tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("log: {level: info}\n")
    with RecorderProcess(tmp_path, None, "--config", str(file)) as recorder:
        file.write_text("log: {level: loud}\n")
        assert "log.level" in hang_up(recorder, recorder.log, REFUSED)["reason"]
        file.write_text("log: {level: debug}\n")
        hang_up(recorder, recorder.log, AGAIN)
        assert recorder.control(type="status")["exchange"] == "sim"
        assert recorder.stop() == 0


def test_the_api_takes_over_its_limits(tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("limits: {page: 1000/minute}\n")
    with ApiProcess(tmp_path, CONFIG_PATH=str(file)) as api:

        def limit() -> str | None:
            return api.ask("/nowhere").headers.get("ratelimit-limit")

        assert limit() == "1000"
        file.write_text("limits: {page: often}\n")
        assert "limits.page" in hang_up(api, api.log, REFUSED)["reason"]
        assert limit() == "1000"
        file.write_text("limits: {page: 7000/minute}\n")
        hang_up(api, api.log, AGAIN)
        await_true(lambda: limit() == "7000", api.said)
        assert api.stop() == 0
