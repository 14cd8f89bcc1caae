"""Processes of a measurement: started pinned, spoken to in lines, bounded in time, ended with it.

Every program of the bench prints lines of JSON, obeys lines on its standard input and ends with that.
Where the machine has two cores or more, what is measured runs on core 0 and the load on core 1.
"""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from bench.build import BenchError, program

SERVER_CORE = 0
LOAD_CORE = 1
ANSWER_TIMEOUT_S = 120.0
CONNECT_TIMEOUT_S = 130.0
DATA_TIMEOUT_S = 120.0
END_TIMEOUT_S = 5.0

Answer = dict[str, Any]


class Program:
    """One process. Use it as a context manager: leaving ends the process, kindly at first.

    The bench's own end with their standard input; a `foreign` one is asked by SIGTERM.
    """

    def __init__(
        self, command: list[str], core: int, env: Mapping[str, str] | None = None, *, foreign: bool = False
    ) -> None:
        self.name = Path(command[0]).name
        self._foreign = foreign
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed by end()
        self._heard = b""
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            bufsize=0,
            env=None if env is None else dict(env),
            # The bench has one thread, so running Python between fork and exec is safe.
            preexec_fn=lambda: pin(core),
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def __enter__(self) -> Program:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def hear(self, timeout: float = ANSWER_TIMEOUT_S) -> Answer:
        """The next line it prints, as JSON.

        Raises:
            BenchError: it ended, with what it said on stderr, or said nothing in time.
        """
        deadline = time.monotonic() + timeout
        with selectors.DefaultSelector() as selector:
            output = self._process.stdout
            if output is None:
                raise BenchError(f"{self.name} has no output to hear.")
            selector.register(output, selectors.EVENT_READ)
            while b"\n" not in self._heard:
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    raise BenchError(f"{self.name} said nothing within {timeout:.0f} s.")
                part = os.read(output.fileno(), 65536)
                if not part:
                    raise BenchError(f"{self.name} ended: {self.last_words()}")
                self._heard += part
        line, self._heard = self._heard.split(b"\n", 1)
        answer: Answer = json.loads(line)
        return answer

    def tell(self, line: str) -> None:
        """Gives one command that has no answer."""
        pipe = self._process.stdin
        try:
            if pipe is not None:
                pipe.write(line.encode() + b"\n")
        except BrokenPipeError as error:
            raise BenchError(f"{self.name} ended: {self.last_words()}") from error

    def ask(self, line: str, timeout: float = ANSWER_TIMEOUT_S) -> Answer:
        """Gives one command and returns its answer."""
        self.tell(line)
        return self.hear(timeout)

    def last_words(self) -> str:
        """What it wrote to stderr, at most the last 2000 bytes; how it ended where it wrote nothing."""
        self._errors.seek(0)
        text = self._errors.read()[-2000:].decode(errors="replace").strip()
        return text or f"without a word, with code {self._process.poll()}."

    def end(self) -> None:
        """Closes its input, or asks, and forces in the end; returns when it is gone."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        asked = self._process.terminate
        for step in (asked, self._process.kill) if self._foreign else (None, asked, self._process.kill):
            if step is not None:
                step()
            try:
                self._process.wait(END_TIMEOUT_S)
                break
            except subprocess.TimeoutExpired:
                continue
        self._errors.close()


def pin(core: int) -> None:
    """Keeps the calling process on one core, where there are several."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) > 1:
        os.sched_setaffinity(0, {cores[min(core, len(cores) - 1)]})


def compiled(name: str, *arguments: object, core: int = LOAD_CORE) -> Program:
    """Starts one of the C programs of `bench/c`."""
    return Program([str(program(name)), *map(str, arguments)], core)


def module(name: str, *arguments: object, core: int = SERVER_CORE) -> Program:
    """Starts a Python module of the bench under this interpreter."""
    return Program([sys.executable, "-m", name, *map(str, arguments)], core)


def clients(
    port: int,
    count: int,
    *,
    each: int,
    symbols: int,
    pid: int = 0,
    nap_us: int = 0,
    protocol: str = "tradeback",
) -> Program:
    """Starts the load and returns when all its clients are connected and subscribed."""
    load = compiled("clients", protocol, port, count, each, symbols, nap_us, pid)
    try:
        load.hear(CONNECT_TIMEOUT_S)
    except BenchError:
        load.end()
        raise
    return load


def measured(load: Program, seconds: float, counted: str = "updates") -> Answer:
    """One window of the load in which something was counted, and in which the process whose CPU time the load takes
    had some of it; the windows that `clients.c` and `requests.c` describe.

    Raises:
        BenchError: a client was closed, or there was no such window for DATA_TIMEOUT_S.
    """
    deadline = time.monotonic() + DATA_TIMEOUT_S
    while True:
        window = load.ask(f"measure {seconds}")
        if window.get("closed"):
            raise BenchError(f"The server closed {window['closed']} clients.")
        if window[counted] and window["server_cpu"]:
            return window
        # A short window of a quick run on a busy machine may be empty, or hold what was sent before it.
        if time.monotonic() > deadline:
            raise BenchError(
                f"For {DATA_TIMEOUT_S:.0f} s no {seconds:g} s had both {counted} and CPU time of the server: the last "
                f"had {window[counted]} and {window['server_cpu']:.1%}. It ended, or the machine is too busy."
            )


def resident_bytes(pid: int, kind: str = "VmRSS") -> int:
    """The memory of a process that is in RAM now; kind RssAnon leaves out mapped files, as the journal is."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{kind}:"):
            return int(line.split()[1]) * 1024
    raise BenchError(f"/proc/{pid}/status names no {kind}: the process has ended.")
