"""Fixtures that every folder of tests shares."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from tests.influx_server import InfluxServer
from tests.redis_server import RedisServer

CHECKOUT = Path(__file__).resolve().parent.parent


def pytest_configure() -> None:
    """Children must end by SIGINT: started in the background, this process ignores it, and so would they."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def recordings() -> Path:
    """The folder of real recordings. They are no part of the product: without them the test is skipped."""
    folder = Path(os.environ.get("TRADEBACK_RECORDINGS", CHECKOUT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no recordings at {folder}: set TRADEBACK_RECORDINGS to the folder that holds them")
    return folder


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mounts a disk of its own, of a size such as 64k; skipped where nothing can be mounted."""
    folders: list[Path] = []

    def mount(size: str) -> Path:
        folder = tmp_path / f"disk{len(folders)}"
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
        done = subprocess.run(command, capture_output=True, check=False)
        if done.returncode:
            pytest.skip(f"no file system can be mounted here: {done.stderr.decode().strip()}")
        folders.append(folder)
        return folder

    yield mount
    for folder in folders:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def missing(how: str) -> NoReturn:
    """Skip the test for want of a server; where all of them were to be installed, fail."""
    if os.environ.get("CI"):
        pytest.fail(how)
    pytest.skip(how)


@pytest.fixture(scope="session")
def influx_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InfluxServer]:
    """One InfluxDB for all tests: each has points of its own."""
    if InfluxServer.program() is None:
        # It is built from its sources, which a machine may not have: that alone fails no landing.
        pytest.skip(f"no influxd here, and nothing of InfluxDB is tested: {InfluxServer.HOW_TO_GET}")
    with InfluxServer(tmp_path_factory.mktemp("influx")) as server:
        yield server


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis of this test's own, empty and running."""
    if RedisServer.program() is None:
        missing(f"no {RedisServer.PROGRAM} here: {RedisServer.HOW_TO_GET}")
    folder = tmp_path / "redis"
    folder.mkdir()
    with RedisServer(folder) as server:
        yield server


def fill(ballast: Path) -> None:
    """Take every free block of the disk, until the file is deleted."""
    with ballast.open("wb", buffering=0) as file:
        status = os.statvfs(ballast)
        os.posix_fallocate(file.fileno(), 0, status.f_bavail * status.f_bsize)
