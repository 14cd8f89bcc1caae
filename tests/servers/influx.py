"""A real InfluxDB 2.7, set up with an organisation, a bucket and a token."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import ClassVar

import httpx

from tests.servers.server import START_TIMEOUT, RealServer

VERSION = "2.7.12"  # of tests/servers/install_influxdb.sh


class InfluxServer(RealServer):
    """`influxd`; what it was given is there again after a kill."""

    PROGRAM: ClassVar[str] = "influxd"
    HOW_TO_GET: ClassVar[str] = "bash tests/servers/install_influxdb.sh"
    REQUIRED: ClassVar[bool] = False  # it is built from its sources, which a machine may not have
    ORG: ClassVar[str] = "trading-org"
    BUCKET: ClassVar[str] = "trading"
    TOKEN: ClassVar[str] = "token-of-the-tests"

    def __init__(self, folder: Path, *arguments: str) -> None:
        super().__init__(folder, *arguments)
        try:
            self._set_up()
        except BaseException:
            self.kill()
            raise

    def _set_up(self) -> None:
        setup = {"username": "admin", "password": "adminpass", "org": self.ORG, "bucket": self.BUCKET}
        httpx.post(
            f"{self.url}/api/v2/setup", json=setup | {"token": self.TOKEN}, timeout=START_TIMEOUT
        ).raise_for_status()

    @classmethod
    def program(cls) -> str | None:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        built = cache / "tradeback" / f"influxd-{VERSION}"
        return str(built) if built.exists() else shutil.which(cls.PROGRAM)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        return {
            "INFLUX_URL": self.url,
            "INFLUX_TOKEN": self.TOKEN,
            "INFLUX_ORG": self.ORG,
            "INFLUX_BUCKET": self.BUCKET,
            "INFLUX_TIMEOUT": "60s",  # the first write of a week makes a shard, which takes its disk's time
        }

    def command(self, program: str) -> list[str]:
        return [
            *(program, "--http-bind-address", f"127.0.0.1:{self.port}", "--reporting-disabled"),
            *("--bolt-path", str(self.folder / "bolt"), "--sqlite-path", str(self.folder / "sqlite")),
            *("--engine-path", str(self.folder / "engine"), "--log-level", "warn"),
        ]

    def answers(self) -> bool:
        try:
            return httpx.get(f"{self.url}/health", timeout=60).status_code == httpx.codes.OK
        except httpx.TransportError:
            return False

    def empty(self) -> None:
        """Delete all that was written."""
        httpx.post(
            f"{self.url}/api/v2/delete",
            params={"org": self.ORG, "bucket": self.BUCKET},
            headers={"Authorization": f"Token {self.TOKEN}"},
            json={"start": "1677-09-21T00:12:44Z", "stop": "2262-04-11T23:47:16Z"},
            timeout=START_TIMEOUT,
        ).raise_for_status()

    def make_bucket(self, name: str, retention_s: int = 0) -> None:
        """One more bucket of the same organisation, which keeps what is not older; 0: all."""
        headers = {"Authorization": f"Token {self.TOKEN}"}
        found = httpx.get(
            f"{self.url}/api/v2/orgs", params={"org": self.ORG}, headers=headers, timeout=START_TIMEOUT
        ).raise_for_status()
        rules = [{"type": "expire", "everySeconds": retention_s}] if retention_s else []
        bucket = {"orgID": found.json()["orgs"][0]["id"], "name": name, "retentionRules": rules}
        httpx.post(
            f"{self.url}/api/v2/buckets", json=bucket, headers=headers, timeout=START_TIMEOUT
        ).raise_for_status()
