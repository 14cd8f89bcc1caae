"""Logins and watchlists on their way to connections, and what those cost who come with a token that is none."""

from __future__ import annotations

import asyncio
import os
import selectors
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from itertools import cycle
from pathlib import Path
from statistics import median

from bench.build import BenchError
from bench.programs import LOAD_CORE, Program
from bench.subject import COMMAND, SETTINGS, exchange, server
from bench.table import Effort, Goal, Row, compare
from bench.writer import configured
from tradeback.control import ControlClient
from tradeback.errors import ControlError
from tradeback.model import Session, User
from tradeback.store.accounts import SqlAccounts, open_accounts
from tradeback.store.catalog import open_catalog
from tradeback.tokens import load_secret, new_token, token_hash

SYMBOLS = 20
PATIENCE_S = 120.0
PROMISED_MS = 200.0  # from the change to every connection
HEAD_END = b"\r\n\r\n"
CLOSED = b"\x88"  # the first byte of a CLOSE frame


@dataclass(frozen=True, slots=True)
class Subject:
    """Server and recorder, and the accounts that the recorder follows."""

    target: Program
    port: int
    accounts: SqlAccounts
    secret: bytes
    symbols: list[str]

    def login(self, user: User) -> str:
        """The token of a new session."""
        now = int(time.time())
        token = new_token(self.secret, 3600)
        self.accounts.add_session(
            Session(token_hash(token), user.id, "127.0.0.1", "bench", now, now + 3600, now)
        )
        return token


def measure(effort: Effort) -> list[Row]:
    count, refusals = effort.of(500, 10), effort.of(3000, 300)
    one_ms: list[float] = []
    last_ms: list[float] = []
    out_ms: list[float] = []
    costs: dict[str, list[float]] = {"none": [], "forged": [], "revoked": []}
    with running() as subject:
        for number in range(effort.rounds):
            alice = subject.accounts.add_user(f"alice{number}", "hash")
            bob = subject.accounts.add_user(f"bob{number}", "hash")
            his, hers = subject.login(bob), subject.login(alice)
            with connected(subject.port, his, 1) as one, connected(subject.port, hers, count) as many:
                changes_ms(subject, bob, one, 2)
                one_ms.append(median(changes_ms(subject, bob, one, effort.of(20, 2))))
                last_ms.append(median(changes_ms(subject, alice, many, effort.of(6, 2))))
                out_ms.append(until_all(many, CLOSED, partial(subject.accounts.end_sessions, alice.id)))
            tokens = {"none": None, "forged": new_token(b"another", 3600), "revoked": hers}
            for kind, token in tokens.items():
                costs[kind].append(refused_us(subject, token, refusals))
    in_time = Goal(PROMISED_MS, at_most=True, of_ratio=False)
    return [
        compare("a watchlist's change", "ms", one_ms, goal=in_time),
        compare("a watchlist's change, to all", "ms", last_ms, goal=in_time),
        compare("a logout, of all", "ms", out_ms, goal=in_time),
        compare("a forged token", "us", costs["forged"], "no token", costs["none"], Goal(1.5, at_most=True)),
        compare(
            "a revoked token", "us", costs["revoked"], "no token", costs["none"], Goal(1.5, at_most=True)
        ),
    ]


@contextmanager
def running() -> Iterator[Subject]:
    """All of it, quiet: the exchange sends nothing."""
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="tradeback-bench-"))
        _, exchange_port = stack.enter_context(exchange(SYMBOLS))
        config = configured(Path(folder))
        target, port = stack.enter_context(server(exchange_port, WS_ANONYMOUS="false", DATA_DIR=folder))
        endpoint = f"127.0.0.1:{exchange_port}"
        environment = {
            **os.environ,
            **SETTINGS,
            "LOG_LEVEL": "error",
            "EXCHANGE_WS_ENDPOINT": f"ws://{endpoint}",
            "EXCHANGE_REST_ENDPOINT": f"http://{endpoint}",
            "DATA_DIR": folder,
        }
        recorder = [COMMAND[0], "recorder"]
        stack.enter_context(Program(recorder, LOAD_CORE, environment, foreign=True))
        asyncio.run(told_by_recorder(config.data.of("sim") / "control.sock"))
        accounts = stack.enter_context(closing(open_accounts(config)))
        with closing(open_catalog(config)) as catalog:
            symbols = [symbol.name for symbol in catalog.symbols()]
        yield Subject(target, port, accounts, load_secret(config.data.of("sim"), ""), symbols)


