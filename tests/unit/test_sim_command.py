"""`tradeback sim` as a process: its one line, its exit on a signal, its options."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner

from tests.consumer import SAFETY_SECONDS
from tradeback.cli import main


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_prints_its_addresses_and_leaves_on_a_signal(number: signal.Signals) -> None:
    async def scenario() -> None:
        program = (sys.executable, "-c", "from tradeback.cli import main; main()", "sim")
        options = ("--port", "0", "--rest-port", "0", "--symbols", "7", "--rate", "5000", "--first-id", "3")
        process = await asyncio.create_subprocess_exec(*program, *options, stdout=asyncio.subprocess.PIPE)
        assert process.stdout is not None
        line = (await asyncio.wait_for(process.stdout.readline(), SAFETY_SECONDS)).decode().split()
        assert line[:3] == ["simulated", "exchange:", "streams"]
        assert line[3].startswith("ws://127.0.0.1:")
        assert line[4:] == ["rest", line[5], "symbols", "7"]
        async with httpx.AsyncClient(base_url=line[5], timeout=SAFETY_SECONDS) as http:
            info = (await http.get("/api/v3/exchangeInfo")).json()
            assert len(info["symbols"]) == 7
            while not (state := (await http.get("/sim/state")).json())["trades"]:
                await asyncio.sleep(0.01)
            assert not state["paused"]
        process.send_signal(number)
        rest, _ = await asyncio.wait_for(process.communicate(), SAFETY_SECONDS)
        assert (process.returncode, rest) == (0, b"")

    asyncio.run(scenario())


def test_wrong_options_are_refused(tmp_path: Path) -> None:
    for options, words in (
        (["--speed", "fast"], "is no speed"),
        (["--speed", "-1"], "is no speed"),
        (["--symbols", "0"], "--symbols"),
        (["--replay", str(tmp_path / "absent")], "does not exist"),
    ):
        result = CliRunner().invoke(main, ["sim", *options])
        assert result.exit_code == 2
        assert words in result.output
    broken = tmp_path / "broken.jsonl"
    broken.write_text("{\n")
    result = CliRunner().invoke(main, ["sim", "--replay", str(broken)])
    assert result.exit_code == 1
    assert "line 1 of" in result.output
