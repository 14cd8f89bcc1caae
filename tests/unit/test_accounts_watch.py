"""The recorder's watch of the accounts: what it tells a control socket, whatever becomes of database and server."""

from __future__ import annotations

import asyncio
import hashlib
import shutil
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest

from tests.store.conftest import sqlite_config
from tests.waiting import until
from tradeback.control import ControlClient, ControlSocket
from tradeback.errors import ProtocolError
from tradeback.model import Session, User
from tradeback.recorder import accounts_watch as module
from tradeback.recorder.accounts_watch import AccountsWatch
from tradeback.store.accounts import SqlAccounts, open_accounts


class Told:
    """A control socket that writes down what it is told, and what is true by that."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.messages: list[dict[str, Any]] = []
        self.refuse = 0
        self.users: dict[int, dict[str, Any]] = {}
        self.staged: set[int] = set()
        self.pinned: set[str] = set()
        self.staged_pins: set[str] = set()
        self.beats = 0

    def sessions(self, message: dict[str, Any]) -> dict[str, Any]:
        self.messages.append(message)
        if self.refuse:
            self.refuse -= 1
            raise ProtocolError("bad_part", "not now")
        if message.get("part") == 1:
            self.staged = set()
        for account in message["accounts"]:
            self.staged.add(account["user"])
            self.users[account["user"]] = account
            if not account["sessions"]:
                del self.users[account["user"]]
        if message.get("part") is not None and message["part"] == message["parts"]:
            self.users = {user: account for user, account in self.users.items() if user in self.staged}
        self.beats += not message["accounts"]
        return {"type": "taken", "sessions": len(self.users)}

    def pin(self, message: dict[str, Any]) -> dict[str, Any]:
        self.messages.append(message)
        if "symbols" in message:
            self.staged_pins = (set() if message["part"] == 1 else self.staged_pins) | set(message["symbols"])
            if message["part"] == message["parts"]:
                self.pinned = self.staged_pins
        else:
            self.pinned = (self.pinned | set(message["add"])) - set(message["drop"])
        return {"type": "pinned", "unknown": []}

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[Told]:
        control = ControlSocket(self.path, {"sessions": self.sessions, "pin": self.pin})
        await control.start()
        try:
            yield self
        finally:
            await control.stop()


@asynccontextmanager
async def watching(accounts: SqlAccounts, path: Path) -> AsyncIterator[AccountsWatch]:
    client = ControlClient(path)
    watch = AccountsWatch(accounts, client)
    task = asyncio.create_task(watch.follow())
    try:
        yield watch
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        client.close()
    if not task.cancelled():
        raise AssertionError(f"the watch ended: {task.exception()!r}")


def run(scenario: Coroutine[Any, Any, None]) -> None:
    asyncio.run(scenario)


def login(accounts: SqlAccounts, user: User, name: str, lasts: float = 1000) -> bytes:
    token, now = hashlib.sha256(name.encode()).digest(), int(time.time())
    accounts.add_session(Session(token, user.id, "::1", "a test", now, int(now + lasts), now))
    return token


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "control.sock"


def test_all_is_told_in_short_lines_and_then_what_changes(tmp_path: Path, path: Path) -> None:
    with closing(open_accounts(sqlite_config(tmp_path))) as accounts:
        users = [accounts.add_user(f"user{n}", "hash") for n in range(130)]
        for n, user in enumerate(users):
            accounts.set_watchlist(user.id, [f"S{n}", f"S{n + 1}"])
            if n % 2 == 0:
                login(accounts, user, f"{n}")
        heavy = accounts.add_user("heavy", "hash", [f"P{n}*" for n in range(99)] + ["*"])
        accounts.set_watchlist(heavy.id, [f"H{n}" for n in range(100)])
        for n in range(100):
            login(accounts, heavy, f"heavy {n}")

        async def scenario() -> None:
            told = Told(path)
            async with told.listening(), watching(accounts, path) as watch:
                expected = {user.id for user in users[::2]} | {heavy.id}
                await until(lambda: set(told.users) == expected and len(told.pinned) == 231)
                assert told.users[heavy.id]["watchlist"] == accounts.watchlist(heavy.id)
                assert len(told.users[heavy.id]["sessions"]) == 100
                for message in told.messages:
                    texts = [
                        len(account.get(field, ()))
                        for account in message.get("accounts", ())
                        for field in ("patterns", "watchlist", "sessions")
                    ]
                    assert sum(texts) <= module.TEXTS_PER_LINE + 300
                    for field in ("accounts", "symbols", "add", "drop"):
                        assert len(message.get(field, ())) <= 100
                state = watch.state()
                assert (state["connected"], state["users"], state["sessions"]) == (True, 131, 165)
                told.messages.clear()
                await until(lambda: told.beats >= 1)
                # A login, a change of a list, a logout: each told by itself, and nothing else.
                token = login(accounts, users[1], "new")
                await until(lambda: users[1].id in told.users)
                accounts.watch(users[1].id, "NEWUSDT")
                await until(lambda: "NEWUSDT" in told.pinned)
                assert told.users[users[1].id]["watchlist"] == ["S1", "S2", "NEWUSDT"]
                accounts.unwatch(users[1].id, "S1")  # which another has too
                accounts.unwatch(users[1].id, "NEWUSDT")
                await until(lambda: "NEWUSDT" not in told.pinned)
                assert "S1" in told.pinned
                accounts.end_session(token)
                await until(lambda: users[1].id not in told.users)
                assert all(len(message.get("accounts", ())) <= 1 for message in told.messages)

        run(scenario())


def test_whoever_refuses_or_begins_anew_is_told_all(tmp_path: Path, path: Path) -> None:
    with closing(open_accounts(sqlite_config(tmp_path))) as accounts:
        alice = accounts.add_user("alice", "hash")
        accounts.watch(alice.id, "BTCUSDT")
        first = login(accounts, alice, "1")

        async def scenario() -> None:
            async with watching(accounts, path) as watch:
                await until(lambda: "nobody listens" in watch.state()["error"])
                told = Told(path)
                async with told.listening():
                    await until(lambda: told.pinned == {"BTCUSDT"})
                    told.refuse = 2
                    second = login(accounts, alice, "2")
                    await until(lambda: len(told.users[alice.id]["sessions"]) == 2)
                    parts = [message.get("part") for message in told.messages if "accounts" in message]
                    assert parts[-1] == 1 or parts.count(1) >= 2
                accounts.end_session(first)
                again = Told(path)
                async with again.listening():
                    # It may hear first of how things were when they were looked at last.
                    await until(lambda: again.pinned == {"BTCUSDT"})
                    await until(lambda: set(again.users[alice.id]["sessions"]) == {second.hex()})
                    await until(lambda: watch.state()["error"] == "")

        run(scenario())


def test_a_database_that_cannot_be_read_and_one_that_was_restored(tmp_path: Path, path: Path) -> None:
    place = tmp_path / "sim" / "catalog.sqlite"
    with closing(open_accounts(sqlite_config(tmp_path))) as accounts:
        alice = accounts.add_user("alice", "hash")
        login(accounts, alice, "1")
        shutil.copy(place, tmp_path / "copy")
        bob = accounts.add_user("bob", "hash")
        accounts.set_watchlist(bob.id, ["ETHUSDT"])
        login(accounts, bob, "2")

        async def scenario() -> None:
            told = Told(path)
            async with told.listening(), watching(accounts, path) as watch:
                await until(lambda: set(told.users) == {alice.id, bob.id} and told.pinned == {"ETHUSDT"})
                content = place.read_bytes()
                for wrong, said in (
                    (b"", "what it held is gone"),
                    (b"no database" * 1000, "is no SQLite database"),
                ):
                    place.write_bytes(wrong)
                    await until(lambda said=said: said in watch.state()["error"])
                    beats = told.beats
                    assert set(told.users) == {alice.id, bob.id}  # nobody is logged out by that
                    place.write_bytes(content)
                    await until(lambda beats=beats: told.beats > beats)
                place.write_bytes((tmp_path / "copy").read_bytes())
                await until(lambda: set(told.users) == {alice.id} and not told.pinned)
                await until(lambda: watch.state()["users"] == 1)

        run(scenario())


def test_what_expires_is_deleted_and_told_no_more(
    tmp_path: Path, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "EXPIRE_EVERY", 0.05)
    with closing(open_accounts(sqlite_config(tmp_path))) as accounts:
        alice = accounts.add_user("alice", "hash")
        kept = login(accounts, alice, "1")
        brief = login(accounts, alice, "2")

        def stored() -> list[str]:
            with accounts.engine.connect() as connection:
                rows = connection.exec_driver_sql("SELECT session_token FROM user_sessions")
                return list(rows.scalars())

        async def scenario() -> None:
            told = Told(path)
            async with told.listening(), watching(accounts, path) as watch:
                await until(lambda: watch.state()["sessions"] == 2)
                assert accounts.renew(brief, int(time.time()) + 1)
                expiring = asyncio.create_task(watch.expire())
                await until(lambda: watch.state()["sessions"] == 1 and stored() == [kept.hex()])
                expiring.cancel()
                await asyncio.gather(expiring, return_exceptions=True)
            # A server that comes later does not hear of it.
            later = Told(path)
            async with later.listening(), watching(accounts, path):
                await until(lambda: bool(later.users))
                assert set(later.users[alice.id]["sessions"]) == {kept.hex()}

        run(scenario())
