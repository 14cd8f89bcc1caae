"""Real processes for end-to-end tests: `tradeback up` with its exchange, and clients that check everything."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from bench.build import program
from tests.e2e.child import SIM_EXCHANGE, Child, ReadyChild
from tests.servers.services import config_of, settings_of
from tradeback._fast.journal import JournalCursor
from tradeback.config import Config
from tradeback.recorder.sinks import journal_end
from tradeback.store.catalog import open_catalog

START_TIMEOUT = 90.0
ANSWER_TIMEOUT = 180.0


class Up(Child):
    """`tradeback up --exchange sim` on free ports, in a data folder of its own. It is stopped as Ctrl-C does."""

    stop_signal = signal.SIGINT

    def __init__(
        self,
        folder: Path,
        *arguments: str,
        environment: dict[str, str] | None = None,
        program: tuple[str, ...] = (sys.executable, "-m", "tradeback"),
        cwd: Path | None = None,
    ) -> None:
        self.folder = folder
        command = [*program, "up", "--exchange", "sim", "--data-dir", str(folder)]
        with (folder / "up.log").open("ab") as log:
            self.process = subprocess.Popen(
                [*command, "--port", "0", "--ws-port", "0", "--sim-port", "0", *arguments],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                cwd=cwd,
                env={**os.environ, **settings_of(folder), **SIM_EXCHANGE, **(environment or {})},
            )
        self.printed: list[str] = []
        self.websocket = self._await_line(r"WebSocket: (ws://\S+)")
        self.ws_port = urllib.parse.urlsplit(self.websocket).port or 0

    @property
    def rest(self) -> str:
        """The base URL of the simulated exchange's REST interface."""
        match = re.search(r"REST (http://\S+)", "\n".join(self.printed))
        if match is None:
            raise AssertionError(f"no REST address was printed: {self.printed}")
        return match[1]

    def await_login(self) -> tuple[str, str]:
        """The last two lines that it prints once all is up: the address to open, and how to log in."""
        return self._await_line(r"^Open (http://\S+/)$"), self._await_line(r"^(.*[Ll]og in as .*)$")

    def _await_line(self, pattern: str) -> str:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.printed.append(line.rstrip())
            if match := re.search(pattern, line):
                return match[1]
        log = (self.folder / "up.log").read_text()[-4000:]
        raise AssertionError(f"tradeback up ended with {self.process.wait()}: {self.printed}\n{log}")

    def sim(self, path: str, /, **parameters: object) -> Any:
        """Ask the simulated exchange's REST interface, its `/sim/...` paths included."""
        return get_json(self.rest + path, parameters)

    def control(self, **message: object) -> dict[str, Any]:
        """One request to the server's control socket."""
        return ask_control(self.folder / "sim" / "control.sock", message)

    def await_subscribed(self, symbols: int) -> None:
        """Wait until every feed has that many streams subscribed at the exchange."""
        await_subscribed(self.folder / "sim" / "control.sock", symbols)

    def await_stored(self, *, repaired: bool = False) -> dict[str, Any]:
        """Wait until the recorder has stored all that is journaled; returns its status then."""
        return await_stored(self.folder, repaired=repaired)

    def pause_and_drain(self) -> None:
        """Stop the market and wait until all consumers have read every message that it made."""
        pause_and_drain(self.rest)

    def ledger(self, symbol: str) -> dict[str, Any]:
        """What was really traded, of one symbol."""
        return ledger_of(self.rest, symbol)

    def _ended(self) -> None:
        if self.process.stdout is not None and not self.process.stdout.closed:
            self.printed += self.process.stdout.read().splitlines()
            self.process.stdout.close()


