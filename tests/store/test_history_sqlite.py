"""What is SQLite's own: the file, its errors, threads and processes at one file, and processes that are killed."""

from __future__ import annotations

import multiprocessing
import os
import random
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from itertools import takewhile
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import IO

import pytest

from tests.chaos.rounds import ROUNDS
from tests.conftest import CHECKOUT
from tests.reference.history import folded
from tests.store.conftest import sqlite_config, sqlite_history
from tests.store.history_writer import DAY, TICKS_EACH, batch, plain
from tests.store.test_history import COARSER, EVER, every_bar, minute, minutes, tick
from tradeback.errors import ConfigError, DataFolderError
from tradeback.model import MINUTE_NS, RESOLUTIONS
from tradeback.store import history_file, history_sqlite
from tradeback.store.base import History, HistoryBatch
from tradeback.store.history_sqlite import open_sqlite_history


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "sim").mkdir()
    return tmp_path / "sim" / "history.sqlite"


# The file


def test_an_exchange_must_be_decided_on(tmp_path: Path) -> None:
    config = sqlite_config(tmp_path)
    auto = config.model_copy(update={"exchange": config.exchange.model_copy(update={"name": "auto"})})
    with pytest.raises(ConfigError, match=r"exchange\.name is auto"):
        open_sqlite_history(auto, write=True)


def test_a_data_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataFolderError, match=r"The data folder .* cannot be made"):
        sqlite_history(tmp_path / "file")


def test_a_path_that_is_no_file(tmp_path: Path, path: Path) -> None:
    path.mkdir()
    for write in (True, False):
        with pytest.raises(DataFolderError, match="cannot be opened"):
            sqlite_history(tmp_path, write=write)


@pytest.mark.parametrize("write", [True, False])
@pytest.mark.parametrize(
    ("content", "sentence"),
    [(b"no database, but longer than a header of SQLite's " * 40, "is no SQLite database"),
     (b"SQLite format 3\0" + b"\x10\0\1\1\0\x40\x20\x20" + b"\xff" * 5000, "is torn|is no SQLite database")],
)  # fmt: skip
def test_a_file_that_is_no_database(
    tmp_path: Path, path: Path, content: bytes, sentence: str, write: bool
) -> None:
    path.write_bytes(content)
    with pytest.raises(DataFolderError, match=sentence):
        sqlite_history(tmp_path, write=write)
    assert path.read_bytes() == content


@pytest.mark.parametrize("write", [True, False])
@pytest.mark.parametrize(
    ("script", "schema"),
    [
        ("CREATE TABLE recipes (id INTEGER)", "foreign"),
        ("CREATE TABLE recipes (id INTEGER); PRAGMA user_version = 1", "foreign"),
        ("PRAGMA user_version = 1", "foreign"),
        (f"PRAGMA application_id = {history_file.APPLICATION_ID}; PRAGMA user_version = 2", "2"),
    ],
)
def test_a_foreign_or_newer_file_is_left_alone(
    tmp_path: Path, path: Path, script: str, schema: str, write: bool
) -> None:
    with closing(sqlite3.connect(path)) as raw:
        raw.executescript(script)
    before = path.read_bytes()
    with pytest.raises(DataFolderError, match=rf"is no history of this version \(its schema: {schema},"):
        sqlite_history(tmp_path, write=write)
    assert path.read_bytes() == before


def test_an_empty_file_is_no_history_yet(tmp_path: Path, path: Path) -> None:
    path.touch()
    with pytest.raises(DataFolderError, match="There is no history at"):
        sqlite_history(tmp_path, write=False)
    sqlite_history(tmp_path).close()
    sqlite_history(tmp_path, write=False).close()


def test_a_file_that_was_copied_by_sqlite_is_put_into_wal_mode_again(tmp_path: Path, path: Path) -> None:
    with closing(sqlite_history(tmp_path)) as history:
        history.write(batch(0))
    with closing(sqlite3.connect(path)) as raw:
        raw.execute("PRAGMA journal_mode = DELETE")
    with closing(sqlite_history(tmp_path)) as history, closing(sqlite3.connect(path)) as raw:
        assert raw.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert history.places() == {"journal": 1}


