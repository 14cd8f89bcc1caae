"""Logging in and out over REST: what lets in, what does not, and what is told to whom."""

from __future__ import annotations

import hashlib
import sqlite3
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.accounts import PASSWORD, Accounts, accounts_api, cookie_of
from tests.e2e.api import Answer
from tests.e2e.fake_clock import FakeClock
from tests.servers.services import config_of
from tradeback.config import Config
from tradeback.store.login_failures import (
    FREE_FAILURES_OF_ADDRESS,
    FREE_FAILURES_OF_USER,
    LONGEST_LOGIN_WAIT_S,
)
from tradeback.tokens import load_secret, new_token, token_hash

DAY = 86_400
WRONG = "There is no such user, or the password is another."


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Accounts]:
    folder = tmp_path_factory.mktemp("logins")
    proxy = {"SERVER_TRUSTED_PROXIES": "127.0.0.1", "SERVER_CORS_ALLOWED_ORIGINS": "https://charts.example"}
    with accounts_api(folder, **proxy) as accounts:
        yield accounts
        log = accounts.api.log.read_text()
        assert PASSWORD not in log
        assert "Traceback" not in log


@pytest.fixture
def address(request: pytest.FixtureRequest) -> dict[str, str]:
    """Each test is someone else, as a proxy tells it: failures of one do not slow the others."""
    digest = hashlib.sha256(request.node.name.encode()).digest()
    return {"X_Forwarded_For": ".".join(map(str, digest[:4]))}


def key_of(config: Config) -> bytes:
    return load_secret(config.data.of("sim"), config.session.secret.get_secret_value())


def test_a_login_and_its_end(there: Accounts) -> None:
    name = there.user("alice", "BTC*", "ETH*")
    before = int(time.time())
    answer = there.login("Alice")
    assert answer.status == 200
    told = answer.json
    assert set(told) == {"token", "expires_at", "user"}
    assert told["user"] == {"username": name, "symbol_patterns": ["BTC*", "ETH*"]}
    session = Config().session
    assert 0 <= told["expires_at"] - before - session.idle < 60
    assert answer.headers["cache-control"] == "no-store"
    assert {"Cookie", "Authorization", "Origin"} <= set(answer.headers["vary"].split(", "))

    cookie, attributes = cookie_of(answer)
    assert cookie == told["token"]
    assert attributes == {"HttpOnly", "Secure", "SameSite=Lax", "Path=/", f"Max-Age={int(session.lifetime)}"}
    assert there.let_in(cookie)
    shown = there.ask("auth/session", cookie)
    assert shown.json["user"] == told["user"]
    assert shown.json["expires_at"] == told["expires_at"]
    assert before <= shown.json["created_at"] <= time.time()
    assert shown.headers["cache-control"] == "no-store"
    assert {"Cookie", "Authorization"} <= set(shown.headers["vary"].split(", "))

    out = there.api.ask("/api/v1/auth/logout", "POST", Cookie=f"session_token={cookie}")
    assert (out.status, out.body, out.headers["cache-control"]) == (204, b"", "no-store")
    emptied, attributes = cookie_of(out)
    assert emptied in ("", '""')
    assert (
        any(one.startswith("expires=") and "1970" not in one for one in attributes)
        or "Max-Age=0" in attributes
    )
    # Whoever copied it before gets in no more, and has nothing left to end.
    assert not there.let_in(cookie)
    assert there.ask("auth/logout", cookie, "POST").status == 401


@pytest.mark.embedded("its file is looked into")
def test_only_the_tokens_hash_is_stored(there: Accounts) -> None:
    token = there.token(there.user("hashed"))
    content = (there.folder / "sim" / "catalog.sqlite").read_bytes()
    assert token.encode() not in content
    assert PASSWORD.encode() not in content
    assert token_hash(token).hex().encode() in content
    assert token not in there.api.log.read_text()


