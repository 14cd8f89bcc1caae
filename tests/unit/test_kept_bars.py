"""Bars that the API keeps in a real Redis, and a recorder's writer that changes them: no answer is older than what was
stored when it was asked for, whatever becomes of Redis meanwhile."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.servers.redis import RedisServer
from tests.store.conftest import sqlite_config
from tests.waiting import PATIENCE_S, await_true
from tradeback.api import kept_bars
from tradeback.api.kept_bars import BarsReader
from tradeback.api.stores import Store, Stores
from tradeback.config import load_config
from tradeback.errors import CacheError
from tradeback.model import Bar, Symbol, SymbolInfo
from tradeback.recorder import kept_bars as recorder_kept_bars
from tradeback.recorder.kept_bars import VOUCHED, VouchedBars
from tradeback.store.base import History
from tradeback.store.cache_redis import RedisCache
from tradeback.store.history_sqlite import open_sqlite_history

SECOND = 10**9
MINUTE = 60 * SECOND
START = 1_700_006_400 * SECOND  # midnight, UTC
SYMBOL = Symbol(SymbolInfo("BTCUSDT", "BTC", "USDT", True, 2, 5), 7)
EVER = 2**62


@dataclass
class Both:
    """The recorder's side and the API's, on one history and one Redis."""

    redis: RedisServer
    history: History
    stores: Stores
    vouched: VouchedBars
    reader: BarsReader
    asked: list[tuple[int, int]] = field(default_factory=list)  # ranges that the history was asked for

    def write(self, minute: int, trades: int, opened: int = START) -> None:
        bar = Bar(opened + minute * MINUTE, 1.0, 2.0, 0.5, 1.5, float(trades), trades)
        with self.vouched.changing([(SYMBOL.stream_id, bar.open_time)]):
            self.history.write_bars(SYMBOL.stream_id, "1m", [bar])

    def ask(
        self, start: int = START, end: int = EVER, count: int = 1_000, resolution: str = "1m"
    ) -> list[Bar]:
        return self.reader.newest(SYMBOL, resolution, start, end, count, time.time_ns())

    def stored(
        self, start: int = START, end: int = EVER, count: int = 1_000, resolution: str = "1m"
    ) -> list[Bar]:
        return self.history.bars(SYMBOL.stream_id, resolution, start, end, count)


@pytest.fixture
def both(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    redis_server: RedisServer,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Both]:
    """Redis is waited for and bars are vouched for as long as a test may take, or by the parameters, if any."""
    timeout, vouched = getattr(request, "param", ("30s", 3600.0))
    monkeypatch.setattr(recorder_kept_bars, "VOUCHED", vouched)
    environ = {"REDIS_ADDR": redis_server.addr, "REDIS_TIMEOUT": timeout, "REDIS_BARS_TTL": "1h"}
    config = load_config(environ=environ).cache.redis
    with (
        closing(open_sqlite_history(sqlite_config(tmp_path), write=True)) as history,
        closing(RedisCache(config)) as cache,
    ):
        asked: list[tuple[int, int]] = []
        read = history.bars

        def noted(
            stream_id: int, resolution: str, start: int, end: int, limit: int | None = None
        ) -> list[Bar]:
            asked.append((start, end))
            return read(stream_id, resolution, start, end, limit)

        def nothing() -> object:
            raise AssertionError("it is not asked for here")

        stores = Stores(
            Store("catalog", None, nothing),  # type: ignore[arg-type]
            Store("accounts", None, nothing),  # type: ignore[arg-type]
            Store("history", None, lambda: history),
            Store("prices", None, nothing),  # type: ignore[arg-type]
            dict,
            None,
            Store("cache", None, lambda: RedisCache(config)),
        )
        found = Both(
            redis_server, history, stores, VouchedBars(cache, lambda _: SYMBOL), BarsReader(stores), asked
        )
        for minute in range(10):
            found.write(minute, 1)
        monkeypatch.setattr(history, "bars", noted)
        vouch_for(found.vouched)
        yield found
        assert stores.cache is not None
        stores.cache.close()


def vouch_for(bars: VouchedBars) -> None:
    """Once, as soon as Redis answers in its time."""

    def vouched() -> bool:
        try:
            bars.vouch()
        except CacheError:
            return False
        return True

    await_true(vouched, "nobody can vouch for bars")


def test_settled_bars_come_out_of_the_cache(both: Both) -> None:
    whole = both.ask()
    assert [bar.open_time for bar in whole] == [START + minute * MINUTE for minute in range(10)]
    both.asked.clear()
    assert both.ask() == whole
    (newer,) = both.asked  # of the history what follows alone
    assert newer[0] > START + 9 * MINUTE
    both.asked.clear()
    for start, end, count in [(START, START + 5 * MINUTE, 100), (START + MINUTE, START + 4 * MINUTE, 2)]:
        assert both.ask(start, end, count) == [bar for bar in whole if start <= bar.open_time < end][-count:]
    assert both.asked == []
    # Earlier ones than are kept.
    both.asked.clear()
    assert both.ask(start=START - MINUTE) == whole
    assert both.asked[-1] == (START - MINUTE, EVER)


@pytest.mark.parametrize("resolution", ["1m", "5m", "1h"])
@pytest.mark.parametrize("count", [1, 3, 100])
def test_answers_are_those_of_the_history(both: Both, resolution: str, count: int) -> None:
    # With bars of this moment, which are never kept.
    now = time.time_ns() // MINUTE * MINUTE
    for minute in range(-20, 1):
        both.write(minute, 2, opened=now)
    asks = [(0, EVER), (START, EVER), (START, START + 7 * MINUTE), (now - 9 * MINUTE, EVER), (now, EVER)]
    for start, end in [*asks, *reversed(asks)]:
        expected = both.stored(start, end, count, resolution)
        assert [both.ask(start, end, count, resolution) for _ in range(2)] == [expected, expected]
        both.write(0, 3, opened=now)
        assert both.ask(start, end, count, resolution) == both.stored(start, end, count, resolution)


def test_a_change_makes_what_was_kept_void(both: Both) -> None:
    assert both.ask() == both.ask()
    both.write(3, 5)
    assert both.ask()[3].trade_count == 5
    assert both.ask()[3].trade_count == 5
    with pytest.raises(KeyError), both.vouched.changing([(SYMBOL.stream_id, START)]):
        raise KeyError("it may come late")
    both.asked.clear()
    assert both.ask() == both.ask()
    assert both.asked == [(START, EVER)] * 2  # nothing is kept until the next change
    both.write(3, 6)
    both.asked.clear()
    both.ask()
    both.ask()
    assert both.asked[1] > (START, EVER)


def test_two_changes_of_a_symbol_end_with_the_later(both: Both) -> None:
    inner, outer = [both.vouched.changing([(SYMBOL.stream_id, START)]) for _ in range(2)]
    with outer:
        with inner:
            pass
        both.asked.clear()
        both.ask()
        both.ask()
        assert both.asked == [(START, EVER)] * 2
    both.ask()
    both.asked.clear()
    both.ask()
    assert both.asked[0] > (START, EVER)


@pytest.mark.parametrize("both", [("30s", VOUCHED)], indirect=True)
def test_a_recorder_that_cannot_tell_waits_until_nothing_is_vouched_for(
    both: Both, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Redis is there for the API, and not for the recorder."""
    both.vouched._cache = RedisCache(load_config(environ={"REDIS_ADDR": "127.0.0.1:1"}).cache.redis)
    whole = both.ask()
    both.write(3, 5)
    assert time.monotonic() >= both.vouched._vouched_until
    assert both.ask()[3].trade_count == 5
    assert whole[3].trade_count == 1
    both.asked.clear()
    both.ask()
    assert both.asked == [(START, EVER)]
    slept: list[float] = []
    with monkeypatch.context() as patch:
        patch.setattr(time, "sleep", slept.append)
        both.write(3, 6)
    assert slept == []  # it waits once
    assert both.ask()[3].trade_count == 6