class SimProcess(Child):
    """`tradeback sim` on free ports."""

    def __init__(self, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tradeback", "sim", "--port", "0", "--rest-port", "0", *arguments],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        match = re.search(r"streams (ws://\S+) rest (http://\S+)", line)
        if match is None:
            raise AssertionError(f"the simulated exchange printed {line!r}")
        self.ws_endpoint, self.rest_endpoint = match.groups()

    def get(self, path: str, /, **parameters: object) -> Any:
        """Ask its REST interface, the `/sim/...` paths included."""
        return get_json(self.rest_endpoint + path, parameters)

    def ledger(self, symbol: str) -> dict[str, Any]:
        """What was really traded, of one symbol."""
        return ledger_of(self.rest_endpoint, symbol)

    def pause_and_drain(self) -> None:
        """Stop the market and wait until all consumers have read every message that it made."""
        pause_and_drain(self.rest_endpoint)


class ServerProcess(ReadyChild):
    """`tradeback server` against a simulated exchange, ready for clients."""

    killed_at_exit = True

    def __init__(self, folder: Path, sim: SimProcess, *arguments: str, **environment: str) -> None:
        mine = {
            "EXCHANGE_WS_ENDPOINT": sim.ws_endpoint,
            "EXCHANGE_REST_ENDPOINT": sim.rest_endpoint,
            "SERVER_HOST": "127.0.0.1",
            "WS_PORT": "0",
            "WS_ANONYMOUS": "true",
        }
        super().__init__("server", folder, arguments, {**mine, **environment})
        self.websocket = self.addresses["websocket"]
        self.ws_port = urllib.parse.urlsplit(self.websocket).port or 0

    def control(self, **message: object) -> dict[str, Any]:
        """One request to its control socket."""
        return ask_control(self.folder / "sim" / "control.sock", message)

    def await_subscribed(self, symbols: int) -> None:
        """Wait until every feed has that many streams subscribed at the exchange."""
        await_subscribed(self.folder / "sim" / "control.sock", symbols)


class RecorderProcess(ReadyChild):
    """`tradeback recorder` on the data folder of a simulated exchange."""

    killed_at_exit = True

    def __init__(self, folder: Path, sim: SimProcess | None, *arguments: str, **environment: str) -> None:
        endpoints = (
            {"EXCHANGE_WS_ENDPOINT": sim.ws_endpoint, "EXCHANGE_REST_ENDPOINT": sim.rest_endpoint}
            if sim is not None
            else {"EXCHANGE_WS_ENDPOINT": "ws://127.0.0.1:1", "EXCHANGE_REST_ENDPOINT": "http://127.0.0.1:1"}
        )
        super().__init__("recorder", folder, arguments, {**endpoints, **environment})

    def control(self, **message: object) -> dict[str, Any]:
        """One request to its control socket."""
        return ask_control(self.folder / "sim" / "recorder.sock", message)

    def await_stored(self, *, repaired: bool = False) -> dict[str, Any]:
        """Wait until all that is journaled is stored; returns its status then."""
        return await_stored(self.folder, repaired=repaired)


def await_stored(folder: Path, *, repaired: bool = False) -> dict[str, Any]:
    """Wait until the recorder of a data folder of the simulated exchange has, in every sink, all that both journals
    hold, and, with `repaired`, until no gap is open. Returns its status then."""
    deadline = time.monotonic() + ANSWER_TIMEOUT
    while True:
        try:
            status = ask_control(folder / "sim" / "recorder.sock", {"type": "status"})
        except OSError as error:
            # It starts, or is started again.
            status = {"sinks": [], "error": str(error)}
        ends = {journal: journal_end(folder / "sim" / journal) for journal in ("journal", "repairs")}
        stored = bool(status["sinks"]) and all(
            sink["journals"].get(journal, {}).get("place", -1) >= end
            for sink in status["sinks"]
            for journal, end in ends.items()
        )
        if stored and not (repaired and status["gaps"]["open"]):
            return status
        if time.monotonic() > deadline:
            raise AssertionError(f"the recorder never stored all, the journals end at {ends}: {status}")
        time.sleep(0.02)


def await_given_up(server: ServerProcess) -> None:
    """Wait until what the server has read is journaled to its end: nothing is held, and no range of ids is open or
    waits for room."""
    deadline = time.monotonic() + ANSWER_TIMEOUT
    while (journal := server.control(type="status")["journal"])["waiting"] or journal["unwritten_symbols"]:
        if time.monotonic() > deadline:
            raise AssertionError(f"what waits was never given up: {journal}")
        time.sleep(0.05)


def get_json(url: str, parameters: dict[str, object]) -> Any:
    """The JSON that a GET answers."""
    query = "?" + urllib.parse.urlencode(parameters) if parameters else ""
    with urllib.request.urlopen(url + query, timeout=ANSWER_TIMEOUT) as answer:
        return json.load(answer)


def ledger_of(rest: str, symbol: str) -> dict[str, Any]:
    """What was really traded at a simulated exchange: `quantity` (a Decimal), `count`, `last_id` of one symbol."""
    content: dict[str, Any] = get_json(f"{rest}/sim/ledger", {"symbol": symbol})
    return {**content, "quantity": Decimal(content["sum"])}


def quantity_decimals(rest: str) -> dict[str, int]:
    """Decimals of each symbol's quantity, from the exchange's step size."""
    steps = {
        symbol["symbol"]: next(f["stepSize"] for f in symbol["filters"] if f["filterType"] == "LOT_SIZE")
        for symbol in get_json(f"{rest}/api/v3/exchangeInfo", {})["symbols"]
    }
    return {name: len(step.rstrip("0").partition(".")[2]) for name, step in steps.items()}


def ask_control(path: Path, message: dict[str, object]) -> dict[str, Any]:
    """One request to a server's control socket."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(30)
        connection.connect(str(path))
        with connection.makefile("rwb") as lines:
            lines.write(json.dumps(message).encode() + b"\n")
            lines.flush()
            answer: dict[str, Any] = json.loads(lines.readline())
            return answer


def await_subscribed(path: Path, symbols: int) -> None:
    """Wait until every feed has that many streams subscribed at the exchange."""
    deadline = time.monotonic() + START_TIMEOUT
    while True:
        feeds = ask_control(path, {"type": "status"})["feeds"]
        if feeds and all(feed["connected"] and feed["subscribed"] == symbols for feed in feeds):
            return
        if time.monotonic() > deadline:
            raise AssertionError(f"the feeds never carried {symbols} symbols: {feeds}")
        time.sleep(0.05)


def trade_and_drain(rest: str, messages: int) -> None:
    """Have a simulated market make that many messages, and wait until all consumers have read them."""
    get_json(f"{rest}/sim/resume", {"messages": messages})
    deadline = time.monotonic() + ANSWER_TIMEOUT
    while not get_json(f"{rest}/sim/state", {})["paused"]:
        if time.monotonic() > deadline:
            raise AssertionError(f"the simulated exchange never made {messages} messages")
        time.sleep(0.05)
    pause_and_drain(rest)


def pause_and_drain(rest: str) -> None:
    """Stop a simulated market and wait until every message that it made was handed out, and read by all consumers:
    one that the machine leaves no time may be behind by a tenth of a second and more."""
    get_json(f"{rest}/sim/pause", {})
    deadline = time.monotonic() + START_TIMEOUT
    while not get_json(f"{rest}/sim/state", {})["drained"]:
        if time.monotonic() > deadline:
            raise AssertionError("the simulated exchange never handed out all it had")
        time.sleep(0.05)
    get_json(f"{rest}/sim/read", {})


def stream_ids(folder: Path) -> dict[str, int]:
    """The catalog's stream id of each symbol, for a data folder of the simulated exchange."""
    return stream_ids_of(config_of(folder))


def stream_ids_of(config: Config) -> dict[str, int]:
    """The catalog's stream id of each symbol."""
    catalog = open_catalog(config, create=False)
    try:
        return {symbol.name: symbol.stream_id for symbol in catalog.symbols()}
    finally:
        catalog.close()


def journal_rows(folder: Path) -> list[bytes]:
    """Every record of the journal, in order."""
    rows = []
    with JournalCursor.open(folder / "sim" / "journal") as cursor:
        while cursor.available():
            _, records = cursor.read_bytes(5_000)
            rows += [records[at : at + 64] for at in range(0, len(records), 64)]
    return rows


def stream_id_of(row: bytes) -> int:
    """The stream id of one record."""
    return int.from_bytes(row[56:58], "little")


class Audit:
    """Many clients in one compiled process that check every frame and add up every volume (bench/c/audit.c)."""

    def __init__(self, port: int, clients: int, symbols: list[str]) -> None:
        self.process = subprocess.Popen(
            [str(program("audit")), str(port), str(clients), *symbols],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        line = self.process.stdout.readline()
        if not line:
            raise AssertionError(f"the clients found a fault: {self.process.stderr.read()}")
        answer: dict[str, Any] = json.loads(line, parse_float=Decimal)
        return answer

    def ask(self, command: str) -> dict[str, Any]:
        """Send one command and return its answer; AssertionError carries the fault where one was found."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(command + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            self._answer()
        return self._answer()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.kill()
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            if pipe is not None:
                pipe.close()
        self.process.wait()


def await_sums_of_ledger(
    up: Up | SimProcess,
    audit: Audit,
    precisions: dict[str, int],
    before: Mapping[str, Decimal] | None = None,
) -> None:
    """Wait until for every client the sum of volumes, rounded to the quantity precision, is the exchange's ledger,
    without what was traded before they came.

    The market is paused and drained. A client whose receive window was shut for long is told only when the kernel
    probes it again, which takes it longer each time: so this waits for the sums, and not for silence.
    """
    ledger = {
        symbol: (up.ledger(symbol)["quantity"] - (before or {}).get(symbol, 0)).quantize(
            Decimal(1).scaleb(-precision)
        )
        for symbol, precision in precisions.items()
    }
    deadline = time.monotonic() + ANSWER_TIMEOUT
    while True:
        audit.ask("quiet 500")
        report = audit.ask("report")
        assert report["closed"] == 0
        differing = [
            symbol
            for symbol, told in report["symbols"].items()
            if {value.quantize(ledger[symbol]) for value in told["sums"]} != {ledger[symbol]}
            or len(set(told["prices"])) != 1
        ]
        if not differing:
            return
        assert time.monotonic() < deadline, f"sums or prices of {differing} never became the ledger's"
