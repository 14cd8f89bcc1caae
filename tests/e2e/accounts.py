"""A `tradeback api` of its own on a folder with symbols and users, and requests of someone who is logged in."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.e2e.api import Answer, ApiProcess
from tests.servers.services import config_of
from tradeback.model import SymbolInfo
from tradeback.passwords import hash_password
from tradeback.store.accounts import SqlAccounts, open_accounts
from tradeback.store.catalog import open_catalog

PASSWORD = "correct horse"
SYMBOLS = ("BTCUSDT", "ETHUSDT", "ETHBTC")
SEPARATOR = "; "


@dataclass(frozen=True)
class Accounts:
    """The API, and the store that it reads, as `tradeback user` has it."""

    api: ApiProcess
    store: SqlAccounts
    folder: Path

    def user(self, name: str, *patterns: str) -> str:
        """Add a user with PASSWORD; returns the name."""
        self.store.add_user(name, hash_password(PASSWORD), patterns or ("*",))
        return name

    def post(self, path: str, content: Any, method: str = "POST", **headers: str) -> Answer:
        """JSON to a path under /api/v1."""
        given = {"Content_Type": "application/json", **headers}
        return self.api.ask(f"/api/v1/{path}", method, json.dumps(content).encode(), **given)

    def login(self, name: str, password: str = PASSWORD, **headers: str) -> Answer:
        return self.post("auth/login", {"username": name, "password": password}, **headers)

    def token(self, name: str, **headers: str) -> str:
        """That of a new login."""
        answer = self.login(name, **headers)
        assert answer.status == 200, answer
        return str(answer.json["token"])

    def ask(self, path: str, token: str, method: str = "GET", **headers: str) -> Answer:
        """A request under /api/v1 with the token as Bearer."""
        return self.api.ask(f"/api/v1/{path}", method, Authorization=f"Bearer {token}", **headers)

    def let_in(self, token: str) -> bool:
        """Whether a token lets in, alike as a cookie and as Bearer."""
        answers = [
            self.ask("auth/session", token),
            self.api.ask("/api/v1/marketwatch", Cookie=f"session_token={token}"),
        ]
        statuses = {answer.status for answer in answers}
        assert statuses in ({200}, {401}), answers
        if statuses == {401}:
            assert {answer.json["error"]["code"] for answer in answers} == {"unauthorized"}
            assert all(answer.headers["www-authenticate"].startswith("Bearer") for answer in answers)
        return statuses == {200}


def make_catalog(folder: Path, symbols: tuple[str, ...] = SYMBOLS) -> None:
    """The catalog of a simulated exchange with these symbols, all active."""
    with closing(open_catalog(config_of(folder))) as catalog:
        catalog.sync_symbols([SymbolInfo(name, name[:3], name[3:], True, 2, 4) for name in symbols])


@contextmanager
def accounts_api(folder: Path, symbols: tuple[str, ...] = SYMBOLS, **environment: str) -> Iterator[Accounts]:
    """All of it, ended with the block."""
    make_catalog(folder, symbols)
    with (
        closing(open_accounts(config_of(folder))) as store,
        # Tests ask more in a minute than anybody; what slows logins is another matter.
        ApiProcess(folder, **{"LIMIT_AUTH": "off", **environment}) as api,
    ):
        yield Accounts(api, store, folder)


def cookie_of(answer: Answer) -> tuple[str, set[str]]:
    """The value of the cookie that an answer sets, and its attributes."""
    pair, *attributes = answer.headers["set-cookie"].split(SEPARATOR)
    name, _, value = pair.partition("=")
    assert name == "session_token"
    return value, set(attributes)
