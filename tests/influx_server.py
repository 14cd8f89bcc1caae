"""A real InfluxDB 2.7 of one test: on a port of its own, set up with an organisation, a bucket and a token."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

import httpx

START_TIMEOUT = 60.0
VERSION = "2.7.12"  # of tests/install_influxdb.sh


class InfluxServer:
    """`influxd` on loopback, with all that it keeps in a folder of its own. It can be halted, killed, and started
    again with what it had."""

    HOW_TO_GET: ClassVar[str] = "bash tests/install_influxdb.sh"
    ORG: ClassVar[str] = "trading-org"
    BUCKET: ClassVar[str] = "trading"
    TOKEN: ClassVar[str] = "token-of-the-tests"

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        with socket.create_server(("127.0.0.1", 0)) as free:
            self._port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self._port}"
        self._process: subprocess.Popen[bytes] | None = None
        self.start()
        httpx.post(
            f"{self.url}/api/v2/setup",
            json={
                "username": "admin",
                "password": "adminpass",
                "org": self.ORG,
                "bucket": self.BUCKET,
                "token": self.TOKEN,
            },
            timeout=START_TIMEOUT,
        ).raise_for_status()

    @classmethod
    def program(cls) -> str | None:
        """Its path, None where it was not built."""
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        built = cache / "tradeback" / f"influxd-{VERSION}"
        return str(built) if built.exists() else shutil.which("influxd")

    @property
    def environment(self) -> dict[str, str]:
        """The settings with which Trade-Back uses it."""
        return {
            "INFLUX_URL": self.url,
            "INFLUX_TOKEN": self.TOKEN,
            "INFLUX_ORG": self.ORG,
            "INFLUX_BUCKET": self.BUCKET,
            "INFLUX_TIMEOUT": "60s",  # the first write of a week makes a shard, which takes its disk's time
        }

    def start(self) -> None:
        """Start it on the port that it always has; it takes writes when this returns."""
        program = self.program()
        assert program is not None
        with (self._folder / "influxd.log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *(program, "--http-bind-address", f"127.0.0.1:{self._port}", "--reporting-disabled"),
                    *(
                        "--bolt-path",
                        str(self._folder / "bolt"),
                        "--sqlite-path",
                        str(self._folder / "sqlite"),
                    ),
                    *("--engine-path", str(self._folder / "engine"), "--log-level", "warn"),
                ],
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + START_TIMEOUT
        while True:
            try:
                if httpx.get(f"{self.url}/health", timeout=5).status_code == httpx.codes.OK:
                    return
            except httpx.TransportError:
                pass
            assert time.monotonic() < deadline, (self._folder / "influxd.log").read_text()
            time.sleep(0.02)

    def empty(self) -> None:
        """Delete all that was written."""
        httpx.post(
            f"{self.url}/api/v2/delete",
            params={"org": self.ORG, "bucket": self.BUCKET},
            headers={"Authorization": f"Token {self.TOKEN}"},
            json={"start": "1677-09-21T00:12:44Z", "stop": "2262-04-11T23:47:16Z"},
            timeout=START_TIMEOUT,
        ).raise_for_status()

    def signal(self, number: int) -> None:
        """SIGSTOP has it hang, with its connections open; SIGCONT has it go on."""
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        """SIGKILL, at once; what it had is on its disk."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            self._process = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
