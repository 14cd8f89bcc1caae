"""`tradeback user` as a process of its own."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import orjson
import pytest

from tests.servers.services import config_of, settings_of
from tradeback.model import Session
from tradeback.passwords import password_is
from tradeback.store.accounts import open_accounts

COMMAND = [sys.executable, "-m", "tradeback", "user"]


def run(folder: Path, *arguments: str, typed: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    environ = {**os.environ, **settings_of(folder), "COLUMNS": "120"}
    return subprocess.run(
        [*COMMAND, *arguments], input=typed, env=environ, capture_output=True, timeout=60, check=False
    )


def told(done: subprocess.CompletedProcess[bytes]) -> tuple[int, str]:
    return done.returncode, (done.stdout + done.stderr).decode()


def stored_hash(folder: Path, username: str) -> str:
    with closing(open_accounts(config_of(folder))) as accounts:
        found = accounts.user(username)
    assert found is not None
    return found[1]


def test_a_users_life(tmp_path: Path) -> None:
    added = run(tmp_path, "add", "Alice", "--pattern", "*usdt", "--password-stdin", typed=b"correct horse\n")
    assert told(added) == (0, "sim: added alice, who may watch *USDT.\n")
    first = stored_hash(tmp_path, "alice")
    assert password_is(first, "correct horse")

    with closing(open_accounts(config_of(tmp_path))) as accounts:
        for name in (b"1", b"2"):
            accounts.add_session(Session(name * 32, 1, "::1", "", 0, 2_000_000_000, 0))
    changed = run(tmp_path, "passwd", "ALICE", "--password-stdin", typed=b"battery staple\r\n")
    assert told(changed) == (0, "sim: alice has a new password; 2 sessions ended.\n")
    second = stored_hash(tmp_path, "alice")
    assert password_is(second, "battery staple")

    assert told(run(tmp_path, "patterns", "alice", "BTC*", "ETH*")) == (
        0,
        "sim: alice may watch BTC* ETH*.\n",
    )
    assert told(run(tmp_path, "disable", "alice")) == (0, "sim: alice is disabled; 0 sessions ended.\n")
    listed = run(tmp_path, "list", "--json")
    row = orjson.loads(listed.stdout)[0]
    del row["created_at"]
    assert row == {
        "id": 1,
        "username": "alice",
        "is_active": False,
        "symbol_patterns": ["BTC*", "ETH*"],
        "sessions": 0,
    }
    assert told(run(tmp_path, "enable", "alice")) == (0, "sim: alice can log in.\n")
    table = run(tmp_path, "list")
    assert table.returncode == 0
    assert "sim: 1 users" in table.stdout.decode()
    assert "BTC* ETH*" in table.stdout.decode()
    for shown in (listed.stdout, table.stdout):
        assert b"argon2" not in shown
        assert second.encode() not in shown


@pytest.mark.parametrize(
    ("arguments", "typed", "sentence"),
    [
        (["add", "alice", "--password-stdin"], b"another one\n", "There is a user alice already: choose"),
        (["add", "bob", "--password-stdin"], b"short\n", "A password has at least 8 characters"),
        (["add", "bob", "--password-stdin"], b"x" * 5000, "at most 1024 bytes"),
        (["add", "bob", "--password-stdin"], b"\xff" * 10 + b"\n", "is no UTF-8 text"),
        (
            ["add", "bob"],
            b"correct horse\n",
            "no terminal to ask for a password: give it with --password-stdin",
        ),
        (["add", "b b", "--password-stdin"], b"correct horse\n", "'b b' is no name for a user"),
        (
            ["add", "bob", "--pattern", "A,B", "--password-stdin"],
            b"correct horse\n",
            "is no pattern of symbols",
        ),
        (["passwd", "bob", "--password-stdin"], b"correct horse\n", "There is no user bob"),
        (["disable", "bob"], b"", "There is no user bob: `tradeback user list` names them"),
        (["enable", "bob"], b"", "There is no user bob"),
        (["patterns", "bob", "*"], b"", "There is no user bob"),
    ],
)
def test_what_cannot_be_is_told_in_a_sentence(
    with_alice: Path, arguments: list[str], typed: bytes, sentence: str
) -> None:
    done = run(with_alice, *arguments, typed=typed)
    assert done.returncode == 1
    assert sentence in done.stderr.decode()
    assert "Traceback" not in done.stderr.decode()
    assert len(orjson.loads(run(with_alice, "list", "--json").stdout)) == 1


@pytest.fixture(scope="module")
def with_alice(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("alice")
    with closing(open_accounts(config_of(folder))) as accounts:
        accounts.add_user("alice", "hash")
    return folder


def test_without_a_catalog_there_is_nothing_to_list(tmp_path: Path) -> None:
    code, text = told(run(tmp_path, "list"))
    assert code == 1
    assert "There is no catalog" in text


def test_a_password_is_asked_for_twice_and_not_shown(tmp_path: Path) -> None:
    environ = {**os.environ, **settings_of(tmp_path)}
    # In a process of its own, for this one has threads and may not fork.
    terminal, its_end = pty.openpty()
    process = subprocess.Popen(
        ["setsid", "--ctty", "--wait", *COMMAND, "add", "carol"],
        stdin=its_end, stdout=its_end, stderr=its_end, env=environ,
    )  # fmt: skip
    os.close(its_end)
    shown = b""
    for question in (b"Password: ", b"Again: "):
        while question not in shown:
            shown += os.read(terminal, 1024)
        os.write(terminal, b"correct horse\n")
    while b"added carol" not in shown:
        shown += os.read(terminal, 1024)
    assert process.wait(60) == 0
    os.close(terminal)
    assert b"correct horse" not in shown
    assert password_is(stored_hash(tmp_path, "carol"), "correct horse")
