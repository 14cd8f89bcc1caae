"""The Enigma sink over real journals and a real history: garbage, restarts, a store that takes nothing."""

from __future__ import annotations

import math
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from tests.store.conftest import sqlite_config
from tradeback._fast.journal import JournalWriter
from tradeback._fast.record import FLAGS
from tradeback._fast.stats import Stats
from tradeback.errors import HistoryError
from tradeback.model import Bar, EnigmaLevel, SymbolInfo, Tick
from tradeback.recorder.counters import RECORDER_HISTOGRAMS, RECORDER_VALUES
from tradeback.recorder.indicators import EnigmaSink, enigma_message
from tradeback.recorder.symbols import SymbolBook
from tradeback.store.base import History, HistoryBatch
from tradeback.store.catalog import open_catalog
from tradeback.store.histories import open_history
from tradeback.store.history_sqlite import SqliteHistory

SAFETY = 120.0
SECOND = 1_000_000_000
MINUTE = 60 * SECOND


class Heard:
    """A target that keeps everything."""

    def __init__(self) -> None:
        self.levels: list[tuple[str, EnigmaLevel]] = []
        self._news = threading.Condition()

    def publish(self, symbol: str, level: EnigmaLevel) -> None:
        with self._news:
            self.levels.append((symbol, level))
            self._news.notify_all()

    def until(self, condition: Callable[[list[tuple[str, EnigmaLevel]]], bool]) -> None:
        with self._news:
            assert self._news.wait_for(lambda: condition(self.levels), SAFETY), self.levels

    def until_price(self, symbol: str, price: float) -> EnigmaLevel:
        self.until(lambda levels: any(name == symbol and level.price == price for name, level in levels))
        return next(level for name, level in self.levels if name == symbol and level.price == price)


class Scene:
    """A data folder with two symbols, AUSDT (1) and BUSDT (2), both journals, a history, and a sink when asked."""

    def __init__(self, folder: Path) -> None:
        self.config = sqlite_config(folder)
        self.folder = folder / "sim"
        self.stack = ExitStack()
        self.catalog = open_catalog(self.config)
        self.stack.callback(self.catalog.close)
        self.list("AUSDT", "BUSDT")
        self.history = open_history(self.config, write=True)
        self.stack.callback(self.history.close)
        self.journal = self.stack.enter_context(JournalWriter.open(self.folder / "journal", "sim"))
        self.repairs = self.stack.enter_context(JournalWriter.open(self.folder / "repairs", "sim"))
        self.stats = Stats.create(folder / "stats", "recorder", RECORDER_VALUES, RECORDER_HISTOGRAMS)
        self.stack.callback(self.stats.close)
        self.ids = 0

    def list(self, *names: str, active: bool = True) -> None:
        self.catalog.sync_symbols([SymbolInfo(name, name[0], "USDT", active, 2, 3) for name in names])

    def sink(self, heard: Heard, history: History | None = None) -> EnigmaSink:
        sink = EnigmaSink(
            self.folder, self.stats, 0.0, history or self.history, SymbolBook(self.catalog), [heard]
        )
        sink.start()
        self.stack.callback(sink.stop)
        return sink

    def trade(
        self, price: float, *, stream_id: int = 1, flags: int = 0, ts: int = 0, repair: bool = False
    ) -> int:
        self.ids += 1
        journal = self.repairs if repair else self.journal
        return journal.append_trade(
            stream_id=stream_id,
            price=price,
            qty=1.0,
            trade_id=self.ids,
            ts_event=ts or self.ids * SECOND,
            flags=flags | (FLAGS["repair"] if repair else 0),
        )

    def store(self, *prices: float, place: int | None = None) -> None:
        """Store ticks, and that the journal is stored up to `place`."""
        ticks = [Tick(1, 900 + n, 1, price, 1.0, 0.0, 0.0, n, 0) for n, price in enumerate(prices)]
        covered = [(1, ticks[0].trade_id, ticks[-1].trade_id)] if ticks else []
        places = {} if place is None else {"journal": place}
        self.history.write(HistoryBatch(ticks=ticks, covered=covered, places=places))


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    scene = Scene(tmp_path)
    with scene.stack:
        yield scene


def test_garbage_changes_nothing_and_holds_up_nothing(scene: Scene) -> None:
    heard = Heard()
    scene.sink(heard)
    for price in (0.0, -5.0, math.nan, math.inf, -math.inf):
        scene.trade(price)
    for stream_id in (0, 3, 77, 65_535):
        scene.trade(1e9, stream_id=stream_id)
    scene.trade(10.0)
    scene.trade(20.0, stream_id=2)
    assert heard.until_price("AUSDT", 10.0) == EnigmaLevel(1, 10 * SECOND, 10.0, None, 10.0, 10.0)
    heard.until_price("BUSDT", 20.0)
    assert {name for name, _ in heard.levels} == {"AUSDT", "BUSDT"}
    assert scene.stats.value("prices_refused") == 5
    assert scene.stats.value("sink_errors") == 0


