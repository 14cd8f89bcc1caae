"""What every store of accounts must do, whatever database is below it."""

from __future__ import annotations

import hashlib
import multiprocessing
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from tests.store.conftest import OpenAccounts
from tradeback.config import Config
from tradeback.errors import AccountError, WatchlistFullError
from tradeback.model import Account, Session, User, symbol_allowed
from tradeback.passwords import hash_password
from tradeback.store import accounts as sql
from tradeback.store import login_failures
from tradeback.store.accounts import open_accounts
from tradeback.store.base import Accounts
from tradeback.tokens import new_token, token_hash

NOW = 1_800_000_000


def login(user: User, name: str = "a", expires_at: int = NOW + 100) -> Session:
    return Session(hashlib.sha256(name.encode()).digest(), user.id, "::1", "a browser", NOW, expires_at, NOW)


@pytest.fixture
def alice(accounts: Accounts) -> User:
    return accounts.add_user("Alice", "hash of hers", now=NOW)


def test_users_come_back_as_they_were_added(accounts: Accounts, alice: User) -> None:
    bob = accounts.add_user("bob@example.org", "hash of his", ["*usdt", "BTC*", "*USDT"], now=NOW + 1)
    assert alice == User(alice.id, "alice", True, ("*",), NOW)
    assert bob == User(bob.id, "bob@example.org", True, ("*USDT", "BTC*"), NOW + 1)
    assert accounts.users() == [alice, bob]
    assert accounts.user("ALICE") == (alice, "hash of hers")
    assert accounts.user_by_id(bob.id) == bob
    assert accounts.user("carol") is None
    assert accounts.user_by_id(99) is None


def test_a_name_is_given_once_in_whatever_case(accounts: Accounts, alice: User) -> None:
    with pytest.raises(AccountError, match="There is a user alice already"):
        accounts.add_user("aLICE", "another")
    assert accounts.users() == [alice]


@pytest.mark.parametrize("name", ["", "a b", "-a", "é", "a\n", "a" * 65, "a'; DROP TABLE users", "a\0"])
def test_a_name_that_cannot_be(accounts: Accounts, name: str) -> None:
    with pytest.raises(AccountError, match="is no name for a user"):
        accounts.add_user(name, "hash")


@pytest.mark.parametrize(
    "patterns", [[], [""], ["A,B"], ["[AB]*"], ["A B"], ["A" * 51], ["*"] + [f"A{n}" for n in range(100)]]
)
def test_patterns_that_cannot_be(accounts: Accounts, alice: User, patterns: list[str]) -> None:
    with pytest.raises(AccountError, match="pattern"):
        accounts.set_patterns(alice.id, patterns)
    assert accounts.user_by_id(alice.id) == alice


def test_symbols_are_allowed_by_pattern(accounts: Accounts, alice: User) -> None:
    accounts.set_patterns(alice.id, ["*USDT", "ETHBT?"])
    found = accounts.user_by_id(alice.id)
    assert found is not None
    allowed = [
        name
        for name in ("BTCUSDT", "ETHBTC", "ETHBTCX", "BTCUSD", "USDT")
        if symbol_allowed(found.symbol_patterns, name)
    ]
    assert allowed == ["BTCUSDT", "ETHBTC", "USDT"]
    assert not symbol_allowed((), "BTCUSDT")


def test_what_is_done_to_a_user_who_is_not_there(accounts: Accounts) -> None:
    for action in (
        lambda: accounts.set_password(7, "hash"),
        lambda: accounts.set_active(7, False),
        lambda: accounts.watch(7, "BTCUSDT"),
        lambda: accounts.set_watchlist(7, []),
    ):
        with pytest.raises(AccountError, match="There is no user 7"):
            action()


def test_a_session_lasts_until_it_ends(accounts: Accounts, alice: User) -> None:
    one, two = login(alice, "one"), login(alice, "two")
    accounts.add_session(one)
    accounts.add_session(two)
    assert accounts.session(one.token_hash, now=NOW) == one
    assert accounts.active_sessions(now=NOW) == [one, two]
    assert accounts.end_session(one.token_hash)
    assert not accounts.end_session(one.token_hash)
    assert accounts.session(one.token_hash, now=NOW) is None
    assert not accounts.renew(one.token_hash, NOW + 1000, now=NOW)
    assert accounts.active_sessions(now=NOW) == [two]
    assert accounts.session(b"\0" * 32, now=NOW) is None


