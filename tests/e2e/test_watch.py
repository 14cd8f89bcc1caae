"""The recorder follows the exchange's list of symbols and tells the server, whatever becomes of it."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.hubs import RawClient
from tests.e2e.running import RecorderProcess, ServerProcess, SimProcess
from tests.servers.services import config_of
from tradeback.exchange.sim import Sim, SimConfig
from tradeback.store.catalog import open_catalog

SAFETY = 60.0
SOON = {"RECORDER_CATALOG_REFRESH": "200ms"}


@contextmanager
def running(folder: Path) -> Iterator[tuple[SimProcess, ServerProcess]]:
    # A symbol that lingers would be served although it was delisted.
    linger = {"EXCHANGE_LINGER": "0s"}
    with SimProcess("--symbols", "3", "--paused") as sim, ServerProcess(folder, sim, **linger) as server:
        yield sim, server


def subscribed(server: ServerProcess, symbol: str) -> dict[str, int]:
    """Ask again and again until the server knows the symbol; its id."""

    async def scenario() -> dict[str, int]:
        client = await RawClient.connect(server.ws_port)
        try:
            async with asyncio.timeout(SAFETY):
                while True:
                    answer = await client.subscribe(symbol)
                    if answer["type"] == "subscribed":
                        return {entry["symbol"]: entry["id"] for entry in answer["symbols"]}
                    assert answer["code"] == "unknown_symbols"
                    await asyncio.sleep(0.1)
        finally:
            await client.leave()

    return asyncio.run(scenario())


def refused(server: ServerProcess, symbol: str) -> None:
    """Wait until the server has no such symbol any more."""

    async def scenario() -> None:
        async with asyncio.timeout(SAFETY):
            while True:
                client = await RawClient.connect(server.ws_port)
                answer = await client.subscribe(symbol)
                await client.leave()
                if answer["type"] == "error":
                    return
                await asyncio.sleep(0.1)

    asyncio.run(scenario())


def await_told(recorder: RecorderProcess, symbols: int) -> dict[str, Any]:
    deadline = time.monotonic() + SAFETY
    while True:
        watch: dict[str, Any] = recorder.control(type="status")["watch"]
        if watch["connected"] and watch["told"] == symbols:
            return watch
        assert time.monotonic() < deadline, watch
        time.sleep(0.05)


@pytest.mark.timeout(120)
def test_what_the_exchange_lists_and_delists_the_server_learns_within_seconds(tmp_path: Path) -> None:
    with running(tmp_path) as (sim, server), RecorderProcess(tmp_path, sim, **SOON) as recorder:
        await_told(recorder, 3)
        sim.get("/sim/list", symbol="NEWUSDT")
        assert subscribed(server, "NEWUSDT") == {"NEWUSDT": 4}
        sim.get("/sim/delist", symbol="SOLUSDT")
        refused(server, "SOLUSDT")
        # The id stays when it is listed again.
        sim.get("/sim/list", symbol="SOLUSDT")
        assert subscribed(server, "SOLUSDT") == {"SOLUSDT": 3}
        assert recorder.stop() == 0


@pytest.mark.timeout(120)
def test_a_server_that_is_killed_gets_everything_again(tmp_path: Path) -> None:
    with running(tmp_path) as (sim, server), RecorderProcess(tmp_path, sim, **SOON) as recorder:
        await_told(recorder, 3)
        server.kill()
        with ServerProcess(tmp_path, sim) as again:
            sim.get("/sim/list", symbol="NEWUSDT")
            assert subscribed(again, "NEWUSDT") == {"NEWUSDT": 4}
            await_told(recorder, 4)
        assert recorder.stop() == 0


@pytest.mark.timeout(120)
def test_a_server_that_hangs_is_waited_for(tmp_path: Path) -> None:
    with running(tmp_path) as (sim, server), RecorderProcess(tmp_path, sim, **SOON) as recorder:
        await_told(recorder, 3)
        os.kill(server.process.pid, signal.SIGSTOP)
        sim.get("/sim/list", symbol="NEWUSDT")
        deadline = time.monotonic() + SAFETY
        with closing(open_catalog(config_of(tmp_path), create=False)) as catalog:
            while catalog.symbol("NEWUSDT") is None:
                assert time.monotonic() < deadline
                time.sleep(0.05)
        # The recorder itself answers and ends at once, whoever hangs.
        assert recorder.control(type="status")["watch"]["told"] == 3
        os.kill(server.process.pid, signal.SIGCONT)
        assert subscribed(server, "NEWUSDT") == {"NEWUSDT": 4}


@pytest.mark.timeout(120)
def test_a_list_that_lacks_most_is_not_believed(tmp_path: Path) -> None:
    with running(tmp_path) as (sim, server):
        # Before there is a recorder, which would believe a list without one of them.
        sim.get("/sim/delist", symbol="BTCUSDT")
        sim.get("/sim/delist", symbol="ETHUSDT")
        with RecorderProcess(tmp_path, sim, **SOON) as recorder:
            deadline = time.monotonic() + SAFETY
            while "it is not believed" not in recorder.said():
                assert time.monotonic() < deadline
                time.sleep(0.05)
            await_told(recorder, 3)
            assert subscribed(server, "BTCUSDT") == {"BTCUSDT": 1}


def test_the_simulated_exchange_lists_and_trades_a_new_symbol() -> None:
    async def scenario() -> None:
        async with Sim(SimConfig(symbols=2, paused=True, rate=1000.0)) as sim:
            for wrong in ("", "newusdt", "USDT", "NEWXYZ"):
                with pytest.raises(ValueError, match="symbol"):
                    sim.list_symbol(wrong)
            with pytest.raises(ValueError, match="is not traded here"):
                sim.delist_symbol("NEWUSDT")
            sim.list_symbol("NEWUSDT")
            sim.list_symbol("NEWUSDT")
            assert sim.symbols.count("NEWUSDT") == 1
            sim.order("NEWUSDT", [("10.0", "1.5")])
            sim.resume(messages=2_000)
            while not sim.paused:
                await asyncio.sleep(0.01)
            assert sim.ledger.of("NEWUSDT").trade_count > 1
            sim.delist_symbol("NEWUSDT")
            assert sim.symbol_rows["NEWUSDT"].row["status"] == "BREAK"

    asyncio.run(scenario())
