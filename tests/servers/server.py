"""A real server of the tests: a process on loopback with a port of its own, and all that it keeps in its own folder."""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import subprocess
import time
from abc import ABC, abstractmethod
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

START_TIMEOUT = 300.0  # seconds, a safety net
# Below the ports that the kernel gives to outgoing connections: while the server is down, none may take its port, and
# who connects to it again and again must not meet itself.
PORTS = range(20_000, 32_000)


class RealServer(ABC):
    """Runs from its making to its end; in between it can be halted, killed, and started with what it had.

    A subclass says how the program is found and called, when it answers, and with which settings Trade-Back uses it.
    `arguments` are more words of the command, for every start.
    """

    PROGRAM: ClassVar[str]
    HOW_TO_GET: ClassVar[str]  # the command that installs it
    REQUIRED: ClassVar[bool] = True  # whether CI fails without it

    def __init__(self, folder: Path, *arguments: str) -> None:
        folder.mkdir(exist_ok=True)
        self.folder = folder
        self.arguments = arguments
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self.prepare()
        self.start()

    @classmethod
    def program(cls) -> str | None:
        """Its path, None where it is not installed."""
        return shutil.which(cls.PROGRAM)

    @property
    @abstractmethod
    def environment(self) -> dict[str, str]:
        """The settings with which Trade-Back uses it."""

    @abstractmethod
    def command(self, program: str) -> list[str]:
        """The words that start it on `self.port` with what it has in `self.folder`."""

    @abstractmethod
    def answers(self) -> bool:
        """Whether it takes requests; a connection that cannot be made may be raised as OSError."""

    def prepare(self) -> None:
        """Bring into its folder what it needs before the first start."""
        return

    def start(self, *arguments: str) -> None:
        """Start it, where it was killed, on the port that it always has; it answers when this returns."""
        program = self.program()
        assert program is not None, self.HOW_TO_GET
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [*self.command(program), *self.arguments, *arguments], stdout=log, stderr=log
            )
        try:
            self._await_answer()
        except BaseException:
            self.kill()
            raise

    def _await_answer(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT
        while not self._answers():
            assert self.running, f"{self.PROGRAM} ended at its start: {self.said()[-4000:]}"
            assert time.monotonic() < deadline, f"{self.PROGRAM} never answered: {self.said()[-4000:]}"
            time.sleep(0.01)

    def _answers(self) -> bool:
        try:
            return self.answers()
        except OSError:
            return False

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def _log(self) -> Path:
        return self.folder / "server.log"

    def said(self) -> str:
        """All that it wrote to its log."""
        return self._log.read_text(errors="replace")

    def halt(self) -> None:
        """Have it hang, with its connections open; it does when this returns, each of its threads."""
        self._signal(signal.SIGSTOP)
        assert self._process is not None
        os.waitid(os.P_PID, self._process.pid, os.WSTOPPED)

    def go_on(self) -> None:
        """Have it go on after `halt`."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        assert self._process is not None, f"{self.PROGRAM} does not run"
        self._process.send_signal(number)

    def stop(self) -> None:
        """Have it end as its operator would, and wait for that."""
        self._signal(signal.SIGTERM)
        assert self._process is not None
        self._process.wait(START_TIMEOUT)
        self._process = None

    def kill(self) -> None:
        """SIGKILL, at once; what it had on its disk stays."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    while True:
        port = random.SystemRandom().choice(PORTS)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def accepts(port: int) -> bool:
    """Whether a connection can be made."""
    try:
        socket.create_connection(("127.0.0.1", port), START_TIMEOUT).close()
    except ConnectionRefusedError:
        return False
    return True
