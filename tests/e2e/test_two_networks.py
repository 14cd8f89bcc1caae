"""The API in a network of its own, with a wire to that of server, recorder and services: what tests of two machines say
holds where the API reaches nothing on its own loopback. Needs root, for the network."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import private
from tests.e2e.api import ApiProcess
from tests.e2e.child import ReadyChild
from tests.e2e.test_two_machines import TwoMachines, running
from tests.e2e.test_two_machines import (  # collected here again, with the machines of this file
    test_a_broker_that_is_away_delays_and_loses_nothing as test_a_broker_that_is_away,  # noqa: F401
)
from tests.e2e.test_two_machines import (
    test_what_is_done_on_one_machine_reaches_the_clients_of_the_other as test_changes_travel,  # noqa: F401
)
from tests.servers.mariadb import MariadbServer
from tests.servers.nats import NatsServer
from tests.servers.redis import RedisServer

# Of the range for such use (RFC 2544), which no machine has otherwise; another process of the tests has others.
_FIRST = ip_address("198.18.0.0") + os.getpid() % 16_384 * 4
NEAR, FAR = str(_FIRST + 1), str(_FIRST + 2)


@contextmanager
def network_of_its_own() -> Iterator[str]:
    """The name of a network namespace whose address is FAR, and in which this one's is NEAR. Skips where none can be
    made."""
    name, near, far = (f"{kind}{os.getpid()}" for kind in ("tradeback", "tbn", "tbf"))
    _ip("netns", "add", name, needed=True)
    try:
        _ip("link", "add", near, "type", "veth", "peer", "name", far, "netns", name, needed=True)
        _ip("addr", "add", f"{NEAR}/30", "dev", near)
        _ip("link", "set", near, "up")
        _ip("-n", name, "addr", "add", f"{FAR}/30", "dev", far)
        _ip("-n", name, "link", "set", far, "up")
        _ip("-n", name, "link", "set", "lo", "up")
        yield name
    finally:
        _ip("netns", "del", name)  # the wire goes with it


def _ip(*words: str, needed: bool = False) -> None:
    try:
        done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False, timeout=30)
    except FileNotFoundError:
        pytest.skip("no network can be made here: apt-get install -y --no-install-recommends iproute2")
    if done.returncode and needed:
        pytest.skip(f"no network can be made here, it needs root and its namespaces: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module", params=[NatsServer, RedisServer])
def machines(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[TwoMachines]:
    tmp_path = tmp_path_factory.mktemp("networks")
    arguments = {
        NatsServer: ("-a", "0.0.0.0"),
        RedisServer: ("--bind", "127.0.0.1", NEAR, "--protected-mode", "no"),
    }
    with (
        network_of_its_own() as name,
        private(request.param, tmp_path / "broker", *arguments[request.param]) as broker,
        private(MariadbServer, tmp_path / "mariadb", "--bind-address=0.0.0.0") as mariadb,
    ):

        class ApiElsewhere(ApiProcess):
            program = ("ip", "netns", "exec", name, *ReadyChild.program)

        def make_api(folder: Path, **environment: Any) -> ApiProcess:
            there = {key: value.replace("127.0.0.1", NEAR) for key, value in environment.items()}
            return ApiElsewhere(folder, **there, SERVER_HOST=FAR)

        with running(broker, mariadb, tmp_path, {}, make_api) as both:
            yield both


def test_the_api_is_on_the_other_network(machines: TwoMachines) -> None:
    api = machines.rest.api
    assert api.host == FAR
    of_api = os.readlink(f"/proc/{api.process.pid}/ns/net")
    assert of_api != os.readlink(f"/proc/{machines.server.process.pid}/ns/net")
    assert api.ask("/api/v1/symbols").status == 200
