"""What every history must do. Written through one, read through another that was opened beside it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.reference.history import PlainHistory, folded
from tests.servers.influx import InfluxServer
from tests.store.conftest import OpenHistory, influx_history, sqlite_history
from tradeback.errors import DataFolderError, HistoryError
from tradeback.model import MINUTE_NS, RESOLUTIONS, Bar, EnigmaLevel, Gap, Tick
from tradeback.store.base import BackfillJob, History, HistoryBatch, OpenGaps

DAY_NS = RESOLUTIONS["1d"]
DAY = 20_000 * DAY_NS  # some midnight, UTC
AWAY = (DataFolderError, HistoryError)
EVER = (-(2**63), 2**63 - 1)
COARSER = [name for name in RESOLUTIONS if name != "1m"]


def tick(trade_id: int, ts_event: int, price: float = 100.5, *, stream_id: int = 1) -> Tick:
    return Tick(stream_id, trade_id, 1, price, 0.25, 100.4, 100.6, ts_event, 0)


def minute(number: int, count: int = 3, volume: float = 0.1, price: float = 100.0) -> Bar:
    """The bar of a minute of DAY."""
    return Bar(DAY + number * MINUTE_NS, price, price + count, price - count, price + 1, volume, count)


def minutes(*bars: Bar, stream_id: int = 1) -> HistoryBatch:
    return HistoryBatch(minutes=[(stream_id, bar) for bar in bars])


def every_bar(history: History, resolution: str, stream_id: int = 1) -> list[Bar]:
    return history.bars(stream_id, resolution, *EVER)


# Ticks


def test_an_empty_history_has_nothing(history: History, reader: History) -> None:
    for each in (history, reader):
        assert list(each.ticks(1, *EVER)) == []
        assert all(every_bar(each, resolution) == [] for resolution in RESOLUTIONS)
        assert (each.places(), each.covered(), each.gaps(), each.jobs()) == ({}, {}, [], [])
        assert each.extremes(1) is None
        assert each.enigma(1) is None
        assert each.newest_tick(1) == 0


def test_ticks_come_by_time_and_id_from_start_to_before_end(history: History, reader: History) -> None:
    ticks = [tick(5, 300), tick(4, 300), tick(9, 100), tick(6, 301), tick(1, 300, stream_id=2)]
    history.write(HistoryBatch(ticks=ticks))
    assert [reader.newest_tick(stream_id) for stream_id in (1, 2, 3)] == [301, 300, 0]
    assert [(each.ts_event, each.trade_id) for each in reader.ticks(1, 100, 301)] == [
        (100, 9),
        (300, 4),
        (300, 5),
    ]
    assert list(reader.ticks(1, 301, 302)) == [tick(6, 301)]
    assert list(reader.ticks(1, 101, 300)) == []
    assert list(reader.ticks(1, 302, 100)) == []
    assert list(reader.ticks(2, *EVER)) == [tick(1, 300, stream_id=2)]


def test_all_of_a_tick_is_kept(history: History, reader: History) -> None:
    ticks = [
        Tick(1, 2**63 - 1, 2**32 - 1, 1e-8, 1e15, 0.0, 0.0, 2**63 - 2_000_000, 255),
        Tick(65_535, 0, 1, 123_456_789.12345678, 0.1 + 0.2, 1e-323, 1.7e308, -(2**62), 0),
    ]
    history.write(HistoryBatch(ticks=ticks))
    assert list(reader.ticks(1, *EVER)) + list(reader.ticks(65_535, *EVER)) == ticks
    assert all(type(value) is float for each in reader.ticks(1, *EVER) for value in each[3:7])


def test_pages_meet_within_one_instant(history: History, reader: History) -> None:
    """More ticks of one time than a page holds, and a page that ends exactly where the range does."""
    ticks = [tick(n, 7) for n in range(10_000)] + [tick(10_000 + n, 8) for n in range(2_288)]
    history.write(HistoryBatch(ticks=ticks))
    assert list(reader.ticks(1, 7, 9)) == ticks
    for limit in (0, 1, 4_095, 4_096, 4_097, 12_287, 12_288, 20_000):
        assert list(reader.ticks(1, *EVER, limit)) == ticks[:limit]


def test_a_long_read_sees_what_comes_behind_it(history: History, reader: History) -> None:
    history.write(HistoryBatch(ticks=[tick(n, n * 10**9) for n in range(10_000)]))
    reading = reader.ticks(1, *EVER)
    first = next(reading)
    history.write(HistoryBatch(ticks=[tick(10_000, 10_000 * 10**9)]))
    assert [first.trade_id, *(each.trade_id for each in reading)] == list(range(10_001))


@pytest.mark.parametrize("off", [0, 20, -20, 3_600, -3_600, 86_400 * 365])
def test_the_ticks_beside_missing_ids(history: History, reader: History, off: int) -> None:
    """Wherever they are looked for: `near` may be wrong, or empty."""
    second = 10**9
    # Ten a second with a pause of ten minutes, and several at once.
    times = {n: 10**18 + (n // 10 + (600 if n > 3_000 else 0)) * second for n in range(1_000, 6_000)}
    missing = [(1_400, 1_450), (2_996, 3_010), (4_000, 4_000), (5_100, 5_899)]
    stored = [n for n in times if not any(first <= n <= last for first, last in missing)]
    history.write(HistoryBatch(ticks=[tick(n, times[n]) for n in stored]))
    history.write(HistoryBatch(ticks=[tick(1, 10**18, stream_id=2)]))
    for first, last in [*missing, (0, 999), (7, 7), (6_000, 6_003), (9_000, 9_001)]:
        near = times.get(last, times[5_999] if last > 3_000 else times[1_000]) + off * second
        before, after = reader.beside(1, first, last, (near,))
        assert reader.beside(1, first, last, (near - 7_200 * second, near)) == (before, after)
        assert reader.beside(1, first, last, ()) == (before, after)
        lower, upper = [n for n in stored if n < first], [n for n in stored if n > last]
        assert (before and before.trade_id) == (lower[-1] if lower else None)
        assert (after and after.trade_id) == (upper[0] if upper else None)
        for each in (before, after):
            assert each is None or each == tick(each.trade_id, times[each.trade_id])
    assert reader.beside(3, 1, 2, (10**18 + off * second,)) == (None, None)


# Bars


def test_bars_by_time_with_a_limit_the_newest(history: History, reader: History) -> None:
    bars = [minute(n) for n in (5, 2, 9)]
    history.write(minutes(*bars))
    assert every_bar(reader, "1m") == sorted(bars)
    assert reader.bars(1, "1m", *EVER, 2) == [minute(5), minute(9)]
    assert reader.bars(1, "1m", *EVER, 0) == []
    assert reader.bars(1, "1m", minute(2).open_time, minute(9).open_time) == [minute(2), minute(5)]
    assert reader.bars(1, "1m", minute(2).open_time + 1, minute(5).open_time) == []
    assert reader.bars(1, "1h", *EVER, 0) == []
    assert reader.bars(2, "1m", *EVER) == []


def test_a_bar_gives_way_to_one_of_as_many_trades_or_more(history: History, reader: History) -> None:
    history.write(minutes(minute(0, 3)))
    history.write(minutes(minute(0, 2)))
    assert every_bar(reader, "1m") == [minute(0, 3)]
    history.write(minutes(minute(0, 3, volume=0.5)))
    assert every_bar(reader, "1m") == [minute(0, 3, volume=0.5)]
    assert history.write_bars(1, "1m", [minute(0, 4), minute(1)]) == 2
    assert history.write_bars(1, "1m", [minute(0, 4), minute(1, 2), minute(2)]) == 1
    assert every_bar(reader, "1m") == [minute(0, 4), minute(1), minute(2)]


@pytest.mark.parametrize("resolution", COARSER)
def test_coarser_bars_follow_in_progress_and_closed(
    history: History, reader: History, resolution: str
) -> None:
    length = RESOLUTIONS[resolution]
    last = length // MINUTE_NS - 1
    written = []
    for bar in (
        minute(0, 2, 0.1),
        minute(last, 4, 0.2),
        minute(last + 1, 8, 0.7),
        minute(last + 2, 16, 1e15),
    ):
        history.write(minutes(bar))
        written.append(bar)
        assert every_bar(reader, resolution) == folded(written, length)
    assert every_bar(reader, resolution)[0].volume == 0.3  # 0.30000000000000004 in doubles
    late = minute(0, 3, 0.4)
    history.write(minutes(late))
    assert every_bar(reader, resolution) == folded([late, *written[1:]], length)
    assert reader.bars(1, resolution, *EVER, 1) == folded(written[2:], length)
    assert reader.bars(1, resolution, DAY + 1, DAY + length) == []
    assert len(reader.bars(1, resolution, DAY, DAY + length)) == 1


def test_a_day_of_tenths_is_what_decimals_give(history: History, reader: History) -> None:
    history.write(minutes(*(minute(n, volume=0.1) for n in range(1_441))))
    assert [bar.volume for bar in every_bar(reader, "1d")] == [144.0, 0.1]
    assert [bar.volume for bar in every_bar(reader, "4h")] == [24.0] * 6 + [0.1]


def test_bars_of_the_exchange_and_minutes_meet_by_their_trades(history: History, reader: History) -> None:
    whole = Bar(DAY, 100.0, 200.0, 50.0, 120.0, 9.5, 50)
    assert history.write_bars(1, "5m", [whole]) == 1
    history.write(minutes(minute(0), minute(1)))  # 6 trades, in progress
    assert every_bar(reader, "5m") == [whole]
    history.write(minutes(minute(5)))  # now closed
    assert every_bar(reader, "5m") == [whole, *folded([minute(5)], RESOLUTIONS["5m"])]
    history.write(minutes(minute(2, 60)))
    assert every_bar(reader, "5m")[0] == folded([minute(0), minute(1), minute(2, 60)], RESOLUTIONS["5m"])[0]
    assert history.write_bars(1, "5m", [whole]) == 0


def test_a_minute_without_trades_has_no_bar(history: History, reader: History) -> None:
    assert history.write_bars(1, "1m", [minute(0, 0), minute(1)]) == 1
    assert history.write_bars(1, "1h", [minute(0, 0)]) == 0
    assert every_bar(reader, "1m") == [minute(1)]
    assert len(every_bar(reader, "1h")) == 1


def test_nobody_knows_a_resolution_of_two_minutes(history: History) -> None:
    with pytest.raises(ValueError, match="'2m': choose of 1m, 5m, 15m, 1h, 4h, 1d"):
        history.bars(1, "2m", *EVER)
    with pytest.raises(ValueError, match="'2m': choose of"):
        history.write_bars(1, "2m", [])
    with pytest.raises(ValueError, match="'2m': choose of"):
        history.write_job(BackfillJob(1, "2m", 0, 1, 0))


def test_a_bar_between_two_is_refused(history: History) -> None:
    with pytest.raises(ValueError, match="A 5m bar cannot open at"):
        history.write_bars(1, "5m", [minute(4)])
    with pytest.raises(ValueError, match="A 1m bar cannot open at"):
        history.write(minutes(minute(0)._replace(open_time=DAY + 1)))
    assert every_bar(history, "5m") == []


def test_a_limit_below_nothing_is_refused(history: History) -> None:
    with pytest.raises(ValueError, match="limit -1"):
        history.bars(1, "1m", *EVER, -1)
    with pytest.raises(ValueError, match="limit -1"):
        list(history.ticks(1, *EVER, -1))


def test_times_beyond_all_are_no_error(history: History, reader: History) -> None:
    history.write(HistoryBatch(ticks=[tick(1, DAY)], minutes=[(1, minute(0))]))
    assert list(reader.ticks(1, -(10**30), 10**30)) == [tick(1, DAY)]
    assert len(reader.bars(1, "1h", -(10**30), 10**30)) == 1
    assert list(reader.ticks(1, *EVER, 10**30)) == [tick(1, DAY)]
    assert len(reader.bars(1, "1h", *EVER, 10**30)) == 1


# What no number is


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("column", ["price", "volume", "bid", "ask"])
def test_a_tick_that_is_no_number_changes_nothing(history: History, column: str, value: float) -> None:
    bad = tick(2, 2)._replace(**{column: value})
    with pytest.raises(ValueError, match="must be finite"):
        history.write(HistoryBatch(ticks=[tick(1, 1), bad, tick(3, 3)], places={"journal": 3}))
    assert list(history.ticks(1, *EVER)) == []
    assert history.places() == {}
    assert history.extremes(1) is None
    history.write(HistoryBatch(ticks=[tick(1, 1)]))
    assert history.extremes(1) == (100.5, 100.5)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("column", ["open", "high", "low", "close", "volume"])
def test_a_bar_that_is_no_number_changes_nothing(history: History, column: str, value: float) -> None:
    bad = minute(1)._replace(**{column: value})
    with pytest.raises(ValueError, match="must be finite"):
        history.write(minutes(minute(0), bad))
    with pytest.raises(ValueError, match="must be finite"):
        history.write_bars(1, "1m", [minute(0), bad])
    assert every_bar(history, "1m") == every_bar(history, "1h") == []
    assert history.extremes(1) is None


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("column", ["price", "level", "ath", "atl"])
def test_a_level_that_is_no_number_changes_nothing(history: History, column: str, value: float) -> None:
    with pytest.raises(ValueError, match="must be finite"):
        history.write_enigma([EnigmaLevel(1, 1, 1.0, 2.0, 3.0, 0.5)._replace(**{column: value})])
    assert history.enigma(1) is None


@pytest.mark.parametrize("trade_id", [2**63, 2**64 - 1, -1])
def test_an_id_that_cannot_be_is_refused(history: History, trade_id: int) -> None:
    with pytest.raises(ValueError, match=r"below 2\*\*63"):
        history.write(HistoryBatch(ticks=[tick(trade_id, 1)], places={"journal": 1}))
    with pytest.raises(ValueError, match=r"below 2\*\*63"):
        history.write(HistoryBatch(covered=[(1, 0, trade_id)], places={"journal": 1}))
    assert history.places() == {}


# Places, coverage, gaps


def test_places_are_those_of_the_last_batch(history: History, reader: History) -> None:
    history.write(HistoryBatch(places={"journal": 7, "repairs": 2}))
    history.write(HistoryBatch(places={"journal": 5}))
    assert reader.places() == {"journal": 5, "repairs": 2}


def test_covered_ranges_grow_and_dissolve(history: History, reader: History) -> None:
    history.write(HistoryBatch(covered=[(1, 10, 20), (1, 5, 7), (2, 1, 2**63 - 1)]))
    history.write(HistoryBatch(covered=[(1, 5, 8)]))
    assert reader.covered() == {1: [(5, 8), (10, 20)], 2: [(1, 2**63 - 1)]}
    history.write(HistoryBatch(dissolved=[(1, 10)], covered=[(1, 5, 20)]))
    # A range that now begins earlier, and one that begins where another was dissolved.
    history.write(HistoryBatch(dissolved=[(1, 5)], covered=[(1, 4, 20)]))
    history.write(HistoryBatch(dissolved=[(1, 4)], covered=[(1, 4, 30)]))
    assert reader.covered() == {1: [(4, 30)], 2: [(1, 2**63 - 1)]}


def test_gaps_shrink_fill_and_stay(history: History, reader: History) -> None:
    gaps = [Gap(1, 10, 20, 5, 1), Gap(1, 3, 4, 6, 2), Gap(2, 1, 1, 7, 6, "older than a day")]
    history.write(HistoryBatch(gaps=gaps))
    assert reader.gaps() == [gaps[1], gaps[0], gaps[2]]
    assert reader.gaps(2) == [gaps[2]]
    assert reader.gaps(open_only=True) == [gaps[1], gaps[0]]
    assert reader.gaps(2, open_only=True) == []
    assert reader.gaps(3) == []
    assert reader.gaps(1, limit=1) == [gaps[1]]
    assert reader.gaps(1, first_id=4) == [gaps[0]]
    assert reader.open_gaps() == [OpenGaps(1, 1, 1, 11), OpenGaps(1, 2, 1, 2)]
    history.write(HistoryBatch(filled=[(1, 10), (1, 3)], gaps=[Gap(1, 10, 12, 5, 1), Gap(1, 15, 20, 5, 1)]))
    assert reader.gaps(1) == [Gap(1, 10, 12, 5, 1), Gap(1, 15, 20, 5, 1)]


# Extremes, levels, jobs


def test_extremes_are_of_ticks_and_bars(history: History, reader: History) -> None:
    history.write(HistoryBatch(ticks=[tick(1, 1, 5.0), tick(2, 2, 3.0), tick(1, 1, 9.0, stream_id=2)]))
    assert (reader.extremes(1), reader.extremes(2)) == ((5.0, 3.0), (9.0, 9.0))
    history.write_bars(1, "1d", [Bar(DAY, 4.0, 8.0, 1.0, 4.0, 1.0, 2)])
    assert reader.extremes(1) == (8.0, 1.0)
    history.write(minutes(Bar(DAY, 4.0, 4.5, 0.5, 4.0, 1.0, 2)))
    assert reader.extremes(1) == (8.0, 0.5)


def test_the_newest_level(history: History, reader: History) -> None:
    levels = [EnigmaLevel(1, 20, 5.0, 50.0, 10.0, 0.0), EnigmaLevel(1, 10, 1.0, None, 1.0, 1.0)]
    history.write_enigma(levels)
    history.write_enigma(levels)
    assert reader.enigma(1) == levels[0]
    assert reader.enigma(2) is None
    flat = EnigmaLevel(1, 30, 1.0, None, 1.0, 1.0)
    history.write_enigma([flat])
    assert reader.enigma(1) == flat


def test_jobs_go_on(history: History, reader: History) -> None:
    jobs = [
        BackfillJob(1, "1d", 0, 100, 0),
        BackfillJob(1, "5m", 50, 100, 50),
        BackfillJob(1, "5m", 0, 50, 10, "the exchange is away"),
        BackfillJob(2, "1m", 0, 100, 0),
    ]
    for job in jobs:
        history.write_job(job)
    done = BackfillJob(2, "1m", 0, 100, 100)
    history.write_job(done)
    assert reader.jobs() == [jobs[2], jobs[1], jobs[0], done]
    assert [job.done for job in reader.jobs()] == [False, False, False, True]


# Retention


def test_what_is_too_old_goes_in_steps(history: History, reader: History) -> None:
    """The defaults: ticks and levels a week, 1m bars 90 days by whole UTC days, the rest for ever."""
    now = DAY + 100 * DAY_NS + DAY_NS // 2
    ticks = [tick(n, DAY + n) for n in range(12_000)] + [tick(20_000, now - 6 * DAY_NS), tick(30_000, now)]
    history.write(HistoryBatch(ticks=ticks))
    kept = [tick(7, DAY, stream_id=2)._replace(ts_event=now - 7 * DAY_NS)]
    history.write(HistoryBatch(ticks=[tick(6, now - 8 * DAY_NS, stream_id=2), *kept]))
    written = [minute(0), minute(1_439), minute(10 * 1_440), minute(10 * 1_440 + 60), minute(100 * 1_440)]
    history.write(minutes(*written))
    levels = [EnigmaLevel(1, at, 1.0, 0.0, 2.0, 1.0) for at in (now - 8 * DAY_NS, now)]
    history.write_enigma(levels)
    before = {resolution: every_bar(reader, resolution) for resolution in COARSER}
    deleted = history.retain(now)
    assert deleted == {"ticks": 12_001, "1m": 2, **dict.fromkeys(COARSER, 0), "enigma": 1}
    assert list(reader.ticks(1, *EVER)) == ticks[-2:]
    assert list(reader.ticks(2, *EVER)) == kept
    assert every_bar(reader, "1m") == written[2:]
    assert {resolution: every_bar(reader, resolution) for resolution in COARSER} == before
    assert reader.enigma(1) == levels[1]
    assert sum(history.retain(now).values()) == 0


def test_a_symbol_that_stopped_keeps_its_last_coarser_bars(history: History, reader: History) -> None:
    history.write(minutes(minute(0), minute(7), minute(61)))
    before = {resolution: every_bar(reader, resolution) for resolution in COARSER}
    now = DAY + 200 * DAY_NS
    history.write(HistoryBatch(ticks=[tick(1, now, stream_id=2)]))
    assert history.retain(now)["1m"] == 3
    assert every_bar(reader, "1m") == []
    assert {resolution: every_bar(reader, resolution) for resolution in COARSER} == before
    # It trades again: a late trade of then makes the bar no less whole, and new bars follow as ever.
    history.write(minutes(minute(7, 1), minute(200 * 1_440)))
    for resolution in COARSER:
        new = folded([minute(200 * 1_440)], RESOLUTIONS[resolution])
        assert every_bar(reader, resolution) == before[resolution] + new


def test_each_age_is_its_own_and_0_keeps(open_history_at: OpenHistory, tmp_path: Path) -> None:
    ages = {"HISTORY_KEEP_TICKS": "0", "HISTORY_KEEP_1M": "0", "HISTORY_KEEP_4H": "10d"}
    history = open_history_at(tmp_path, **ages)
    history.write(HistoryBatch(ticks=[tick(1, DAY)], minutes=[(1, minute(n * 1_440)) for n in range(1_000)]))
    deleted = history.retain(DAY + 999 * DAY_NS)
    assert {what: count for what, count in deleted.items() if count} == {"4h": 989}
    assert [len(every_bar(history, resolution)) for resolution in ("1m", "1h", "4h", "1d")] == [
        1_000,
        1_000,
        11,
        1_000,
    ]
    assert len(list(history.ticks(1, *EVER))) == 1
    history.close()


def test_a_clock_that_jumps_deletes_nothing(history: History) -> None:
    """Ages count from the newest that was stored where the clock is ahead of it, and from the clock else."""
    history.write(HistoryBatch(ticks=[tick(1, DAY)], minutes=[(1, minute(0))]))
    assert sum(history.retain(DAY + 3_650 * DAY_NS).values()) == 0
    assert sum(history.retain(0).values()) == 0
    assert sum(history.retain(-(2**63)).values()) == 0
    history.write(HistoryBatch(ticks=[tick(2, DAY + 3_000 * DAY_NS)]))  # of an exchange gone mad
    assert sum(history.retain(DAY + 60 * MINUTE_NS).values()) == 0


def test_extremes_outlive_what_they_are_of(history: History, reader: History) -> None:
    history.write(HistoryBatch(ticks=[tick(1, DAY, 5.0), tick(2, DAY + 30 * DAY_NS, 4.0)]))
    assert history.retain(DAY + 30 * DAY_NS)["ticks"] == 1
    assert reader.extremes(1) == (5.0, 4.0)


# Opening and closing


def test_what_is_stored_is_there_after_opening_again(open_history_at: OpenHistory, tmp_path: Path) -> None:
    first = open_history_at(tmp_path)
    first.write(HistoryBatch(ticks=[tick(1, 1)], minutes=[(1, minute(0))], places={"journal": 4}))
    first.close()
    second = open_history_at(tmp_path)
    assert second.places() == {"journal": 4}
    second.write(minutes(minute(5)))
    assert every_bar(second, "5m") == folded([minute(0), minute(5)], RESOLUTIONS["5m"])
    second.close()


def test_a_reader_writes_nothing_and_makes_nothing(open_history_at: OpenHistory, tmp_path: Path) -> None:
    with pytest.raises(AWAY, match="There is no history at"):
        open_history_at(tmp_path / "nowhere", write=False)
    assert not (tmp_path / "nowhere").exists()
    open_history_at(tmp_path).close()
    reader = open_history_at(tmp_path, write=False)
    with pytest.raises(AWAY, match="opened for reading alone"):
        reader.write(minutes(minute(0)))
    with pytest.raises(AWAY, match="opened for reading alone"):
        reader.retain(DAY)
    reader.close()


def test_after_closing_it_says_so(history: History) -> None:
    reading = history.ticks(1, *EVER)
    history.close()
    history.close()
    for use in (history.places, lambda: history.write(minutes(minute(0))), lambda: next(reading)):
        with pytest.raises(AWAY, match="was closed"):
            use()


# Whatever comes, in whatever order


@st.composite
def ticks_of_two_symbols(draw: st.DrawFn) -> Tick:
    """What a tick holds follows from its key, as it does on an exchange."""
    stream_id = draw(st.integers(1, 2))
    ts_event = DAY + draw(st.integers(0, 9)) * 40_000_000_000
    trade_id = draw(st.sampled_from([0, 1, 2, 3, 2**53 + 1, 2**63 - 1]))
    price = 1e-8 if trade_id == 3 else 1_000.0 + ts_event % 7 + trade_id % 5
    return Tick(stream_id, trade_id, 1 + trade_id % 3, price, 0.1 * (1 + trade_id % 9), 0.0, 0.5, ts_event, 4)


def whole(resolution: str, number: int, count: int) -> Bar:
    """Bars of more trades reach farther, and 1m bars beyond all others, so that one that gives way leaves no extreme
    behind; 1m bars count in thousands and others do not, so that no two are as whole."""
    reach = 1_000 * count if resolution == "1m" else 0
    trades = reach or 700 * count + 1
    volume = round(0.1 * trades + 1e-8 * number, 8)
    price = 10_000.0 + number % 7
    open_time = DAY + number * RESOLUTIONS[resolution]
    return Bar(open_time, price - reach / 3, price + reach, price - reach, price, volume, trades)


bars_of_days = st.tuples(
    st.integers(1, 2),
    st.one_of(
        st.builds(
            whole,
            st.just("1m"),
            st.sampled_from([0, 1, 4, 5, 14, 59, 60, 1439, 1440, 2890]),
            st.integers(0, 4),
        ),
        st.builds(whole, st.just("1m"), st.integers(0, 4_000), st.integers(1, 4)),
    ),
)
coarse_bars = st.tuples(
    st.integers(1, 2),
    st.sampled_from(COARSER).flatmap(
        lambda name: st.tuples(
            st.just(name), st.builds(whole, st.just(name), st.integers(0, 3), st.integers(0, 9))
        )
    ),
)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("ticks"), st.lists(ticks_of_two_symbols(), max_size=8)),
        st.tuples(st.just("minutes"), st.lists(bars_of_days, max_size=8)),
        st.tuples(st.just("klines"), st.lists(bars_of_days, max_size=8)),
        st.tuples(st.just("coarse"), st.lists(coarse_bars, max_size=3)),
        st.tuples(st.just("reopen"), st.just([])),
    ),
    max_size=10,
)


def apply(history: History, kind: str, what: Sequence) -> None:  # type: ignore[type-arg]
    if kind == "ticks":
        history.write(HistoryBatch(ticks=what))
    elif kind == "minutes":
        history.write(HistoryBatch(minutes=what))
    elif kind == "klines":
        for stream_id in (1, 2):
            history.write_bars(stream_id, "1m", [bar for stream, bar in what if stream == stream_id])
    elif kind == "coarse":
        for stream_id, (name, bar) in what:
            history.write_bars(stream_id, name, [bar])


histories = given(
    steps, st.randoms(use_true_random=False), st.integers(0, 3_000), st.integers(0, 3_000), st.integers(0, 9)
)


@settings(max_examples=60, deadline=None)
@histories
def test_any_order_twice_and_cut_by_reopening(steps, random, a: int, b: int, limit: int) -> None:
    any_order_twice(sqlite_history, steps, random, a, b, limit)


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@histories
def test_any_order_twice_over_the_network(
    influx_server: InfluxServer, steps, random, a: int, b: int, limit: int
) -> None:
    any_order_twice(influx_history(influx_server), steps, random, a, b, limit)


def any_order_twice(open_history_at: OpenHistory, steps, random, a: int, b: int, limit: int) -> None:
    plain = PlainHistory()
    for kind, what in steps:
        if kind == "ticks":
            plain.add_ticks(what)
        for stream_id, bar in what if kind in ("minutes", "klines") else ():
            plain.add_bar(stream_id, "1m", bar)
        for stream_id, (name, bar) in what if kind == "coarse" else ():
            plain.add_bar(stream_id, name, bar)
    twice = [*steps, *steps]
    random.shuffle(twice)
    start, end = DAY + min(a, b) * MINUTE_NS, DAY + max(a, b) * MINUTE_NS
    with TemporaryDirectory() as name:
        history = open_history_at(Path(name))
        for kind, what in twice:
            if kind == "reopen":
                history.close()
                history = open_history_at(Path(name))
            apply(history, kind, what)
        reader = open_history_at(Path(name), write=False)
        for stream_id in (1, 2):
            assert list(reader.ticks(stream_id, *EVER)) == plain.ticks(stream_id, *EVER)
            assert list(reader.ticks(stream_id, start, end, limit)) == plain.ticks(
                stream_id, start, end, limit
            )
            assert reader.extremes(stream_id) == plain.extremes(stream_id)
            for resolution in RESOLUTIONS:
                assert every_bar(reader, resolution, stream_id) == plain.bars(stream_id, resolution, *EVER)
                few = reader.bars(stream_id, resolution, start, end, limit)
                assert few == plain.bars(stream_id, resolution, start, end, limit)
                assert all(one.open_time < other.open_time for one, other in pairwise(few))
        reader.close()
        history.close()
