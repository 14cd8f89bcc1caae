"""`--replay` and `--exit-at-end` of `tradeback recorder` and `tradeback up`: what is stored, and when they end."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing, suppress
from pathlib import Path

import pytest

from tests.e2e.child import SIM_EXCHANGE
from tests.e2e.processes import children_of
from tests.playback.replaying import run_recorder
from tests.reference.recordings import EPOCH, line, trade, write_lines
from tests.servers.services import config_of, settings_of
from tradeback._fast.journal import JournalWriter
from tradeback._fast.record import REASONS
from tradeback.store.catalog import open_catalog

pytestmark = pytest.mark.embedded("all that is in the file of the history is compared")

MANY = 60_000
AUSDT = 1


def whole_up(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """`tradeback up` on free ports, until it ends by itself."""
    return subprocess.run(
        [
            *(sys.executable, "-m", "tradeback", "up", "--data-dir", str(folder)),
            *("--port", "0", "--ws-port", "0", "--sim-port", "0", *arguments),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=100,
        check=False,
        env={**os.environ, **settings_of(folder), **SIM_EXCHANGE, **environment},
    )


def stored(folder: Path) -> dict[str, list[tuple[object, ...]]]:
    """What is in the history."""
    with closing(sqlite3.connect(folder / "sim" / "history.sqlite")) as connection:
        content = {
            table: connection.execute(f"SELECT * FROM {table}").fetchall()
            for table in ("ticks", "bars", "covered", "gaps", "places")
        }
    # What lies before a symbol's first trade is looked for at the exchange, where there is one, while it runs.
    content["gaps"] = [row for row in content["gaps"] if row[4] != REASONS["begin"]]
    return content


def has_ticks(folder: Path) -> bool:
    """Whether there is a history yet, and any tick in it."""
    if not (folder / "sim" / "history.sqlite").exists():
        return False
    try:
        return bool(stored(folder)["ticks"])
    except sqlite3.OperationalError:  # its tables are being made
        return False


def recorder(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tradeback", "recorder", "--data-dir", str(folder), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, **settings_of(folder)},
    )


@pytest.fixture(scope="module")
def long_recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trades 1 to MANY of AUSDT, a millisecond apart; prices differ from one to the next."""
    lines = [
        line(EPOCH + n / 1000, trade("AUSDT", n, f"1.{n % 97:02d}", "0.1", EPOCH + n / 1000))
        for n in range(1, MANY + 1)
    ]
    return write_lines(tmp_path_factory.mktemp("long") / "long.jsonl", lines)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, long_recording: Path) -> Path:
    """A data folder with the whole of the recording."""
    folder = tmp_path_factory.mktemp("whole")
    done = run_recorder("--replay", str(long_recording), "--exit-at-end", folder=folder)
    assert done.returncode == 0, done.stdout
    return folder


def test_replayed_twice_it_is_stored_once(whole: Path, long_recording: Path) -> None:
    before = stored(whole)
    assert before["covered"] == [(AUSDT, 1, MANY)]
    assert len(before["ticks"]) == MANY
    again = run_recorder("--replay", str(long_recording), "--exit-at-end", folder=whole)
    assert again.returncode == 0, again.stdout
    assert stored(whole) == before


def test_a_recording_is_not_published(whole: Path, long_recording: Path) -> None:
    """Nobody listens there: it would wait for ever."""
    nowhere = {"NATS_URL": "nats://127.0.0.1:1", "REDIS_ADDR": "127.0.0.1:1"}
    done = run_recorder("--replay", str(long_recording), "--exit-at-end", folder=whole, **nowhere)
    assert done.returncode == 0, done.stdout
    assert "it goes into the stores alone" in done.stdout
    assert "NATS_URL" in done.stdout
    assert "cannot be reached" not in done.stdout


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGKILL])
def test_one_that_is_ended_goes_on_when_it_is_started_again(
    tmp_path: Path, whole: Path, long_recording: Path, signum: signal.Signals
) -> None:
    arguments = ["--replay", str(long_recording), "--exit-at-end"]
    for attempt in range(5):
        cut = tmp_path / f"cut{attempt}"
        with recorder(cut, *arguments) as process:
            segments = cut / "sim" / "journal"
            # As soon as it writes: it has a second and more to go, unless we get no time for as long.
            while process.poll() is None and not list(segments.glob("*.segment")):
                time.sleep(0.01)
            process.send_signal(signum)
            text, _ = process.communicate(timeout=60)
        if process.returncode != 0:
            break
    assert process.returncode == (1 if signum == signal.SIGINT else -signum)
    if signum == signal.SIGINT:
        assert "the same command goes on where it was" in text
        assert "Traceback" not in text
    assert run_recorder(*arguments, folder=cut).returncode == 0
    assert stored(cut) == stored(whole)


def new_journal(folder: Path) -> JournalWriter:
    """An empty journal, and the catalog beside it, as a server makes them."""
    open_catalog(config_of(folder)).close()
    return JournalWriter.open(folder / "sim" / "journal", "sim")


def test_it_is_refused_where_a_server_runs(tmp_path: Path, long_recording: Path) -> None:
    with new_journal(tmp_path):
        done = run_recorder("--replay", str(long_recording), "--exit-at-end", folder=tmp_path)
    assert done.returncode == 1
    assert f"is being written by process {os.getpid()}" in done.stdout
    assert "Traceback" not in done.stdout