def test_a_session_expires_unless_renewed(accounts: Accounts, alice: User) -> None:
    session = login(alice, expires_at=NOW + 10)
    accounts.add_session(session)
    assert accounts.session(session.token_hash, now=NOW + 9.99) == session
    assert accounts.renew(session.token_hash, NOW + 20, now=NOW + 5)
    renewed = accounts.session(session.token_hash, now=NOW + 19)
    assert renewed is not None
    assert (renewed.expires_at, renewed.last_activity, renewed.created_at) == (NOW + 20, NOW + 5, NOW)
    assert accounts.session(session.token_hash, now=NOW + 20) is None
    assert not accounts.renew(session.token_hash, NOW + 40, now=NOW + 20)
    assert accounts.expire(NOW + 19) == 0
    assert accounts.expire(NOW + 20) == 1
    assert accounts.active_sessions(now=NOW) == []


def test_logging_out_everywhere_ends_the_sessions_of_one_user(accounts: Accounts, alice: User) -> None:
    bob = accounts.add_user("bob", "hash")
    for name in "abc":
        accounts.add_session(login(alice, name))
    accounts.add_session(login(bob, "d"))
    assert accounts.end_sessions(alice.id) == 3
    assert accounts.end_sessions(alice.id) == 0
    assert accounts.active_sessions(now=NOW) == [login(bob, "d")]


def test_a_disabled_user_is_out_and_cannot_come_in(accounts: Accounts, alice: User) -> None:
    accounts.add_session(login(alice))
    accounts.watch(alice.id, "BTCUSDT")
    assert accounts.set_active(alice.id, False) == 1
    assert accounts.active_sessions(now=NOW) == []
    assert accounts.watched() == set()
    with pytest.raises(AccountError, match="is disabled"):
        accounts.add_session(login(alice, "another"))
    assert accounts.set_active(alice.id, True) == 0
    assert accounts.session(login(alice).token_hash, now=NOW) is None  # an ended session stays ended
    accounts.add_session(login(alice, "another"))
    assert accounts.watchlist(alice.id) == ["BTCUSDT"]


def test_a_new_password_ends_the_sessions(accounts: Accounts, alice: User) -> None:
    accounts.add_session(login(alice))
    assert accounts.set_password(alice.id, "another hash") == 1
    assert accounts.active_sessions(now=NOW) == []
    assert accounts.user("alice") == (alice, "another hash")


def test_a_watchlist_has_a_hundred_symbols_at_most(accounts: Accounts, alice: User) -> None:
    names = [f"S{n}" for n in range(100)]
    assert accounts.set_watchlist(alice.id, names + names) == names
    assert accounts.watch(alice.id, "S7") == names
    for action in (
        lambda: accounts.watch(alice.id, "ONE"),
        lambda: accounts.set_watchlist(alice.id, [*names, "ONE"]),
    ):
        with pytest.raises(WatchlistFullError, match="ONE is one too many"):
            action()
    assert accounts.watchlist(alice.id) == names
    assert accounts.unwatch(alice.id, "S0") == names[1:]
    assert accounts.watch(alice.id, "ONE") == [*names[1:], "ONE"]


SYMBOLS = st.sampled_from(["BTCUSDT", "ETHUSDT", "DOTUSDT", "币安人生USDT", "A'B"])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("watch"), st.integers(0, 1), SYMBOLS),
        st.tuples(st.just("unwatch"), st.integers(0, 1), SYMBOLS),
        st.tuples(st.just("set"), st.integers(0, 1), st.lists(SYMBOLS, max_size=6)),
    ),
    max_size=12,
)


