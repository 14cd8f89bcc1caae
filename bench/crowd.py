"""A crowd: 10,000 clients with 50 symbols each, 20,000 messages a second in; and what idle clients weigh.

What one core can do is bound by the system calls that reaching everybody once takes. So the age's p99 is held
against the time in which the raw C server sends each of as many clients one frame, in the same run.
"""

from __future__ import annotations

from bench.build import BenchError
from bench.fanout import raw_sends
from bench.programs import Answer, clients, measured, resident_bytes
from bench.subject import exchange, server, wait_for_lines
from bench.table import Effort, Goal, Row, compare

NAME = "a crowd"
SYMBOLS = 200
EACH = 50
KINDS = "taq"  # trade, the same as aggTrade, bookTicker: in turn
SETTLE_S = 2.0


def measure(effort: Effort) -> list[Row]:
    count, rate = effort.of(10_000, 100), effort.of(20_000, 2_000)
    idle, ages, sweeps, delivered, growth = [], [], [], [], []
    for _ in range(min(effort.rounds, 3)):
        sweeps.append(count / raw_sends(count, effort) * 1000)
        with exchange(SYMBOLS) as (source, source_port), server(source_port) as (target, port):
            before = resident_bytes(target.pid)
            with clients(port, count, each=0, symbols=1):
                idle.append((resident_bytes(target.pid) - before) / count / 1024)
            with clients(port, count, each=EACH, symbols=SYMBOLS, pid=target.pid) as load:
                wait_for_lines(source, SYMBOLS)
                source.tell(f"rate {rate} {KINDS}")
                measured(load, min(SETTLE_S, effort.seconds))
                held = resident_bytes(target.pid, "RssAnon")
                window = measured(load, effort.seconds * 2)
                growth.append(resident_bytes(target.pid, "RssAnon") / held)
                behind = source.ask("status")
        if behind["cuts"]:
            raise BenchError(f"The exchange cut {behind['cuts']} feeds that the server did not read in time.")
        ages.append(window["age_us"]["p99"] / 1000)
        delivered.append(trades_seen(window, count) / (rate / len(KINDS)))
    return [
        compare(f"{NAME}: age p99", "ms", ages, "raw C, once to each", sweeps, Goal(2.5, at_most=True)),
        compare(f"{NAME}: trades told", "of those sent", delivered, goal=Goal(0.95, False, of_ratio=False)),
        compare(f"{NAME}: memory after", "of that before", growth, goal=Goal(1.02, True, of_ratio=False)),
        compare("an idle client", "KiB", idle, goal=Goal(14, at_most=True, of_ratio=False)),
    ]


def trades_seen(window: Answer, count: int) -> float:
    """Trades a second of the exchange, as told from what all clients got: conflated records say how many."""
    return float(window["trades"] / window["seconds"] / count * SYMBOLS / EACH)
