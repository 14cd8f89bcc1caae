"""`tradeback symbols` against a simulated exchange, over real sockets."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import orjson
import pytest
from click.testing import CliRunner, Result

from tests.servers.services import config_of, settings_of
from tradeback.cli import main
from tradeback.exchange.rows import symbol_row
from tradeback.exchange.sim import Sim, SimConfig
from tradeback.store.base import SyncResult
from tradeback.store.catalog import open_catalog


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    return settings_of(tmp_path)


def with_sim(config: SimConfig, action: Callable[[str], Result]) -> Result:
    async def scenario() -> Result:
        async with Sim(config) as sim:
            return await asyncio.to_thread(action, sim.rest_url)

    return asyncio.run(scenario())


def run(environ: dict[str, str], *arguments: str) -> Result:
    return CliRunner().invoke(main, ["symbols", *arguments], env=environ)


def test_sync_then_list(environ: dict[str, str]) -> None:
    def sync(url: str) -> Result:
        return run(environ | {"EXCHANGE_REST_ENDPOINT": url}, "sync")

    first = with_sim(SimConfig(symbols=5, paused=True), sync)
    assert (first.exit_code, first.output) == (
        0,
        "sim: 5 symbols listed, 5 added, 0 changed, 0 deactivated.\n",
    )
    fewer = with_sim(SimConfig(symbols=3, paused=True), sync)
    assert fewer.output == "sim: 3 symbols listed, 0 added, 0 changed, 2 deactivated.\n"

    rows = orjson.loads(run(environ, "list", "--json", "--all").stdout)
    assert [row["id"] for row in rows] == [1, 2, 3, 4, 5]
    assert [row["is_active"] for row in rows].count(False) == 2
    assert rows[0]["symbol"] == "BTCUSDT"
    assert len(orjson.loads(run(environ, "list", "--json").stdout)) == 3

    table = run(environ, "list").stdout
    assert "sim: 3 symbols" in table
    assert "BTCUSDT" in table
    assert run(environ | {"TRADEBACK_EXCHANGE": "auto"}, "list").stdout == table


def test_list_without_a_catalog(environ: dict[str, str]) -> None:
    result = run(environ, "list")
    assert result.exit_code == 1
    assert "`tradeback symbols sync` makes it" in result.output


def test_the_recorded_exchange_info_is_taken_over(recordings: Path, tmp_path: Path) -> None:
    body = orjson.loads(gzip.decompress((recordings / "exchangeInfo_binance_20210417.json.gz").read_bytes()))
    infos = [symbol_row(row) for row in body["symbols"]]
    assert len(infos) == 1405
    with closing(open_catalog(config_of(tmp_path))) as catalog:
        assert len(catalog.sync_symbols(infos).added) == 1405
        assert catalog.sync_symbols(infos) == SyncResult((), (), ())
        assert [symbol.info for symbol in catalog.symbols()] == infos
        assert [symbol.stream_id for symbol in catalog.symbols()] == list(range(1, 1406))
        active = [info for info in infos if info.is_active]
        assert [symbol.info for symbol in catalog.symbols(active_only=True)] == active
