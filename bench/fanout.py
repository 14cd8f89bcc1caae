"""Fan-out, one record a send: the system calls, and what stands between them.

Everybody is sent the same record over and over. The peers do nothing but that; ours takes one symbol's trades
from an exchange faster than it can fan them out, so that each flush sends one record to each client.
"""

from __future__ import annotations

from importlib.util import find_spec

from bench.programs import SERVER_CORE, Program, clients, compiled, measured, module
from bench.subject import exchange, server, wait_for_lines
from bench.table import Effort, Goal, Row, Skipped, compare

UNIT = "sends/s/core"
OURS = "one record a send"
PEERS = {"picows": "bench.peers.picows_server", "websockets": "bench.peers.websockets_server"}
WARM_UP_S = 0.5
TRADES_PER_SECOND = 1000  # a flush of 1000 clients takes about 5 ms: every one finds new trades


def measure(effort: Effort) -> list[Row]:
    count = effort.of(1000, 50)
    raw, ours = [], []
    peers: dict[str, list[float]] = {name: [] for name in PEERS if find_spec(name)}
    for _ in range(effort.rounds):
        raw.append(raw_sends(count, effort))
        ours.append(_ours(count, effort))
        for name, figures in peers.items():
            with module(PEERS[name], count) as peer:
                figures.append(_free_running(peer, count, effort))
    rows: list[Row] = [compare(OURS, UNIT, ours, "raw C epoll", raw, Goal(0.95, at_most=False))]
    rows += [
        compare(f"{OURS}: {name}", UNIT, peers[name], "raw C epoll", raw)
        if name in peers
        else Skipped(f"{OURS}: {name}", f"{name} is not installed: `make bench` installs it")
        for name in PEERS
    ]
    return rows


def raw_sends(count: int, effort: Effort) -> float:
    """Sends a second of CPU time of the raw C server: what the kernel allows."""
    with compiled("server", 0, count, core=SERVER_CORE) as limit:
        return _free_running(limit, count, effort)


def _free_running(target: Program, count: int, effort: Effort) -> float:
    return _sends(int(target.hear()["port"]), target.pid, count, 0, effort)


def _ours(count: int, effort: Effort) -> float:
    with exchange(1) as (source, source_port), server(source_port) as (target, port):
        source.tell(f"rate {TRADES_PER_SECOND} t")
        return _sends(port, target.pid, count, 1, effort, source)


def _sends(
    port: int, pid: int, count: int, each: int, effort: Effort, source: Program | None = None
) -> float:
    """Frames a second of the server's CPU time."""
    # Napping lets a read find several frames: the load must not be what is measured.
    with clients(port, count, each=each, symbols=1, pid=pid, nap_us=20_000) as load:
        if source is not None:
            wait_for_lines(source, 1)
        measured(load, min(WARM_UP_S, effort.seconds))
        window = measured(load, effort.seconds)
    return float(window["frames"] / window["seconds"] / window["server_cpu"])
