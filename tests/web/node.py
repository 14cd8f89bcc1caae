"""The Node that tests of the page's scripts run on."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent
OLDEST = 20  # the first that has a WebSocket class, behind a switch
UNSWITCHED = 22  # from here on without
PATIENCE_S = 100


def node_command() -> list[str]:
    """Node with the switches that it needs. Without it the test is skipped, and fails under CI."""
    node = shutil.which("node")
    version = (
        subprocess.run([node, "--version"], capture_output=True, text=True, check=True).stdout if node else ""
    )
    match = re.match(r"v(\d+)\.", version)
    if node is None or match is None or int(match[1]) < OLDEST:
        how = f"no Node from {OLDEST} on is on PATH, only {version.strip() or 'none'}: install nodejs"
        if os.environ.get("CI"):
            pytest.fail(how)
        pytest.skip(how)
    return [node, *(["--experimental-websocket", "--no-warnings"] if int(match[1]) < UNSWITCHED else [])]


def run_tests(file: str, **environment: str) -> None:
    """Run one file of Node's own tests."""
    done = subprocess.run(
        [*node_command(), "--test", "--test-reporter=spec", str(HERE / file)],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        env={**os.environ, **environment},
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert re.search(r"^. tests [1-9]", done.stdout, re.MULTILINE), (
        f"no test ran: {done.stdout}\n{done.stderr}"
    )