@pytest.mark.parametrize(
    "password", ["", " ", "correct horsf", "correct horse ", "x" * 1024, "\0", "é" * 512]
)
def test_a_wrong_password_and_an_unknown_user_are_answered_alike(
    there: Accounts, address: dict[str, str], password: str
) -> None:
    if there.store.user("known") is None:
        there.user("known")
        there.store.set_active(there.store.add_user("disabled", "x").id, False)
    answers = [there.login(name, password, **address) for name in ("known", "unknown", "disabled")]
    if password == "":
        assert {answer.status for answer in answers} == {400}
        assert {answer.json["error"]["parameter"] for answer in answers} == {"password"}
        return
    there.store.login_succeeded("known", "")
    there.store.login_succeeded("unknown", "")
    there.store.login_succeeded("disabled", "")
    assert {answer.status for answer in answers} == {401}
    errors = [answer.json["error"] for answer in answers]
    assert all(error == {"code": "bad_credentials", "message": WRONG} for error in errors)
    assert len({len(answer.body) for answer in answers}) == 1
    assert all("set-cookie" not in answer.headers for answer in answers)


def test_a_disabled_user_with_the_right_password_is_answered_like_a_stranger(
    there: Accounts, address: dict[str, str]
) -> None:
    name = there.user("gone")
    found = there.store.user(name)
    assert found is not None
    token = there.token(name)
    assert there.let_in(token)
    there.store.set_active(found[0].id, False)
    assert not there.let_in(token)
    refused = there.login(name, **address)
    assert (refused.status, refused.json["error"]["message"]) == (401, WRONG)
    there.store.set_active(found[0].id, True)
    assert not there.let_in(token), "what has ended does not begin again"


@pytest.mark.parametrize(
    "username",
    [
        "a\0b",
        "unknown\r\nSet-Cookie: session_token=x",
        "' OR '1'='1",
        "alice'; DROP TABLE users; --",
        'alice" --',
        "Ⅷ雪\u202eecila",
        "%s%n{0}",
        "../../etc/passwd",
        "K",
    ],
)
def test_strange_names_are_strangers(there: Accounts, address: dict[str, str], username: str) -> None:
    if there.store.user("survivor") is None:
        there.user("survivor")
    answer = there.login(username, **address)
    assert (answer.status, answer.json["error"]["code"]) == (401, "bad_credentials")
    assert set(answer.headers) & {"set-cookie"} == set()
    assert there.store.user("survivor") is not None


BODIES: list[tuple[bytes, str, str]] = [
    (b"", "application/json", "body"),
    (b"{", "application/json", "body"),
    (b"[]", "application/json", "body"),
    (b"null", "application/json", "body"),
    (b'{"username":"a","password":"\xff"}', "application/json", "body"),
    (b'{"username":"\\ud800","password":"b"}', "application/json", "body"),
    (b"[" * 60_000, "application/json", "body"),
    (b'{"username":"a"}', "application/json", "password"),
    (b'{"password":"a"}', "application/json", "username"),
    (b'{"username":["a"],"password":"b"}', "application/json", "username"),
    (b'{"username":{"$ne":""},"password":"b"}', "application/json", "username"),
    (b'{"username":"a","password":1}', "application/json", "password"),
    (b'{"username":"a","password":null}', "application/json", "password"),
    (b'{"username":"a","password":"b","admin":true}', "application/json", "admin"),
    (b'{"username":"","password":"b"}', "application/json", "username"),
    (b'{"username":"%s","password":"b"}' % (b"x" * 10_000), "application/json", "username"),
    (b'{"username":"a","password":"%s"}' % (b"x" * 1025), "application/json", "password"),
    (b'{"username":"a","password":"b"}', "text/plain", "Content-Type"),
    (b'{"username":"a","password":"b"}', "application/json; charset=utf-16", "Content-Type"),
    (b"username=a&password=b", "application/x-www-form-urlencoded", "Content-Type"),
]


@pytest.mark.parametrize(("body", "kind", "field"), BODIES)
def test_what_is_no_login_is_named(there: Accounts, body: bytes, kind: str, field: str) -> None:
    answer = there.api.ask("/api/v1/auth/login", "POST", body, Content_Type=kind)
    refusal = (415, "bad_media_type") if field == "Content-Type" else (400, "bad_parameter")
    assert (answer.status, answer.json["error"]["code"]) == refusal
    assert answer.json["error"]["parameter"] == field


