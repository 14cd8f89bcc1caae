"""Limits of rates over real processes: an API that answers a few requests an hour, and a real Redis beside it."""

from __future__ import annotations

import os
import re
import signal
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import orjson
import pytest

from tests.e2e.api import Answer, ApiProcess
from tests.e2e.processes import children_of
from tests.servers.redis import RedisServer
from tradeback.tokens import load_secret, new_token

DOCUMENT = "/api/v1/openapi.json"
FEW = {"LIMIT_PAGE": "5/day", "LIMIT_UDF": "3/day", "LIMIT_MONITORING": "off", "LIMIT_AUTH": "2/day"}


def told(answer: Answer) -> tuple[int, int]:
    """Limit and what remains."""
    return int(answer.headers["ratelimit-limit"]), int(answer.headers["ratelimit-remaining"])


def test_a_client_is_told_where_it_stands_and_refused_in_the_end(tmp_path: Path) -> None:
    with ApiProcess(tmp_path, **FEW) as api:
        answers = [api.ask(DOCUMENT) for _ in range(7)]
        assert [answer.status for answer in answers] == [200] * 5 + [429] * 2
        assert [told(answer) for answer in answers] == [(5, n) for n in (4, 3, 2, 1, 0, 0, 0)]
        refused = answers[-1]
        assert refused.json["error"]["code"] == "too_many_requests"
        assert 0 < int(refused.headers["retry-after"]) == int(refused.headers["ratelimit-reset"]) <= 86_400
        assert refused.headers["x-content-type-options"] == "nosniff"
        assert refused.headers["cache-control"] == "no-store"
        assert "access-control-allow-origin" in api.ask(DOCUMENT, Origin=api.address).headers
        # What does not exist counts with the page; another group is not touched.
        assert api.ask("/nothing").status == 429
        udf = [
            api.ask(path) for path in ("/udf/time", "/api/v1/tradingview/time", "/udf/config", "/udf/time")
        ]
        assert [answer.status for answer in udf] == [200, 200, 200, 429]
        assert set(udf[-1].json) == {"s", "errmsg"}
        assert udf[-1].json["s"] == "error"
        # Nobody is refused what keeps the process alive, and what is switched off is not counted.
        for path in ("/api/v1/health", "/api/v1/metrics"):
            for _ in range(10):
                assert "ratelimit-limit" not in api.ask(path).headers
        counted = api.ask("/api/v1/metrics").body.decode()
        assert re.search(r'requests_total\{method="GET",route="none",status="429"\} 1', counted)


def test_nothing_that_a_client_says_buys_it_more(tmp_path: Path) -> None:
    claims = [
        {"X_Forwarded_For": "198.51.100.7"},
        {"Forwarded": "for=198.51.100.7"},
        {"X_Real_IP": "198.51.100.7"},
        {"Authorization": "Bearer " + "A" * 96},
        {"Cookie": "session_token=" + "B" * 96},
        {"X_Request_Id": "another"},
    ]
    with ApiProcess(tmp_path, **FEW) as api:
        for count, claim in enumerate(claims[:5]):
            assert told(api.ask(DOCUMENT, **claim)) == (5, 4 - count)
        assert api.ask(DOCUMENT, **claims[5]).status == 429


def test_every_window_ends(tmp_path: Path) -> None:
    with ApiProcess(tmp_path, LIMIT_PAGE="1/second") as api:
        deadline = time.monotonic() + 30
        while (refused := api.ask(DOCUMENT)).status != 429:
            assert time.monotonic() < deadline
        assert refused.headers["retry-after"] == "1"
        while api.ask(DOCUMENT).status != 200:
            assert time.monotonic() < deadline


