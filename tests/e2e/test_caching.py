"""What may be kept of answers and for how long, and that an entity tag changes with what it stands for."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass

import pytest

from tests.e2e.accounts import Accounts, accounts_api
from tests.e2e.api import Answer
from tests.e2e.running import stream_ids
from tests.servers.services import config_of
from tradeback.model import Bar, SymbolInfo
from tradeback.store.base import History
from tradeback.store.catalog import open_catalog
from tradeback.store.histories import open_history

START = 1_700_006_400  # midnight, UTC
SYMBOL = "BTCUSDT"
BARS = f"/api/v1/symbols/{SYMBOL}/bars"


@dataclass(frozen=True)
class Stored:
    """The API, and the history that it reads, to write to."""

    there: Accounts
    history: History
    stream_id: int

    def write(self, minute: int, volume: float) -> None:
        bar = Bar(minute * 10**9, 1.0, 2.0, 0.5, 1.5, volume, 4)
        self.history.write_bars(self.stream_id, "1m", [bar])

    def ask(self, path: str, method: str = "GET", **headers: str) -> Answer:
        return self.there.api.ask(path, method, **headers)


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stored]:
    folder = tmp_path_factory.mktemp("caching")
    with (
        accounts_api(folder) as there,
        closing(open_history(config_of(folder), write=True)) as history,
    ):
        yield Stored(there, history, stream_ids(folder)[SYMBOL])


@pytest.mark.parametrize("resolution", ["1m", "1h", "1d"])
def test_a_repair_changes_the_tag_of_closed_bars(stored: Stored, resolution: str) -> None:
    path = f"{BARS}?resolution={resolution}&from={START}&to={START + 86_400}"
    stored.write(START + 60, 3.0)
    first = stored.ask(path)
    assert first.status == 200
    assert first.headers["cache-control"] == "public, max-age=60"
    tag = first.headers["etag"]
    same = stored.ask(path, If_None_Match=tag)
    assert (same.status, same.body, same.headers["etag"]) == (304, b"", tag)
    assert same.headers["cache-control"] == first.headers["cache-control"]
    stored.write(START + 60, 3.5)
    repaired = stored.ask(path, If_None_Match=tag)
    assert repaired.status == 200
    assert repaired.headers["etag"] != tag
    assert repaired.json["bars"][0]["volume"] == first.json["bars"][0]["volume"] + 0.5
    stored.write(START + 60, 3.0)
    assert stored.ask(path).headers["etag"] == tag


def test_a_bar_that_was_not_there_changes_the_tag_too(stored: Stored) -> None:
    path = f"{BARS}?from={START + 7_200}&to={START + 7_500}"
    empty = stored.ask(path)
    assert empty.json["bars"] == []
    stored.write(START + 7_260, 1.0)
    assert stored.ask(path, If_None_Match=empty.headers["etag"]).status == 200


@pytest.mark.parametrize(("name", "length"), [("1m", 60), ("1d", 86_400)])
def test_the_bar_in_progress_is_never_kept(stored: Stored, name: str, length: int) -> None:
    while True:
        now = int(time.time())
        opened = now - now % length
        stored.write(now - now % 60, 1.0)
        ends = (opened + 1, opened + length, opened + 2 * length, 9_000_000_000)
        ranges = ["", "&limit=5", f"&from={START}", f"&from={opened}", *(f"&to={end}" for end in ends)]
        answers = [stored.ask(f"{BARS}?resolution={name}{where}", If_None_Match="*") for where in ranges]
        before = stored.ask(f"{BARS}?resolution={name}&to={opened}")
        if int(time.time()) // 60 == now // 60:
            break  # all of them in the same minute
    for where, answer in zip(ranges, answers, strict=True):
        assert answer.json["bars"][-1]["time"] == opened, where
        assert (answer.status, answer.headers["cache-control"]) == (200, "no-store"), where
        assert "etag" not in answer.headers
    assert "etag" in before.headers
    assert all(bar["time"] < opened for bar in before.json["bars"])


def test_what_has_just_closed_is_asked_after_each_time(stored: Stored) -> None:
    now = int(time.time())
    closed = stored.ask(f"{BARS}?from={START}&to={now - now % 60}")
    assert closed.headers["cache-control"] == "public, no-cache"
    assert stored.ask(f"{BARS}?from={START}&to={now - 400}").headers["cache-control"] == "public, max-age=60"


@pytest.mark.parametrize(
    ("given", "status"),
    [
        ("{tag}", 304),
        ("W/{tag}", 304),  # as nginx makes it of ours, where it packs the answer
        ('"other", {tag}', 304),
        ("*", 304),
        ('"other"', 200),
        ("", 200),
        ("nonsense", 200),
        ("W/", 200),
    ],
)
@pytest.mark.parametrize(
    "path", [f"{BARS}?to={START}", "/api/v1/symbols", "/api/v1/symbols?q=BTC", f"/api/v1/symbols/{SYMBOL}"]
)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_if_none_match(stored: Stored, method: str, path: str, given: str, status: int) -> None:
    tag = stored.ask(path).headers["etag"]
    answer = stored.ask(path, method, If_None_Match=given.format(tag=tag))
    assert (answer.status, answer.headers["etag"]) == (status, tag)
    assert (answer.body == b"") == (method == "HEAD" or status == 304)


def test_times_decide_nothing(stored: Stored) -> None:
    answer = stored.ask("/api/v1/symbols", If_Modified_Since="Fri, 01 Jan 2100 00:00:00 GMT")
    assert answer.status == 200
    assert "last-modified" not in answer.headers


def test_errors_are_never_kept(stored: Stored) -> None:
    for path in ("/api/v1/symbols?x=1", "/api/v1/symbols/NOTHING", "/api/v1/nothing", f"{BARS}?to=x"):
        answer = stored.ask(path, If_None_Match="*")
        assert answer.status >= 400
        assert answer.headers["cache-control"] == "no-store"
        assert "etag" not in answer.headers


def test_a_new_symbol_changes_the_tag_of_the_list(stored: Stored) -> None:
    before = stored.ask("/api/v1/symbols")
    found = stored.ask("/api/v1/symbols?q=USDT")
    with closing(open_catalog(config_of(stored.there.folder))) as catalog:
        catalog.sync_symbols([SymbolInfo("NEWUSDT", "NEW", "USDT", True, 2, 4)])
    deadline = time.monotonic() + 30
    while stored.ask("/api/v1/symbols", If_None_Match=before.headers["etag"]).status == 304:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert "NEWUSDT" in stored.ask("/api/v1/symbols").body.decode()
    assert stored.ask("/api/v1/symbols?q=USDT", If_None_Match=found.headers["etag"]).status == 200