def test_a_torn_file_says_what_to_do(tmp_path: Path, path: Path) -> None:
    with closing(sqlite_history(tmp_path)) as history:
        history.write(HistoryBatch(ticks=[tick(n, n) for n in range(20_000)]))
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 3)
        file.write(b"\xff" * (path.stat().st_size // 3))
    with closing(sqlite_history(tmp_path)) as history:
        with pytest.raises(DataFolderError, match=r"it is torn: .*move it away"):
            list(history.ticks(1, *EVER))
        with pytest.raises(DataFolderError, match=r"it is torn: .*move it away"):
            history.write(HistoryBatch(ticks=[tick(n, n) for n in range(1, 20_000, 3)]))


def test_the_file_is_found_by_its_key_alone(tmp_path: Path, path: Path) -> None:
    """No question reads a table from end to end, and none needs an index besides the key."""
    with closing(sqlite_history(tmp_path)) as history:
        asked: list[str] = []
        with closing(sqlite3.connect(path)) as raw:
            history.write(HistoryBatch(ticks=[tick(1, 1)], minutes=[(1, minute(0)), (1, minute(9_000))]))
            with history._file.reading() as connection:  # the next question will take the same
                connection.set_trace_callback(asked.append)
            list(history.ticks(1, *EVER))
            every_bar(history, "1h")
            history.extremes(1)
            history.enigma(1)
            history.retain(DAY)
            with history._file.reading() as connection:
                connection.set_trace_callback(None)
            plans = {
                question: [row[3] for row in raw.execute(f"EXPLAIN QUERY PLAN {question}")]
                for question in asked
                if question.startswith("SELECT")
            }
    assert len(plans) > 10
    assert all(line.startswith("SEARCH") for lines in plans.values() for line in lines), plans
    with closing(sqlite3.connect(path)) as raw:
        assert (
            raw.execute("SELECT name FROM sqlite_master WHERE type = 'index' AND sql <> ''").fetchall() == []
        )


def test_what_is_too_much_to_fold_at_midnight_is_folded_later_and_readers_do_not_notice(
    tmp_path: Path, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def due() -> int:
        with closing(sqlite3.connect(path)) as raw:
            return int(raw.execute("SELECT count(*) FROM due").fetchone()[0])

    monkeypatch.setattr(history_sqlite, "FOLD_MINUTES", 30)
    day = [minute(n, volume=0.1 * (1 + n % 3)) for n in range(0, 1_440, 7)]
    written = [(stream_id, bar) for stream_id in (1, 2, 3) for bar in day]
    with closing(sqlite_history(tmp_path)) as history:
        history.write(HistoryBatch(minutes=written))
        history.write(HistoryBatch(minutes=[(1, minute(1_440)), (2, minute(1_441))]))
        expected = {
            (stream_id, resolution): folded(
                [*day, *([minute(1_439 + stream_id)] if stream_id < 3 else [])], RESOLUTIONS[resolution]
            )
            for stream_id in (1, 2, 3)
            for resolution in COARSER
        }
        left = due()
        assert left > 100
        for _ in range(5):
            for (stream_id, resolution), bars in expected.items():
                assert every_bar(history, resolution, stream_id) == bars
                assert history.bars(stream_id, resolution, DAY, DAY + 1) == bars[:1]
                assert history.bars(stream_id, resolution, *EVER, 3) == bars[-3:]
            history.write(HistoryBatch(ticks=[tick(1, 1)]))
            assert due() < left
            left = due()
    with closing(sqlite_history(tmp_path)) as history:
        history.write(HistoryBatch(ticks=[tick(1, DAY + 300 * RESOLUTIONS["1d"])]))
        assert history.retain(DAY + 300 * RESOLUTIONS["1d"])["1m"] == len(written) + 2
        assert due() == 0
        for (stream_id, resolution), bars in expected.items():
            assert every_bar(history, resolution, stream_id) == bars


# Disks and locks


@contextmanager
def small_disk(folder: Path, options: str = "size=2m") -> Iterator[Path]:
    disk = folder / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(disk)]
    mounted = subprocess.run(command, capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.decode().strip()}")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def test_a_full_disk_takes_nothing_and_the_same_batch_later(tmp_path: Path) -> None:
    with small_disk(tmp_path) as disk, closing(sqlite_history(disk)) as history:
        history.write(batch(0))
        full = 1
        while True:
            try:
                history.write(batch(full))
            except DataFolderError as error:
                assert "make room" in str(error)  # noqa: PT017 - the loop ends here
                break
            full += 1
        for _ in range(3):
            with pytest.raises(DataFolderError, match="make room"):
                history.write(batch(full))
        assert history.places() == {"journal": full}
        assert list(history.ticks(1, *EVER)) == plain(full).ticks(1, *EVER)
        subprocess.run(["mount", "-o", "remount,size=8m", str(disk)], check=True)
        history.write(batch(full))
        expected = plain(full + 1)
        assert list(history.ticks(2, *EVER)) == expected.ticks(2, *EVER)
        assert every_bar(history, "15m") == expected.bars(1, "15m", *EVER)


def test_a_disk_that_is_read_only(tmp_path: Path) -> None:
    with small_disk(tmp_path) as disk:
        sqlite_history(disk).close()
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        with (
            pytest.raises(DataFolderError, match=r"it is read-only|cannot be opened"),
            closing(sqlite_history(disk)) as history,
        ):
            history.write(batch(0))


def test_another_writer_is_waited_for_and_no_reader_waits(
    tmp_path: Path, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history_file, "LOCK_PATIENCE_S", 0.05)
    with closing(sqlite_history(tmp_path)) as history:
        history.write(batch(0))
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(DataFolderError, match="another process keeps it locked"):
                history.write(batch(1))
            assert history.places() == {"journal": 1}
            other.execute("ROLLBACK")
        history.write(batch(1))
        assert history.places() == {"journal": 2}


# Several at once


def test_two_writers_know_of_each_other(tmp_path: Path) -> None:
    """Each remembers the newest minute and the extremes of a symbol, and hears when the other moved them."""
    with closing(sqlite_history(tmp_path)) as one, closing(sqlite_history(tmp_path)) as other:
        one.write(minutes(minute(0)))
        other.write(minutes(minute(10, price=500.0)))
        one.write(HistoryBatch(ticks=[tick(1, 1, 400.0)], minutes=[(1, minute(3))]))
        other.write(minutes(minute(11)))
        written = [minute(0), minute(3), minute(10, price=500.0), minute(11)]
        for resolution in COARSER:
            assert every_bar(one, resolution) == folded(written, RESOLUTIONS[resolution])
        assert one.extremes(1) == (503.0, 97.0)


def write_in_a_process(folder: Path, start: Barrier, first: int, count: int) -> None:
    start.wait(300)
    with closing(sqlite_history(folder)) as history:
        for number in range(first, first + count):
            history.write(batch(number))


def test_processes_that_make_and_write_one_history_at_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    start = context.Barrier(2)
    processes = [
        context.Process(target=write_in_a_process, args=(tmp_path, start, first, 40)) for first in (0, 30)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(90)
    assert [process.exitcode for process in processes] == [0, 0]
    with closing(sqlite_history(tmp_path, write=False)) as history:
        for stream_id in (1, 2):
            assert list(history.ticks(stream_id, *EVER)) == plain(70).ticks(stream_id, *EVER)
            for resolution in RESOLUTIONS:
                assert every_bar(history, resolution, stream_id) == plain(70).bars(
                    stream_id, resolution, *EVER
                )


def test_threads_share_one_history(tmp_path: Path) -> None:
    """Two write, four read, one deletes: a reader never sees less than before."""
    ended = threading.Event()
    faults: list[Exception] = []

    def reading(history: History) -> None:
        seen = 0
        while not ended.is_set():
            bars, ticks = history.bars(1, "1d", *EVER), list(history.ticks(1, *EVER))
            trades = sum(bar.trade_count for bar in bars)
            assert trades >= seen
            assert len(ticks) % (TICKS_EACH // 2) == 0
            seen = trades

    def noted(job: Callable[..., object], *arguments: object) -> None:
        try:
            job(*arguments)
        except (AssertionError, sqlite3.Error, DataFolderError) as fault:
            faults.append(fault)

    def writing(history: History, numbers: range) -> None:
        for number in numbers:
            history.write(batch(number))

    with closing(sqlite_history(tmp_path)) as history:
        readers = [threading.Thread(target=noted, args=(reading, history)) for _ in range(4)]
        writers = [
            threading.Thread(target=noted, args=(writing, history, range(first, 80, 2))) for first in (0, 1)
        ]
        for thread in readers + writers:
            thread.start()
        while any(thread.is_alive() for thread in writers):
            noted(history.retain, DAY)
        ended.set()
        for thread in readers + writers:
            thread.join(60)
        assert faults == []
        assert list(history.ticks(1, *EVER)) == plain(80).ticks(1, *EVER)
        assert every_bar(history, "1h") == plain(80).bars(1, "1h", *EVER)


def test_what_a_closed_history_lent_is_closed_too(tmp_path: Path) -> None:
    with closing(sqlite_history(tmp_path)) as history, history._file.reading() as connection:
        history.close()
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        connection.execute("SELECT 1")


# Killed


@contextmanager
def writer_process(folder: Path) -> Iterator[tuple[subprocess.Popen[str], IO[str]]]:
    command = [sys.executable, "-m", "tests.store.history_writer", str(folder)]
    with subprocess.Popen(command, cwd=CHECKOUT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process, process.stdout
        finally:
            process.kill()


def test_a_killed_writer_leaves_whole_batches_and_the_place_behind_them(tmp_path: Path) -> None:
    """Meanwhile this process reads: what a place promises is there."""
    seed = random.randrange(1 << 32)
    choice = random.Random(seed)
    told = 0
    for _ in range(ROUNDS // 2):
        with writer_process(tmp_path) as (process, output):
            told = int(output.readline())
            with closing(sqlite_history(tmp_path, write=False)) as reader:
                for _ in range(choice.randrange(4)):
                    place = reader.places()["journal"]
                    assert place >= told, seed
                    until = DAY + place * MINUTE_NS
                    assert len(list(reader.ticks(1, DAY, until))) == place * TICKS_EACH // 2, seed
                    newest = reader.bars(1, "1d", *EVER)[-1].open_time
                    assert newest >= until - MINUTE_NS - RESOLUTIONS["1d"], seed
                    told = int(output.readline())
            threading.Event().wait(choice.random() * 0.02)  # not where an answer was just given
            process.kill()
            told = max([told, *map(int, takewhile(lambda line: line.endswith("\n"), output))])
        with closing(sqlite_history(tmp_path, write=False)) as reader:
            place = reader.places()["journal"]
            assert place in (told, told + 1), seed
            expected = plain(place)
            for stream_id in (1, 2):
                assert list(reader.ticks(stream_id, *EVER)) == expected.ticks(stream_id, *EVER), seed
            for resolution in RESOLUTIONS:
                assert every_bar(reader, resolution) == expected.bars(1, resolution, *EVER), seed
            assert reader.covered() == {1: [(0, place * TICKS_EACH - 1)]}, seed
            assert [gap.first_id for gap in reader.gaps()] == [(place - 1) * TICKS_EACH], seed
    assert os.path.getsize(tmp_path / "sim" / "history.sqlite") > 0