def test_watchlists_are_ordered_sets(open_accounts_again: OpenAccounts) -> None:
    accounts, other = open_accounts_again(), open_accounts_again()
    users = [accounts.add_user(name, "hash") for name in ("a", "b")]

    @examples(max_examples=40, deadline=None)
    @given(STEPS)
    def steps(taken: list[tuple[str, int, str | list[str]]]) -> None:
        lists: list[list[str]] = [[], []]
        for user in users:
            accounts.set_watchlist(user.id, [])
        for verb, who, what in taken:
            if isinstance(what, list):
                lists[who] = list(dict.fromkeys(what))
                told = accounts.set_watchlist(users[who].id, what)
            elif verb == "watch":
                lists[who] += [] if what in lists[who] else [what]
                told = accounts.watch(users[who].id, what)
            else:
                lists[who] = [name for name in lists[who] if name != what]
                told = accounts.unwatch(users[who].id, what)
            assert told == lists[who]
        assert [other.watchlist(user.id) for user in users] == lists
        assert other.watched() == {*lists[0], *lists[1]}

    steps()


def test_the_version_tells_others_of_every_change_and_of_nothing_else(
    open_accounts_again: OpenAccounts,
) -> None:
    accounts, other = open_accounts_again(), open_accounts_again()
    seen = other.version()

    def changed() -> bool:
        nonlocal seen
        before, seen = seen, other.version()
        return seen > before

    user = accounts.add_user("a", "hash")
    assert changed()
    session = login(user)
    for action in (
        lambda: accounts.add_session(session),
        lambda: accounts.renew(session.token_hash, NOW + 200, now=NOW),
        lambda: accounts.watch(user.id, "BTCUSDT"),
        lambda: accounts.unwatch(user.id, "BTCUSDT"),
        lambda: accounts.set_patterns(user.id, ["BTC*"]),
        lambda: accounts.end_session(session.token_hash),
        lambda: accounts.set_active(user.id, False),
    ):
        action()
        assert changed()
    accounts.login_failed("a", "::1", NOW)
    accounts.login_succeeded("a", "::1")
    accounts.users()
    assert not changed()


def test_what_changed_since_a_version_is_found(open_accounts_again: OpenAccounts) -> None:
    accounts, other = open_accounts_again(), open_accounts_again()
    alice, bob, carol = (accounts.add_user(name, "hash", ["B*"]) for name in ("alice", "bob", "carol"))
    assert [account.user_id for account in other.changed_accounts(-1)[1]] == [alice.id, bob.id, carol.id]
    seen = other.version()

    def changed() -> list[Account]:
        nonlocal seen
        found: list[Account]
        seen, found = other.changed_accounts(seen, now=NOW)
        assert seen == other.version()
        return found

    assert changed() == []
    accounts.watch(carol.id, "BTCUSDT")
    accounts.watch(carol.id, "AAVEUSDT")
    assert changed() == [Account(carol.id, ("B*",), ("BTCUSDT", "AAVEUSDT"), {})]
    one, two = login(bob, "1"), login(bob, "2", NOW + 50)
    accounts.add_session(one)
    accounts.add_session(two)
    both = {one.token_hash: NOW + 100, two.token_hash: NOW + 50}
    assert changed() == [Account(bob.id, ("B*",), (), both)]
    accounts.renew(two.token_hash, NOW + 200, now=NOW)
    assert changed() == [Account(bob.id, ("B*",), (), both | {two.token_hash: NOW + 200})]
    accounts.end_session(one.token_hash)
    accounts.set_watchlist(carol.id, [])
    assert changed() == [
        Account(bob.id, ("B*",), (), {two.token_hash: NOW + 200}),
        Account(carol.id, ("B*",), (), {}),
    ]
    accounts.watch(bob.id, "BNBUSDT")
    accounts.set_patterns(alice.id, ["*"])
    assert changed() == [
        Account(alice.id, ("*",), (), {}),
        Account(bob.id, ("B*",), ("BNBUSDT",), {two.token_hash: NOW + 200}),
    ]
    accounts.set_active(bob.id, False)
    assert changed() == [Account(bob.id, ("B*",), (), {})]
    accounts.set_active(bob.id, True)
    assert changed() == [Account(bob.id, ("B*",), ("BNBUSDT",), {})]
    accounts.add_session(login(bob, "3", NOW + 10))
    assert changed()[0].sessions == {login(bob, "3").token_hash: NOW + 10}
    accounts.set_password(bob.id, "another")
    assert changed() == [Account(bob.id, ("B*",), ("BNBUSDT",), {})]
    # What merely expired is told by the times that are known already.
    accounts.add_session(login(alice, "4", NOW + 10))
    changed()
    assert accounts.expire(NOW + 10) > 0
    assert changed() == []


