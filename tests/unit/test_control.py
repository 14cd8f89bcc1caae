"""The control socket, over a real one: answers, bad input, peers that misbehave, and its end."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import stat
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tradeback.control import MAX_LINE_BYTES, MAX_PATH_BYTES, ControlClient, ControlSocket
from tradeback.errors import ControlError, DataFolderError, ProtocolError

SAFETY = 120.0


def echo(message: dict[str, Any]) -> dict[str, Any]:
    return {"type": "echo", "of": message}


def refuse(_: dict[str, Any]) -> dict[str, Any]:
    raise ProtocolError("bad_field", "no, for a reason")


def broken(_: dict[str, Any]) -> dict[str, Any]:
    raise KeyError("a fault")


def large(_: dict[str, Any]) -> dict[str, Any]:
    return {"type": "large", "text": "x" * 8_000_000}


HANDLERS = {"echo": echo, "refuse": refuse, "broken": broken, "large": large}


@asynccontextmanager
async def serving(folder: Path) -> AsyncIterator[Path]:
    control = ControlSocket(folder / "control.sock", HANDLERS)
    await control.start()
    try:
        yield control.path
    finally:
        async with asyncio.timeout(SAFETY):
            await control.stop()
        assert not control.path.exists()


async def ask(path: Path, *lines: bytes) -> list[Any]:
    """Each line's answer, over one connection."""
    reader, writer = await asyncio.open_unix_connection(str(path), limit=1 << 24)
    try:
        answers = []
        async with asyncio.timeout(SAFETY):
            for line in lines:
                writer.write(line)
                await writer.drain()
                answers.append(json.loads(await reader.readline()))
        return answers
    finally:
        writer.close()
        await writer.wait_closed()


def run(scenario: Coroutine[Any, Any, None]) -> None:
    asyncio.run(scenario)


def test_bad_input_is_answered_and_the_connection_stays(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tmp_path) as path:
            answers = await ask(
                path,
                b"\x00\xff garbage\n",
                b"[]\n",
                b'{"type":7}\n',
                b'{"type":"nothing"}\n',
                b'{"type":"refuse"}\n',
                b'{"type":"broken"}\n',
                b'{"type":"echo"}\n',
            )
            assert [answer["type"] for answer in answers] == ["error"] * 6 + ["echo"]
            assert answers[4]["message"] == "no, for a reason"
            assert "a fault of the server" in answers[5]["message"]

    run(scenario())


@pytest.mark.parametrize("size", [MAX_LINE_BYTES + 1, 3 * MAX_LINE_BYTES])
def test_a_huge_line_is_refused_and_the_next_one_answered(tmp_path: Path, size: int) -> None:
    async def scenario() -> None:
        async with serving(tmp_path) as path:
            answers = await ask(path, b"x" * size + b"\n", b'{"type":"echo"}\n')
            assert "longer than" in answers[0]["message"]
            assert answers[1]["type"] == "echo"

    run(scenario())


def test_half_a_line_at_the_end_is_no_fault(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tmp_path) as path:
            reader, writer = await asyncio.open_unix_connection(str(path))
            writer.write(b'{"type":"ec')
            writer.write_eof()
            async with asyncio.timeout(SAFETY):
                assert json.loads(await reader.readline())["type"] == "error"
                assert await reader.read() == b""
            writer.close()
            await writer.wait_closed()

    run(scenario())


def test_it_ends_with_connections_open_and_a_peer_that_never_reads(tmp_path: Path) -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        idle = [socket.socket(socket.AF_UNIX) for _ in range(50)]
        deaf = socket.socket(socket.AF_UNIX)
        async with serving(tmp_path) as path:
            for connection in [*idle, deaf]:
                connection.setblocking(False)
                await loop.sock_connect(connection, str(path))
            await loop.sock_sendall(deaf, b'{"type":"large"}\n' * 3)
            # The others are served meanwhile.
            assert (await ask(path, b'{"type":"echo"}\n'))[0]["type"] == "echo"
        for connection in [*idle, deaf]:
            connection.close()

    run(scenario())


def test_only_the_owner_may_connect_and_a_stale_socket_is_replaced(tmp_path: Path) -> None:
    async def scenario() -> None:
        with socket.socket(socket.AF_UNIX) as stale:
            stale.bind(str(tmp_path / "control.sock"))
        mask = os.umask(0o022)
        try:
            async with serving(tmp_path) as path:
                assert stat.S_IMODE(path.stat().st_mode) == 0o600
                assert (await ask(path, b'{"type":"echo"}\n'))[0]["type"] == "echo"
                assert os.umask(0o022) == 0o022
        finally:
            os.umask(mask)

    run(scenario())


def test_a_path_too_long_for_a_socket_is_a_sentence(tmp_path: Path) -> None:
    folder = tmp_path / ("x" * MAX_PATH_BYTES)
    folder.mkdir()

    async def scenario() -> None:
        with pytest.raises(DataFolderError, match="too long for the path of a Unix socket: choose"):
            await ControlSocket(folder / "control.sock", HANDLERS).start()

    run(scenario())


def test_a_folder_in_its_place_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "control.sock").mkdir()

    async def scenario() -> None:
        with pytest.raises(DataFolderError, match=r"control\.sock cannot be made"):
            await ControlSocket(tmp_path / "control.sock", HANDLERS).start()

    run(scenario())


def test_a_client_asks_and_is_answered_or_refused(tmp_path: Path) -> None:
    async def scenario() -> None:
        client = ControlClient(tmp_path / "control.sock")
        with pytest.raises(ControlError, match=r"nobody listens at .*control\.sock"):
            await client.ask({"type": "echo"})
        async with serving(tmp_path):
            answer = await client.ask({"type": "echo", "n": 1})
            assert answer["of"] == {"type": "echo", "n": 1}
            with pytest.raises(ControlError, match="refused: no, for a reason"):
                await client.ask({"type": "refuse"})
            both = await asyncio.gather(*(client.ask({"type": "echo", "n": n}) for n in range(2)))
            assert [answer["of"]["n"] for answer in both] == [0, 1]
            assert client.connects == 1
            with pytest.raises(ControlError, match="did not answer"):
                await client.ask({"type": "large"})  # longer than a line may be
            assert (await client.ask({"type": "echo"}))["type"] == "echo"
        client.close()
        client.close()

    run(scenario())


def test_a_client_connects_again_after_the_other_process_was_restarted(tmp_path: Path) -> None:
    async def scenario() -> None:
        client = ControlClient(tmp_path / "control.sock")
        for times in (1, 2):
            async with serving(tmp_path):
                await client.connect()
                await client.ask({"type": "echo"})
                assert client.connects == times
                assert client.connected
            with pytest.raises(ControlError):
                await client.ask({"type": "echo"})
            assert not client.connected

    run(scenario())


def test_a_client_gives_up_a_process_that_does_not_answer(tmp_path: Path) -> None:
    async def scenario() -> None:
        gone = asyncio.Event()

        async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read()  # until the client is gone
            writer.close()
            gone.set()

        silent = await asyncio.start_unix_server(say_nothing, str(tmp_path / "control.sock"))
        client = ControlClient(tmp_path / "control.sock")
        with pytest.raises(ControlError, match="did not answer: TimeoutError"):
            await client.ask({"type": "echo"}, timeout=0.05)
        # The late answer must not be taken for that of the next message.
        assert not client.connected
        await gone.wait()
        silent.close()

    run(scenario())