def test_without_a_content_type_and_too_large(there: Accounts) -> None:
    bare = b"POST /api/v1/auth/login HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}"
    assert b" 415 " in there.api.raw(bare).split(b"\r\n")[0]
    large = there.api.ask("/api/v1/auth/login", "POST", b" " * 70_000, Content_Type="application/json")
    assert large.status == 413
    asked = there.post("auth/login?next=/", {"username": "a", "password": "b"})
    assert (asked.status, asked.json["error"]["parameter"]) == (400, "next")
    assert there.api.ask("/api/v1/auth/login").status == 405
    assert there.api.ask("/api/v1/auth/session", "POST").status == 405


def test_forged_tokens(there: Accounts) -> None:
    name = there.user("mallory")
    token = there.token(name)
    assert there.let_in(token)
    last = "A" if token[-1] != "A" else "B"
    other_secret = new_token(b"another secret, another secret.", DAY)
    unknown = new_token(key_of(config_of(there.folder)), DAY)  # ours, and no login ever
    expired = new_token(key_of(config_of(there.folder)), 0, now=time.time() - 1)
    for forged in (
        token[:-1] + last,
        token.swapcase(),
        token[:95],
        token + "A",
        token[1:] + token[0],
        other_secret,
        unknown,
        expired,
        "x" * 96,
        "' OR 1=1 --",
        "A" * 8_000,
        token_hash(token).hex(),
    ):
        assert not there.let_in(forged), forged
    assert there.let_in(token)


@pytest.mark.parametrize(
    "scheme", ["Basic YTpi", "Bearer", "Bearer ", "bearer  x", "Digest a=b", "", "session_token", "\xff"]
)
def test_a_malformed_authorization_is_401_whatever_the_cookie_is(there: Accounts, scheme: str) -> None:
    if there.store.user("both") is None:
        there.user("both")
    token = there.token("both")
    answer = there.api.ask("/api/v1/auth/session", Authorization=scheme, Cookie=f"session_token={token}")
    assert (answer.status, answer.json["error"]["code"]) == (401, "unauthorized")
    # Where nobody is asked who they are, a proxy's own Authorization does no harm.
    assert there.api.ask("/api/v1/symbols", Authorization=scheme).status == 200


def test_bearer_wins_over_the_cookie(there: Accounts) -> None:
    one, two = there.token(there.user("one")), there.token(there.user("two"))
    asked = there.ask("auth/session", one, Cookie=f"session_token={two}")
    assert asked.json["user"]["username"] == "one"
    out = there.ask("auth/logout", one, "POST", Cookie=f"session_token={two}")
    assert out.status == 204
    assert "set-cookie" not in out.headers
    assert not there.let_in(one)
    assert there.let_in(two)
    assert there.api.ask("/api/v1/auth/session", Authorization=f"bEARER {two}").status == 200


def test_cookies_beside_ours(there: Accounts) -> None:
    token = there.token(there.user("tossed"))
    for cookies in (
        f"other=1; session_token={token}",
        f"session_token=; session_token={token}",
        f"session_token=nonsense; session_token={token}; a=b",
        f'session_token="{token}"',
    ):
        assert there.api.ask("/api/v1/auth/session", Cookie=cookies).status == 200, cookies
    for cookies in ("session_token", "session_token=", "=", ";;;", "a" * 5_000, f"Session_Token={token}"):
        assert there.api.ask("/api/v1/auth/session", Cookie=cookies).status == 401, cookies


@pytest.mark.parametrize(
    "headers",
    [
        "Authorization: Bearer {}\r\nAuthorization: Bearer {}",
        "Authorization: Bearer {}, Bearer {}",
        "Authorization: Bearer\t{}",
        "Authorization:\r\n Bearer {}",
        "Authorization : Bearer {}",
        "Proxy-Authorization: Bearer {}",
        'Authorization: Bearer "{}"',
        "Cookie: session_token={}\r\nCookie: session_token={}",
        "Cookie: session_token={}\x00",
        "Cookie: session_token=\r\n {}",
        "session_token: {}",
        "X-Session-Token: {}",
    ],
)
def test_headers_in_disguise_let_nobody_in(there: Accounts, headers: str) -> None:
    if there.store.user("disguised") is None:
        there.user("disguised")
    token = there.token("disguised")
    told = headers.replace("{}", token)
    request = f"GET /api/v1/auth/session HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{told}\r\n\r\n"
    assert there.api.raw(request.encode()).split(b" ", 2)[1] in (b"400", b"401")
    assert there.let_in(token)