def test_logins_of_a_user_get_slower_wherever_they_come_from(accounts: Accounts, alice: User) -> None:
    for name in ("alice", "nobody"):  # the same for a user that does not exist
        waits = []
        now = float(NOW)
        for n in range(14):
            wait = accounts.login_wait(name, f"10.0.{n}.1", now)
            waits.append(wait)
            now += wait
            assert accounts.login_wait(name.upper(), f"10.0.{n}.1", now) <= 0
            accounts.login_failed(name, f"10.0.{n}.1", now)
        assert waits == [0, 0, 0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]
    assert accounts.login_wait("bob", "10.9.9.9", NOW) == 0


def test_logins_from_an_address_get_slower_whoever_is_named(accounts: Accounts) -> None:
    for n in range(login_failures.FREE_FAILURES_OF_ADDRESS + 2):
        accounts.login_failed(f"user{n}", "2001:db8::1", NOW)
    assert accounts.login_wait("new", "2001:db8::1", NOW) == 4
    assert accounts.login_wait("new", "2001:db8::ffff:1", NOW) == 4  # of the same network
    assert accounts.login_wait("new", "2001:db8:0:1::1", NOW) == 0
    assert accounts.login_wait("new", "2001:db8::1", NOW - 1000) == 4  # the clock was set back
    assert accounts.login_wait("new", "2001:db8::1", NOW + login_failures.FAILURES_KEPT_S) == 0


def test_a_success_forgives_the_user_and_not_what_else_the_address_did(
    accounts: Accounts, alice: User
) -> None:
    for _ in range(5):
        accounts.login_failed("alice", "10.0.0.1", NOW)
    for n in range(login_failures.FREE_FAILURES_OF_ADDRESS):
        accounts.login_failed(f"user{n}", "10.0.0.1", NOW)
    assert accounts.login_wait("alice", "10.0.0.1", NOW) == 32
    accounts.login_succeeded("alice", "10.0.0.1")
    assert accounts.login_wait("alice", "10.0.0.2", NOW) == 0
    assert accounts.login_wait("alice", "10.0.0.1", NOW) == 1
    accounts.login_succeeded("alice", "10.0.0.1")
    assert accounts.login_wait("alice", "10.0.0.1", NOW) == 1


def test_guesses_at_once_are_no_faster_than_in_a_row(open_accounts_again: OpenAccounts) -> None:
    stores = [open_accounts_again() for _ in range(3)]
    with ThreadPoolExecutor(9) as threads:
        waits = list(
            threads.map(lambda n: stores[n % 3].login_attempt("alice", f"10.0.{n}.1", NOW), range(24))
        )
    assert sorted(waits) == [0.0] * login_failures.FREE_FAILURES_OF_USER + [1.0] * (
        24 - login_failures.FREE_FAILURES_OF_USER
    )
    stores[0].login_succeeded("alice", "10.0.0.1")
    assert stores[1].login_attempt("alice", "10.0.0.1", NOW) == 0


def test_a_user_has_so_many_sessions_at_most(accounts: Accounts, alice: User) -> None:
    bob = accounts.add_user("bob", "hash")
    accounts.add_session(login(bob, "bob"))
    for n in range(sql.MAX_SESSIONS):
        accounts.add_session(login(alice, f"{n}"))
    accounts.end_session(login(alice, "50").token_hash)
    for name in ("one", "two"):  # the first takes the place of the ended one, the second of the oldest
        accounts.add_session(login(alice, name))
    expected = [login(bob, "bob")]
    expected += [login(alice, f"{n}") for n in range(1, sql.MAX_SESSIONS) if n != 50]
    assert accounts.active_sessions(now=NOW) == [*expected, login(alice, "one"), login(alice, "two")]


