"""The client against servers that are mute, broken or hostile, byte by byte: it goes on, ends, and leaks nothing."""

from __future__ import annotations

import asyncio
import base64
import gc
import hashlib
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import orjson
import pytest

from tests.reference.batch import BINARY, CLOSE, CONTINUATION, PING, TEXT
from tests.waiting import until
from tradeback._fast.batch import encode_frames
from tradeback.client import AutoSubscribed, Client, Credentials, Refused, Update
from tradeback.client import client as client_module
from tradeback.client import connection as connection_module
from tradeback.client import login as login_module
from tradeback.errors import ServerRefusedError, TokenError

PATIENCE = 120.0
Script = Callable[["Peer", asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
SUBSCRIBED = {"type": "subscribed", "symbols": [{"symbol": "BTCUSDT", "id": 1}]}
ONE_PRICE = encode_frames([(1, 2.0, 3.0)])  # a whole WebSocket frame


@dataclass
class Peer:
    """A TCP server that follows a script, one call a connection."""

    script: Script
    heads: list[bytes] = field(default_factory=list)
    url: str = ""
    rest: str = ""

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[Peer]:
        tasks: set[asyncio.Task[Any]] = set()
        writers: list[asyncio.StreamWriter] = []

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            tasks.add(task)
            writers.append(writer)
            try:
                await self.script(self, reader, writer)
            except (ConnectionError, asyncio.IncompleteReadError):
                pass  # it is the client's right to hang up
            finally:
                writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        self.url, self.rest = f"ws://127.0.0.1:{port}/api/v1/ws", f"http://127.0.0.1:{port}"
        try:
            yield self
        finally:
            # Who has connected is taken in first: asyncio loses a connection whose server closes in that very turn.
            await turns(20)
            server.close()
            await server.wait_closed()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for writer in writers:
                writer.transport.abort()  # whatever a client did not read
            await turns(5)

    async def head(self, reader: asyncio.StreamReader) -> bytes:
        head = await reader.readuntil(b"\r\n\r\n")
        self.heads.append(head)
        return head

    async def upgrade(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await self.head(reader)
        key = head.split(b"Sec-WebSocket-Key: ")[1].split(b"\r\n")[0]
        proof = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
        writer.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + proof + b"\r\n\r\n"
        )


def frame(opcode: int, payload: bytes, *, fin: bool = True) -> bytes:
    first = (0x80 if fin else 0) | opcode
    if len(payload) < 126:
        return struct.pack("!BB", first, len(payload)) + payload
    if len(payload) < 65_536:
        return struct.pack("!BBH", first, 126, len(payload)) + payload
    return struct.pack("!BBQ", first, 127, len(payload)) + payload


def text(message: Any) -> bytes:
    return frame(TEXT, orjson.dumps(message))


def sends(*parts: bytes) -> Script:
    """Upgrades, sends, and keeps the connection."""

    async def script(peer: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await peer.upgrade(reader, writer)
        for part in parts:
            writer.write(part)
            await writer.drain()
        await reader.read()

    return script


def answers(*parts: bytes) -> Script:
    """Answers any request with these bytes, and hangs up."""

    async def script(peer: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await peer.head(reader)
        for part in parts:
            writer.write(part)
            await writer.drain()

    return script


async def turns(count: int) -> None:
    """Of the loop."""
    for _ in range(count):
        await asyncio.sleep(0)


async def mute(peer: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()


@pytest.fixture(autouse=True)
def _no_long_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "FIRST_BACKOFF_S", 0.01)
    monkeypatch.setattr(client_module, "LONGEST_BACKOFF_S", 0.05)


GARBAGE = {
    "no WebSocket": b"\0" * 64,
    "no JSON": frame(TEXT, b"{"),
    "JSON that is no object": text([1, 2]),
    "no type": text({}),
    "an id that is no number": text({"type": "subscribed", "symbols": [{"symbol": "A", "id": "1"}]}),
    "an id that is too high": text({"type": "subscribed", "symbols": [{"symbol": "A", "id": 65_536}]}),
    "an id below zero": text({"type": "auto_subscribe", "data": {"symbol": "A", "id": -1}}),
    "a name that is none": text({"type": "auto_subscribe", "data": {"symbol": 5, "id": 1}}),
    "a name with an escape": text({"type": "auto_subscribe", "data": {"symbol": "\x1b[2J", "id": 1}}),
    "a name too long": text({"type": "auto_subscribe", "data": {"symbol": "A" * 51, "id": 1}}),
    "one id for two": text(
        {"type": "subscribed", "symbols": [{"symbol": "A", "id": 1}, {"symbol": "B", "id": 1}]}
    ),
    "symbols that are no list": text({"type": "subscribed", "symbols": 7}),
    "no data": text({"type": "auto_unsubscribe"}),
    "prices before the id": ONE_PRICE,
    "a price of nothing": text({"type": "prices", "data": [{"symbol": "A", "price": 1, "volume": 1}]}),
    "a price that is none": text(SUBSCRIBED)
    + text({"type": "prices", "data": [{"symbol": "BTCUSDT", "price": "x", "volume": 1}]}),
    "a level without levels": text({"type": "enigma", "data": {"symbol": "BTCUSDT"}}),
    "an error without words": text({"type": "error"}),
    "a wrong CRC": text(SUBSCRIBED) + ONE_PRICE[:-1] + b"\1",
    "a fragment of nothing": frame(CONTINUATION, b"{}"),
    "a message within another": frame(TEXT, b"{", fin=False) + text(SUBSCRIBED),
    "a frame without end": struct.pack("!BBQ", 0x82, 127, 1 << 62),
    "a frame that is too long": frame(TEXT, b" " * (connection_module.MESSAGE_BYTES_MAX + 1)),
    "fragments without end": frame(TEXT, b" " * 600_000, fin=False)
    + frame(CONTINUATION, b" " * 600_000, fin=False),
}


@pytest.mark.parametrize("garbage", GARBAGE.values(), ids=GARBAGE.keys())
def test_whatever_cannot_be_understood_ends_the_connection_alone(garbage: bytes) -> None:
    notices: list[str] = []

    async def scenario() -> None:
        peer = Peer(sends(garbage))
        async with peer.listening(), Client(peer.url, ["BTCUSDT"], on_notice=notices.append) as client:
            await until(lambda: client.connections == 2)
            # And it is a client as before.
            peer.script = sends(text(SUBSCRIBED), ONE_PRICE)
            async with asyncio.timeout(PATIENCE):
                async for update in client:
                    assert update == ("BTCUSDT", 2.0, 3.0)
                    break

    asyncio.run(scenario())
    assert all(notice.isprintable() for notice in notices)
    assert "connecting again" in notices[0]


@pytest.mark.parametrize(
    ("script", "notice"),
    [
        (answers(b""), "hung up before it answered"),
        (answers(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"), "answered 200"),
        (answers(b"SSH-2.0-OpenSSH_9.6\r\n\r\n"), "no WebSocket server"),
        (answers(b"HTTP/1.1 101 Switching Protocols\r\n\r\n"), "answered 101"),
        (answers(b"HTTP/1.1 500 no\r\n\r\n"), "answered 500"),
        (answers(b"\xff" * 300_000), "no WebSocket server"),
    ],
)
def test_a_handshake_that_fails_is_tried_again(script: Script, notice: str) -> None:
    notices: list[str] = []

    async def scenario() -> None:
        peer = Peer(script)
        async with peer.listening(), Client(peer.url, ["BTCUSDT"], on_notice=notices.append):
            await until(lambda: len(peer.heads) >= 2)

    asyncio.run(scenario())
    assert notice in notices[0]


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_is_not_followed_with_the_token(status: int) -> None:
    async def scenario() -> None:
        async with Peer(mute).listening() as other:
            there = f"HTTP/1.1 {status} x\r\nLocation: {other.url}\r\nContent-Length: 0\r\n\r\n".encode()
            async with (
                Peer(answers(there)).listening() as peer,
                Client(peer.url, ["A"], token="secret") as client,
            ):
                with pytest.raises(ServerRefusedError, match=f"answered {status}"):
                    await anext(aiter(client))
                assert b"Authorization: Bearer secret\r\n" in peer.heads[0]
            assert not other.heads

    asyncio.run(scenario())


@pytest.mark.parametrize("token", ["", "a\r\nX-Evil: 1", "a\nb", "ü", "\0"])
def test_a_token_that_would_be_more_than_a_header_is_refused(token: str) -> None:
    with pytest.raises(TokenError, match="characters that no token has"):
        Client("ws://127.0.0.1:1/", ["A"], token=token)


def test_messages_in_fragments_with_pings_between_are_put_together() -> None:
    async def scenario() -> None:
        whole = orjson.dumps(SUBSCRIBED)
        payload = ONE_PRICE[2:]
        peer = Peer(
            sends(
                frame(TEXT, whole[:5], fin=False),
                frame(PING, b"there?"),
                frame(CONTINUATION, whole[5:9], fin=False) + frame(CONTINUATION, whole[9:]),
                frame(BINARY, payload[:3], fin=False),
                frame(CONTINUATION, payload[3:]),
            )
        )
        async with peer.listening(), Client(peer.url, ["BTCUSDT"]) as client:
            async with asyncio.timeout(PATIENCE):
                assert await anext(aiter(client)) == ("BTCUSDT", 2.0, 3.0)
            assert client.connections == 1

    asyncio.run(scenario())


def test_what_a_server_says_is_one_readable_line() -> None:
    notices: list[str] = []

    async def scenario() -> None:
        said = {
            "type": "error",
            "code": "no\x1b[31m",
            "message": "a\nb\x07" + "x" * 5000,
            "symbols": ["\x1b"],
        }
        closed = frame(CLOSE, struct.pack("!H", 1008) + "\x1b[2J[/]tschüss".encode())
        async with (
            Peer(sends(text(said), closed)).listening() as peer,
            Client(peer.url, ["A"], on_notice=notices.append) as client,
        ):
            events = client.events()
            assert isinstance(await anext(events), Refused)
            with pytest.raises(ServerRefusedError, match=r"closed with 1008 \(\[2J\[/\]tschüss\)"):
                await anext(events)

    asyncio.run(scenario())
    assert notices
    assert all(notice.isprintable() and len(notice) < 500 for notice in notices)


def test_symbols_that_nobody_asked_for_fill_no_memory() -> None:
    """A stream id has one name, so there are 65,536 of them at most, whatever the server says."""

    async def scenario() -> None:
        flood = b"".join(
            text({"type": "auto_subscribe", "data": {"symbol": f"S{n}", "id": n & 0xFFFF}})
            for n in range(70_000)
        )
        async with Peer(sends(flood)).listening() as peer, Client(peer.url, ["A"]) as client:
            await until(lambda: client.last_failure is not None)
            assert "stream id 0 of S0 for S65536 too" in str(client.last_failure)
            assert len(client._backlog) <= 65_536
            assert not client.watched

    asyncio.run(scenario())


@pytest.mark.parametrize("iterate", [False, True])
@pytest.mark.parametrize(
    "script", [mute, sends(), sends(text(SUBSCRIBED), ONE_PRICE)], ids=["mute", "idle", "busy"]
)
def test_leaving_at_any_moment_leaves_nothing_behind(script: Script, iterate: bool) -> None:
    """Sockets and tasks that are left warn when they are collected, and warnings are errors here."""

    async def scenario() -> None:
        async with Peer(script).listening() as peer:
            for count in range(30):
                program = asyncio.create_task(use(peer.url, iterate))
                await turns(count)
                program.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await program
                # At once, and not when the handshake's time is over.
                assert {task.get_name() for task in asyncio.all_tasks()} & {"client"} == set()
            await asyncio.sleep(0.1)
            program = asyncio.create_task(use(peer.url, iterate))
            await asyncio.sleep(0.1)
            program.cancel()
            await asyncio.gather(program, return_exceptions=True)

    async def use(url: str, iterate: bool) -> None:
        async with Client(url, ["BTCUSDT"]) as client:
            if iterate:
                async for _ in client:
                    pass
            await asyncio.Event().wait()

    asyncio.run(scenario())
    gc.collect()


class TestLogin:
    """REST interfaces that are slow, broken or hostile."""

    def attempt(self, peer: Peer, **options: Any) -> str:
        """What the client ends with."""

        async def scenario() -> str:
            async with peer.listening():
                ann = Credentials(peer.rest, "ann", 'pa\nss"ü')
                async with Client(peer.url, ["A"], credentials=ann, **options) as client:
                    with pytest.raises(ServerRefusedError) as caught:
                        async with asyncio.timeout(PATIENCE):
                            await anext(aiter(client))
                    return str(caught.value)

        return asyncio.run(scenario())

    def test_a_wrong_password_ends_it_with_the_servers_sentence(self) -> None:
        body = b'{"error":{"code":"bad_credentials","message":"There is no such \\u001b[31muser."}}'
        said = self.attempt(Peer(answers(http(401, body))))
        assert "refused the login of ann: There is no such  [31muser." in said

    @pytest.mark.parametrize(
        "answer",
        [
            b"<html>",
            b"[]",
            b'{"token":5,"user":{"username":"ann","symbol_patterns":[]},"expires_at":1}',
            b'{"token":"a\\r\\nb","user":{"username":"ann","symbol_patterns":[]},"expires_at":1}',
            b'{"token":"","user":{"username":"ann","symbol_patterns":[]},"expires_at":1}',
            b'{"token":"a","user":null,"expires_at":1}',
            b'{"token":"a","user":{"username":"ann","symbol_patterns":[]},"expires_at":"x"}',
        ],
    )
    def test_what_is_no_login_ends_it(self, answer: bytes) -> None:
        assert "answered what is no login" in self.attempt(Peer(answers(http(200, answer))))

    def test_an_answer_without_end_is_not_read(self) -> None:
        assert "answered more than" in self.attempt(Peer(answers(http(200, b"x" * 100_000))))

    def test_a_compressed_answer_is_not_unpacked(self) -> None:
        body = http(200, b"\x1f\x8b" + b"\0" * 50, "Content-Encoding: gzip\r\n")
        assert "answered what is no login" in self.attempt(Peer(answers(body)))

    @pytest.mark.parametrize("status", [302, 400, 404, 405])
    def test_what_is_no_rest_interface_ends_it(self, status: int) -> None:
        moved = "Location: http://127.0.0.1:1/\r\n"
        assert f"answered {status}" in self.attempt(Peer(answers(http(status, b"", moved))))

    @pytest.mark.parametrize(
        "rest", ["", "ftp://127.0.0.1", "http://", "127.0.0.1:8080", "http://[", "http://a b/"]
    )
    def test_an_address_that_is_none_ends_it(self, rest: str) -> None:
        async def scenario() -> None:
            async with Client("ws://127.0.0.1:1", ["A"], credentials=Credentials(rest, "ann", "x")) as client:
                with pytest.raises(ServerRefusedError, match="is no address"):
                    await anext(aiter(client))

        asyncio.run(scenario())

    def test_it_waits_as_long_as_it_is_told(self, monkeypatch: pytest.MonkeyPatch) -> None:
        waits: list[float] = []
        sleep = asyncio.sleep

        async def noted(seconds: float) -> None:
            waits.append(seconds)
            await sleep(0)

        async def script(peer: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            asked.append(await peer.head(reader))
            after = ["7", "1e9", "-1", "nan", "soon"][min(len(asked), 5) - 1]
            status = 429 if len(asked) < 6 else 401
            writer.write(http(status, b"", f"Retry-After: {after}\r\n"))

        asked: list[bytes] = []
        monkeypatch.setattr(client_module.asyncio, "sleep", noted)
        self.attempt(Peer(script))
        assert waits[:2] == [7.0, login_module.LONGEST_WAIT_S]
        assert all(0 < wait <= 0.05 for wait in waits[2:5])

    def test_a_login_that_the_event_server_never_takes_is_given_up(self) -> None:
        async def script(peer: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            head = await peer.head(reader)
            if head.startswith(b"POST /api/v1/auth/login"):
                writer.write(http(200, LOGIN))
            elif head.startswith(b"POST /api/v1/auth/logout"):
                writer.write(http(204, b""))
            else:
                writer.write(http(401, b""))

        peer = Peer(script)
        assert "3 new logins in a row were refused" in self.attempt(peer)
        logins = [head for head in peer.heads if b"/auth/login" in head]
        assert len(logins) == 3

    def test_a_revoked_session_is_made_again_and_logged_out_in_the_end(self) -> None:
        async def script(peer: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            if not peer.heads or len(peer.heads) == 2:
                await peer.head(reader)
                writer.write(http(200, LOGIN.replace(b"abc", b"token%d" % len(peer.heads))))
            elif len(peer.heads) in (1, 3):
                await peer.upgrade(reader, writer)
                if len(peer.heads) == 2:
                    writer.write(frame(CLOSE, struct.pack("!H", 4401)))
                writer.write(
                    text({"type": "auto_subscribe", "data": {"symbol": "BTCUSDT", "id": 1}}) + ONE_PRICE
                )
                await reader.read()
            else:
                await peer.head(reader)
                writer.write(http(204, b""))

        async def scenario() -> None:
            peer = Peer(script)
            async with peer.listening():
                ann = Credentials(peer.rest, "ann", "x")
                async with asyncio.timeout(PATIENCE), Client(peer.url, credentials=ann) as client:
                    got = []
                    async for event in client.events():
                        got.append(event)
                        if len(got) == 2:
                            break
                    assert got == [AutoSubscribed("BTCUSDT"), Update("BTCUSDT", 2.0, 3.0)]
                    assert client.symbols == ["BTCUSDT"]
                    assert client.login is not None
                    assert client.login.token == "token3"
                    assert "token3" not in repr(client.login)
                assert b"Bearer token1\r\n" in peer.heads[1]
                assert b"Bearer token3\r\n" in peer.heads[3]
                assert peer.heads[4].startswith(b"POST /api/v1/auth/logout ")
                assert b"Bearer token3\r\n" in peer.heads[4]

        asyncio.run(scenario())

    def test_a_rest_interface_that_does_not_answer_the_logout_keeps_nobody(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(client_module, "LOGOUT_PATIENCE_S", 0.05)
        notices: list[str] = []

        async def script(peer: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            if not peer.heads:
                await peer.head(reader)
                writer.write(http(200, LOGIN))
            elif len(peer.heads) == 1:
                await peer.upgrade(reader, writer)
                await reader.read()
            else:
                await mute(peer, reader, writer)

        async def scenario() -> None:
            async with Peer(script).listening() as peer:
                ann = Credentials(peer.rest, "ann", "x")
                async with Client(peer.url, credentials=ann, on_notice=notices.append) as client:
                    await until(lambda: client.connected)

        asyncio.run(scenario())
        assert notices == ["The session goes on until it expires: the logout was not answered"]


LOGIN = b'{"token":"abc","expires_at":4000000000,"user":{"username":"ann","symbol_patterns":["*"]}}'


def http(status: int, body: bytes, headers: str = "") -> bytes:
    head = f"HTTP/1.1 {status} x\r\n{headers}Connection: close\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body