def test_logout_everywhere_ends_the_sessions_of_that_user_alone(there: Accounts) -> None:
    name = there.user("everywhere")
    mine = [there.token(name) for _ in range(3)]
    other = there.token(there.user("bystander"))
    bad = there.ask("auth/logout?everywhere=yes", mine[0], "POST")
    assert (bad.status, bad.json["error"]["parameter"]) == (400, "everywhere")
    assert there.ask("auth/logout?everywhere=false", mine[0], "POST").status == 204
    assert [there.let_in(token) for token in mine] == [False, True, True]
    assert there.ask("auth/logout?everywhere=true", mine[1], "POST").status == 204
    assert not any(there.let_in(token) for token in mine)
    assert there.let_in(other)


def test_a_new_password_ends_the_sessions(there: Accounts) -> None:
    name = there.user("changer")
    token = there.token(name)
    found = there.store.user(name)
    assert found is not None
    there.store.set_password(found[0].id, "no hash at all")
    assert not there.let_in(token)


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "http://127.0.0.1.evil.example", "http://[", ""]
)
def test_pages_of_other_origins_change_nothing(there: Accounts, origin: str) -> None:
    if there.store.user("victim") is None:
        there.user("victim")
    token = there.token("victim")
    cookie = f"session_token={token}"
    for method, path in (
        ("POST", "marketwatch/BTCUSDT"),
        ("DELETE", "marketwatch/BTCUSDT"),
        ("POST", "auth/logout?everywhere=true"),
    ):
        answer = there.api.ask(f"/api/v1/{path}", method, Cookie=cookie, Origin=origin)
        assert (answer.status, answer.json["error"]["code"]) == (403, "foreign_origin")
    assert there.login("victim", Origin=origin).status == 403
    put = there.post("marketwatch", {"symbols": ["BTCUSDT"]}, "PUT", Cookie=cookie, Origin=origin)
    assert put.status == 403
    assert there.ask("marketwatch", token).json == {"symbols": []}
    # What only reads is the browser's to keep from the page.
    read = there.api.ask("/api/v1/marketwatch", Cookie=cookie, Origin=origin)
    assert read.status == 200
    assert "access-control-allow-origin" not in read.headers


@pytest.mark.parametrize("origin", ["http://127.0.0.1:5173", "https://127.0.0.1", "https://charts.example"])
def test_pages_that_may_act_for_their_user(there: Accounts, origin: str) -> None:
    if there.store.user("friend") is None:
        there.user("friend")
    answer = there.login("friend", Origin=origin)
    assert answer.headers["access-control-allow-origin"] == origin
    cookie = f"session_token={answer.json['token']}"
    assert there.api.ask("/api/v1/marketwatch/BTCUSDT", "POST", Cookie=cookie, Origin=origin).status == 200


def test_where_any_page_may_read_none_acts_by_a_cookie(tmp_path: Path) -> None:
    cors = {"SERVER_CORS_ALLOWED_ORIGINS": "*", "SERVER_CORS_ALLOW_CREDENTIALS": "false"}
    with accounts_api(tmp_path, **cors) as there:
        token = there.token(there.user("alice"), Origin="https://any.example")
        cookie = f"session_token={token}"
        path = "/api/v1/marketwatch/BTCUSDT"
        assert there.api.ask(path, "POST", Cookie=cookie, Origin="https://any.example").status == 403
        assert there.api.ask(path, "POST", Cookie=cookie, Origin="http://127.0.0.1:1").status == 200
        assert there.ask("marketwatch/ETHUSDT", token, "POST", Origin="https://any.example").status == 200


SLOWED_FOR_LONG = 10  # failures beyond the free ones: whoever has them waits for minutes


def until_slowed(there: Accounts, name: str) -> tuple[int, Answer]:
    """How many wrong guesses from ever other addresses are looked at until one is not, and the answer to that."""
    for number in range(100):
        answer = there.login(name, f"guess {number}", X_Forwarded_For=f"192.0.2.{number}")
        if answer.status != 401:
            return number, answer
    raise AssertionError(f"{name} can be guessed at without end")


def fail(there: Accounts, name: str, address: str, times: int) -> None:
    """So many failures, a moment ago."""
    for _ in range(times):
        there.store.login_failed(name, address, time.time())


