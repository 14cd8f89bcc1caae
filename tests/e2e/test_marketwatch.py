"""Watchlists over REST."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.e2e.accounts import SYMBOLS, Accounts, accounts_api
from tradeback.store.accounts import MAX_WATCHED

MANY = tuple(f"S{number:03}USDT" for number in range(MAX_WATCHED))


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Accounts]:
    with accounts_api(tmp_path_factory.mktemp("marketwatch"), (*SYMBOLS, *MANY)) as accounts:
        yield accounts


def put(there: Accounts, token: str, content: Any) -> Any:
    return there.post("marketwatch", content, "PUT", Authorization=f"Bearer {token}")


def test_add_take_off_and_order(there: Accounts) -> None:
    token = there.token(there.user("alice"))
    first = there.ask("marketwatch", token)
    assert (first.status, first.json) == (200, {"symbols": []})
    assert first.headers["cache-control"] == "no-store"
    assert {"Cookie", "Authorization"} <= set(first.headers["vary"].split(", "))
    for _ in range(2):  # twice is no error
        assert there.ask("marketwatch/BTCUSDT", token, "POST").json == {"symbols": ["BTCUSDT"]}
    assert there.ask("marketwatch/ETHBTC", token, "POST").json == {"symbols": ["BTCUSDT", "ETHBTC"]}
    answer = put(there, token, {"symbols": ["ETHUSDT", "ETHBTC", "ETHUSDT", "BTCUSDT"]})
    assert answer.json == {"symbols": ["ETHUSDT", "ETHBTC", "BTCUSDT"]}
    for _ in range(2):
        left = {"symbols": ["ETHUSDT", "BTCUSDT"]}
        assert there.ask("marketwatch/ETHBTC", token, "DELETE").json == left
    assert there.ask("marketwatch", token).json == left
    assert put(there, token, {"symbols": []}).json == {"symbols": []}


def test_all_sessions_of_a_user_share_the_list_and_nobody_else(there: Accounts) -> None:
    name = there.user("bob")
    one, two, other = there.token(name), there.token(name), there.token(there.user("carol"))
    there.ask("marketwatch/BTCUSDT", one, "POST")
    there.ask("marketwatch/ETHUSDT", two, "POST")
    both = {"symbols": ["BTCUSDT", "ETHUSDT"]}
    assert there.ask("marketwatch", one).json == there.ask("marketwatch", two).json == both
    assert there.ask("marketwatch", other).json == {"symbols": []}
    # The list is the user's: it is there at the next login.
    there.ask("auth/logout?everywhere=true", one, "POST")
    assert there.ask("marketwatch", there.token(name)).json == both


def test_what_is_not_known_or_not_allowed(there: Accounts) -> None:
    name = there.user("dave", "ETH*")
    token = there.token(name)
    assert there.ask("marketwatch/ETHBTC", token, "POST").status == 200
    for method in ("POST", "DELETE"):
        for symbol in ("NOTHING", "ethusdt", "%00", "%27%20OR%201=1--", "..%2f..", "%ff", "x" * 3_000, "*"):
            answer = there.ask(f"marketwatch/{symbol}", token, method)
            assert answer.status == 404, (symbol, answer)
    refused = there.ask("marketwatch/BTCUSDT", token, "POST")
    assert (refused.status, refused.json["error"]["code"]) == (403, "symbol_not_allowed")
    for symbols, status, code in (
        (["ETHUSDT", "NOTHING"], 404, "unknown_symbol"),
        (["ETHUSDT", "BTCUSDT"], 403, "symbol_not_allowed"),
    ):
        answer = put(there, token, {"symbols": symbols})
        assert (answer.status, answer.json["error"]["code"]) == (status, code)
    assert there.ask("marketwatch", token).json == {"symbols": ["ETHBTC"]}, "a refused list changes nothing"

    # Rights that shrink hide what they no longer allow; it is back with them, and may be taken off meanwhile.
    found = there.store.user(name)
    assert found is not None
    there.store.set_patterns(found[0].id, ["BTC*"])
    assert there.ask("marketwatch", token).json == {"symbols": []}
    assert there.ask("marketwatch/BTCUSDT", token, "POST").json == {"symbols": ["BTCUSDT"]}
    there.store.set_patterns(found[0].id, ["*"])
    assert there.ask("marketwatch", token).json == {"symbols": ["ETHBTC", "BTCUSDT"]}
    there.store.set_patterns(found[0].id, ["BTC*"])
    assert there.ask("marketwatch/ETHBTC", token, "DELETE").json == {"symbols": ["BTCUSDT"]}
    assert there.store.watchlist(found[0].id) == ["BTCUSDT"]


@pytest.mark.parametrize(
    ("content", "field"),
    [
        ({}, "symbols"),
        ([], "body"),
        ({"symbols": "BTCUSDT"}, "symbols"),
        ({"symbols": None}, "symbols"),
        ({"symbols": [1]}, "symbols"),
        ({"symbols": [["BTCUSDT"]]}, "symbols"),
        ({"symbols": [None]}, "symbols"),
        ({"symbols": [], "user": "alice"}, "user"),
    ],
)
def test_what_is_no_list_is_named(there: Accounts, content: Any, field: str) -> None:
    if there.store.user("erin") is None:
        there.user("erin")
    token = there.token("erin")
    answer = put(there, token, content)
    assert (answer.status, answer.json["error"]["parameter"]) == (400, field)
    asked = there.ask("marketwatch?user=alice", token)
    assert (asked.status, asked.json["error"]["parameter"]) == (400, "user")


def test_a_list_is_full_at_a_hundred(there: Accounts) -> None:
    token = there.token(there.user("frank"))
    assert put(there, token, {"symbols": [*MANY, MANY[0]]}).json == {"symbols": list(MANY)}
    more = there.ask("marketwatch/BTCUSDT", token, "POST")
    assert (more.status, more.json["error"]["code"]) == (409, "watchlist_full")
    assert there.ask(f"marketwatch/{MANY[0]}", token, "POST").status == 200, "it is in the list already"
    full = put(there, token, {"symbols": [*MANY, "BTCUSDT"]})
    assert (full.status, full.json["error"]["code"]) == (409, "watchlist_full")
    assert there.ask("marketwatch", token).json == {"symbols": list(MANY)}


def test_changes_at_once_lose_none(there: Accounts) -> None:
    name = there.user("grace")
    tokens = [there.token(name) for _ in range(4)]

    def add(number: int) -> int:
        return there.ask(f"marketwatch/{MANY[number]}", tokens[number % 4], "POST").status

    with ThreadPoolExecutor(8) as threads:
        assert set(threads.map(add, range(40))) == {200}
    assert set(there.ask("marketwatch", tokens[0]).json["symbols"]) == set(MANY[:40])


def test_nobody_is_refused_everywhere(there: Accounts) -> None:
    for method, path in (
        ("GET", "marketwatch"),
        ("PUT", "marketwatch"),
        ("POST", "marketwatch/BTCUSDT"),
        ("DELETE", "marketwatch/BTCUSDT"),
        ("POST", "marketwatch/NOTHING"),
    ):
        answer = there.api.ask(f"/api/v1/{path}", method)
        assert (answer.status, answer.json["error"]["code"]) == (401, "unauthorized")
        assert answer.headers["cache-control"] == "no-store"
