"""`tradeback export`: every row comes back as it was stored, in each format, and no file is ever half there."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from tests.conftest import CHECKOUT
from tests.servers.services import config_of, give, settings_of
from tradeback._fast.record import FLAGS
from tradeback.cli import main
from tradeback.commands.export import BARS, TRADES
from tradeback.commands.times import format_time
from tradeback.model import RESOLUTIONS, Bar, SymbolInfo, Tick
from tradeback.store.base import HistoryBatch
from tradeback.store.catalog import open_catalog
from tradeback.store.histories import open_history

SYMBOL, STREAM_ID = "AUSDT", 1
T0 = 1_700_000_040_000_000_000  # a whole minute
MINUTE = RESOLUTIONS["1m"]
# Doubles that a careless text would change.
NUMBERS = [
    1e-07,
    0.1 + 0.2,
    1 / 3,
    123456789.12345678,
    5e-9,
    1e22,
    9007199254740993.0,
    0.30000000000000004,
    1.0,
]
MANY = 600_000


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A data folder with a catalog and an empty history."""
    config = config_of(tmp_path)
    with closing(open_catalog(config)) as catalog:
        catalog.sync_symbols([SymbolInfo(SYMBOL, "A", "USDT", True, 2, 3)])
    open_history(config, write=True).close()
    return tmp_path


def tick(number: int, at: int) -> Tick:
    price, volume = NUMBERS[number % len(NUMBERS)], NUMBERS[number * 7 % len(NUMBERS)]
    quotes = (0.0, 0.0) if number % 3 == 0 else (price * 0.99, price * 1.01)
    flags = (FLAGS["buyer_maker"] if number % 2 else 0) | (FLAGS["repair"] if number % 5 == 0 else 0)
    return Tick(STREAM_ID, number, 1 + number % 4, price, volume, *quotes, at, flags)


def write_ticks(folder: Path, ticks: list[Tick]) -> None:
    with closing(open_history(config_of(folder), write=True)) as history:
        history.write(HistoryBatch(ticks=ticks))


def told(stored: Tick) -> dict[str, Any]:
    """What an export is to say of a tick."""
    return {
        "time": stored.ts_event,
        "trade_id": stored.trade_id,
        "trade_count": stored.trade_count,
        "price": stored.price,
        "volume": stored.volume,
        "bid": stored.bid or None,
        "ask": stored.ask or None,
        "side": "sell" if stored.flags & FLAGS["buyer_maker"] else "buy",
        "origin": "repair" if stored.flags & FLAGS["repair"] else "live",
    }


def told_bar(bar: Bar) -> dict[str, Any]:
    return dict(zip([column.name for column in BARS], bar, strict=True))


def export(folder: Path, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["export", *arguments], catch_exceptions=False, env=settings_of(folder))


def program(folder: Path, *arguments: str, **options: Any) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tradeback", "export", *arguments]
    environ = {**os.environ, **settings_of(folder)}
    return subprocess.Popen(command, stderr=subprocess.PIPE, env=environ, **options)


def parse_time(text: str) -> int:
    whole, _, fraction = text.removesuffix("Z").partition(".")
    seconds = int(subprocess.check_output(["date", "-u", "-d", f"{whole}Z", "+%s"]))
    return seconds * 10**9 + int(fraction.ljust(9, "0"))


def as_csv(data: bytes) -> list[dict[str, Any]]:
    kinds: dict[str, Callable[[str], Any]] = {
        column.name: {"integer": int, "number": exact, "text": str, "time": str}[column.kind]
        for column in (*TRADES, *BARS)
    }
    rows = csv.DictReader(io.StringIO(data.decode(), newline=""), strict=True)
    return [{name: kinds[name](text) if text else None for name, text in row.items()} for row in rows]


def exact(text: str) -> float:
    """A double of which the text is the shortest that gives it back."""
    assert repr(float(text)) == text
    return float(text)


def as_jsonl(data: bytes) -> list[dict[str, Any]]:
    lines = data.decode().splitlines()
    for line in lines:
        # Digit by digit: what a parser of decimals reads is what is stored.
        for value in json.loads(line, parse_float=Decimal).values():
            assert not isinstance(value, Decimal) or Decimal(repr(float(value))) == value
    return [json.loads(line) for line in lines]


def as_parquet(data: bytes) -> list[dict[str, Any]]:
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed: no Parquet to read")
    table = parquet.read_table(io.BytesIO(data))
    columns = {
        name: (column.cast("int64") if name == "time" else column).to_pylist()
        for name, column in zip(table.column_names, table.columns, strict=True)
    }
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


READERS = {"csv": as_csv, "jsonl": as_jsonl, "parquet": as_parquet}


def rows_of(folder: Path, form: str, *arguments: str) -> list[dict[str, Any]]:
    path = folder / f"out.{form}"
    done = export(folder, *arguments, "--format", form, "--output", str(path))
    assert done.exit_code == 0, done.output
    rows = READERS[form](path.read_bytes())
    assert f"{len(rows):,} rows written to {path}" in done.stderr
    return rows


