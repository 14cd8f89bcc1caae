"""What the server does by the clock, on a real loop and real files."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.playback.test_ingest import ingest_of
from tests.unit.test_ingest import trade
from tests.waiting import until
from tradeback.server.upkeep import LATEST, SOONEST, Upkeep


def newest_segment(folder: Path) -> int:
    """The number of its first record."""
    return max(int(path.stem) for path in (folder / "journal").glob("*.segment"))


def test_skipped_ids_become_a_gap_and_what_follows_a_tick_is_called(tmp_path: Path) -> None:
    async def scenario() -> None:
        with ingest_of(tmp_path, ["BTCUSDT"]) as ingest:
            ticks: list[int] = []
            upkeep = Upkeep(ingest, 1 << 26, lambda: ticks.append(ingest.journal.next_seq))
            upkeep.start()
            ingest.take(trade(1))
            ingest.take(trade(5))
            await until(lambda: ingest.stats.value("gaps") == 1)
            assert ticks[-1] == ingest.journal.next_seq
            upkeep.stop()

    asyncio.run(scenario())


def test_the_journal_gets_room_ahead_of_need_however_small_its_segments_are(tmp_path: Path) -> None:
    async def scenario() -> None:
        with ingest_of(tmp_path, ["BTCUSDT"], segment_bytes=1 << 14) as ingest:
            upkeep = Upkeep(ingest, 1 << 14, lambda: None)
            upkeep.start()
            for number in range(1, 1001):
                ingest.take(trade(number))
                if number % 20 == 0:
                    await until(lambda: newest_segment(tmp_path) > ingest.journal.next_seq)
                    ingest.journal.prepare()  # waits for the one that made it to be over
            assert ingest.stats.value("journal_unwritten") == 0
            assert ingest.stats.value("journal_records") == 1001
            upkeep.stop()

    asyncio.run(scenario())


def test_a_tick_that_raises_is_not_the_last(tmp_path: Path) -> None:
    async def scenario() -> None:
        seen: list[object] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: seen.append(context["exception"]))
        ticks: list[int] = []

        def after() -> None:
            ticks.append(1)
            if len(ticks) == 2:
                raise ZeroDivisionError

        with ingest_of(tmp_path, ["BTCUSDT"]) as ingest:
            upkeep = Upkeep(ingest, 1 << 14, after)
            upkeep.start()
            await until(lambda: len(ticks) >= 4)
            upkeep.stop()
        assert [type(error) for error in seen] == [ZeroDivisionError]

    asyncio.run(scenario())


@pytest.mark.parametrize(("segment_bytes", "pause"), [(1 << 14, SOONEST), (1 << 26, LATEST)])
def test_with_nothing_due_it_sleeps_as_long_as_the_segments_allow(
    tmp_path: Path, segment_bytes: int, pause: float
) -> None:
    async def scenario() -> None:
        with ingest_of(tmp_path, ["BTCUSDT"]) as ingest:
            loop, times = asyncio.get_running_loop(), list[float]()
            upkeep = Upkeep(ingest, segment_bytes, lambda: times.append(loop.time()))
            upkeep.start()
            await until(lambda: len(times) >= 4)
            upkeep.stop()
            assert times[3] - times[0] >= 3 * pause * 0.99

    asyncio.run(scenario())