def test_a_symbol_that_is_listed_or_deactivated_meanwhile(scene: Scene) -> None:
    heard = Heard()
    scene.sink(heard)
    scene.list("AUSDT", active=False)
    scene.trade(5.0)
    heard.until_price("AUSDT", 5.0)
    scene.list("AUSDT", "BUSDT", "NEWUSDT")
    deadline = time.monotonic() + SAFETY
    # The catalog is read again at most once a second; until then its trades are those of an unknown id.
    while not any(name == "NEWUSDT" for name, _ in heard.levels):
        scene.trade(7.0, stream_id=3)
        time.sleep(0.05)
        assert time.monotonic() < deadline


def test_the_whole_history_counts_whichever_sink_is_ahead(scene: Scene) -> None:
    # The history is behind: 50 was seen by an earlier run of this sink, and is not stored.
    heard = Heard()
    first = scene.sink(heard)
    for price in (40.0, 50.0, 30.0):
        place = scene.trade(price)
    heard.until_price("AUSDT", 30.0)
    first.stop()
    scene.store(40.0, place=place - 1)
    again = Heard()
    second = scene.sink(again)
    scene.trade(35.0)
    level = again.until_price("AUSDT", 35.0)
    assert (level.ath, level.atl, level.level) == (50.0, 30.0, 25.0)
    second.stop()
    # The history is ahead: what it has stored need not be read, and counts.
    scene.store(100.0, 20.0, place=scene.journal.next_seq)
    third = Heard()
    scene.sink(third)
    scene.trade(60.0)
    level = third.until_price("AUSDT", 60.0)
    assert (level.ath, level.atl, level.level) == (100.0, 20.0, 50.0)
    assert {level.price for _, level in third.levels} == {60.0}


def test_a_place_that_the_journal_does_not_have_is_not_waited_for(scene: Scene) -> None:
    heard = Heard()
    scene.trade(10.0)
    scene.store(place=1_000)
    scene.sink(heard)
    heard.until_price("AUSDT", 10.0)


def test_repairs_move_the_extremes_and_not_the_price(scene: Scene) -> None:
    heard = Heard()
    scene.sink(heard)
    scene.trade(10.0, ts=100 * SECOND)
    heard.until_price("AUSDT", 10.0)
    scene.trade(20.0, ts=50 * SECOND, repair=True)
    scene.trade(5.0, ts=60 * SECOND, flags=FLAGS["late"])
    heard.until(lambda levels: (levels[-1][1].ath, levels[-1][1].atl) == (20.0, 5.0))
    assert heard.levels[-1][1] == EnigmaLevel(1, 100 * SECOND, 10.0, 100 / 3, 20.0, 5.0)


def test_bars_of_a_backfill_count_once_they_are_stored(scene: Scene) -> None:
    heard = Heard()
    sink = scene.sink(heard)
    sink.refresh(1)  # nobody has traded it yet
    scene.trade(10.0)
    heard.until_price("AUSDT", 10.0)
    scene.history.write_bars(1, "1d", [Bar(0, 10.0, 18.0, 2.0, 9.0, 1.0, 3)])
    sink.refresh(1)
    heard.until(lambda levels: levels[-1][1].level == 50.0)
    assert heard.levels[-1][1][4:] == (18.0, 2.0)


def test_what_changed_before_a_kill_is_published_by_the_next_run(scene: Scene) -> None:
    heard = Heard()
    sink = scene.sink(heard)
    scene.trade(10.0)
    heard.until_price("AUSDT", 10.0)
    sink.stop()
    # As after a kill: the trade was read, the place saved, the history stored it, and its level was not published.
    scene.trade(20.0)
    scene.history.write(
        HistoryBatch(
            ticks=[Tick(1, scene.ids, 1, 20.0, 1.0, 0.0, 0.0, scene.ids * SECOND, 0)],
            places={"journal": scene.journal.next_seq, "repairs": scene.repairs.next_seq},
        )
    )
    again = Heard()
    scene.sink(again)
    assert again.until_price("AUSDT", 20.0).level == 100.0


def test_a_symbol_whose_first_trades_are_stored_already_is_told(scene: Scene) -> None:
    """The history sink was faster at the first start of all: the journal is read behind those trades."""
    for price in (30.0, 10.0, 15.0):
        place = scene.trade(price) + 1
    scene.store(30.0, 10.0, 15.0, place=place)
    heard = Heard()
    scene.sink(heard)
    level = heard.until_price("AUSDT", 15.0)
    assert (level.level, level.ath, level.atl) == (25.0, 30.0, 10.0)