@pytest.mark.parametrize("both", [("200ms", VOUCHED)], indirect=True)
def test_nobody_is_answered_what_was_changed_before(both: Both) -> None:
    """While a writer writes, the recorder vouches, and Redis is emptied, halted, killed and filled."""
    stored = 1  # trades of the bar, for sure
    ended = threading.Event()
    faults: list[str] = []
    answered: list[int] = []

    def change() -> None:
        nonlocal stored
        while not ended.is_set():
            both.write(5, stored + 1)
            stored += 1

    def vouch() -> None:
        while not ended.wait(0.05):
            try:
                both.vouched.vouch()
            except CacheError:
                continue

    def ask() -> None:
        while not ended.is_set():
            before = stored
            found = both.ask()[5].trade_count
            answered.append(found)
            if found < before:
                faults.append(f"{found} was answered when {before} was stored")

    threads = [threading.Thread(target=work) for work in (change, vouch, ask, ask)]
    for thread in threads:
        thread.start()
    try:
        for disturb in (
            both.redis.empty,
            lambda: halt(both.redis),
            lambda: restart(both.redis),
            lambda: fill(both.redis),
        ):
            goes_on(answered)
            disturb()
            goes_on(answered)
    finally:
        ended.set()
        for thread in threads:
            thread.join(PATIENCE_S)
    assert faults == []
    assert both.ask()[5].trade_count == stored > 2


def goes_on(answered: list[int]) -> None:
    """Answers are given, and of bars that changed meanwhile."""
    count, newest = len(answered), max(answered, default=0)
    await_true(lambda: len(answered) >= count + 20 and max(answered) > newest, "no answers")


def halt(server: RedisServer) -> None:
    server.halt()
    time.sleep(0.5)
    server.go_on()


def restart(server: RedisServer) -> None:
    server.kill()
    server.start()


def fill(server: RedisServer) -> None:
    assert server.ask("CONFIG", "SET", "maxmemory", "1") == "+OK"
    time.sleep(0.3)
    assert server.ask("CONFIG", "SET", "maxmemory", "0") == "+OK"


def test_what_the_api_keeps_is_older_than_what_the_recorder_does_not_mark() -> None:
    from tradeback.recorder.kept_bars import SETTLED_NS

    assert kept_bars.SETTLED_NS >= SETTLED_NS + 180 * SECOND