def test_guesses_of_one_user_are_slowed_wherever_they_come_from(there: Accounts) -> None:
    for name in (there.user("guessed"), "nobody"):
        looked_at, slowed = until_slowed(there, name)
        # Where it takes over a second, one more is looked at after its wait.
        assert FREE_FAILURES_OF_USER <= looked_at <= FREE_FAILURES_OF_USER + 3
        assert (slowed.status, slowed.json["error"]["code"]) == (429, "too_many_attempts")
        assert 1 <= int(slowed.headers["retry-after"]) <= 2 ** (looked_at - FREE_FAILURES_OF_USER)
        assert slowed.headers["cache-control"] == "no-store"


def test_while_a_user_is_slowed_the_right_password_is_not_looked_at(tmp_path: Path) -> None:
    with FakeClock(tmp_path) as clock, accounts_api(tmp_path, **clock.environment) as there:
        name = there.user("alice")
        fail(there, name, "192.0.2.1", FREE_FAILURES_OF_USER + SLOWED_FOR_LONG)
        for spelling in ("alice", "ALICE"):
            answer = there.login(spelling)
            assert (answer.status, answer.json["error"]["code"]) == (429, "too_many_attempts")
            assert 1 < int(answer.headers["retry-after"]) <= LONGEST_LOGIN_WAIT_S
        clock.jump(LONGEST_LOGIN_WAIT_S)
        assert there.login(name).status == 200
        # That was forgiven.
        assert there.login(name, "a guess").status == 401
        assert there.login(name).status == 200


def test_guesses_from_one_address_are_slowed_whoever_they_are_of(tmp_path: Path) -> None:
    with accounts_api(tmp_path, SERVER_TRUSTED_PROXIES="127.0.0.1") as there:
        name = there.user("alice")
        place = {"X_Forwarded_For": "192.0.2.1"}
        # Those that are free are looked at, each of a name of its own.
        statuses = [
            there.login(f"name{number}", **place).status for number in range(FREE_FAILURES_OF_ADDRESS)
        ]
        assert set(statuses) == {401}
        fail(there, "another", "192.0.2.1", SLOWED_FOR_LONG)
        assert there.login(name, **place).status == 429
        # What the client writes there itself stands before what the proxy wrote.
        assert there.login(name, X_Forwarded_For="203.0.113.9, 192.0.2.1").status == 429
        assert there.login(name, X_Forwarded_For="192.0.2.1, 203.0.113.9").status == 200


def test_who_is_no_trusted_proxy_chooses_no_address(tmp_path: Path) -> None:
    with accounts_api(tmp_path) as there:
        name = there.user("alice")
        fail(there, "another", "127.0.0.1", FREE_FAILURES_OF_ADDRESS + SLOWED_FOR_LONG)
        assert there.login(name, X_Forwarded_For="203.0.113.1").status == 429


def test_guesses_at_once_wait_like_guesses_in_a_row(there: Accounts, address: dict[str, str]) -> None:
    name = there.user("target")

    def guess(number: int) -> int:
        return there.login(name, f"guess {number}", **address).status

    began = time.monotonic()
    with ThreadPoolExecutor(16) as threads:
        statuses = list(threads.map(guess, range(48)))
    # After waits of 1, 2, 4... seconds one more is looked at each.
    more = int(time.monotonic() - began + 1).bit_length()
    assert FREE_FAILURES_OF_USER <= statuses.count(401) <= FREE_FAILURES_OF_USER + more
    assert set(statuses) == {401, 429}
    assert there.api.ask("/api/v1/health").status == 200


def with_clock(folder: Path, clock: FakeClock, **settings: str) -> Any:
    return accounts_api(folder, **clock.environment, **settings)