def test_a_flood_of_names_pushes_out_itself_alone(
    accounts: Accounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(login_failures, "MAX_FAILURE_ROWS", 20)
    for _ in range(6):
        accounts.login_failed("alice", "10.0.0.1", NOW)
    for n in range(40):
        accounts.login_failed(f"made-up{n}", f"10.1.{n}.1", NOW + n)
    assert accounts.login_wait("alice", "10.2.0.1", NOW) == 8
    assert isinstance(accounts, sql.SqlAccounts)
    with accounts.engine.connect() as connection:
        assert (
            connection.execute(
                sql.select(sql.func.count()).select_from(login_failures.login_failures)
            ).scalar()
            == 20
        )


def test_passwords_tokens_and_typed_names_are_nowhere_in_it(accounts: Accounts, tmp_path: Path) -> None:
    token = new_token(b"s" * 32, 100, now=NOW)
    user = accounts.add_user("alice", hash_password("correct horse"))
    accounts.add_session(Session(token_hash(token), user.id, "::1", "a browser", NOW, NOW + 100, NOW))
    accounts.login_failed("typed in the wrong field", "::1", NOW)
    assert isinstance(accounts, sql.SqlAccounts)
    with accounts.engine.connect() as connection:
        rows = [connection.execute(sql.select(table)).all() for table in sql.metadata.sorted_tables]
    files = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    content = b"".join([repr(rows).encode(), *files])
    assert token_hash(token).hex().encode() in content
    for secret in (token, "correct horse", "typed in the wrong field"):
        assert secret.encode() not in content


def test_what_is_bounded_or_unique_stays_so_whoever_comes_at_once(open_accounts_again: OpenAccounts) -> None:
    stores = [open_accounts_again() for _ in range(4)]
    alice = stores[0].add_user("alice", "hash")

    def add(n: int) -> str:
        try:
            return stores[n % 4].add_user(f"user{n // 8}", "hash").username
        except AccountError as error:
            return str(error)

    def watch(n: int) -> bool:
        try:
            return f"S{n}" in stores[n % 4].watch(alice.id, f"S{n}")
        except WatchlistFullError:
            return False

    with ThreadPoolExecutor(8) as threads:
        added = list(threads.map(add, range(32)))
        watched = list(threads.map(watch, range(sql.MAX_WATCHED + 20)))
        sessions = [login(alice, f"{n}") for n in range(sql.MAX_SESSIONS + 10)]
        list(threads.map(lambda n: stores[n % 4].add_session(sessions[n]), range(len(sessions))))
        ended = list(threads.map(lambda n: stores[n % 4].end_session(sessions[-1].token_hash), range(8)))
    assert sorted(name for name in added if " " not in name) == [f"user{n}" for n in range(4)]
    assert {text.split()[:4][-1] for text in added if " " in text} == {"user"}
    assert sum(watched) == len(stores[0].watchlist(alice.id)) == sql.MAX_WATCHED
    assert len(stores[0].active_sessions(now=NOW)) in (sql.MAX_SESSIONS - 1, sql.MAX_SESSIONS)
    assert sum(ended) <= 1
    version, (told, *_) = stores[3].changed_accounts(-1, now=NOW)
    assert version == stores[0].version()
    assert set(told.sessions) == {session.token_hash for session in stores[0].active_sessions(now=NOW)}


def at_once(config: Config, start: Barrier, number: int) -> None:
    start.wait(300)
    with closing(open_accounts(config)) as accounts:
        user = accounts.add_user(f"user{number}", "hash")
        for n in range(20):
            accounts.watch(1, f"P{number}S{n}")
            accounts.add_session(login(user, f"{number} {n}"))
            accounts.login_failed("alice", "10.0.0.1", NOW)


def test_processes_at_once_lose_nothing(sql_config: Config) -> None:
    with closing(open_accounts(sql_config)) as accounts:
        accounts.add_user("alice", "hash")
        context = multiprocessing.get_context("spawn")
        start = context.Barrier(2)
        processes = [context.Process(target=at_once, args=(sql_config, start, number)) for number in range(2)]
        for process in processes:
            process.start()
        for process in processes:
            process.join(90)
        assert [process.exitcode for process in processes] == [0, 0]
        assert len(accounts.users()) == 3
        assert len(accounts.active_sessions(now=NOW)) == 40
        listed = accounts.watchlist(1)
        assert [[name for name in listed if name.startswith(f"P{number}")] for number in range(2)] == [
            [f"P{number}S{n}" for n in range(20)] for number in range(2)
        ]
        assert accounts.version() >= 1 + 2 + 80
        assert accounts.login_wait("alice", "10.9.9.9", NOW) == login_failures.LONGEST_LOGIN_WAIT_S
