"""Descriptors, memory and disk that run short, for real: what the processes say, what health says, who is let in."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path

import pytest

from tests.conftest import fill
from tests.e2e.api import ApiProcess, ask
from tests.e2e.child import SIM_EXCHANGE, logged
from tests.e2e.hubs import RawClient, request, run, served
from tests.e2e.running import RecorderProcess, ServerProcess, SimProcess
from tests.servers.services import settings_of
from tests.waiting import await_true
from tradeback.store.stats import read_stats

SAFETY = 60.0
SEGMENTS = {"JOURNAL_SEGMENT_BYTES": "1MiB", "JOURNAL_RETENTION_BYTES": "4MiB"}


def limits_of(pid: int) -> list[str]:
    found = [line.split() for line in Path(f"/proc/{pid}/limits").read_text().splitlines()]
    return next(words[3:5] for words in found if words[:3] == ["Max", "open", "files"])


def answered(port: int) -> bytes:
    """All that is answered to a client who is not let in; of one who is, the beginning."""
    with socket.create_connection(("127.0.0.1", port), SAFETY) as connection:
        connection.sendall(request())
        said = b""
        while not said.startswith(b"HTTP/1.1 101") and (more := connection.recv(4096)):
            said += more
        return said


class FewDescriptors(ServerProcess):
    program = ("prlimit", "--nofile=64:270", sys.executable, "-m", "tradeback")


def test_the_server_lets_as_many_in_as_it_has_descriptors(tmp_path: Path) -> None:
    with SimProcess("--paused") as sim, FewDescriptors(tmp_path, sim) as server:
        assert limits_of(server.process.pid) == ["270", "270"]
        (said,) = logged(server.log, level="warning", max_clients=10_000)
        assert (said["let_in"], said["hard_limit"], said["needed"]) == (14, 270, 10_256)
        assert "WS_MAX_CLIENTS" in said["event"]

        async def come() -> None:
            clients = [await RawClient.connect(server.ws_port) for _ in range(14)]
            answer = await asyncio.to_thread(answered, server.ws_port)
            assert b" 503 " in answer
            assert b"too_many_clients" in answer
            for client in clients:
                await client.leave()

        run(come())
        assert server.stop() == 0


def test_a_server_whose_descriptors_are_used_up_says_so_and_goes_on(tmp_path: Path) -> None:
    """Connections that never ask for anything take descriptors too."""
    settings = {"WS_HANDSHAKE_TIMEOUT": "10m", "LOG_PERFORMANCE": "1s"}
    with SimProcess("--paused") as sim, FewDescriptors(tmp_path, sim, **settings) as server:
        with ExitStack() as stack:
            for _ in range(270):
                stack.enter_context(socket.create_connection(("127.0.0.1", server.ws_port), SAFETY))
            await_true(
                lambda: logged(server.log, event="a resource is used up", resource="descriptors"), server.said
            )
            await_true(lambda: "cannot accept connections: raise the limit" in server.said(), server.said)
            untold = "what this process did cannot be told at the moment"
            await_true(lambda: untold in server.said(), server.said)
        told = len(logged(server.log, event="performance"))
        again = {"event": "there is enough of a resource again", "resource": "descriptors"}
        await_true(lambda: logged(server.log, **again), server.said)
        await_true(lambda: len(logged(server.log, event="performance")) > told, server.said)
        assert server.control(type="status")["type"] == "status"
        answer = await_true(lambda: answered(server.ws_port), server.said)
        assert b" 101 " in answer
        assert len(logged(server.log, event="memory and disk cannot be watched at the moment")) <= 2
        assert "Traceback" not in server.log.read_text()
        assert server.stop() == 0


@pytest.mark.parametrize("command", ["server", "recorder", "api"])
def test_too_few_descriptors_are_a_sentence(tmp_path: Path, command: str) -> None:
    done = subprocess.run(
        [
            "prlimit",
            "--nofile=64:200",
            sys.executable,
            "-m",
            "tradeback",
            command,
            "--data-dir",
            str(tmp_path),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, **settings_of(tmp_path), **SIM_EXCHANGE, "SERVER_PORT": "0", "WS_PORT": "0"},
    )
    assert done.returncode == 1
    assert "open files, and the hard limit is 200: raise it" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_disk_that_fills_up_is_told_in_time(mounted: Callable[[str], Path]) -> None:
    disk = mounted("64m")
    low = {"RESOURCES_DISK_FREE": "24MiB", **SEGMENTS}
    with (
        SimProcess("--paused") as sim,
        ServerProcess(disk, sim, **low) as server,
        RecorderProcess(disk, sim, **low) as recorder,
        ApiProcess(disk, **low) as api,
    ):

        def states() -> set[str]:
            told = api.ask("/api/v1/health/detailed").json["resources"]
            return {told.get(name, {}).get("disk") for name in ("server", "recorder", "api")}

        await_true(lambda: states() == {"ok"}, server.said)
        free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
        with (disk / "some").open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, free - 16 * 1024 * 1024)
        await_true(lambda: states() == {"low"}, server.said)
        await_true(lambda: logged(api.log, event="a resource gets low"), api.said)
        assert api.get("/api/v1/health/detailed")["status"] == "degraded"
        scraped = api.ask("/api/v1/metrics").body.decode()
        for name in ("server", "recorder", "api"):
            assert f'tradeback_{name}_resource_level{{resource="disk"}} 2.0' in scraped
        fill(disk / "ballast")
        await_true(lambda: states() == {"used up"}, server.said)
        await_true(lambda: logged(api.log, event="a resource is used up"), api.said)
        # Nobody has failed: there is room in the segments that there are.
        assert api.get("/api/v1/health/ready")["status"] == "ok"
        (disk / "ballast").unlink()
        (disk / "some").unlink()
        await_true(lambda: states() == {"ok"}, server.said)
        for process in (server, recorder, api):
            await_true(
                lambda log=process.log: logged(log, event="there is enough of a resource again"), process.said
            )
            told = [line["event"] for line in logged(process.log, resource="disk")]
            assert told[0] == "a resource gets low"
            assert "a resource is used up" in told
            # A line for each change, none for each look.
            assert all(one != other for one, other in pairwise(told)), told
        assert (server.stop(), recorder.stop()) == (0, 0)


def test_a_journal_that_may_outgrow_its_disk_is_told_at_the_start(mounted: Callable[[str], Path]) -> None:
    disk = mounted("64m")
    segments = {**SEGMENTS, "JOURNAL_RETENTION_BYTES": "100MiB"}
    with SimProcess("--paused") as sim, ServerProcess(disk, sim, **segments) as server:
        (said,) = logged(server.log, retention=100 * 1024 * 1024)
        assert "JOURNAL_RETENTION_BYTES" in said["event"]
        assert 0 < said["free"] < 64 * 1024 * 1024
        assert server.stop() == 0


def test_a_ceiling_of_memory_that_is_reached_lets_nobody_in(tmp_path: Path) -> None:
    with SimProcess("--paused") as sim, ServerProcess(tmp_path, sim, RESOURCES_MEMORY="8MiB") as server:
        (said,) = logged(server.log, by="RESOURCES_MEMORY", clients=10_000)
        assert "WS_MAX_CLIENTS" in said["event"]
        await_true(lambda: logged(server.log, event="a resource is used up", resource="memory"), server.said)

        await_true(lambda: b"no_memory" in answered(server.ws_port), server.said)
        assert ask(server.ws_port, "/health").status == 200
        values = read_stats(tmp_path / "sim" / "stats" / "server").values
        assert values["memory_ceiling_bytes"].value == 8 * 1024 * 1024
        assert values["memory_used_bytes"].value > 8 * 1024 * 1024
        assert server.stop() == 0


def test_who_is_there_is_served_while_memory_is_used_up() -> None:
    async def scenario() -> None:
        async with served() as serving:
            name = serving.market.symbols[0]
            client = await serving.client()
            await client.subscribe(name)
            serving.hub.memory_is_used_up(True)
            assert b"no_memory" in await asyncio.to_thread(answered, serving.port)
            serving.trade(0, 7)
            await asyncio.wait_for(client.until_sum(client.ids[name], 7), SAFETY)
            serving.hub.memory_is_used_up(False)
            other = await serving.client()
            await other.leave()
            await client.leave()

    run(scenario())