def test_a_store_that_takes_nothing_keeps_no_client_waiting(scene: Scene) -> None:
    heard = Heard()
    scene.store(place=1)
    blind = open_history(scene.config, write=False)
    sink = scene.sink(heard, blind)
    scene.stack.callback(blind.close)
    scene.trade(10.0)
    heard.until_price("AUSDT", 10.0)
    scene.trade(11.0)
    heard.until_price("AUSDT", 11.0)
    deadline = time.monotonic() + SAFETY
    while not sink.caught_up:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert scene.stats.value("sink_errors") == 0
    sink.stop()


@pytest.mark.parametrize("hangs", [False, True])
def test_levels_are_told_while_influxdb_is_away(scene: Scene, *, hangs: bool) -> None:
    """From the start on, of symbols without trades before; InfluxDB takes no connection, or one and never answers."""
    scene.store(30.0, 10.0, place=1)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        if not hangs:
            listener.close()
        away = open_history(
            sqlite_config(scene.folder.parent, INFLUX_URL=url, INFLUX_TIMEOUT="1s"), write=True
        )
        scene.stack.callback(away.close)
        heard = Heard()
        sink = scene.sink(heard, away)
        scene.trade(15.0)
        assert heard.until_price("AUSDT", 15.0).level == 25.0  # of the extremes that the data folder keeps
        scene.trade(20.0)
        assert heard.until_price("AUSDT", 20.0).level == 50.0
        scene.trade(7.0, stream_id=2)
        heard.until_price("BUSDT", 7.0)
        assert scene.stats.value("sink_errors") == 0
        sink.stop()


class Late(SqliteHistory):
    """A history that is away until it is let in."""

    here = threading.Event()

    def enigma(self, stream_id: int) -> EnigmaLevel | None:
        if not self.here.is_set():
            error = HistoryError("it is away")
            error.away = True
            raise error
        return super().enigma(stream_id)

    def write_enigma(self, levels: Sequence[EnigmaLevel]) -> None:
        self.enigma(1)
        super().write_enigma(levels)


def test_what_was_stored_is_taken_up_once_the_history_is_there(scene: Scene) -> None:
    scene.store(30.0, 10.0, place=1)
    stored = [EnigmaLevel(1, 1, 12.0, 10.0, 30.0, 10.0), EnigmaLevel(2, 1, 5.0, None, 5.0, 5.0)]
    scene.history.write_enigma(stored)
    with closing(open_history(scene.config, write=True)) as history:
        Late.here.clear()
        history.__class__ = Late
        heard, kept = Heard(), Heard()
        sink = EnigmaSink(
            scene.folder, scene.stats, 0.0, history, SymbolBook(scene.catalog), [heard], keepers=[kept]
        )
        sink.start()
        scene.stack.callback(sink.stop)
        scene.trade(20.0)
        heard.until_price("AUSDT", 20.0)
        Late.here.set()
        # Of the one that traded meanwhile there is a newer level; the trades of the history do not move its price.
        assert kept.until_price("BUSDT", 5.0) == stored[1]
        sink.stop()
        assert [name for name, _ in kept.levels] == ["BUSDT"]
        assert [level.price for _, level in heard.levels] == [20.0]
        newest = scene.history.enigma(1)
        assert newest is not None
        assert newest.price == 20.0


def test_the_end_publishes_what_waits_for_its_second(scene: Scene) -> None:
    heard = Heard()
    sink = scene.sink(heard)
    scene.trade(10.0)
    heard.until_price("AUSDT", 10.0)
    scene.trade(11.0)
    sink.stop()
    assert [level.price for _, level in heard.levels] == [10.0, 11.0]
    stored = scene.history.enigma(1)
    assert stored is not None
    assert stored.price == 11.0


def test_the_message_is_plain_json() -> None:
    level = EnigmaLevel(1, 1_733_011_200_123_456_789, 15.0, 50.0, 20.0, 10.0)
    assert enigma_message("AUSDT", level) == {
        "type": "enigma",
        "data": {
            "symbol": "AUSDT",
            "level": 50.0,
            "ath": 20.0,
            "atl": 10.0,
            "current_price": 15.0,
            "fib_levels": {
                "0": 10.0,
                "23.6": 12.36,
                "38.2": 13.82,
                "50": 15.0,
                "61.8": 16.18,
                "78.6": 17.86,
                "100": 20.0,
            },
            "timestamp": 1_733_011_200_123,
        },
    }
