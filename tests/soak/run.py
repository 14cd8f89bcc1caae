"""The whole system under load for a long time: nothing may grow after the beginning, and nothing may be lost.

A simulated exchange, server, recorder and API, each a process; compiled clients, of which a twentieth stay and add up
every volume, while the others are replaced one after the other, half of them in the middle of what they are sent; and a
visitor at the REST interface who logs in and out.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.e2e.api import ApiProcess
from tests.e2e.running import (
    Audit,
    RecorderProcess,
    ServerProcess,
    SimProcess,
    await_sums_of_ledger,
    journal_end,
    quantity_decimals,
    stream_ids,
)
from tests.e2e.test_recorder import opened_history
from tests.soak.growth import HEADER, Series
from tests.soak.processes import Usage, usage_of
from tests.soak.visitor import Visitor
from tradeback.store.history_file import WRITER_CACHE_KIB
from tradeback.store.stats import read_stats

MIB = 1024 * 1024
SYMBOLS = 100
GROUPS = 5
WATCHED = 3
# Over the whole time that is measured. The interpreter's heap breathes by a MiB or two; what leaks, grows without end.
MEMORY_ALLOWED = 3 * MIB
# glibc takes a step of some MiB for the recorder when a batch is larger than any before, and keeps it. What is
# allocated stays the same (mallinfo2: docs/operations.md), so this is no leak.
RECORDERS_STEPS = 8 * MIB
DESCRIPTORS_ALLOWED = 3.0
THREADS_ALLOWED = 1.0
# Of the records that come in within this many seconds: what batches hold back.
LAG_ALLOWED_S = 1.0
# The recorder's database fills its cache as it goes; it is full before the warm-up of the long form ends.
CACHE_FULL_S = 240.0


@dataclass(frozen=True)
class Load:
    """How much, for how long. What is measured in the first `warm_up` seconds decides nothing; in each `every` seconds
    one measurement is made and a share of the clients is replaced, so that each stays for `stay` in the mean."""

    seconds: float
    messages: float
    clients: int
    warm_up: float
    every: float
    stay: float

    @property
    def steady(self) -> int:
        return max(self.clients // 20, 1)

    @property
    def in_group(self) -> int:
        return (self.clients - self.steady) // GROUPS


@dataclass
class Measured:
    """Everything that one soak measured."""

    load: Load
    usages: dict[str, list[tuple[float, Usage]]] = field(default_factory=dict)
    lags: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    records: int = 0
    seconds: float = 0.0
    facts: dict[str, str] = field(default_factory=dict)

    def series(self) -> list[Series]:
        """All that must not grow."""
        found = []
        for name, usages in self.usages.items():
            found += [
                Series(
                    f"{name}: memory",
                    "MiB",
                    [(at, of.anonymous / MIB) for at, of in usages],
                    self._memory_allowed(name) / MIB,
                ),
                Series(
                    f"{name}: descriptors",
                    "",
                    [(at, of.descriptors) for at, of in usages],
                    DESCRIPTORS_ALLOWED,
                ),
                Series(f"{name}: threads", "", [(at, of.threads) for at, of in usages], THREADS_ALLOWED),
            ]
        allowed = self.records / self.seconds * LAG_ALLOWED_S
        return found + [Series(f"{name}: lag", "records", lags, allowed) for name, lags in self.lags.items()]

    def _memory_allowed(self, name: str) -> int:
        if name != "recorder":
            return MEMORY_ALLOWED
        return RECORDERS_STEPS + (WRITER_CACHE_KIB * 1024 if self.load.warm_up < CACHE_FULL_S else 0)

    def report(self) -> str:
        """Markdown: what was there, and a table of all that must not grow."""
        facts = "\n".join(f"- {name}: {fact}" for name, fact in self.facts.items())
        return f"{facts}\n\n{HEADER}\n" + "\n".join(series.row for series in self.series()) + "\n"


def soak(folder: Path, load: Load) -> Measured:
    """Run it all; AssertionError where a trade was lost. Growth is for the caller to judge."""
    with ExitStack() as stack:
        sim = stack.enter_context(
            SimProcess("--symbols", str(SYMBOLS), "--rate", str(load.messages), "--paused")
        )
        names = list(sim.get("/sim/ledger"))  # the most traded ones first
        server = stack.enter_context(
            ServerProcess(folder, sim, EXCHANGE_SYMBOLS=",".join(names), LOG_PERFORMANCE="10s")
        )
        recorder = stack.enter_context(RecorderProcess(folder, sim))
        api = stack.enter_context(ApiProcess(folder, WS_PORT=str(server.ws_port)))
        server.await_subscribed(SYMBOLS)
        groups = [names[at * WATCHED : (at + 1) * WATCHED] for at in range(GROUPS)]
        steady = stack.enter_context(Audit(server.ws_port, load.steady, groups[0]))
        crowds = [stack.enter_context(Audit(server.ws_port, load.in_group, group)) for group in groups]
        visitor = stack.enter_context(Visitor(folder, api, names))
        sim.get("/sim/resume")
        measured = Measured(load)
        watch(measured, folder, {"server": server, "recorder": recorder, "api": api}, crowds, visitor)
        sim.pause_and_drain()
        for crowd in crowds:
            assert crowd.ask("report")["closed"] == 0, "the server closed a client"
        precisions = quantity_decimals(sim.rest_endpoint)
        await_sums_of_ledger(sim, steady, {name: precisions[name] for name in groups[0]})
        status = recorder.await_stored(repaired=True)
        visitor.check()
        measured.facts["REST answers"] = ", ".join(
            f"{path} {status}: {count:,}" for (path, status), count in sorted(visitor.answers.items())
        )
        account(measured, folder, sim, status)
        for process in (api, recorder, server):
            assert process.stop() == 0
    for process in (server, recorder, api):
        assert "Traceback" not in process.log.read_text(), process.log
    return measured


def watch(
    measured: Measured, folder: Path, processes: dict[str, Any], crowds: list[Audit], visitor: Visitor
) -> None:
    """Measures, and has clients come and go, until the time is over."""
    load = measured.load
    share = max(round(load.in_group * load.every / load.stay), 1)
    start, renewed = time.monotonic(), 0
    begun: tuple[float, int] | None = None
    while (now := time.monotonic() - start) < load.seconds:
        visitor.check()
        for crowd in crowds:
            crowd.ask(f"renew {share}")
            renewed += share
        if now >= load.warm_up:
            begun = begun or (now, journal_end(folder / "sim" / "journal"))
            for name, process in processes.items():
                measured.usages.setdefault(name, []).append((now, usage_of(process.process.pid)))
            for name, value in read_stats(folder / "sim" / "stats" / "recorder").values.items():
                if name in ("lag_history", "lag_indicators"):
                    measured.lags.setdefault(name.removeprefix("lag_"), []).append((now, value.value))
        time.sleep(max(start + now + load.every - time.monotonic(), 0))
    assert begun is not None, "the time was over before anything was measured: give it more than the warm-up"
    measured.seconds = time.monotonic() - start - begun[0]
    measured.records = journal_end(folder / "sim" / "journal") - begun[1]
    measured.facts["time"] = (
        f"{load.seconds:,.0f} s, measured after {load.warm_up:,.0f} s, every {load.every:g} s"
    )
    measured.facts["clients"] = (
        f"{load.steady} that stayed, {load.in_group * GROUPS} that were replaced {renewed:,} times in all; "
        f"each watches {WATCHED} of {SYMBOLS} symbols"
    )
    for name, usages in measured.usages.items():
        used = (usages[-1][1].cpu_s - usages[0][1].cpu_s) / (usages[-1][0] - usages[0][0])
        measured.facts[f"processor time, {name}"] = f"{used:.2f} of a core"


def account(measured: Measured, folder: Path, sim: SimProcess, status: dict[str, Any]) -> None:
    """Every trade of the exchange is stored, once; says how many there were."""
    ledger = sim.get("/sim/ledger")
    state = sim.get("/sim/state")
    recorder = read_stats(folder / "sim" / "stats" / "recorder").values
    server = read_stats(folder / "sim" / "stats" / "server")
    traded = sum(of["count"] for of in ledger.values())
    assert status["gaps"] == {"open": 0, "unfillable": 0}, status["gaps"]
    assert recorder["trades"].value == traded
    ids = stream_ids(folder)
    with opened_history(folder) as history:
        covered = history.covered()
        for name, of in ledger.items():
            ((first, last),) = covered[ids[name]]
            assert (last - first + 1, last) == (of["count"], of["last_id"]), name
    measured.facts["messages"] = (
        f"{state['messages']:,}, {state['messages'] / measured.load.seconds:,.0f} a second"
    )
    measured.facts["trades"] = f"{traded:,}, each stored once; {recorder['repaired'].value:,} of them fetched"
    for name in ("recv_to_send", "event_to_send", "loop_iteration"):
        if histogram := server.histograms.get(name):
            quantiles = (histogram.p50, histogram.p95, histogram.p99)
            told = ", ".join(f"{(value or 0) / 1000:,.0f}" for value in quantiles)
            measured.facts[f"{name}, p50, p95, p99 (us)"] = told
