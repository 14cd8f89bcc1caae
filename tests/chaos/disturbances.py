"""What goes wrong with a server, its recorder and their exchange, at random from a seed, while the market runs."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.conftest import fill
from tests.e2e.fake_clock import FakeClock
from tests.e2e.running import RecorderProcess, ServerProcess, SimProcess

STREAM_FAULTS = ("skip", "repeat", "reorder", "garbage", "truncate")
REST_FAULTS = ("html", "truncate", "badcolumns", "rest5xx", "rest429", "rest418", "stall")
PATHS = ("historicalTrades", "klines", "exchangeInfo", None)
LINES = ("trade", "aggTrade", None)
HOUR = 3_600.0


class Disturbed(AbstractContextManager["Disturbed"]):
    """A server and a recorder on a data folder, and what is done to them. `done` tells it, in order."""

    def __init__(self, folder: Path, sim: SimProcess, clock: FakeClock, chance: random.Random) -> None:
        self.folder = folder
        self.sim = sim
        self.clock = clock
        self.chance = chance
        self.done: list[str] = []
        self.environment = {
            **clock.environment,
            "EXCHANGE_SYMBOLS": ",".join(sorted(sim.get("/sim/ledger"))),
            "JOURNAL_SEGMENT_BYTES": "1MiB",
        }
        self.server = self._new_server()
        try:
            self.recorder = self._new_recorder()
        except BaseException:
            self.server.kill()
            raise

    def _new_server(self) -> ServerProcess:
        return ServerProcess(self.folder, self.sim, **self.environment)

    def _new_recorder(self) -> RecorderProcess:
        return RecorderProcess(self.folder, self.sim, **self.environment)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in (self.server.process, self.recorder.process):
            if process.poll() is None:
                process.kill()
                process.wait()

    def assert_alive(self) -> None:
        """Neither may ever end by itself."""
        assert self.server.process.poll() is None, (self.folder / "server.log").read_text()[-4_000:]
        assert self.recorder.process.poll() is None, self.recorder.said()

    def disturb(self, seconds: float) -> None:
        """Do one thing after the other for so long; the disk is full once, in the middle."""
        began = time.monotonic()
        actions: list[tuple[int, Callable[[], str]]] = [
            (2, self.kill_the_server),
            (3, self.kill_the_recorder),
            (1, self.kill_both),
            (3, self.cut_connections),
            (2, self.mute_connections),
            (6, self.spoil_streams),
            (6, self.spoil_rest),
            (2, self.freeze),
            (2, self.set_the_clock),
        ]
        weights, doings = zip(*actions, strict=True)
        filled = False
        while (passed := time.monotonic() - began) < seconds:
            time.sleep(self.chance.uniform(0.0, 1.0))
            self.assert_alive()
            doing = self.chance.choices(doings, weights)[0]
            if not filled and passed > seconds / 2.0:
                doing, filled = self.fill_the_disk, True
            said = doing()
            self.done.append(f"{passed:.1f} s: {said}")

    def calm(self) -> None:
        """Nothing goes wrong any more."""
        self.sim.get("/sim/clear")
        self.clock.jump(0.0)

    # What can be done.

    def kill_the_server(self) -> str:
        self.server.kill()
        time.sleep(self.chance.uniform(0.0, 1.0))
        self.server = self._new_server()
        return "the server was killed"

    def kill_the_recorder(self) -> str:
        self.recorder.kill()
        time.sleep(self.chance.uniform(0.0, 1.0))
        self.recorder = self._new_recorder()
        return "the recorder was killed"

    def kill_both(self) -> str:
        self.server.kill()
        self.recorder.kill()
        self.server = self._new_server()
        self.recorder = self._new_recorder()
        return "both were killed"

    def cut_connections(self) -> str:
        line = self.chance.choice(LINES)
        seconds = self.chance.uniform(0.1, 2.0)
        self._fault("cut", line, seconds=seconds)
        return f"{line or 'all'} connections were cut for {seconds:.1f} s"

    def mute_connections(self) -> str:
        line = self.chance.choice(LINES)
        seconds = self.chance.uniform(0.1, 2.0)
        self._fault("mute", line, seconds=seconds)
        return f"{line or 'all'} connections were mute for {seconds:.1f} s"

    def spoil_streams(self) -> str:
        kind, line = self.chance.choice(STREAM_FAULTS), self.chance.choice(LINES[:2])
        count = self.chance.randrange(1, 200)
        self._fault(kind, line, count=count)
        return f"{kind} of {count} messages of {line}"

    def spoil_rest(self) -> str:
        kind, path = self.chance.choice(REST_FAULTS), self.chance.choice(PATHS)
        seconds = self.chance.uniform(0.1, 2.0)
        self.sim.get(
            "/sim/fault", kind=kind, seconds=round(seconds, 3), **({} if path is None else {"path": path})
        )
        return f"{kind} of {path or 'all'} REST answers for {seconds:.1f} s"

    def freeze(self) -> str:
        name, process = self.chance.choice(
            [("server", self.server.process), ("recorder", self.recorder.process)]
        )
        seconds = self.chance.uniform(0.1, 2.0)
        process.send_signal(signal.SIGSTOP)
        time.sleep(seconds)
        process.send_signal(signal.SIGCONT)
        return f"the {name} stood still for {seconds:.1f} s"

    def set_the_clock(self) -> str:
        ahead = self.chance.choice((0.0, self.chance.uniform(-3.0, 3.0) * HOUR))
        self.clock.jump(ahead)
        return f"the clock was set {ahead:.0f} s ahead"

    def fill_the_disk(self) -> str:
        ballast = self.folder / "ballast"
        fill(ballast)
        seconds = self.chance.uniform(0.5, 3.0)
        time.sleep(seconds)
        ballast.unlink()
        return f"the disk was full for {seconds:.1f} s"

    def _fault(self, kind: str, stream: str | None, **limits: float) -> None:
        rounded = {name: round(value, 3) for name, value in limits.items()}
        self.sim.get("/sim/fault", kind=kind, **({} if stream is None else {"stream": stream}), **rounded)
