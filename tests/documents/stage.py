"""A place where the documentation's commands can be typed as they stand: the files of the checkout, a data folder of
its own, and a running `tradeback up` whose addresses are put in the place of those that are written."""

from __future__ import annotations

import os
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from tests.conftest import CHECKOUT
from tests.e2e.api import ask
from tests.e2e.child import SIM_EXCHANGE
from tests.e2e.running import Up

PASSWORD = "correct horse"
REST, WEBSOCKET = "127.0.0.1:8080", "127.0.0.1:8081"
PATIENCE_S = 500.0


class Typist:
    """Types commands into `shell`, a command that understands `-c` as bash does, in `folder`."""

    def __init__(self, shell: Sequence[str], folder: Path, environment: Mapping[str, str]) -> None:
        self.shell = shell
        self.folder = folder
        self.environment = environment

    def as_typed(self, command: str) -> str:
        """With the addresses of what runs here."""
        return command

    def run(self, command: str) -> str:
        """Type it; what it printed. AssertionError where it fails."""
        done = subprocess.run(
            [*self.shell, "-euo", "pipefail", "-c", self.as_typed(command)],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        assert done.returncode == 0, (command, done.returncode, done.stdout, done.stderr)
        return done.stdout

    def run_with_password(self, command: str) -> str:
        """Type it at a terminal, and the password each time that it asks."""
        pid, terminal = pty.fork()
        if pid == 0:
            os.chdir(self.folder)
            os.execvpe(self.shell[0], [*self.shell, "-c", f"exec {self.as_typed(command)}"], self.environment)
        said = asked = b""
        with os.fdopen(terminal, "r+b", buffering=0) as screen:
            while True:
                try:
                    part = screen.read(4096)
                except OSError:  # EIO: it has closed the terminal
                    break
                said += part
                asked += part
                if re.search(rb"(Password|Again): ?$", asked):
                    screen.write(f"{PASSWORD}\n".encode())
                    asked = b""
        _, status = os.waitpid(pid, 0)
        assert os.waitstatus_to_exitcode(status) == 0, (command, said)
        return said.decode()

    def run_until_ctrl_c(self, command: str) -> str:
        """One that goes on for ever: its first line, after which Ctrl-C must end it well."""
        process = subprocess.Popen(
            [*self.shell, "-c", f"exec {self.as_typed(command)}"],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        assert process.stdout is not None
        with process.stdout as printed:
            if not select.select([printed], [], [], PATIENCE_S)[0]:
                os.killpg(process.pid, signal.SIGKILL)
                raise AssertionError(f"{command} printed nothing within {PATIENCE_S:.0f} s")
            line = printed.readline()
            os.killpg(process.pid, signal.SIGINT)
            rest = printed.read()
        code = process.wait(PATIENCE_S)
        assert line, (command, code)
        assert code in (0, 130), (command, code, line + rest)
        return line


class Stage(Typist):
    """`run` types a command in it. `up` is what a reader has started in the first terminal, all of which runs;
    `address` is what it printed to be opened."""

    def __init__(self, folder: Path, up: Up | None = None, address: str = "") -> None:
        self.up = up
        for entry in CHECKOUT.iterdir():
            if entry.name == "docs":
                shutil.copytree(entry, folder / "docs")  # some commands write there
            elif entry.name not in ("data", "build"):
                (folder / entry.name).symlink_to(entry)
        settings = {"DATA_DIR": str(up.folder) if up is not None else str(folder / "data")}
        if up is not None:
            self.rest = address.removeprefix("http://").rstrip("/")
            self.websocket = f"127.0.0.1:{up.ws_port}"
            settings |= {"SERVER_PORT": self.rest.rpartition(":")[2], "WS_PORT": str(up.ws_port)}
        environment = {
            **os.environ,
            **SIM_EXCHANGE,
            **settings,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "HOME": str(folder),
            "TRADEBACK_PASSWORD": PASSWORD,
        }
        if up is not None:
            rest = up.rest  # of the simulated exchange
            environment["EXCHANGE_REST_ENDPOINT"] = rest
        super().__init__(["bash"], folder, environment)

    def as_typed(self, command: str) -> str:
        if self.up is None:
            return command
        # Its usual ports belong to the exchange of whoever runs `make run`, as another test does.
        command = re.sub(r"\btradeback sim\b(?! --help)", r"\g<0> --port 0 --rest-port 0", command)
        return command.replace(REST, self.rest).replace(WEBSOCKET, self.websocket)


def await_price(address: str, symbol: str = "BTCUSDT") -> None:
    """Wait until the server has a price of the symbol."""
    deadline = time.monotonic() + PATIENCE_S
    while ask(urlsplit(address).port or 0, f"/api/v1/symbols/{symbol}/price").status != 200:
        assert time.monotonic() < deadline, f"{symbol} was never traded"
        time.sleep(0.05)
