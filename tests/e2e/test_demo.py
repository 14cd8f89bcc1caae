"""The login that `tradeback up` makes and prints, and what it leaves alone."""

from __future__ import annotations

import re
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from tests.e2e.accounts import cookie_of
from tests.e2e.api import Answer, ask
from tests.e2e.running import Up
from tests.servers.services import config_of, settings_of
from tradeback.commands.demo import (
    cookie_notice,
    demo_login,
    is_loopback,
    page_address,
    secure_cookie,
)
from tradeback.config import Config, load_config
from tradeback.errors import DataFolderError
from tradeback.passwords import hash_password, password_is
from tradeback.store.accounts import open_accounts

SMALL = ("--sim-rate", "10", "--sim-symbols", "5")


def password_of(sentence: str) -> str:
    match = re.fullmatch(r"Log in as demo with the password ([a-z2-9]{4}(?:-[a-z2-9]{4}){3})", sentence)
    assert match is not None, sentence
    return match[1]


def fits(config: Config, password: str) -> bool:
    with closing(open_accounts(config)) as accounts:
        found = accounts.user("demo")
        return found is not None and found[0].is_active and password_is(found[1], password)


def log_in(port: int, password: str) -> Answer:
    body = b'{"username":"demo","password":"%s"}' % password.encode()
    return ask(port, "/api/v1/auth/login", "POST", body, Content_Type="application/json")


@pytest.mark.timeout(120)
def test_up_prints_one_address_and_a_login_that_works_at_the_next_start_too(tmp_path: Path) -> None:
    with Up(tmp_path, *SMALL) as up:
        address, sentence = up.await_login()
        password = password_of(sentence)
        match = re.fullmatch(r"http://127\.0\.0\.1:(\d+)/", address)
        assert match is not None
        answer = log_in(int(match[1]), password)
        assert answer.status == 200
        token, attributes = cookie_of(answer)
        assert "Secure" not in attributes
        assert "HttpOnly" in attributes
        assert up.stop() == 0
    assert (tmp_path / "sim" / "demo.password").stat().st_mode & 0o777 == 0o600
    assert password not in (tmp_path / "up.log").read_text()
    with Up(tmp_path, *SMALL, environment={"SESSION_COOKIE_SECURE": "true"}) as up:
        address, again = up.await_login()
        assert password_of(again) == password
        port = int(address.rstrip("/").rpartition(":")[2])
        assert ask(port, "/api/v1/auth/session", Authorization=f"Bearer {token}").status == 200
        assert "Secure" in cookie_of(log_in(port, password))[1]
        assert up.stop() == 0


def test_a_password_that_is_lost_read_by_others_or_changed_is_set_anew(tmp_path: Path) -> None:
    config = config_of(tmp_path)
    file = tmp_path / "sim" / "demo.password"
    password = password_of(demo_login(config))
    assert password_of(demo_login(config)) == password
    for spoil in (
        file.unlink,
        lambda: file.chmod(0o640),
        lambda: file.write_text("another-password\n"),
        lambda: file.write_bytes(b"\xff\0" * 600),
        lambda: file.write_text(""),
        lambda: tradeback_passwd(tmp_path),
    ):
        spoil()
        new = password_of(demo_login(config))
        assert new != password
        assert fits(config, new)
        assert not fits(config, password)
        assert file.stat().st_mode & 0o777 == 0o600
        assert file.read_text() == f"{new}\n"
        password = new
    assert [path.name for path in file.parent.glob("*.part")] == []


def tradeback_passwd(folder: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "tradeback", "user", "passwd", "demo", "--password-stdin"],
        input=b"of my own choice\n",
        env=settings_of(folder),
        check=True,
        timeout=60,
    )


def test_a_disabled_demo_stays_disabled(tmp_path: Path) -> None:
    config = config_of(tmp_path)
    password = password_of(demo_login(config))
    with closing(open_accounts(config)) as accounts:
        found = accounts.user("demo")
        assert found is not None
        accounts.set_active(found[0].id, False)
    assert demo_login(config).startswith("The user demo is disabled")
    assert not fits(config, password)


def test_where_there_are_users_no_demo_is_made(tmp_path: Path) -> None:
    config = config_of(tmp_path)
    with closing(open_accounts(config)) as accounts:
        accounts.add_user("alice", hash_password("correct horse"))
    assert demo_login(config) == "Log in as one of your users: tradeback user list"
    with closing(open_accounts(config)) as accounts:
        assert [user.username for user in accounts.users()] == ["alice"]
    assert not (tmp_path / "sim" / "demo.password").exists()


def test_a_file_that_cannot_be_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "sim" / "demo.password").mkdir(parents=True)
    with pytest.raises(DataFolderError, match="tradeback user disable demo"):
        demo_login(config_of(tmp_path))


def test_addresses_to_open() -> None:
    for rest, opened in (
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080/"),
        ("http://0.0.0.0:8080", "http://localhost:8080/"),
        ("http://[::]:8080", "http://localhost:8080/"),
        ("http://[::1]:8080", "http://[::1]:8080/"),
    ):
        assert page_address(rest) == opened
    local = {
        host: is_loopback(host)
        for host in ("127.0.0.1", "127.9.9.9", "::1", "localhost", "0.0.0.0", "a.example")
    }
    assert [host for host, is_local in local.items() if is_local] == [
        "127.0.0.1",
        "127.9.9.9",
        "::1",
        "localhost",
    ]


@pytest.mark.parametrize(
    ("host", "told", "secure", "noticed"),
    [
        ("127.0.0.1", "", False, False),
        ("127.0.0.1", "true", True, False),
        ("127.0.0.1", "false", False, False),
        ("0.0.0.0", "", True, True),
        ("0.0.0.0", "true", True, False),
        ("0.0.0.0", "false", False, False),
    ],
)
def test_the_cookie_is_for_https_unless_on_loopback_or_told(
    host: str, told: str, secure: bool, noticed: bool
) -> None:
    config = load_config(environ={"SERVER_HOST": host, "SESSION_COOKIE_SECURE": told})
    assert secure_cookie(config) is secure
    notice = cookie_notice(config)
    assert (notice is not None) is noticed
    assert notice is None or "SESSION_COOKIE_SECURE=false" in notice
