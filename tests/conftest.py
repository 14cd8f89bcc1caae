"""Fixtures that every folder of tests shares."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest

from tests.servers.influx import InfluxServer
from tests.servers.mariadb import MariadbServer
from tests.servers.nats import NatsServer
from tests.servers.redis import RedisServer
from tests.servers.server import RealServer
from tests.servers.services import ASKED_FOR, close_services, missing

# A test gets so many times what it may take (`timeout` in pyproject.toml, or its mark): others may leave it a fraction
# of the machine. One that hangs is ended all the same.
PATIENCE = 5
CHECKOUT = Path(__file__).resolve().parent.parent


def pytest_configure() -> None:
    """Children must end by SIGINT: started in the background, this process ignores it, and so would they."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_report_header() -> str | None:
    if not ASKED_FOR:
        return None
    without = "; ".join(f"no {each.PROGRAM}, embedded in its place: {each.HOW_TO_GET}" for each in missing())
    return f"stores of the end-to-end tests: real services; {without or 'all of them'}"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What is about the embedded files themselves has nothing to say about the services. Files whose tests may take
    longest come first: workers that take a file each would else wait at the end for the one that got it last."""
    weights: dict[Path, tuple[float, int]] = {}
    for item in items:
        mark, asked = item.get_closest_marker("timeout"), item.config.getoption("timeout")
        marked = mark.args[0] if mark else 0.0
        usual = float(item.config.getini("timeout")) if asked is None else asked  # 0 is none at all
        item.add_marker(pytest.mark.timeout((marked or usual) * PATIENCE), append=False)
        # By marks alone: one of the usual length still says that the test is long.
        longest, number = weights.get(item.path, (0.0, 0))
        weights[item.path] = (max(longest, marked), number + 1)
    items.sort(key=lambda item: weights[item.path], reverse=True)
    for item in items:
        marker = item.get_closest_marker("embedded")
        if ASKED_FOR and marker is not None:
            item.add_marker(pytest.mark.skip(reason=f"embedded stores only: {marker.args[0]}"))


@pytest.fixture(scope="session", autouse=True)
def _services() -> Iterator[None]:
    yield
    close_services()


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


Server = TypeVar("Server", bound=RealServer)


def private(server: type[Server], folder: Path, *arguments: object) -> Server:
    """One that is started in this folder, with what else it is made of. Where its program is missing the test is
    skipped; under CI, where all were to be installed, it fails."""
    if server.program() is None:
        said = f"no {server.PROGRAM} here, and nothing that needs it is tested: {server.HOW_TO_GET}"
        if os.environ.get("CI") and server.REQUIRED:
            pytest.fail(said)
        pytest.skip(said)
    return server(folder, *arguments)


@pytest.fixture(scope="session")
def mariadb_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MariadbServer]:
    """One MariaDB for all tests: each has a database of its own."""
    with private(MariadbServer, tmp_path_factory.mktemp("mariadb")) as server:
        yield server


@pytest.fixture
def own_mariadb_server(tmp_path: Path) -> Iterator[MariadbServer]:
    """A MariaDB of this test's own, that may be halted, killed and set otherwise."""
    with private(MariadbServer, tmp_path / "mariadb") as server:
        yield server


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis of this test's own, empty and running."""
    with private(RedisServer, tmp_path / "redis") as server:
        yield server


@pytest.fixture
def nats_server(tmp_path: Path) -> Iterator[NatsServer]:
    """A nats-server of this test's own."""
    with private(NatsServer, tmp_path / "nats") as server:
        yield server


@pytest.fixture(scope="session")
def influx_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InfluxServer]:
    """One InfluxDB for all tests: each has points of its own."""
    with private(InfluxServer, tmp_path_factory.mktemp("influx")) as server:
        yield server


@pytest.fixture
def own_influx_server(tmp_path: Path) -> Iterator[InfluxServer]:
    """An InfluxDB of this test's own, that may be halted, killed and emptied."""
    with private(InfluxServer, tmp_path / "influx") as server:
        yield server


def fill(ballast: Path) -> None:
    """Take every free block of the disk, until the file is deleted."""
    size = 0
    with ballast.open("wb", buffering=0) as file:
        # In pieces: others write meanwhile, so that the rest in one piece may just not be there.
        for piece in (1 << 20, 64 << 10, 4 << 10):
            while _allocated(file.fileno(), size, piece):
                size += piece


def _allocated(descriptor: int, start: int, size: int) -> bool:
    try:
        os.posix_fallocate(descriptor, start, size)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        return False
    return True