def test_workers_count_together_in_redis_and_on_while_it_is_away(
    tmp_path: Path, redis_server: RedisServer
) -> None:
    many = {"SERVER_WORKERS": "3", "REDIS_ADDR": redis_server.addr, "REDIS_TIMEOUT": "5s"}
    many["REDIS_DB"] = "0"
    with ExitStack() as stack:
        api = stack.enter_context(
            ApiProcess(tmp_path, LIMIT_PAGE="40/day", LIMIT_UDF="100000000/day", **many)
        )
        deadline = time.monotonic() + 60
        while len(children_of(api.process.pid)) < 3:
            assert time.monotonic() < deadline, "not all workers were started"
            time.sleep(0.01)
        statuses = Counter(api.ask(DOCUMENT).status for _ in range(50))
        assert statuses == {200: 40, 429: 10}
        # Whoever is asked for metrics tells of all workers, also of those that ended.
        deadline = time.monotonic() + 60
        while written(tmp_path / "sim" / "requests") < 50:
            assert time.monotonic() < deadline, "the workers do not write their counts"
            time.sleep(0.05)
        os.kill(children_of(api.process.pid)[0], signal.SIGKILL)
        counted = api.ask("/api/v1/metrics").body.decode()
        for status, count in statuses.items():
            labels = f'method="GET",route="{DOCUMENT}",status="{status}"'
            assert f"tradeback_api_requests_total{{{labels}}} {count}.0" in counted
        assert f'request_seconds_count{{route="{DOCUMENT}"}} 50.0' in counted
        assert 'tradeback_api_resource_level{resource="descriptors"} 1.0' in counted
        redis_server.kill()
        # Each worker counts for itself meanwhile; a limit fails no request.
        assert {api.ask("/udf/time").status for _ in range(30)} == {200}
        redis_server.start()
        redis_server.halt()
        assert api.ask("/udf/time").status == 200
        redis_server.go_on()
        deadline = time.monotonic() + 60
        while (
            redis_server.ask("DBSIZE") == ":0" or "in Redis again" not in (tmp_path / "api.log").read_text()
        ):
            assert api.ask("/udf/time").status == 200
            assert time.monotonic() < deadline, "Redis is not asked again"
    log = (tmp_path / "api.log").read_text()
    assert "Redis does not answer" in log
    assert "in Redis again" in log
    assert "Traceback" not in log


def written(folder: Path) -> int:
    """How many requests for the document the workers have written down."""
    told = [orjson.loads(path.read_bytes())["routes"] for path in folder.glob("*.json")]
    return sum(sum(one[DOCUMENT]["sorts"].values()) for one in told if DOCUMENT in one)


@pytest.mark.embedded("the services bring Redis")
def test_workers_without_redis_are_refused(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=r"server\.workers is 2 and cache\.redis\.addr is empty"):
        ApiProcess(tmp_path, SERVER_WORKERS="2")


def test_a_session_has_its_own_limit_and_an_address_one_for_all_of_its_sessions(tmp_path: Path) -> None:
    secret = load_secret(tmp_path / "sim", "")
    limits = {"LIMIT_PAGE": "3/day", "SERVER_TRUSTED_PROXIES": "127.0.0.1"}
    with ApiProcess(tmp_path, **limits) as api:

        def statuses(count: int, token: str, address: str) -> list[int]:
            bearer = {"Authorization": f"Bearer {token}"} if token else {}
            return [api.ask(DOCUMENT, X_Forwarded_For=address, **bearer).status for _ in range(count)]

        one, other = new_token(secret, 60), new_token(secret, 60)
        assert statuses(4, one, "198.51.100.1") == [200, 200, 200, 429]
        # Another session of the same address, the same session elsewhere, and nobody's.
        assert statuses(4, other, "198.51.100.1") == [200, 200, 200, 429]
        assert statuses(1, one, "198.51.100.2") == [429]
        assert statuses(4, "", "198.51.100.1") == [200, 200, 200, 429]
        assert statuses(1, new_token(b"another secret", 60), "198.51.100.1") == [429]
        assert statuses(1, new_token(secret, -60), "198.51.100.1") == [429]
        # Ten times the limit for all sessions of an address, however many there are.
        answers = [statuses(3, new_token(secret, 60), "198.51.100.3") for _ in range(11)]
        assert answers == [[200] * 3] * 10 + [[429] * 3]
        # What stands before the proxy's own word is the client's invention.
        assert statuses(4, "", "203.0.113.9, 198.51.100.4")[-1] == 429
        assert statuses(1, "", "203.0.113.8, 198.51.100.4") == [429]


def test_logging_in_counts_by_address(tmp_path: Path) -> None:
    """Whatever token comes along; and who asks for the session again and again can log in all the same."""
    secret = load_secret(tmp_path / "sim", "")
    with ApiProcess(tmp_path, LIMIT_AUTH="2/day") as api:

        def status(path: str, method: str = "GET") -> int:
            return api.ask(path, method, Authorization=f"Bearer {new_token(secret, 60)}").status

        assert 429 not in [status("/api/v1/auth/session") for _ in range(4)]
        statuses = [status("/api/v1/auth/logout", "POST") for _ in range(4)]
        assert statuses[2:] == [429, 429]
        assert 429 not in statuses[:2]
