"""InfluxDB: ticks as line protocol, and ticks written into a real server, beside the driver's own `Point`; the ticks
beside a gap found there, beside a search over all of the time."""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from influxdb_client.client.influxdb_client import InfluxDBClient
from influxdb_client.client.write.point import Point
from influxdb_client.client.write_api import SYNCHRONOUS

from bench.table import Effort, Goal, Row, Skipped, compare
from bench.writer import configured, random_ticks
from tests.servers.influx import InfluxServer
from tradeback._fast.lineproto import encode_ticks
from tradeback.config import Config, load_config
from tradeback.model import Tick
from tradeback.store.base import HistoryBatch
from tradeback.store.history_influx import InfluxHistory
from tradeback.store.history_sqlite import open_sqlite_history
from tradeback.store.influx import Influx
from tradeback.store.influx_points import POINTS_A_MILLISECOND, point_key

TICKS, POINTS = 200_000, 10_000
BATCH = 2_000
SINGLES = 20  # of so many points one is written by itself
GAPS = 100
GOAL = Goal(50, at_most=False)


def measure(effort: Effort) -> list[Row]:
    ticks = random_ticks(effort.of(TICKS, 20_000))
    points = ticks[: effort.of(POINTS, 2_000)]
    ours, theirs = [], []
    for _ in range(effort.rounds):
        ours.append(format_rate(ticks))
        theirs.append(point_rate(points))
    rows: list[Row] = [compare("ticks as lines", "rows/s", ours, "Point", theirs, GOAL)]
    if InfluxServer.program() is None:
        return [*rows, Skipped("ticks into InfluxDB", f"no influxd here: {InfluxServer.HOW_TO_GET}")]
    with tempfile.TemporaryDirectory(prefix="influx-") as name:
        folder = Path(name) / "server"
        folder.mkdir()
        with InfluxServer(folder) as server:
            ours, theirs, single = [], [], []
            near, far = [], []
            for number in range(effort.rounds):
                ours.append(stored_rate(server, Path(name) / f"{number}", ticks, number))
                theirs.append(stored_points_rate(server, points, number, BATCH))
                single.append(stored_points_rate(server, points[: len(points) // SINGLES], number, 1))
                gaps = random.Random(number).sample(ticks, effort.of(GAPS, 5))
                with opened(server, Path(name) / f"{number}", number) as history:
                    near.append(beside_rate(history, gaps, told=True))
                    far.append(beside_rate(history, gaps, told=False))
    return [
        *rows,
        compare("ticks into InfluxDB", "rows/s", ours, "Point, each written", single, GOAL),
        compare("ticks into InfluxDB beside batches", "rows/s", ours, "Points", theirs),
        compare("ticks beside a gap", "gaps/s", near, "a search", far),
    ]


def format_rate(ticks: list[Tick]) -> float:
    keys = {tick.stream_id: point_key("trades", "sim", f"SYMBOL{tick.stream_id}") for tick in ticks}
    begin = time.perf_counter()
    for first in range(0, len(ticks), BATCH):
        encode_ticks(ticks[first : first + BATCH], keys)
    return len(ticks) / (time.perf_counter() - begin)


def point_of(tick: Tick, exchange: str) -> Point:
    """The same point by the driver's own means."""
    point = Point("trades").tag("exchange", exchange).tag("symbol", f"SYMBOL{tick.stream_id}")
    point.field("price", tick.price).field("volume", tick.volume).field("bid", tick.bid).field(
        "ask", tick.ask
    )
    point.field("sequence", tick.trade_id).field("trade_count", tick.trade_count).field("flags", tick.flags)
    return point.time(tick.ts_event + tick.trade_id % POINTS_A_MILLISECOND)


def point_rate(ticks: list[Tick]) -> float:
    begin = time.perf_counter()
    for tick in ticks:
        point_of(tick, "sim").to_line_protocol()
    return len(ticks) / (time.perf_counter() - begin)


def stored_rate(server: InfluxServer, folder: Path, ticks: list[Tick], number: int) -> float:
    """Rows a second of History.write, its book included."""
    with opened(server, folder, number) as history:
        begin = time.perf_counter()
        for first in range(0, len(ticks), BATCH):
            part = ticks[first : first + BATCH]
            history.write(HistoryBatch(ticks=part, places={"journal": part[-1].trade_id}))
        return len(ticks) / (time.perf_counter() - begin)


@contextmanager
def opened(server: InfluxServer, folder: Path, number: int) -> Iterator[InfluxHistory]:
    """The history of a round."""
    config = influx_config(server, folder)
    history = InfluxHistory(
        Influx(config.database.influx),
        f"ours{number}",
        lambda stream_id: f"SYMBOL{stream_id}",
        dict,
        config.history,
        open_sqlite_history(configured(folder), write=True),
        write=True,
    )
    with closing(history):
        yield history


def beside_rate(history: InfluxHistory, gaps: list[Tick], *, told: bool) -> float:
    """Gaps of one id each, a second, whose neighbours are found: with the time of their trade, or without."""
    begin = time.perf_counter()
    for gap in gaps:
        near = (gap.ts_event,) if told else ()
        history.beside(gap.stream_id, gap.trade_id, gap.trade_id, near)
    return len(gaps) / (time.perf_counter() - begin)


def stored_points_rate(server: InfluxServer, ticks: list[Tick], number: int, batch: int) -> float:
    """Rows a second of the driver's `write` of points, `batch` at a time."""
    with (
        InfluxDBClient(server.url, server.TOKEN, org=server.ORG, enable_gzip=True) as client,
        client.write_api(write_options=SYNCHRONOUS) as writing,
    ):
        begin = time.perf_counter()
        for first in range(0, len(ticks), batch):
            part = [point_of(tick, f"points{number}") for tick in ticks[first : first + batch]]
            writing.write(server.BUCKET, record=part)
        return len(ticks) / (time.perf_counter() - begin)


def influx_config(server: InfluxServer, folder: Path) -> Config:
    return load_config(environ={"DATA_DIR": str(folder), "TRADEBACK_EXCHANGE": "sim", **server.environment})
