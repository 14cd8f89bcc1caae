"""schemathesis asks a real API whatever comes of its OpenAPI document, and holds each answer against it.

It runs as the program that it is, always with the same examples. In its copy of the document a symbol's name is one of
those that there are, for of all texts hardly one is; every other one must be refused.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.api import ApiProcess, all_running
from tests.servers.services import config_of
from tradeback.config import LimitsConfig
from tradeback.passwords import hash_password
from tradeback.store.accounts import open_accounts

PROGRAM = Path(sys.executable).with_name("schemathesis")
PASSWORD = "correct horse"
RUN_S = 500
CONFIG = """
continue-on-failure = true
workers = 1  # in several threads hypothesis trips over the compiler of Python 3.11
[generation]
deterministic = true
database = "none"
max-examples = {examples}
[phases.stateful]
enabled = false
[warnings]
enabled = false
# 414: of parameters without end only the beginning is read.
[checks.negative_data_rejection]
expected-statuses = ["400", "401", "403", "404", "409", "414", "415"]
# That `from` lies before `to` cannot be said in a schema.
[[operations]]
include-path = "/api/v1/symbols/{{symbol}}/bars"
[operations.checks.positive_data_acceptance]
expected-statuses = ["2xx", "400", "404"]
[[operations]]
include-path = "/api/v1/ws"
[operations.checks.positive_data_acceptance]
expected-statuses = ["426"]
"""
TOKEN = """
[auth.openapi.bearer]
bearer = "{token}"
"""


@dataclass(frozen=True)
class Asked:
    """The API, with limits of rates off, and its document as it is asked."""

    api: ApiProcess
    document: Path

    def log_in(self) -> str:
        login = json.dumps({"username": "alice", "password": PASSWORD}).encode()
        answer = self.api.ask("/api/v1/auth/login", "POST", login, Content_Type="application/json")
        return str(answer.json["token"])

    def run(self, folder: Path, examples: int, *options: str, token: str | None = None) -> dict[str, Any]:
        """All phases and all checks; returns the report. OPTIONS, which looks at no parameter, is left out."""
        config = folder / "schemathesis.toml"
        told = CONFIG.format(examples=examples)
        config.write_text(told if token is None else told + TOKEN.format(token=token))
        report = folder / "report.json"
        command = [PROGRAM, "--no-color", f"--config-file={config}", "run", self.document]
        where = [f"--url={self.api.address}", "--exclude-method=OPTIONS", f"--report-json-path={report}"]
        done = subprocess.run(
            [*command, *where, *options], cwd=folder, capture_output=True, text=True, timeout=RUN_S
        )
        assert done.returncode == 0, done.stdout[-10_000:] + done.stderr
        found: dict[str, Any] = json.loads(report.read_text())
        assert found["complete"]
        assert found["operations"]["tested"] == found["operations"]["selected"] > 0
        return found


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asked]:
    folder = tmp_path_factory.mktemp("schemathesis")
    unlimited = {f"LIMIT_{name.upper()}": "off" for name in LimitsConfig.model_fields}
    with all_running(folder) as running, ApiProcess(folder, **unlimited) as api:
        with closing(open_accounts(config_of(folder))) as accounts:
            accounts.add_user("alice", hash_password(PASSWORD))
        symbols = [row["symbol"] for row in running.api.get("/api/v1/symbols")]
        document = folder / "openapi.json"
        document.write_text(json.dumps(known_symbols(api.get("/api/v1/openapi.json"), symbols)))
        yield Asked(api, document)


def known_symbols(node: Any, symbols: list[str]) -> Any:
    """The document with these as the only values of parameters called `symbol`."""
    if isinstance(node, list):
        return [known_symbols(one, symbols) for one in node]
    if not isinstance(node, dict):
        return node
    if node.get("name") == "symbol" and "in" in node:
        return {**node, "schema": {"type": "string", "enum": symbols}}
    return {key: known_symbols(value, symbols) for key, value in node.items()}


def accepted(report: dict[str, Any]) -> set[str]:
    """The operations that were answered as if all was well at least once."""
    return {
        operation
        for operation, phases in report["valid_rates"].items()
        if any(phase["accepted"] for phase in phases.values())
    }


def test_whoever_is_logged_in(asked: Asked, tmp_path: Path) -> None:
    report = asked.run(tmp_path, 10, "--exclude-path-regex=/auth/log", token=asked.log_in())
    assert report["test_cases"]["generated"] > 1_000
    operations = json.loads(asked.document.read_text())["paths"]
    named = {
        f"{method.upper()} {path}"
        for path, methods in operations.items()
        for method in methods
        if method != "options" and not path.startswith("/api/v1/auth/log")
    }
    named -= {"GET /api/v1/ws", "HEAD /api/v1/ws"}  # which never say anything but 426
    # Each one was not only refused.
    assert accepted(report) == named


def test_whoever_is_not(asked: Asked, tmp_path: Path) -> None:
    report = asked.run(tmp_path, 10, "--include-path-regex=/auth/(session|logout)|/marketwatch")
    assert not accepted(report)


def test_logging_in_and_out(asked: Asked, tmp_path: Path) -> None:
    asked.run(tmp_path, 10, "--include-path-regex=/auth/log", token=asked.log_in())
