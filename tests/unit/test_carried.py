"""Which symbols are carried: who wants what, for how long, and what it means for the table."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import fill
from tests.waiting import until
from tradeback._fast.table import SymbolTable
from tradeback._fast.tablefile import TableReader
from tradeback.errors import DataFolderError
from tradeback.model import Symbol, SymbolInfo
from tradeback.server.carried import CarriedSymbols

TRADE = 1


def symbol(name: str, stream_id: int, *, active: bool = True) -> Symbol:
    return Symbol(SymbolInfo(name, "A", "B", active, 2, 8), stream_id)


@pytest.fixture
def table(tmp_path: Path) -> Iterator[SymbolTable]:
    opened = SymbolTable.open(str(tmp_path / "table"), "sim")
    yield opened
    opened.close()


class Log(list[tuple[str, str]]):
    """What the feeds were told."""

    def carried(self, table: SymbolTable, *, linger: float) -> CarriedSymbols:
        known = [symbol("AUSDT", 1), symbol("BUSDT", 2), symbol("OLDUSDT", 3, active=False)]
        return CarriedSymbols(
            table,
            known,
            linger=linger,
            on_want=lambda name: self.append(("want", name)),
            on_drop=lambda name: self.append(("drop", name)),
        )

    async def until(self, count: int) -> None:
        await until(lambda: len(self) >= count)


def run(scenario: Coroutine[Any, Any, None]) -> None:
    asyncio.run(scenario)


def test_a_symbol_lingers_is_dropped_and_begins_anew_without_a_gap(table: SymbolTable) -> None:
    async def scenario() -> None:
        told = Log()
        carried = told.carried(table, linger=0.01)
        got = carried.acquire("AUSDT")
        assert got is not None
        table.take(TRADE, "AUSDT", 10, 10)
        carried.release(got.slot)
        await told.until(2)
        assert told == [("want", "AUSDT"), ("drop", "AUSDT")]
        assert "AUSDT" not in carried
        again = carried.acquire("AUSDT")
        assert again == got
        table.take(TRADE, "AUSDT", 500, 500)
        assert table.state(got.slot)["open"] == []
        assert table.state(got.slot)["next_id"] == 501
        carried.close()

    run(scenario())


def test_what_nobody_asks_for_after_a_restart_is_dropped(tmp_path: Path) -> None:
    """AUSDT is asked for in time, and what it missed is a gap; BUSDT only later."""

    async def scenario() -> None:
        before = SymbolTable.open(str(tmp_path / "table"), "sim")
        for name, stream_id in (("AUSDT", 1), ("BUSDT", 2)):
            slot = before.add(name, stream_id, 8)
            before.take(TRADE, name, 10, 10)
            before.publish_slot(slot, 1)
        before.close()
        table = SymbolTable.open(str(tmp_path / "table"), "sim")
        reader = TableReader.open(str(tmp_path / "table"))
        carried = Log().carried(table, linger=0.05)
        carried.settle()
        early = carried.acquire("AUSDT")
        assert early is not None
        async with asyncio.timeout(120):
            while not ((row := reader.read(2)) and row.dropped):
                await asyncio.sleep(0.001)
        late = carried.acquire("BUSDT")
        assert late is not None
        for name in ("AUSDT", "BUSDT"):
            table.take(TRADE, name, 500, 500)
        assert table.state(early.slot)["open"] == [(11, 499)]
        assert table.state(late.slot)["open"] == []
        carried.close()
        reader.close()
        table.close()

    run(scenario())


def test_a_symbol_that_lingers_when_the_server_ends_is_not_dropped(table: SymbolTable) -> None:
    async def scenario() -> None:
        carried = Log().carried(table, linger=0.0)
        carried.settle()
        got = carried.acquire("AUSDT")
        assert got is not None
        carried.release(got.slot)
        carried.close()
        await asyncio.sleep(0.01)
        assert "AUSDT" in carried
        assert not table.state(got.slot)["dropped"]

    run(scenario())


def test_clients_that_come_and_go_within_the_time_tell_the_feeds_nothing(table: SymbolTable) -> None:
    async def scenario() -> None:
        told = Log()
        carried = told.carried(table, linger=3600.0)
        for _ in range(100):
            got = carried.acquire("AUSDT")
            assert got is not None
            carried.release(got.slot)
        assert told == [("want", "AUSDT")]
        carried.close()

    run(scenario())


def test_a_pinned_symbol_stays_and_an_unpinned_one_stays_for_its_clients(table: SymbolTable) -> None:
    async def scenario() -> None:
        told = Log()
        carried = told.carried(table, linger=0.0)
        assert carried.pin(["AUSDT", "NONE", "OLDUSDT"]) == ["NONE", "OLDUSDT"]
        got = carried.acquire("AUSDT")
        assert got is not None
        carried.release(got.slot)
        await asyncio.sleep(0.01)
        assert told == [("want", "AUSDT")]
        carried.acquire("AUSDT")
        carried.pin(["BUSDT"])
        await asyncio.sleep(0.01)
        assert told == [("want", "AUSDT"), ("want", "BUSDT")]
        carried.release(got.slot)
        await told.until(3)
        assert told[2] == ("drop", "AUSDT")
        carried.close()

    run(scenario())


def test_pins_by_parts_and_what_is_pinned_before_it_is_known(table: SymbolTable) -> None:
    async def scenario() -> None:
        told = Log()
        carried = told.carried(table, linger=0.0)
        assert carried.pin_more(["AUSDT"]) == []
        assert carried.pin_more(["BUSDT", "NEWUSDT", "OLDUSDT"]) == ["NEWUSDT", "OLDUSDT"]
        assert carried.pinned == {"AUSDT", "BUSDT", "NEWUSDT", "OLDUSDT"}
        carried.unpin(["AUSDT", "NONE"])
        await told.until(3)
        assert told == [("want", "AUSDT"), ("want", "BUSDT"), ("drop", "AUSDT")]
        # The catalog hears of one of them, another is traded again, a third is nobody's.
        carried.learn([symbol("NEWUSDT", 4), symbol("OLDUSDT", 3), symbol("MOREUSDT", 5)])
        assert told[3:] == [("want", "NEWUSDT"), ("want", "OLDUSDT")]
        carried.unpin(["OLDUSDT"])
        await told.until(6)
        assert told[5] == ("drop", "OLDUSDT")
        carried.learn([symbol("OLDUSDT", 3)])
        await asyncio.sleep(0.01)
        assert len(told) == 6
        carried.close()

    run(scenario())


def test_a_full_disk_refuses_a_new_symbol_until_there_is_room(mounted: Callable[[str], Path]) -> None:
    async def scenario() -> None:
        disk = mounted("64k")
        table = SymbolTable.open(str(disk / "table"), "sim")
        told = Log()
        carried = told.carried(table, linger=1.0)
        fill(disk / "ballast")
        with pytest.raises(DataFolderError, match="free some space"):
            carried.acquire("AUSDT")
        assert told == []
        (disk / "ballast").unlink()
        assert carried.acquire("AUSDT") is not None
        carried.close()
        table.close()

    run(scenario())


def test_what_is_not_known_is_not_carried_until_it_is_learned(table: SymbolTable) -> None:
    carried = Log().carried(table, linger=1.0)
    assert carried.acquire("CUSDT") is None
    assert carried.acquire("OLDUSDT") is None
    carried.learn([symbol("CUSDT", 4)])
    assert carried.acquire("CUSDT") is not None


@pytest.mark.parametrize(
    "wrong", [[symbol("AUSDT", 9)], [symbol("CUSDT", 1)], [symbol("CUSDT", 7), symbol("DUSDT", 7)]]
)
def test_learning_a_contradiction_changes_nothing(table: SymbolTable, wrong: list[Symbol]) -> None:
    carried = Log().carried(table, linger=1.0)
    with pytest.raises(ValueError, match="stream id"):
        carried.learn(wrong)
    assert set(carried.known) == {"AUSDT", "BUSDT", "OLDUSDT"}
    assert carried.known["AUSDT"].stream_id == 1


def test_a_symbol_that_is_not_traded_any_more_is_left_to_those_who_have_it(table: SymbolTable) -> None:
    async def scenario() -> None:
        told = Log()
        carried = told.carried(table, linger=0.0)
        assert carried.pin(["AUSDT", "BUSDT"]) == []
        got = carried.acquire("AUSDT")
        assert got is not None
        carried.learn([symbol("AUSDT", 1, active=False), symbol("BUSDT", 2, active=False)])
        assert carried.acquire("AUSDT") is None
        await told.until(3)
        assert told == [("want", "AUSDT"), ("want", "BUSDT"), ("drop", "BUSDT")]
        carried.release(got.slot)
        await told.until(4)
        assert told[3] == ("drop", "AUSDT")
        # Traded again.
        carried.learn([symbol("BUSDT", 2)])
        assert told[4:] == [("want", "BUSDT")]
        carried.close()

    run(scenario())
