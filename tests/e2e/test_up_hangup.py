"""SIGHUP to `tradeback up`: the end where its terminal was closed, else the configuration is read again."""

from __future__ import annotations

import fcntl
import os
import pty
import signal
import subprocess
import sys
import termios
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.e2e.child import SIM_EXCHANGE
from tests.e2e.processes import children_of
from tests.e2e.running import Up
from tests.servers.services import settings_of
from tests.waiting import await_true

SAFETY = 60.0
FEW = ("--sim-rate", "10", "--sim-symbols", "5")


@pytest.fixture(autouse=True)
def _heard() -> Iterator[None]:
    """As in a shell: where the tests run under nohup, what they start would leave SIGHUP out, as it should."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


def on_a_terminal(folder: Path) -> tuple[subprocess.Popen[bytes], int]:
    """`tradeback up` as it runs in a window, and the window's end of its terminal."""
    window, terminal = pty.openpty()

    def take_it() -> None:
        os.setsid()
        fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)

    ports = ("--port", "0", "--ws-port", "0", "--sim-port", "0")
    process = subprocess.Popen(
        [sys.executable, "-m", "tradeback", "up", "--data-dir", str(folder), *ports, *FEW],
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        preexec_fn=take_it,
        env={**os.environ, **settings_of(folder), **SIM_EXCHANGE},
    )
    os.close(terminal)
    return process, window


@pytest.mark.timeout(240)
@pytest.mark.parametrize("mark", [b"Exchange: ", b"Open http"])
def test_a_terminal_that_is_closed_ends_it(tmp_path: Path, mark: bytes) -> None:
    process, window = on_a_terminal(tmp_path)
    said = b""
    try:
        while mark not in said:
            piece = os.read(window, 65_536)
            assert piece, said
            said += piece
        started = children_of(process.pid)
        os.close(window)
        window = -1
        assert process.wait(SAFETY) == 0
        await_true(lambda: not any(Path(f"/proc/{pid}").exists() for pid in started), lambda: started)
    finally:
        if window >= 0:
            os.close(window)
        with suppress(ProcessLookupError):
            process.kill()
        process.wait()


@pytest.mark.timeout(240)
def test_a_level_of_the_file_is_taken_over_by_all(tmp_path: Path) -> None:
    file = tmp_path / "tradeback.yaml"
    file.write_text("log:\n  level: error\n")
    with Up(tmp_path, "--config", str(file), *FEW) as up:
        up.await_login()

        def said() -> str:
            return (tmp_path / "up.log").read_text()

        assert "read again" not in said()
        file.write_text("log:\n  level: nonsense\n")
        up.process.send_signal(signal.SIGHUP)
        await_true(lambda: said().count("the configuration is refused, nothing changes") == 1, said)
        file.write_text("log:\n  level: info\n")
        up.process.send_signal(signal.SIGHUP)
        # Itself, server, recorder and API.
        await_true(lambda: said().count("the configuration was read again") == 4, said)
        assert said().count("the configuration is refused") == 1
        assert up.stop() == 0
