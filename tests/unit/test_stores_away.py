"""A store of another machine that does not answer: one request at a time asks it, the others are told at once."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tradeback.api import stores
from tradeback.api.stores import Store, Unavailable
from tradeback.errors import CatalogError


class Remote:
    """Opened where it answers. Where it does not, that is known once `silent` is set."""

    def __init__(self) -> None:
        self.asked = 0
        self.answers = False
        self.silent = threading.Event()

    def open(self) -> Remote:
        self.asked += 1
        if not self.answers:
            assert self.silent.wait(60)
            error = CatalogError("The database is away")
            error.away = True
            raise error
        return self

    def close(self) -> None:
        return


def used(store: Store[Remote]) -> str:
    try:
        with store.use():
            return "used"
    except Unavailable as error:
        return f"{error.component}: {error}"


def test_one_asks_and_all_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stores, "AWAY_S", 60.0)
    remote = Remote()
    store = Store("accounts", None, remote.open)
    with ThreadPoolExecutor(8) as threads:
        asking = [threads.submit(used, store) for _ in range(8)]
        remote.silent.set()
        assert {one.result() for one in asking} == {"accounts: The database is away"}
    assert remote.asked == 1
    assert used(store) == "accounts: The database is away"
    assert remote.asked == 1


def test_it_is_asked_again_later_and_then_serves_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stores, "AWAY_S", 0.0)
    remote = Remote()
    remote.silent.set()
    store = Store("accounts", None, remote.open)
    assert [used(store) for _ in range(3)] == ["accounts: The database is away"] * 3
    assert remote.asked == 3
    remote.answers = True
    assert [used(store) for _ in range(3)] == ["used"] * 3
    assert remote.asked == 4


def test_while_one_asks_again_the_others_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stores, "AWAY_S", 0.0)
    remote = Remote()
    remote.silent.set()
    store = Store("accounts", None, remote.open)
    used(store)
    remote.silent.clear()
    with ThreadPoolExecutor(1) as threads:
        asking = threads.submit(used, store)
        while remote.asked < 2:
            pass
        assert used(store) == "accounts: The database is away"
        assert remote.asked == 2
        remote.answers = True
        remote.silent.set()
        asking.result()
    assert used(store) == "used"


def test_one_that_refuses_is_asked_each_time() -> None:
    store = Store("accounts", None, Remote().open)

    def refuse() -> None:
        with store.use():
            raise CatalogError("The database refuses")

    remote = Remote()
    remote.answers = True
    store = Store("accounts", None, remote.open)
    for _ in range(3):
        with pytest.raises(Unavailable, match="refuses"):
            refuse()
    assert used(store) == "used"


def test_a_file_is_looked_for_each_time(tmp_path: Path) -> None:
    remote = Remote()
    remote.answers = True
    store = Store("catalog", tmp_path / "file", remote.open)
    assert "start what makes it" in used(store)
    (tmp_path / "file").touch()
    assert used(store) == "used"
