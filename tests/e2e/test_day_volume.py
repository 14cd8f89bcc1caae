"""The volume of the UTC day in the table of a real server: the exchange's, whatever the server missed of the day."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from contextlib import closing
from decimal import Decimal
from pathlib import Path

import pytest

from tests.e2e.fake_clock import FakeClock
from tests.e2e.running import Up, ask_control, stream_ids
from tests.waiting import await_true
from tradeback._fast.tablefile import TableReader, TableRow

SYMBOLS = ("BTCUSDT", "ETHUSDT", "BNBUSDT")
CARRIED = {"EXCHANGE_SYMBOLS": ",".join(SYMBOLS)}
DAY = 86_400


def rows(folder: Path) -> dict[str, TableRow]:
    with closing(TableReader.open(str(folder / "sim" / "table"))) as reader:
        found = {symbol: reader.read(stream_id) for symbol, stream_id in stream_ids(folder).items()}
    return {symbol: row for symbol, row in found.items() if row is not None and symbol in SYMBOLS}


def exchange_volume(up: Up, symbol: str, day: int) -> Decimal:
    """What the exchange says was traded on a day, in one number."""
    (kline,) = up.sim("/api/v3/klines", symbol=symbol, interval="1d", startTime=day * DAY * 1000, limit=1)
    assert kline[0] == day * DAY * 1000
    return Decimal(kline[5])


def ledger_volume(up: Up, symbol: str, day: int) -> Decimal:
    """The sum of the trades that the exchange made on a day while it ran."""
    total, first = Decimal(0), 0
    while page := up.sim("/api/v3/historicalTrades", symbol=symbol, fromId=first, limit=1000):
        total += sum(Decimal(row["qty"]) for row in page if row["time"] // 1000 // DAY == day)
        first = page[-1]["id"] + 1
    return total


def differing(up: Up) -> list[str]:
    """Symbols whose volume is not the exchange's to the last digit. The market is paused and drained."""
    found = []
    for symbol, row in rows(up.folder).items():
        volume = Decimal(row.day_units).scaleb(-row.quantity_precision)
        if volume != exchange_volume(up, symbol, row.day):
            found.append(f"{symbol} on day {row.day}: {volume}")
    return found


def right(up: Up) -> int:
    """Of how many symbols the recorder says that the server knows the volume; 0 before there is a recorder."""
    try:
        status = ask_control(up.folder / "sim" / "recorder.sock", {"type": "status"})
    except OSError:  # it is not there, or does not listen yet
        return 0
    return int(status["day_volumes"]["right"])


def trade(up: Up, messages: int) -> None:
    before = up.sim("/sim/state")["trades"]
    up.sim("/sim/resume")
    await_true(lambda: up.sim("/sim/state")["trades"] > before + messages, "the market stands still")


def server_pid(up: Up) -> int:
    children = subprocess.run(
        ["pgrep", "-P", str(up.process.pid)], capture_output=True, text=True, check=True
    ).stdout.split()
    (pid,) = (
        int(child)
        for child in children
        if b"server" in Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")
    )
    return pid


def server_listens(up: Up) -> bool:
    try:
        return bool(up.control(type="status"))
    except OSError:
        return False


@pytest.mark.timeout(180)
def test_trades_that_cannot_be_had_are_in_the_volume_a_minute_later(tmp_path: Path) -> None:
    """Nothing is fetched of what was missed, so the stored trades of the minute have a hole for ever."""
    with FakeClock(tmp_path) as clock:
        noon = (DAY // 2 + 10 - time.time() % DAY) % DAY
        clock.jump(noon)
        environment = {**CARRIED, **clock.environment, "RECORDER_BACKFILL_AGE": "0"}
        with Up(tmp_path, "--sim-rate", "1000", "--sim-symbols", "5", environment=environment) as up:
            up.await_subscribed(len(SYMBOLS))
            trade(up, 500)
            up.pause_and_drain()
            clock.jump(noon + 70)
            up.sim("/sim/resume")
            await_true(lambda: right(up) == len(SYMBOLS), "volumes were never told")
            up.pause_and_drain()
            await_true(lambda: not differing(up), "volumes differ")
            assert up.stop() == 0


@pytest.mark.timeout(240)
def test_a_day_that_began_without_the_server_is_whole(tmp_path: Path) -> None:
    with FakeClock(tmp_path) as clock:
        noon = (DAY // 2 + 20 - time.time() % DAY) % DAY
        clock.jump(noon)
        environment = {**CARRIED, **clock.environment}
        with Up(tmp_path, "--sim-rate", "1000", "--sim-symbols", "5", environment=environment) as up:
            up.await_subscribed(len(SYMBOLS))
            await_true(lambda: right(up) == len(SYMBOLS), "volumes were never told")
            up.pause_and_drain()
            await_true(lambda: not differing(up), "volumes differ")
            for symbol, row in rows(tmp_path).items():
                # Half a day before the start.
                assert row.day_volume > 2 * float(ledger_volume(up, symbol, row.day)) > 0.0
            trade(up, 500)
            up.pause_and_drain()
            assert differing(up) == []

            # What is traded while the server is away is a gap.
            trade(up, 500)
            os.kill(server_pid(up), signal.SIGKILL)
            trade(up, 500)
            await_true(lambda: server_listens(up), "no other server")
            up.await_subscribed(len(SYMBOLS))
            trade(up, 500)
            up.pause_and_drain()
            up.await_stored(repaired=True)
            await_true(lambda: not differing(up), "volumes differ after a gap")

            # Midnight, under way.
            clock.jump(noon + (DAY - (time.time() + noon) % DAY) - 2)
            day = {row.day for row in rows(tmp_path).values()}.pop()
            up.sim("/sim/resume")
            await_true(
                lambda: {row.day for row in rows(tmp_path).values()} == {day + 1}, "no trade of the next day"
            )
            up.pause_and_drain()
            assert differing(up) == []
            for symbol, row in rows(tmp_path).items():
                assert Decimal(row.day_units).scaleb(-row.quantity_precision) == ledger_volume(
                    up, symbol, day + 1
                )
            assert up.stop() == 0
    assert "Traceback" not in (tmp_path / "up.log").read_text()
