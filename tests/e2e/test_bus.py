"""The bus behind a real recorder: every trade of the journals, whatever happens to NATS, and no other sink notices."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.running import (
    RecorderProcess,
    ServerProcess,
    SimProcess,
    stream_ids,
    trade_and_drain,
)
from tests.servers.nats import Listener, NatsServer, kept
from tests.waiting import await_true
from tradeback._fast.journal import JournalCursor, JournalTrade
from tradeback._fast.record import FLAGS
from tradeback.store.bus_layout import BusLevel, BusPrice, BusTrade, decode_message

SYMBOLS = ("BTCUSDT", "ETHUSDT", "BNBUSDT")
CARRIED = {"EXCHANGE_SYMBOLS": ",".join(SYMBOLS), "RECORDER_HISTORY_DAYS": "0"}


def journaled(folder: Path, journal: str = "journal") -> dict[int, list[BusTrade]]:
    """What was journaled, by stream id, in its order."""
    trades: dict[int, list[BusTrade]] = {}
    with JournalCursor.open(folder / "sim" / journal) as cursor:
        while records := cursor.read(10_000):
            for one in records:
                if isinstance(one, JournalTrade):
                    trades.setdefault(one.stream_id, []).append(
                        BusTrade(
                            one.price, one.qty, one.bid, one.ask, one.trade_id, one.ts_event,
                            one.recv_offset_us, one.trade_count, one.flags,
                        )
                    )  # fmt: skip
    return trades


def published(listeners: list[Listener], symbol: str, repair: int = 0) -> list[BusTrade]:
    return [
        record
        for listener in listeners
        for payload in listener.of(f"trades.{symbol}")
        for record in decode_message(payload)[1]
        if isinstance(record, BusTrade) and record.flags & FLAGS["repair"] == repair
    ]


def await_sink(recorder: RecorderProcess, name: str, true: Callable[[dict[str, Any]], bool]) -> None:
    def looked() -> bool:
        (sink,) = [one for one in recorder.control(type="status")["sinks"] if one["name"] == name]
        return true(sink)

    await_true(looked, f"the sink {name} never came to it: {recorder.said()}")


def all_read(sink: dict[str, Any]) -> bool:
    return bool(sink["caught_up"]) and not any(one["lag"] for one in sink["journals"].values())


def first_seen(trades: list[BusTrade]) -> list[BusTrade]:
    return list(dict.fromkeys(trades))


@pytest.mark.timeout(180)
def test_every_trade_is_on_the_bus(tmp_path: Path) -> None:
    with (
        NatsServer(tmp_path / "nats") as nats,
        Listener(nats.port) as listener,
        SimProcess("--rate", "2000", "--symbols", "10", "--paused") as sim,
        contextlib.ExitStack() as stack,
    ):
        # What is traded before the server comes is fetched, where its minute is the first that is stored.
        minute = time.time() // 60
        trade_and_drain(sim.rest_endpoint, 1_000)
        server = stack.enter_context(ServerProcess(tmp_path, sim, **CARRIED))
        recorder = stack.enter_context(RecorderProcess(tmp_path, sim, **CARRIED, NATS_URL=nats.url))
        server.await_subscribed(len(SYMBOLS))
        trade_and_drain(sim.rest_endpoint, 4_000)
        same_minute = time.time() // 60 == minute
        recorder.await_stored(repaired=True)
        assert recorder.stop() == 0
        await_true(lambda: all(listener.of(f"enigma.{symbol}") for symbol in SYMBOLS), "not all levels came")
        trades, repairs, ids = journaled(tmp_path), journaled(tmp_path, "repairs"), stream_ids(tmp_path)
        assert repairs or not same_minute
        for symbol in SYMBOLS:
            expected = trades[ids[symbol]]
            await_true(
                lambda symbol=symbol, expected=expected: len(published([listener], symbol)) >= len(expected),
                f"not all trades of {symbol} came",
            )
            assert published([listener], symbol) == expected
            repaired = repairs.get(ids[symbol], [])
            await_true(
                lambda symbol=symbol, repaired=repaired: (
                    published([listener], symbol, FLAGS["repair"]) == repaired
                ),
                f"not all repairs of {symbol} came",
            )
            last = max((one for one in expected if not one.flags & 8), key=lambda one: one.trade_id)
            price = BusPrice(last.price, last.bid, last.ask, last.trade_id, last.ts_event)
            await_true(
                lambda symbol=symbol, price=price: (
                    [decode_message(one)[1][0] for one in listener.of(f"prices.{symbol}")[-1:]] == [price]
                ),
                f"the last price of {symbol} did not come",
            )
            level = decode_message(listener.of(f"enigma.{symbol}")[-1])[1][0]
            assert isinstance(level, BusLevel)


@pytest.mark.timeout(180)
@pytest.mark.parametrize("trouble", ["killed", "hung"])
def test_trouble_with_nats_loses_nothing_and_nobody_else_notices(tmp_path: Path, trouble: str) -> None:
    with (
        NatsServer(tmp_path / "nats") as nats,
        Listener(nats.port) as before,
        SimProcess("--rate", "2000", "--symbols", "10", "--paused") as sim,
        ServerProcess(tmp_path, sim, **CARRIED) as server,
        RecorderProcess(tmp_path, sim, **CARRIED, NATS_URL=nats.url) as recorder,
    ):
        server.await_subscribed(len(SYMBOLS))
        trade_and_drain(sim.rest_endpoint, 3_000)
        recorder.await_stored()
        if trouble == "killed":
            nats.kill()
        else:
            nats.halt()
        trade_and_drain(sim.rest_endpoint, 3_000)
        await_sink(recorder, "bus", lambda sink: sink["errors"] > 0)
        for name in ("history", "indicators"):
            await_sink(recorder, name, all_read)
            await_sink(recorder, name, lambda sink: sink["errors"] == 0)
        if trouble == "killed":
            # It may publish all it has at once, and NATS keeps nothing for a listener that comes later.
            recorder.process.send_signal(signal.SIGSTOP)
            nats.start()
        else:
            nats.go_on()
        with Listener(nats.port) as after:
            recorder.process.send_signal(signal.SIGCONT)
            listeners = [before, after] if trouble == "killed" else [before]
            recorder.await_stored()
            assert recorder.stop() == 0
            trades, ids = journaled(tmp_path), stream_ids(tmp_path)
            for symbol in SYMBOLS:
                expected = trades[ids[symbol]]
                deadline = time.monotonic() + 30
                while (seen := first_seen(published(listeners, symbol))) != expected:
                    assert time.monotonic() < deadline, f"{symbol}: {len(seen)} of {len(expected)}"
                    time.sleep(0.05)
    assert "Traceback" not in (tmp_path / "recorder.log").read_text()


@pytest.mark.timeout(180)
def test_a_stream_has_every_trade_whatever_was_killed(tmp_path: Path) -> None:
    with (
        NatsServer(tmp_path / "nats", "-js") as nats,
        SimProcess("--rate", "2000", "--symbols", "10", "--paused") as sim,
        ServerProcess(tmp_path, sim, **CARRIED) as server,
    ):
        stream = {"NATS_URL": nats.url, "NATS_JETSTREAM": "true", "NATS_STREAM_BYTES": "64MiB"}
        with RecorderProcess(tmp_path, sim, **CARRIED, **stream) as recorder:
            server.await_subscribed(len(SYMBOLS))
            trade_and_drain(sim.rest_endpoint, 3_000)
            nats.kill()
            trade_and_drain(sim.rest_endpoint, 3_000)
            await_sink(recorder, "bus", lambda sink: sink["errors"] > 0)
            nats.start()
            trade_and_drain(sim.rest_endpoint, 1_000)
            recorder.kill()
        trade_and_drain(sim.rest_endpoint, 1_000)
        with RecorderProcess(tmp_path, sim, **CARRIED, **stream) as recorder:
            recorder.await_stored()
            assert recorder.stop() == 0
        trades, ids = journaled(tmp_path), stream_ids(tmp_path)
        streamed: dict[str, list[BusTrade]] = {}
        for subject, content in kept(nats):
            records = [record for record in decode_message(content)[1] if isinstance(record, BusTrade)]
            streamed.setdefault(subject, []).extend(
                record for record in records if not record.flags & FLAGS["repair"]
            )
        for symbol in SYMBOLS:
            assert first_seen(streamed[f"trades.{symbol}"]) == trades[ids[symbol]]
    assert "Traceback" not in (tmp_path / "recorder.log").read_text()