async def told_by_recorder(path: Path) -> None:
    """Returns when the server has been told of sessions: who comes before waits for five seconds at most."""
    server_line = ControlClient(path)
    deadline = time.monotonic() + PATIENCE_S
    try:
        while time.monotonic() < deadline:
            # The control socket is there a little later than the port of the clients.
            with suppress(ControlError):
                if (await server_line.ask({"type": "status"}))["sessions"]["updates"]:
                    return
            await asyncio.sleep(0.05)
    finally:
        server_line.close()
    raise BenchError(f"The recorder told the server nothing within {PATIENCE_S:.0f} s.")


def request(token: str | None) -> bytes:
    brought = "" if token is None else f"Cookie: session_token={token}\r\n"
    return (
        "GET /api/v1/ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n{brought}\r\n"
    ).encode()


@contextmanager
def connected(port: int, token: str, count: int) -> Iterator[list[socket.socket]]:
    """So many connections with the token, upgraded."""
    with ExitStack() as stack:
        sockets = []
        for _ in range(count):
            one = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S))
            one.sendall(request(token))
            head = b""
            while HEAD_END not in head:
                head += one.recv(4096)
            if not head.startswith(b"HTTP/1.1 101"):
                raise BenchError(f"A client with a token was not let in: {head[:100]!r}")
            sockets.append(one)
        yield sockets


def until_all(sockets: list[socket.socket], wanted: bytes, change: Callable[[], object]) -> float:
    """Milliseconds from the return of `change` until every connection brought something with the bytes wanted."""
    with selectors.DefaultSelector() as selector:
        for one in sockets:
            selector.register(one, selectors.EVENT_READ)
        change()
        began = time.perf_counter()
        left = len(sockets)
        while left:
            ready = selector.select(PATIENCE_S)
            if not ready:
                raise BenchError(f"{left} of {len(sockets)} connections were told nothing.")
            for key, _ in ready:
                told = key.fileobj.recv(4096)  # type: ignore[union-attr]
                if wanted in told:
                    selector.unregister(key.fileobj)
                    left -= 1
                elif not told:
                    raise BenchError("A connection ended that was to be told something.")
        return (time.perf_counter() - began) * 1000


def changes_ms(subject: Subject, user: User, sockets: list[socket.socket], changes: int) -> list[float]:
    """Of so many changes of the user's watchlist, each until all connections were told."""
    took = []
    symbols = cycle(subject.symbols)
    for number in range(changes):
        if number % 2 == 0:
            symbol = next(symbols)
        act = subject.accounts.unwatch if number % 2 else subject.accounts.watch
        wanted = b"auto_unsubscribe" if number % 2 else b"auto_subscribe"
        took.append(until_all(sockets, wanted, partial(act, user.id, symbol)))
    return took


def refused_us(subject: Subject, token: str | None, count: int) -> float:
    """CPU time of the server for one request that is answered 401, its connection included."""
    asked = request(token)
    before = cpu_seconds(subject.target.pid)
    for _ in range(count):
        with socket.create_connection(("127.0.0.1", subject.port), timeout=PATIENCE_S) as one:
            one.sendall(asked)
            answer = one.recv(4096)
        if not answer.startswith(b"HTTP/1.1 401"):
            raise BenchError(f"A token that is none was answered {answer[:100]!r}")
    return (cpu_seconds(subject.target.pid) - before) / count * 1e6


def cpu_seconds(pid: int) -> float:
    """What the threads of a process have used so far; `stat` counts ticks of 10 ms, which may be none at all."""
    threads = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((thread / "schedstat").read_text().split()[0]) for thread in threads) / 1e9
