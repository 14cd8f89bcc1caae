"""The REST interface: requests a second of a price, the symbols and 1000 bars, beside a bare Falcon endpoint."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from statistics import median
from urllib.parse import urlsplit

from bench.build import BenchError, extension
from bench.programs import SERVER_CORE, Program, compiled, measured
from bench.subject import SETTINGS
from bench.table import Effort, Goal, Row, compare
from bench.writer import configured
from tradeback._fast.table import SymbolTable
from tradeback.model import MINUTE_NS, Bar, SymbolInfo
from tradeback.store.cache_local import TABLE_FILE
from tradeback.store.catalog import open_catalog
from tradeback.store.histories import open_history

# Each request is counted, and none refused.
LIMITS = {f"LIMIT_{name}": "1000000000/minute" for name in ("PRICE", "SYMBOLS", "BARS")}
SYMBOLS = 200
BARS = 1_000
CONNECTIONS = 8
WARM_UP_S = 0.05
TURNS = 16
START_TIMEOUT_S = 120.0

Place = tuple[int, int]  # a port, and the id of the process that answers there

PRICE = "/api/v1/symbols/S0000USDT/price"
ANSWERS = {
    "price": PRICE,
    "200 symbols": "/api/v1/symbols",
    "1000 bars": f"/api/v1/symbols/S0000USDT/bars?limit={BARS}",
}
GOALS = {"price": Goal(0.8, at_most=False)}


def measure(effort: Effort) -> list[Row]:
    bare: list[float] = []
    figures: dict[str, list[float]] = {name: [] for name in ANSWERS}
    with tempfile.TemporaryDirectory(prefix="tradeback-bench-") as folder:
        fill(Path(folder))
        with _bare() as peer, answering_api(folder, LIMITS) as ours:
            for _ in range(effort.rounds):
                # In short turns, and by their median, for other programs of the machine come and go.
                turns = [one_turn(peer, ours, effort) for _ in range(effort.of(TURNS, 1))]
                bare.append(median(theirs for theirs, _ in turns))
                for name in ANSWERS:
                    figures[name].append(median(each[name] for _, each in turns))
    return [
        compare(name, "requests/s/core", figures[name], "bare Falcon", bare, GOALS.get(name))
        for name in ANSWERS
    ]


def one_turn(peer: Place, ours: Place, effort: Effort) -> tuple[float, dict[str, float]]:
    """The figure of the peer, and each of ours."""
    return requests(*peer, PRICE, effort), {
        name: requests(*ours, path, effort) for name, path in ANSWERS.items()
    }


def requests(port: int, pid: int, path: str, effort: Effort) -> float:
    """Requests a second of CPU time of the process that answers."""
    seconds = effort.seconds / effort.of(TURNS, 1)
    with compiled("requests", port, CONNECTIONS, path, pid) as load:
        load.hear()
        load.ask(f"measure {min(WARM_UP_S, seconds)}")
        window = measured(load, seconds, "requests")
    return float(window["requests"] / window["seconds"] / window["server_cpu"])


def fill(folder: Path) -> None:
    """A catalog of SYMBOLS symbols, a table with a price of each, and BARS bars of the first."""
    extension("micro")
    from bench.micro import applied_ns

    config = configured(folder)
    names = [f"S{i:04}USDT" for i in range(SYMBOLS)]
    with closing(open_catalog(config)) as catalog:
        catalog.sync_symbols(SymbolInfo(name, name[:5], "USDT", True, 2, 5) for name in names)
        streams = {symbol.name: symbol.stream_id for symbol in catalog.symbols()}
    table = SymbolTable.open(str(config.data.of("sim") / TABLE_FILE), "sim")
    for name in names:
        table.add(name, streams[name], 5)
    applied_ns(table, SYMBOLS, 10, 1)
    table.close()
    last = time.time_ns() // MINUTE_NS * MINUTE_NS
    with closing(open_history(config, write=True)) as history:
        bars = [Bar(last - n * MINUTE_NS, 1.0, 2.5, 0.5, 1.25, 0.12345, 100 + n) for n in range(BARS)]
        history.write_bars(streams[names[0]], "1m", bars)


@contextmanager
def _bare() -> Iterator[tuple[int, int]]:
    command = [sys.executable, "-m", "bench.peers.bare_falcon"]
    with Program(command, SERVER_CORE, foreign=True) as process:
        yield _answering(process)


@contextmanager
def answering_api(folder: str, settings: Mapping[str, str]) -> Iterator[tuple[int, int]]:
    """`tradeback api` on a data folder: its port, and the id of the process that answers there."""
    command = [str(Path(sys.executable).with_name("tradeback")), "api", "--port=0", "--ready-fd=1"]
    environment = {**os.environ, **SETTINGS, **settings, "DATA_DIR": folder}
    with Program(command, SERVER_CORE, environment, foreign=True) as process:
        yield _answering(process)


def _answering(process: Program) -> tuple[int, int]:
    """The port, and the id of the process that answers there: gunicorn's only child."""
    port = urlsplit(process.hear(START_TIMEOUT_S)["rest"]).port
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    if port is None or len(children) != 1:
        raise BenchError(f"{process.name} has {len(children)} processes that answer: one is measured.")
    return port, int(children[0])
