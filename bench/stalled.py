"""One client of a hundred stops reading while 2,000 messages a second come in: do the others notice?"""

from __future__ import annotations

import time

from bench.build import BenchError
from bench.programs import Program, clients, measured
from bench.subject import exchange, server, wait_for_lines
from bench.table import Effort, Goal, Row, compare

SYMBOLS = 20
SETTLE_S = 0.5
FULL_TIMEOUT_S = 120.0


def measure(effort: Effort) -> list[Row]:
    count, rate = effort.of(100, 20), effort.of(2_000, 500)
    before, after = [], []
    for _ in range(effort.rounds):
        with (
            exchange(SYMBOLS) as (source, source_port),
            server(source_port) as (target, port),
            clients(port, count, each=SYMBOLS, symbols=SYMBOLS, pid=target.pid) as load,
        ):
            wait_for_lines(source, SYMBOLS)
            source.tell(f"rate {rate} t")
            measured(load, SETTLE_S)
            free = measured(load, effort.seconds)
            load.ask("stall 1")
            wait_until_full(load)
            blocked = measured(load, effort.seconds)
        before.append(free["age_us"]["p99"])
        after.append(blocked["age_us"]["p99"])
    return [compare("one stalls: age p99", "us", after, "the same before", before, Goal(1.5, at_most=True))]


def wait_until_full(load: Program) -> None:
    """Returns when nothing more fits the stalled client's socket: only then does the server see it stall."""
    deadline = time.monotonic() + FULL_TIMEOUT_S
    before, now = -1, 0
    while now != before:
        if time.monotonic() > deadline:
            raise BenchError(f"The stalled client's socket still takes data after {FULL_TIMEOUT_S:.0f} s.")
        measured(load, SETTLE_S)
        before, now = now, int(load.ask("unread")["unread"])
