"""`tradeback` commands as child processes: how they are started, waited for and ended."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.servers.services import settings_of

STOP_TIMEOUT = 40.0
# Nobody is spared here by waiting, and of the past the first day of a symbol is enough.
SIM_EXCHANGE = {
    "TRADEBACK_EXCHANGE": "sim",
    "EXCHANGE_RECONNECT_INTERVAL": "250ms",
    "RECORDER_HISTORY_DAYS": "0",
}


def logged(path: Path, **wanted: object) -> list[dict[str, Any]]:
    """The JSON lines of a log that have these values; none that is being written, or that a full disk cut off."""
    lines = path.read_bytes().splitlines(keepends=True)
    read = [json.loads(line) for line in lines if line.startswith(b"{") and line.endswith(b"}\n")]
    return [line for line in read if wanted.items() <= line.items()]


class Child:
    """A process of ours, `process`. As a context manager it is ended at the end, where it has not ended before."""

    stop_signal = signal.SIGTERM
    killed_at_exit = False
    process: subprocess.Popen[Any]

    def kill(self) -> None:
        """SIGKILL, at once."""
        self.process.kill()
        self.process.wait(STOP_TIMEOUT)

    def stop(self) -> int:
        """Ask it to end; returns the exit code. One that does not is killed, and that is an error."""
        if self.process.poll() is None:
            self.process.send_signal(self.stop_signal)
        try:
            return self.process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self.kill()
            raise
        finally:
            self._ended()

    def _ended(self) -> None:
        """Read and close what it printed."""
        if self.process.stdout is not None:
            self.process.stdout.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            if self.killed_at_exit:
                self.kill()
            else:
                self.stop()
        self._ended()


class ReadyChild(Child):
    """`tradeback COMMAND` on a data folder, once it is ready; `addresses` are what it says then. Its messages go to
    `log`, which all of the same command and folder share."""

    program = (sys.executable, "-m", "tradeback")

    def __init__(
        self, command: str, folder: Path, arguments: tuple[str, ...], environment: dict[str, str]
    ) -> None:
        self.folder = folder
        self.log = folder / f"{command}.log"
        reader, writer = os.pipe()
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*self.program, command, f"--ready-fd={writer}", *arguments],
                stderr=log,
                pass_fds=(writer,),
                env={**os.environ, **settings_of(folder), **SIM_EXCHANGE, **environment},
            )
        os.close(writer)
        with os.fdopen(reader) as pipe:
            line = pipe.readline()
        if not line:
            code = self.process.wait(STOP_TIMEOUT)
            raise AssertionError(f"tradeback {command} ended with {code}: {self.said()}")
        self.addresses: dict[str, str] = json.loads(line)

    def said(self) -> str:
        """The end of its messages."""
        return self.log.read_text()[-4000:]
