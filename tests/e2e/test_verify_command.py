"""`tradeback verify` against a simulated exchange, over a history that was written by hand."""

from __future__ import annotations

import asyncio
import os
import pty
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import orjson
import pytest
from click.testing import CliRunner, Result

from tests.e2e.running import RecorderProcess, ServerProcess, SimProcess
from tests.servers.services import config_of, settings_of
from tradeback._fast.record import REASONS
from tradeback.cli import main
from tradeback.exchange.rest import ExchangeRest
from tradeback.exchange.sim import Sim, SimConfig
from tradeback.model import RESOLUTIONS, Bar, Gap, Tick
from tradeback.recorder.comparison import bar_of
from tradeback.store.base import HistoryBatch
from tradeback.store.catalog import open_catalog
from tradeback.store.histories import open_history
from tradeback.store.history_sqlite import SqliteHistory

HOUR = RESOLUTIONS["1h"]
ONE_DAY = 86_400_000_000_000
# Whole days that are over, so that nothing of them is in progress.
END = time.time_ns() // ONE_DAY * ONE_DAY
START = END - ONE_DAY

Change = Callable[[SqliteHistory, int], None]


async def fill(sim: Sim, folder: Path, change: Change | None, resolutions: list[str]) -> None:
    config = config_of(folder)
    async with ExchangeRest(sim.rest_url) as rest:
        with closing(open_catalog(config)) as catalog:
            catalog.sync_symbols(await rest.exchange_info())
            symbol = catalog.symbol("BTCUSDT")
        assert symbol is not None
        with closing(open_history(config, write=True)) as history:
            for resolution in resolutions:
                start = START // 1_000_000
                while start < END // 1_000_000:
                    rows = await rest.klines(
                        "BTCUSDT", resolution, start_ms=start, end_ms=END // 1_000_000 - 1
                    )
                    if not rows:
                        break
                    history.write_bars(symbol.stream_id, resolution, [bar_of(row) for row in rows])
                    start = rows[-1].open_time // 1_000_000 + 1
            if change is not None:
                change(history, symbol.stream_id)


