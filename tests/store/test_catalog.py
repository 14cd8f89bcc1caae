"""What every catalog must do, whatever database is below it."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.store.conftest import OpenCatalog
from tradeback.errors import ExchangeError, SymbolLimitError
from tradeback.model import SymbolInfo
from tradeback.store.base import Catalog, SyncResult

BTC = SymbolInfo(
    "BTCUSDT", "BTC", "USDT", True, 2, 6,
    Decimal("0.00000100"), Decimal("9000.00000000"), Decimal("0.00000100"), Decimal("10.00000000"),
)  # fmt: skip
ETH = SymbolInfo("ETHUSDT", "ETH", "USDT", True, 2, 4)
DOT = SymbolInfo("DOTUSDT", "DOT", "USDT", True, 3, 2)
NOTHING = SyncResult((), (), ())


def ids(catalog: Catalog) -> dict[str, int]:
    return {symbol.name: symbol.stream_id for symbol in catalog.symbols()}


def test_a_new_catalog_is_empty(catalog: Catalog) -> None:
    assert catalog.symbols() == []
    assert catalog.symbol("BTCUSDT") is None


def test_symbols_come_back_as_they_were_listed(catalog: Catalog) -> None:
    assert catalog.sync_symbols([BTC, ETH]) == SyncResult(("BTCUSDT", "ETHUSDT"), (), ())
    assert [symbol.info for symbol in catalog.symbols()] == [BTC, ETH]
    assert ids(catalog) == {"BTCUSDT": 1, "ETHUSDT": 2}
    found = catalog.symbol("ETHUSDT")
    assert found is not None
    assert (found.info, found.stream_id) == (ETH, 2)
    assert catalog.symbol("ETHUSD") is None


def test_the_same_list_again_changes_nothing(catalog: Catalog) -> None:
    catalog.sync_symbols([BTC, ETH])
    before = catalog.symbols()
    assert catalog.sync_symbols([ETH, BTC]) == NOTHING
    assert catalog.symbols() == before


def test_a_change_keeps_the_stream_id(catalog: Catalog) -> None:
    catalog.sync_symbols([BTC, ETH])
    finer = replace(BTC, price_precision=3, min_notional=None)
    assert catalog.sync_symbols([finer, ETH]) == SyncResult((), ("BTCUSDT",), ())
    found = catalog.symbol("BTCUSDT")
    assert found is not None
    assert (found.info, found.stream_id) == (finer, 1)


def test_a_symbol_that_left_is_inactive_and_comes_back_with_its_id(catalog: Catalog) -> None:
    catalog.sync_symbols([BTC, ETH])
    assert catalog.sync_symbols([ETH, DOT]) == SyncResult(("DOTUSDT",), (), ("BTCUSDT",))
    assert catalog.sync_symbols([ETH, DOT]) == NOTHING
    assert [symbol.name for symbol in catalog.symbols(active_only=True)] == ["ETHUSDT", "DOTUSDT"]
    assert catalog.sync_symbols([BTC, ETH, DOT]) == SyncResult((), ("BTCUSDT",), ())
    assert ids(catalog) == {"BTCUSDT": 1, "ETHUSDT": 2, "DOTUSDT": 3}


def test_a_symbol_that_was_halted_is_inactive(catalog: Catalog) -> None:
    catalog.sync_symbols([BTC, ETH])
    halted = replace(BTC, is_active=False)
    assert catalog.sync_symbols([halted, ETH]) == SyncResult((), (), ("BTCUSDT",))
    assert catalog.sync_symbols([halted, ETH]) == NOTHING


def test_an_empty_list_is_refused_and_changes_nothing(catalog: Catalog) -> None:
    catalog.sync_symbols([BTC])
    with pytest.raises(ExchangeError, match="listed no symbol"):
        catalog.sync_symbols([])
    assert catalog.symbols(active_only=True)[0].info == BTC


def test_what_was_synced_is_there_for_others(open_again: OpenCatalog) -> None:
    open_again().sync_symbols([BTC, ETH])
    assert [symbol.info for symbol in open_again().symbols()] == [BTC, ETH]


def test_an_amount_that_the_column_cannot_hold_is_none(catalog: Catalog) -> None:
    odd = replace(BTC, max_quantity=Decimal("1e12"), step_size=Decimal("1e-9"), min_quantity=Decimal("1e11"))
    catalog.sync_symbols([odd])
    found = catalog.symbols()[0].info
    assert (found.max_quantity, found.step_size, found.min_quantity) == (None, None, Decimal("1e11"))
    assert catalog.sync_symbols([odd]) == NOTHING


def listing(count: int, first: int = 0) -> list[SymbolInfo]:
    return [replace(ETH, symbol=f"S{n}") for n in range(first, first + count)]


def test_the_65536th_symbol_is_refused_and_the_rest_is_saved(catalog: Catalog) -> None:
    catalog.sync_symbols(listing(65_534))
    with pytest.raises(SymbolLimitError, match="S65535 and 1 more symbols"):
        catalog.sync_symbols(listing(65_537)[1:])
    given = ids(catalog)
    assert len(given) == 65_535
    assert given["S65534"] == 65_535
    dropped = catalog.symbol("S0")
    assert dropped is not None
    assert not dropped.info.is_active
    with pytest.raises(SymbolLimitError):
        catalog.sync_symbols(listing(1, 70_000))


AMOUNTS = st.none() | st.decimals(0, 10**12 - 1, places=8, allow_nan=False)
INFOS = st.builds(
    SymbolInfo,
    symbol=st.sampled_from([f"{base}USDT" for base in "ABCDEFGH"]),
    base_currency=st.text("ABC", max_size=3),
    quote_currency=st.just("USDT"),
    is_active=st.booleans(),
    price_precision=st.integers(0, 10),
    quantity_precision=st.integers(0, 10),
    min_quantity=AMOUNTS,
    max_quantity=AMOUNTS,
    step_size=AMOUNTS,
    min_notional=AMOUNTS,
)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    lists=st.lists(st.lists(INFOS, min_size=1, unique_by=lambda info: info.symbol), min_size=1, max_size=4)
)
def test_after_any_syncs_it_holds_the_last_list_and_no_id_moved(
    catalog: Catalog, lists: list[list[SymbolInfo]]
) -> None:
    for infos in lists:
        before = ids(catalog)
        active = {symbol.name for symbol in catalog.symbols(active_only=True)}
        result = catalog.sync_symbols(infos)
        after = ids(catalog)
        assert before.items() <= after.items()
        assert set(result.added) == after.keys() - before.keys()
        assert len(set(after.values())) == len(after)
        listed = {info.symbol: info for info in infos}
        assert {s.name: s.info for s in catalog.symbols() if s.name in listed} == listed
        now_active = {symbol.name for symbol in catalog.symbols(active_only=True)}
        assert now_active == {name for name, info in listed.items() if info.is_active}
        assert active - now_active == set(result.deactivated)