def with_times(rows: list[dict[str, Any]], form: str) -> list[dict[str, Any]]:
    """The same with times as the format has them: text, or a timestamp."""
    return rows if form == "parquet" else [{**row, "time": format_time(row["time"])} for row in rows]


@pytest.mark.parametrize("form", READERS)
def test_trades_come_back_as_they_were_stored(folder: Path, form: str) -> None:
    ticks = [tick(n, T0 + n * 1_234_567_891) for n in range(1, 5_001)]
    write_ticks(folder, ticks)
    expected = with_times([told(stored) for stored in ticks], form)
    assert rows_of(folder, form, "trades", SYMBOL) == expected
    # From is included, to is not, both to the nanosecond.
    start, end = format_time(ticks[10].ts_event), format_time(ticks[20].ts_event)
    assert rows_of(folder, form, "trades", SYMBOL, "--from", start, "--to", end) == expected[10:20]


def test_times_in_text_are_exact(folder: Path) -> None:
    times = [T0, T0 + 1, T0 + 10**8, T0 + 999_999_999, T0 + 10**9]
    write_ticks(folder, [tick(n, at) for n, at in enumerate(times, 1)])
    texts = [row["time"] for row in as_csv(export(folder, "trades", SYMBOL).stdout_bytes)]
    assert [parse_time(text) for text in texts] == times


@pytest.mark.parametrize("form", READERS)
@pytest.mark.parametrize("resolution", RESOLUTIONS)
def test_bars_come_back_as_they_were_stored(folder: Path, form: str, resolution: str) -> None:
    minutes = [
        Bar(T0 + n * 7 * MINUTE, 1.5 + n, 2.5 + n, 0.5, 1e-07 + n, NUMBERS[n % len(NUMBERS)], n + 1)
        for n in range(600)
    ]
    with closing(open_history(config_of(folder), write=True)) as history:
        history.write_bars(STREAM_ID, "1m", minutes)
        stored = history.bars(STREAM_ID, resolution, 0, 2**62)
    expected = with_times([told_bar(bar) for bar in stored], form)
    assert len(expected) > 1
    assert rows_of(folder, form, "bars", SYMBOL, "--resolution", resolution) == expected


@pytest.mark.parametrize(("what", "columns"), [("trades", TRADES), ("bars", BARS)])
def test_an_empty_range_has_columns_and_no_rows(folder: Path, what: str, columns: tuple[Any, ...]) -> None:
    names = [column.name for column in columns]
    arguments = [what, SYMBOL, "--from", "2001-01-01", "--to", "2001-01-02"]
    assert export(folder, *arguments).stdout == ",".join(names) + "\n"
    assert export(folder, *arguments, "--format", "jsonl").stdout == ""
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed: no Parquet to read")
    path = folder / "empty.parquet"
    assert export(folder, *arguments, "--format", "parquet", "--output", str(path)).exit_code == 0
    table = parquet.read_table(path)
    assert (table.column_names, table.num_rows) == (names, 0)
    assert table.schema.metadata[b"symbol"] == SYMBOL.encode()


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["trades", "NOPE"], 1, "NOPE is no symbol of sim: `tradeback symbols list --all` names them"),
        (["bars", "NOPE"], 1, "NOPE is no symbol of sim"),
        (["trades", SYMBOL, "--from", "2024-01-02", "--to", "2024-01-01"], 2, "is not before --to"),
        (["trades", SYMBOL, "--from", "soon"], 2, "'soon' is no time"),
        (["bars", SYMBOL, "--resolution", "2m"], 2, "2m"),
        (["trades", SYMBOL, "--format", "parquet"], 2, "name one with --output"),
        (["trades", SYMBOL, "--output", "no/such/folder/file"], 1, "no/such/folder/file cannot be written"),
        (
            ["trades", SYMBOL, "--output", "/dev/full"],
            1,
            "/dev/full cannot be written: No space left on device",
        ),
    ],
)
def test_what_cannot_be_is_a_sentence(folder: Path, arguments: list[str], code: int, words: str) -> None:
    done = export(folder, *arguments)
    assert done.exit_code == code
    assert words in " ".join(done.stderr.split())


@pytest.mark.embedded("services are there though nothing ever ran")
def test_a_folder_without_a_history_is_a_sentence(tmp_path: Path) -> None:
    done = export(tmp_path, "trades", SYMBOL)
    assert (done.exit_code, "There is no catalog at" in done.stderr) == (1, True)
    with closing(open_catalog(config_of(tmp_path))) as catalog:
        catalog.sync_symbols([SymbolInfo(SYMBOL, "A", "USDT", True, 2, 3)])
    done = export(tmp_path, "trades", SYMBOL)
    assert (done.exit_code, "There is no history at" in done.stderr) == (1, True)