def test_what_is_intact_is_stored_and_the_rest_is_told(tmp_path: Path) -> None:
    lines = [line(EPOCH + n, trade("AUSDT", n, "1.5", "0.1", EPOCH + n)) for n in range(1, 10)]
    lines[4] = lines[4][:40] + "\n"
    path = write_lines(tmp_path / "broken.jsonl", lines)
    done = run_recorder("--replay", str(path), "--exit-at-end", folder=tmp_path)
    assert done.returncode == 1
    assert f"Error: 1 line of {path} held no message, the first is line 5" in done.stdout
    assert done.stdout.rstrip().endswith("all else is stored")
    assert "Traceback" not in done.stdout
    content = stored(tmp_path)
    assert content["covered"] == [(AUSDT, 1, 4), (AUSDT, 6, 9)]
    assert [row[1:3] for row in content["gaps"]] == [(5, 5)]


def test_a_replay_that_is_not_to_end_is_wrong_usage(tmp_path: Path, long_recording: Path) -> None:
    done = run_recorder("--replay", str(long_recording), folder=tmp_path)
    assert done.returncode == 2
    assert "give --exit-at-end with --replay" in done.stdout


def test_without_a_recording_it_ends_with_the_journal(tmp_path: Path) -> None:
    journal = new_journal(tmp_path)
    with recorder(tmp_path, "--exit-at-end") as process:
        assert process.stdout is not None
        try:
            while "recorder ready" not in process.stdout.readline():
                pass
            for trade_id in range(1, 5_001):
                journal.append_trade(
                    stream_id=AUSDT,
                    price=1.5,
                    qty=0.1,
                    trade_id=trade_id,
                    ts_event=int(EPOCH * 1e9) + trade_id,
                )
                if trade_id == 2_500:
                    # Stored, and still it does not end: there is a writer.
                    deadline = time.monotonic() + 60
                    while len(stored(tmp_path)["ticks"]) < 2_500:
                        assert time.monotonic() < deadline
                        time.sleep(0.02)
                    assert process.poll() is None
        finally:
            journal.close()
        assert process.wait(60) == 0
    content = stored(tmp_path)
    assert content["covered"] == [(AUSDT, 1, 5_000)]
    assert content["places"] == [("journal", 5_001), ("repairs", 1)]


def test_up_ends_when_the_recording_is_stored(recordings: Path, tmp_path: Path) -> None:
    path = recordings / "ws_binance_spot_20210404_btc_eth_dot.jsonl.gz"
    arguments = ["--replay", str(path), "--speed", "0", "--exit-at-end"]
    (
        straight,
        through,
    ) = tmp_path / "straight", tmp_path / "through"
    assert run_recorder("--replay", str(path), "--exit-at-end", folder=straight).returncode == 0
    done = whole_up(through, *arguments)
    assert done.returncode == 0, done.stdout
    assert f"All of {path} is stored." in done.stdout
    assert "started again" not in done.stdout
    expected, found = stored(straight), stored(through)
    assert len(found["ticks"]) == 1_910
    for table in ("ticks", "bars", "covered", "gaps"):
        assert found[table] == expected[table], table


def test_up_never_says_that_all_is_stored_where_it_is_not(tmp_path: Path, long_recording: Path) -> None:
    arguments = ["up", "--data-dir", str(tmp_path), "--port", "0", "--ws-port", "0", "--sim-port", "0"]
    with subprocess.Popen(
        [
            *(sys.executable, "-m", "tradeback", *arguments),
            *("--replay", str(long_recording), "--speed", "30", "--exit-at-end"),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, **settings_of(tmp_path), **SIM_EXCHANGE},
    ) as process:
        while process.poll() is None and not has_ticks(tmp_path):
            time.sleep(0.02)
        with suppress(FileNotFoundError, ProcessLookupError):  # all is stored, and it ends by itself
            for child in children_of(process.pid):
                if "server" in command_of(child):
                    os.kill(child, signal.SIGKILL)
        text, _ = process.communicate(timeout=100)
    whole = stored(tmp_path)["covered"] == [(AUSDT, 1, MANY)]
    assert process.returncode == (0 if whole else 1), text
    assert (f"All of {long_recording} is stored." in text) == whole
    assert ("trades of the recording are not stored (AUSDT)" in text) != whole
    assert "Traceback" not in text


def command_of(process_id: int) -> list[str]:
    return Path(f"/proc/{process_id}/cmdline").read_text().split("\0")


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--exit-at-end"], 2, "give --replay with it"),
        (["--replay", "FILE"], 1, "EXCHANGE_WS_ENDPOINT names another one"),
    ],
)
def test_up_that_could_never_end_is_refused(
    tmp_path: Path, long_recording: Path, arguments: list[str], code: int, words: str
) -> None:
    given = [str(long_recording) if argument == "FILE" else argument for argument in arguments]
    elsewhere = {"EXCHANGE_WS_ENDPOINT": "ws://127.0.0.1:1"} if "--replay" in given else {}
    done = whole_up(tmp_path, *given, **elsewhere)
    assert done.returncode == code, done.stdout
    assert words in " ".join(done.stdout.split())
    assert "Traceback" not in done.stdout
