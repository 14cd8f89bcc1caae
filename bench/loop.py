"""EpollLoop beside asyncio's loop and uvloop: a callback, a timer, an echo through picows."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from statistics import median

from bench.peers.echo import LOOPS
from bench.programs import LOAD_CORE, module
from bench.table import Effort, Row, compare

PEERS = ("asyncio", "uvloop")
CALLBACKS_A_BATCH = 1000
TIMER_S = 0.0003


def measure(effort: Effort) -> list[Row]:
    names = ("epoll", *PEERS)
    soon: dict[str, list[float]] = {name: [] for name in names}
    off: dict[str, list[float]] = {name: [] for name in names}
    echo: dict[str, list[tuple[float, float, float]]] = {name: [] for name in (*names, "spinning")}
    for _ in range(effort.rounds):
        for name in names:
            soon[name].append(call_soon_ns(LOOPS[name], effort.of(300, 30)))
            off[name].append(timer_off_us(LOOPS[name], effort.of(500, 50)))
        for name, figures in echo.items():
            figures.append(echo_us(name, effort.of(20_000, 500)))
    rows: list[Row] = []
    for peer in PEERS:
        rows.append(compare("call_soon", "ns", soon["epoll"], peer, soon[peer]))
        rows.append(compare("timer of 300 us", "us", off["epoll"], peer, off[peer]))
        for place, what in enumerate(("p50", "p99", "CPU")):
            theirs = [figures[place] for figures in echo[peer]]
            for ours in ("epoll", "spinning"):
                if (ours, what) != ("spinning", "CPU"):  # that is the whole core
                    name = f"echo {what}{', spinning' if ours == 'spinning' else ''}"
                    rows.append(compare(name, "us", [figures[place] for figures in echo[ours]], peer, theirs))
    return rows


def call_soon_ns(factory: Callable[[], asyncio.AbstractEventLoop], batches: int) -> float:
    """CPU time to queue and run a callback that does nothing, among a thousand."""

    async def run() -> float:
        loop = asyncio.get_running_loop()
        begin = time.process_time_ns()
        for _ in range(batches):
            for _ in range(CALLBACKS_A_BATCH):
                loop.call_soon(int)
            await asyncio.sleep(0)
        return (time.process_time_ns() - begin) / batches / CALLBACKS_A_BATCH

    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(run())


def timer_off_us(factory: Callable[[], asyncio.AbstractEventLoop], count: int) -> float:
    """How far from the moment asked for a timer runs, in the median; uvloop's run early."""

    async def run() -> float:
        late = []
        for _ in range(count):
            begin = time.perf_counter()
            await asyncio.sleep(TIMER_S)
            late.append(abs(time.perf_counter() - begin - TIMER_S))
        return median(late) * 1e6

    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(run())


def echo_us(loop: str, count: int) -> tuple[float, float, float]:
    """Round trip in the median and at the 99th percentile, and the server's CPU time a message."""
    with module("bench.peers.echo", "serve", loop) as server:
        port = server.hear()["port"]
        with module("bench.peers.echo", "ask", port, core=LOAD_CORE) as client:
            client.ask(f"measure {count // 10}")  # until buffers and caches are warm
            before = server.ask("cpu")["cpu"]
            times = client.ask(f"measure {count}")
            cpu = server.ask("cpu")["cpu"] - before
    return times["p50"] / 1e3, times["p99"] / 1e3, cpu / count * 1e6