def test_without_pyarrow_the_way_to_it_is_told(folder: Path) -> None:
    path = folder / "out.parquet"
    code = "import sys; sys.modules['pyarrow'] = None; from tradeback.cli import main; main()"
    done = subprocess.run(
        [
            *(sys.executable, "-c", code, "export", "trades", SYMBOL, "--format", "parquet"),
            *("--output", str(path)),
        ],
        env={**os.environ, **settings_of(folder)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "pip install 'tradeback[parquet]'" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(folder.glob("*out.parquet*"))


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with MANY trades, in a file: they would take InfluxDB a while."""
    folder = tmp_path_factory.mktemp("many")
    give(folder, {})
    config = config_of(folder)
    with closing(open_catalog(config)) as catalog:
        catalog.sync_symbols([SymbolInfo(SYMBOL, "A", "USDT", True, 2, 3)])
    open_history(config, write=True).close()
    with closing(sqlite3.connect(folder / "sim" / "history.sqlite")) as connection:
        connection.execute(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?) INSERT INTO ticks "
            "SELECT 1, ? + i * 1000000, i, 1, 1 + i % 1000 * 0.01, 0.001 * (i % 77 + 1), 0, 2.5, i % 2 FROM n",
            (MANY, T0),
        )
        connection.commit()
    return folder


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_one_that_is_ended_leaves_what_was_there(
    many: Path, tmp_path: Path, form: str, signum: signal.Signals
) -> None:
    if form == "parquet":
        pytest.importorskip("pyarrow", reason="pyarrow is not installed: no Parquet to write")
    path = tmp_path / "out"
    for _ in range(5):  # it is done before the signal where we get no time for as long
        path.write_text("what was there")
        with program(many, "trades", SYMBOL, "--format", form, "--output", str(path)) as process:
            while process.poll() is None and not list(tmp_path.glob(".out.*.part")):
                time.sleep(0.005)
            process.send_signal(signum)
            _, said = process.communicate(timeout=60)
        if process.returncode != 0:
            break
    assert process.returncode not in (0, -signum), said
    assert b"Traceback" not in said
    assert path.read_text() == "what was there"
    assert [entry.name for entry in tmp_path.iterdir()] == ["out"]


def test_a_reader_who_has_seen_enough_is_no_error(many: Path) -> None:
    with program(many, "trades", SYMBOL, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith(b"time,trade_id")
        process.stdout.close()
        assert process.wait(60) == 0
        assert process.stderr is not None
        assert process.stderr.read() == b""


@pytest.mark.parametrize("form", READERS)
def test_memory_does_not_grow_with_the_range(many: Path, tmp_path: Path, form: str) -> None:
    if form == "parquet":
        pytest.importorskip("pyarrow", reason="pyarrow is not installed: no Parquet to write")
    peaks = []
    for count in (MANY // 5, MANY):
        end = format_time(T0 + (count + 1) * 1_000_000)
        measured = (
            "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True); "
            "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
        )
        path = tmp_path / "out"
        done = subprocess.run(
            [
                *(
                    sys.executable,
                    "-c",
                    measured,
                    sys.executable,
                    "-m",
                    "tradeback",
                    "export",
                    "trades",
                    SYMBOL,
                ),
                *("--format", form, "--to", end, "--output", str(path)),
            ],
            env={**os.environ, **settings_of(many)},
            capture_output=True,
            text=True,
            timeout=100,
            check=True,
        )
        assert f"{count:,} rows written" in done.stderr
        peaks.append(int(done.stdout) * 1024)
    # A row held in memory would cost some hundred bytes.
    assert peaks[1] - peaks[0] < 80 * (MANY - MANY // 5)


def test_beside_a_recorder_it_reads_a_prefix_of_what_is_written(folder: Path) -> None:
    batch, batches, exports = 500, 4, 8
    allowed = threading.Semaphore(0)
    written = 0

    def write() -> None:
        nonlocal written
        with closing(open_history(config_of(folder), write=True)) as history:
            for first in range(1, batch * batches * exports, batch):
                allowed.acquire()
                history.write(HistoryBatch(ticks=[tick(n, T0 + n) for n in range(first, first + batch)]))
                written += batch

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(exports):
            before = written
            allowed.release(batches)
            ids = [row["trade_id"] for row in as_csv(export(folder, "trades", SYMBOL).stdout_bytes)]
            assert ids == list(range(1, len(ids) + 1))
            assert len(ids) >= before
    finally:
        allowed.release(batches * exports)
        writer.join()
    assert len(as_csv(export(folder, "trades", SYMBOL).stdout_bytes)) == batch * batches * exports


@pytest.mark.parametrize(("what", "columns"), [("trades", TRADES), ("bars", BARS)])
def test_help_and_page_tell_the_columns(what: str, columns: tuple[Any, ...]) -> None:
    page = (CHECKOUT / "docs" / "export.md").read_text()
    section = page.partition(f"## Columns of {what}\n")[2].partition("\n## ")[0]
    assert re.findall(r"^\| `(\w+)` \| (.*) \|$", section, re.MULTILINE) == [
        (column.name, column.says) for column in columns
    ]
    shown = CliRunner().invoke(main, ["export", what, "--help"]).stdout
    for column in columns:
        assert re.search(rf"^ +{column.name} +{re.escape(column.says)}$", shown, re.MULTILINE)