def verified(
    folder: Path, *arguments: str, change: Change | None = None, resolutions: list[str] | None = None
) -> Result:
    async def scenario() -> Result:
        async with Sim(SimConfig(symbols=2, paused=True, seed=3)) as sim:
            await fill(sim, folder, change, resolutions or list(RESOLUTIONS))
            environ = {
                **settings_of(folder),
                "EXCHANGE_REST_ENDPOINT": sim.rest_url,
                "COLUMNS": "200",
            }
            times = ["--from", str(START // 10**9), "--to", str(END // 10**9)]
            command = ["verify", "BTCUSDT", *times, *arguments]
            return await asyncio.to_thread(CliRunner().invoke, main, command, env=environ)

    return asyncio.run(scenario())


def test_a_terminal_is_shown_how_far_it_is(tmp_path: Path) -> None:
    async def scenario() -> tuple[bytes, bytes]:
        async with Sim(SimConfig(symbols=2, paused=True, seed=3)) as sim:
            await fill(sim, tmp_path, None, ["1h"])
            ours, theirs = pty.openpty()
            times = ["--from", str(START // 10**9), "--to", str(END // 10**9)]
            command = ["verify", "BTCUSDT", "--resolution", "1h", "--format", "jsonl", *times]
            environ = {**settings_of(tmp_path), "EXCHANGE_REST_ENDPOINT": sim.rest_url, "TERM": "xterm"}
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "tradeback", *command),
                stdout=asyncio.subprocess.PIPE,
                stderr=theirs,
                env={**os.environ, **environ, "COLUMNS": "120"},
            )
            os.close(theirs)
            told, _ = await process.communicate()
            assert process.returncode == 0
            shown = os.read(ours, 65_536)
            os.close(ours)
            return told, shown

    told, shown = asyncio.run(scenario())
    assert b"the exchange's 1h bars" in shown
    assert b"stored trades" in shown
    (summary,) = [orjson.loads(line) for line in told.splitlines()]
    assert summary["good"]


def lines(result: Result) -> list[dict[str, Any]]:
    assert "Traceback" not in result.output
    return [orjson.loads(line) for line in result.stdout.splitlines()]


def test_what_is_equal_at_every_resolution(tmp_path: Path) -> None:
    result = verified(tmp_path)
    assert result.exit_code == 0, result.output
    assert "All that could be compared is equal" in result.output
    assert "No trades are stored of this time" in result.output
    (summary,) = lines(verified(tmp_path, "--format", "jsonl"))
    assert summary["good"]
    assert summary["bars"]["1d"] == {"compared": 1, "equal": 1}
    assert summary["bars"]["1h"] == {"compared": 24, "equal": 24}
    assert summary["bars"]["1m"]["compared"] > 1_400


def test_a_wrong_bar_is_named_with_both_numbers(tmp_path: Path) -> None:
    seen: list[Bar] = []

    def spoil(history: SqliteHistory, stream_id: int) -> None:
        seen.extend(history.bars(stream_id, "1h", START, START + 2 * HOUR))
        # As many trades or more are taken for the better bar.
        history.write_bars(
            stream_id, "1h", [seen[0]._replace(close=seen[0].low, volume=seen[0].volume + 1e-5)]
        )

    result = verified(tmp_path, "--resolution", "1h", "--format", "jsonl", change=spoil, resolutions=["1h"])
    assert result.exit_code == 1
    *differences, summary = lines(result)
    assert not summary["good"]
    assert summary["bars"] == {"1h": {"compared": 24, "equal": 23}}
    assert {line["field"]: (line["stored"], line["exchange"]) for line in differences} == {
        "close": (seen[0].low, seen[0].close),
        "volume": (seen[0].volume + 1e-5, seen[0].volume),
    }
    assert {line["kind"] for line in differences} == {"difference"}
    text = verified(tmp_path, "--resolution", "1h", resolutions=["5m"]).output
    assert "Bars that differ: 1." in text
    assert repr(seen[0].low) in text


def test_missing_trades_are_told_and_their_bars_not_compared(tmp_path: Path) -> None:
    def trade(history: SqliteHistory, stream_id: int) -> None:
        ticks = [Tick(stream_id, 100 + 10 * n, 1, 5.0, 1.0, 0.0, 0.0, START + n * HOUR, 0) for n in range(24)]
        history.write(
            HistoryBatch(
                ticks=ticks,
                covered=[(stream_id, tick.trade_id, tick.trade_id) for tick in ticks],
                gaps=[Gap(stream_id, 101, 105, START, REASONS["timeout"], "older than what is fetched")],
            )
        )

    result = verified(tmp_path, "--resolution", "1h", "--format", "jsonl", change=trade, resolutions=["4h"])
    assert result.exit_code == 1
    found = lines(result)
    missing = [line for line in found if line["kind"] == "missing"]
    assert [(line["first_id"], line["last_id"]) for line in missing[:2]] == [(101, 105), (106, 109)]
    assert missing[0]["why"] == "unfillable: older than what is fetched"
    assert missing[1]["why"] == "neither stored nor known as a gap"
    # No 1h bar is stored, and none is called wrong: its trades are not there.
    skipped = [line for line in found if line["kind"] == "not_compared"]
    assert sum(line["bars"] for line in skipped) == 24
    assert not [line for line in found if line["kind"] == "difference"]
    assert found[-1]["trades"]["missing"] == 23 * 9


def test_retention_and_the_bar_in_progress_are_reasons(tmp_path: Path) -> None:
    environ = {**settings_of(tmp_path), "HISTORY_KEEP_1M": "2d"}

    async def scenario() -> Result:
        async with Sim(SimConfig(symbols=2, paused=True, seed=3)) as sim:
            await fill(sim, tmp_path, None, ["1h"])
            command = ["verify", "BTCUSDT", "--from", "-5d", "--resolution", "1m", "--format", "jsonl"]
            rest = {"EXCHANGE_REST_ENDPOINT": sim.rest_url}
            return await asyncio.to_thread(CliRunner().invoke, main, command, env=environ | rest)

    found = lines(asyncio.run(scenario()))
    assert {line["why"] for line in found if line["kind"] == "not_compared"} >= {
        "older than bars of this resolution are kept",
        "its trades are not stored",
    }


@pytest.mark.timeout(120)
def test_while_a_recorder_writes_nothing_is_missing(tmp_path: Path) -> None:
    carried = {"EXCHANGE_SYMBOLS": "BTCUSDT"}
    with (
        SimProcess("--rate", "2000", "--symbols", "3") as sim,
        ServerProcess(tmp_path, sim, **carried) as server,
        RecorderProcess(tmp_path, sim) as recorder,
    ):
        server.await_subscribed(1)
        environ = {
            **settings_of(tmp_path),
            "EXCHANGE_REST_ENDPOINT": sim.rest_endpoint,
        }
        deadline = time.monotonic() + 90
        stored = 0
        # Trades count once they are some seconds old.
        while stored < 500:
            assert time.monotonic() < deadline
            result = CliRunner().invoke(
                main, ["verify", "BTCUSDT", "--from", "-1h", "--format", "jsonl"], env=environ
            )
            found = [line for line in lines(result) if line["kind"] != "not_compared"]
            # Where this machine is so slow that the exchange cuts the server off, and until that is repaired.
            fetched = [line for line in found if "being fetched" in line.get("why", "")]
            assert not fetched or sim.get("/sim/state")["slow_cuts"] > 0, fetched
            assert [line for line in found if line not in fetched] == found[-1:]
            assert result.exit_code == bool(fetched), found
            stored = 0 if fetched else found[-1]["trades"]["stored"]
        assert recorder.stop() == 0


@pytest.mark.embedded("services are there though nothing ever ran")
def test_who_is_not_there_is_a_sentence(tmp_path: Path) -> None:
    environ = settings_of(tmp_path)

    def refused(*arguments: str) -> str:
        result = CliRunner().invoke(main, ["verify", *arguments], env=environ)
        assert result.exit_code == 1
        assert "Traceback" not in result.output
        return result.output

    assert "`tradeback symbols sync` makes it" in refused("BTCUSDT")

    async def scenario() -> None:
        async with Sim(SimConfig(symbols=2, paused=True)) as sim, ExchangeRest(sim.rest_url) as rest:
            with closing(open_catalog(config_of(tmp_path))) as catalog:
                catalog.sync_symbols(await rest.exchange_info())

    asyncio.run(scenario())
    assert "There is no history" in refused("BTCUSDT")
    assert "is no symbol of sim" in refused("NOTHING")
