"""Latency from the exchange's socket to a client's: one client, one trade at a time, everything included.

The peer is a relay in C that only passes the bytes on. Both servers run at once, and the probe turns from one
to the other; the spinning ones are stopped in turn, since each takes the whole core.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from bench.programs import SERVER_CORE, Answer, Program, compiled
from bench.subject import server
from bench.table import Effort, Goal, Row, compare

GAP_US = 400  # between two trades, on average; long enough for the server to fall asleep
GOALS = {
    "wait": {"p50": 1.1, "p99": 1.25},
    "spin": {"p50": 1.25, "p99": 1.5},
}
NAMES = {"wait": "latency", "spin": "latency, spinning"}


def measure(effort: Effort) -> list[Row]:
    rows: list[Row] = []
    for mode in NAMES:
        rows += _mode(mode, effort)
    return rows


def _mode(mode: str, effort: Effort) -> list[Row]:
    count = effort.of(2000, 100)
    relay_times: list[Answer] = []
    our_times: list[Answer] = []
    with ExitStack() as stack:
        probe = stack.enter_context(compiled("probe", 2))
        exchange_port = int(probe.hear()["port"])
        relay = stack.enter_context(compiled("relay", exchange_port, 0, mode, core=SERVER_CORE))
        probe.ask(f"connect {relay.hear()['port']}")
        spin = {"SERVER_SPIN": "full"} if mode == "spin" else {}
        target, port = stack.enter_context(server(exchange_port, **spin))
        probe.ask(f"connect {port}")
        for _ in range(effort.rounds):
            with stopped(target if mode == "spin" else None):
                relay_times.append(probe.ask(f"measure 0 {count} {GAP_US}")["latency_us"])
            with stopped(relay if mode == "spin" else None):
                our_times.append(probe.ask(f"measure 1 {count} {GAP_US}")["latency_us"])
    peer = "raw C relay" if mode == "wait" else "raw C relay, spinning"
    return [
        compare(
            f"{NAMES[mode]} {share}",
            "us",
            [times[share] for times in our_times],
            peer,
            [times[share] for times in relay_times],
            Goal(bound, at_most=True),
        )
        for share, bound in GOALS[mode].items()
    ]


@contextmanager
def stopped(process: Program | None) -> Iterator[None]:
    """Takes a process off its core for as long as another is measured."""
    if process is None:
        yield
        return
    os.kill(process.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(process.pid, signal.SIGCONT)