def test_idle_sessions_end_and_used_ones_are_renewed(tmp_path: Path) -> None:
    settings = {"SESSION_LIFETIME": "3d", "SESSION_IDLE": "1d", "SESSION_RENEWAL": "1h"}
    with FakeClock(tmp_path) as clock, with_clock(tmp_path, clock, **settings) as there:
        name = there.user("alice")
        used, unused = there.token(name), there.token(name)
        began = there.ask("auth/session", used).json
        version = there.store.version()
        clock.jump(1_800)
        assert there.ask("auth/session", used).json == began, "renewed more often than asked for"
        assert there.store.version() == version
        clock.jump(DAY - 60)
        renewed = there.ask("auth/session", used).json
        assert abs(renewed["expires_at"] - began["expires_at"] - DAY + 60) <= 60
        assert renewed["created_at"] == began["created_at"]
        clock.jump(DAY + 60)
        assert there.ask("auth/session", unused).status == 401
        assert there.ask("auth/session", used).status == 200
        # The lifetime holds, however much it is used.
        clock.jump(2 * DAY - 120)
        assert there.ask("auth/session", used).status == 200
        clock.jump(3 * DAY - 180)
        last = there.ask("auth/session", used)
        assert last.json["expires_at"] <= began["created_at"] + 3 * DAY
        clock.jump(3 * DAY + 1)
        assert there.ask("auth/session", used).status == 401
        assert there.ask("auth/logout", used, "POST").status == 401


def test_a_clock_that_was_wrong_ends_no_session(tmp_path: Path) -> None:
    with FakeClock(tmp_path) as clock, with_clock(tmp_path, clock) as there:
        name = there.user("alice")
        clock.jump(2 * DAY)
        token = there.token(name)
        clock.jump(0)
        ends = [there.ask("auth/session", token).json["expires_at"] for _ in range(2)]
        assert abs(ends[0] - time.time() - Config().session.idle) < 60
        assert abs(ends[1] - ends[0]) <= 1
        assert there.let_in(there.token(name))


def test_a_session_outlives_a_restart_and_not_its_secret(tmp_path: Path) -> None:
    with accounts_api(tmp_path) as there:
        token = there.token(there.user("alice"))
    with accounts_api(tmp_path) as there:
        assert there.let_in(token)
    with accounts_api(tmp_path, SESSION_SECRET="another secret of thirty-two characters") as there:
        assert not there.let_in(token)


def test_a_shorter_lifetime_holds_for_sessions_that_began_before(tmp_path: Path) -> None:
    with FakeClock(tmp_path) as clock:
        with with_clock(tmp_path, clock) as there:
            token = there.token(there.user("alice"))
        clock.jump(7_200)
        with with_clock(tmp_path, clock) as there:
            assert there.let_in(token)
        with with_clock(tmp_path, clock, SESSION_LIFETIME="1h") as there:
            assert not there.let_in(token)


def test_a_secret_that_others_can_read_is_a_sentence(tmp_path: Path) -> None:
    key_of(config_of(tmp_path))
    (tmp_path / "sim" / "session.secret").chmod(0o644)
    with pytest.raises(AssertionError, match="can be read or changed by others"), accounts_api(tmp_path):
        pass
    assert "Traceback" not in (tmp_path / "api.log").read_text()


@pytest.mark.embedded("its file is moved away")
def test_without_a_catalog_nobody_is_let_in_and_the_component_is_named(tmp_path: Path) -> None:
    with accounts_api(tmp_path) as there:
        token = there.token(there.user("alice"))
        catalog = tmp_path / "sim" / "catalog.sqlite"
        catalog.rename(tmp_path / "kept")
        for answer in (there.ask("auth/session", token), there.login("alice")):
            assert (answer.status, answer.json["error"]["component"]) == (503, "accounts")
            assert str(tmp_path) not in answer.body.decode()
        # What is forged is refused without looking anything up.
        assert there.ask("auth/session", "x" * 96).status == 401
        (tmp_path / "kept").rename(catalog)
        assert there.let_in(token)


@pytest.mark.embedded("its file is locked")
def test_while_the_catalog_is_locked_sessions_go_on_and_nobody_logs_in(tmp_path: Path) -> None:
    with FakeClock(tmp_path) as clock, accounts_api(tmp_path, **clock.environment) as there:
        token = there.token(there.user("alice"))
        clock.jump(DAY)  # a use is to be noted
        catalog = sqlite3.connect(tmp_path / "sim" / "catalog.sqlite", isolation_level=None)
        with closing(catalog), ThreadPoolExecutor(2) as threads:
            catalog.execute("BEGIN IMMEDIATE")
            session = threads.submit(there.ask, "auth/session", token)
            login = threads.submit(there.login, "alice")
            assert session.result().status == 200
            assert (login.result().status, login.result().json["error"]["component"]) == (503, "accounts")
        assert there.login("alice").status == 200
        assert "the use of a session cannot be noted" in there.api.log.read_text()
