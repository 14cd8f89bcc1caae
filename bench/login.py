"""Refused logins: of a user who does not exist, beside a wrong password of one who does."""

from __future__ import annotations

import json
import tempfile
import time
from contextlib import closing
from http.client import HTTPConnection
from ipaddress import IPv4Address
from itertools import count
from pathlib import Path
from statistics import median

from bench.api import answering_api
from bench.build import BenchError
from bench.table import Effort, Goal, Row, compare
from bench.writer import configured
from tradeback.passwords import hash_password
from tradeback.store.accounts import open_accounts

# Each request comes from an address of its own, as a proxy would tell it.
SETTINGS = {"SERVER_TRUSTED_PROXIES": "127.0.0.1", "LIMIT_AUTH": "off"}
ADDRESSES = count(int(IPv4Address("10.0.0.0")))
WARM_UP = 3
REFUSED = 401


def measure(effort: Effort) -> list[Row]:
    tries = effort.of(40, 4)
    unknown: list[float] = []
    known: list[float] = []
    with tempfile.TemporaryDirectory(prefix="tradeback-bench-") as folder:
        names = [f"user{number}" for number in range(WARM_UP + effort.rounds * tries)]
        add_users(Path(folder), names)
        with (
            answering_api(folder, SETTINGS) as (port, _),
            closing(HTTPConnection("127.0.0.1", port, timeout=300)) as connection,
        ):
            for _ in range(WARM_UP):
                refused_ms(connection, names.pop())
            for _ in range(effort.rounds):
                times: tuple[list[float], list[float]] = [], []
                for _ in range(tries):
                    name = names.pop()
                    times[0].append(refused_ms(connection, f"no{name}"))
                    times[1].append(refused_ms(connection, name))
                unknown.append(median(times[0]))
                known.append(median(times[1]))
    return [
        compare("unknown user", "ms", unknown, "wrong password", known, Goal(1.05, at_most=True)),
    ]


def refused_ms(connection: HTTPConnection, name: str) -> float:
    """Milliseconds until a login with a wrong password is refused."""
    body = json.dumps({"username": name, "password": "a wrong guess"})
    address = str(IPv4Address(next(ADDRESSES)))
    headers = {"Content-Type": "application/json", "X-Forwarded-For": address}
    began = time.perf_counter()
    connection.request("POST", "/api/v1/auth/login", body, headers)
    answer = connection.getresponse()
    answer.read()
    took = time.perf_counter() - began
    if answer.status != REFUSED:
        raise BenchError(f"a login with a wrong password was answered {answer.status}, not {REFUSED}")
    return took * 1000


def add_users(folder: Path, names: list[str]) -> None:
    """A catalog with these users, all of one password."""
    password_hash = hash_password("correct horse")
    with closing(open_accounts(configured(folder))) as accounts:
        for name in names:
            accounts.add_user(name, password_hash)
