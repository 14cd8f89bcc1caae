"""CPython's own asyncio cases pass on EpollLoop: run.py runs them, excluded.py says which not, and why."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from tests.conftest import CHECKOUT

# The slow ones first: two modules run at a time, mostly waiting.
MODULES = [
    "test_tasks", "test_subprocess", "test_ssl", "test_events", "test_taskgroups", "test_sslproto", "test_base_events",
    "test_sock_lowlevel", "test_streams", "test_server", "test_buffered_proto", "test_sendfile", "test_unix_events",
    "test_runners", "test_timeouts", "test_locks", "test_queues", "test_futures2", "test_waitfor", "test_threads",
    "test_context",
]  # fmt: skip
if sys.version_info >= (3, 12):
    MODULES.append("test_eager_task_factory")
if sys.version_info >= (3, 13):
    MODULES.append("test_staggered")
# Their loops are mocks or asyncio's, except for the few that a policy makes.
WITHOUT_OUR_LOOP = {"test_runners"}


def require_the_cases() -> None:
    """Debian keeps them out of the interpreter's own package. In CI their absence is a failure."""
    if importlib.util.find_spec("test") and importlib.util.find_spec("test.test_asyncio"):
        return
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    message = (
        f"this interpreter has no test.test_asyncio: install CPython's own tests, on Debian "
        f"`apt-get install libpython{version}-testsuite`"
    )
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)


@pytest.fixture(scope="module")
def runs() -> Iterator[dict[str, Future[subprocess.CompletedProcess[str]]]]:
    """All modules, under way."""
    require_the_cases()

    def run(module: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "tests.stdlib.run", module]
        return subprocess.run(
            command,
            cwd=CHECKOUT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=1500,
            check=False,
        )

    with ThreadPoolExecutor(2) as pool:
        yield {module: pool.submit(run, module) for module in MODULES}


@pytest.mark.timeout(400)
@pytest.mark.parametrize("module", MODULES)
def test_cases_of(module: str, runs: dict[str, Future[subprocess.CompletedProcess[str]]]) -> None:
    finished = runs[module].result()
    lines = finished.stdout.splitlines()
    assert lines, f"{module} printed nothing and ended with {finished.returncode}"
    assert finished.returncode == 0, finished.stdout
    report = json.loads(lines[-1])
    assert report["failed"] == []
    assert report["run"] > 0
    assert (report["loops"] > 0) != (module in WITHOUT_OUR_LOOP)
