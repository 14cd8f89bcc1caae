"""What a login does inside, counted: the same work whoever is asked for, and what happens between its steps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import argon2
import pytest
from falcon.testing import TestClient
from sqlalchemy import event

from tests.e2e.accounts import PASSWORD, make_catalog
from tests.servers.services import config_of
from tradeback.api.app import create_app
from tradeback.api.auth import LOGINS_AT_ONCE
from tradeback.api.stores import Store
from tradeback.commands.api import stores_of
from tradeback.model import Session
from tradeback.passwords import hash_password
from tradeback.store.accounts import SqlAccounts, open_accounts


class Between(SqlAccounts):
    """Real accounts, with a moment just before a session is stored in which another process does something."""

    def __init__(self, accounts: SqlAccounts) -> None:
        super().__init__(accounts.database)
        self.meanwhile: Any = lambda: None

    def add_session(self, session: Session) -> None:
        self.meanwhile()
        super().add_session(session)


@pytest.fixture
def accounts(tmp_path: Path) -> Iterator[Between]:
    make_catalog(tmp_path)
    with closing(open_accounts(config_of(tmp_path))) as opened:
        accounts = Between(opened)
        accounts.add_user("alice", hash_password(PASSWORD))
        accounts.set_active(accounts.add_user("bob", hash_password(PASSWORD)).id, False)
        yield accounts


@pytest.fixture
def client(accounts: Between, tmp_path: Path) -> Iterator[TestClient]:
    config = config_of(tmp_path)
    stores = stores_of(config)
    stores = replace(stores, accounts=Store("accounts", stores.accounts.path, lambda: accounts))
    with closing(stores):
        yield TestClient(create_app(config, stores, b"secret"))


def log_in(client: TestClient, name: str, password: str) -> Any:
    return client.simulate_post("/api/v1/auth/login", json={"username": name, "password": password})


def test_the_same_work_for_a_wrong_password_an_unknown_and_a_disabled_user(
    accounts: Between, client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    work: list[str] = []
    verify = argon2.PasswordHasher.verify

    def counted(self: argon2.PasswordHasher, stored: str, password: bytes) -> bool:
        parameters = argon2.extract_parameters(stored)
        work.append(f"{parameters.type} {parameters.time_cost} {parameters.memory_cost} of {len(password)}")
        return bool(verify(self, stored, password))

    def made(*_: Any, **__: Any) -> None:
        raise AssertionError("a hash was made while somebody waited for an answer")

    monkeypatch.setattr(argon2.PasswordHasher, "verify", counted)
    monkeypatch.setattr(argon2.PasswordHasher, "hash", made)
    event.listen(
        accounts.engine, "before_cursor_execute", lambda *given: work.append(given[2].split("WHERE")[0])
    )
    done: dict[str, Counter[str]] = {}
    for name, password in (("alice", "a wrong guess"), ("nobody", "a wrong guess"), ("bob", PASSWORD)):
        work.clear()
        answer = log_in(client, name, password)
        assert answer.status_code == 401
        done[name] = Counter(work)
        assert sum(count for one, count in done[name].items() if one.startswith("Type.ID")) == 1
    assert done["alice"] == done["nobody"] == done["bob"]
    assert sum(done["alice"].values()) > 5


def test_a_password_that_changes_while_somebody_logs_in_with_the_old_one(
    accounts: Between, client: TestClient
) -> None:
    found = accounts.user("alice")
    assert found is not None
    accounts.meanwhile = lambda: accounts.set_password(found[0].id, hash_password("battery staple"))
    assert log_in(client, "alice", PASSWORD).status_code == 401
    assert accounts.active_sessions() == []


def test_a_user_who_is_disabled_while_logging_in(accounts: Between, client: TestClient) -> None:
    found = accounts.user("alice")
    assert found is not None
    accounts.meanwhile = lambda: accounts.set_active(found[0].id, False)
    answer = log_in(client, "alice", PASSWORD)
    assert (answer.status_code, answer.json["error"]["code"]) == (401, "bad_credentials")
    assert accounts.active_sessions() == []


def test_more_logins_at_once_than_there_are_threads_for_are_told_to_come_again(
    accounts: Between, client: TestClient
) -> None:
    statuses: list[int] = []
    names = [f"user{number}" for number in range(10)]
    for name in names:
        accounts.add_user(name, hash_password(PASSWORD))

    def one_more() -> None:
        if names:
            answer = log_in(client, names.pop(), PASSWORD)
            statuses.append(answer.status_code)
            if answer.status_code == 429:
                assert answer.headers["retry-after"] == "1"

    accounts.meanwhile = one_more
    # Each login waits within its own until the next is through.
    assert log_in(client, "alice", PASSWORD).status_code == 200
    assert statuses == [429] + [200] * (LOGINS_AT_ONCE - 1)
    accounts.meanwhile = lambda: None
    assert log_in(client, "alice", PASSWORD).status_code == 200
