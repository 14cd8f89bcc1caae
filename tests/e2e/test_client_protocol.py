"""What a client says and gets, over real sockets."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import orjson
import pytest

from tests.e2e.hubs import LOOPS, Closed, RawClient, mask_frame, request, run, served
from tests.reference.batch import BINARY, CLOSE, PING, PONG, TEXT
from tradeback.server.admission import origin_allowed
from tradeback.server.counters import client_error
from tradeback.server.protocol import ERROR_CODES


@pytest.mark.parametrize("loop", LOOPS)
def test_ids_come_before_frames_then_the_price_then_what_is_traded(loop: str) -> None:
    async def scenario() -> None:
        async with served() as server:
            server.trade(1, 5, price=10.5)
            client = await server.client()
            answer = await client.subscribe("S1USDT", "S2USDT")
            assert answer == {
                "type": "subscribed",
                "symbols": [{"symbol": "S1USDT", "id": 8}, {"symbol": "S2USDT", "id": 15}],
            }
            assert (await client.frame())[0] == BINARY
            assert (client.last, client.sums) == ({8: 10.5}, {8: 0})
            server.trade(2, 1234, price=0.25)
            await client.until_sum(15, 1234)
            assert client.last[15] == 0.25
            client.send({"type": "unsubscribe", "symbols": ["S2USDT", "S0USDT", "nothing"]})
            assert await client.text() == {
                "type": "unsubscribed",
                "symbols": [{"symbol": "S2USDT", "id": 15}],
            }
            assert server.symbols.held == {server.market.slots[1]: 1}
            server.trade(2, 1)
            server.trade(1, 7)
            await client.until_sum(8, 7)
            assert client.sums[15] == 1234
            await client.leave()
            await server.until(lambda: not server.symbols.held)

    run(scenario(), loop)


def test_what_was_traded_until_unsubscribing_arrives_before_the_answer() -> None:
    async def scenario() -> None:
        async with served() as server:
            client = await server.client()
            await client.subscribe("S0USDT")
            # Marked and not flushed yet when the command comes.
            server.hub.fanout.mark(server.market.trade(0, 77))
            client.send({"type": "unsubscribe", "symbols": ["S0USDT"]})
            assert (await client.text())["type"] == "unsubscribed"
            assert client.sums == {1: 77}
            await client.leave()

    run(scenario())


def test_ping_is_answered_pong_and_a_ping_frame_with_its_payload() -> None:
    async def scenario() -> None:
        async with served() as server:
            client = await server.client()
            client.send({"type": "ping"})
            assert await client.frame() == (TEXT, b'{"type":"pong"}')
            client.writer.write(mask_frame(PING, b"abc"))
            assert await client.frame() == (PONG, b"abc")
            await client.leave()

    run(scenario())


def test_duplicates_are_harmless_and_unknown_symbols_are_named_in_one_error() -> None:
    async def scenario() -> None:
        async with served() as server:
            client = await server.client()
            answer = await client.subscribe("S1USDT", "NO", "S1USDT", "NEITHER")
            assert answer["symbols"] == [{"symbol": "S1USDT", "id": 8}]
            error = await client.text()
            assert (error["type"], error["code"], error["symbols"]) == (
                "error",
                "unknown_symbols",
                ["NO", "NEITHER"],
            )
            assert (await client.subscribe("S1USDT"))["symbols"] == [{"symbol": "S1USDT", "id": 8}]
            server.trade(1, 3)
            await client.until_sum(8, 3)
            assert (await client.subscribe("NO"))["code"] == "unknown_symbols"
            await client.leave()

    run(scenario())


def test_symbols_without_room_are_refused_for_now_and_carried_later() -> None:
    async def scenario() -> None:
        async with served() as server:
            client = await server.client()
            server.symbols.without_room = {"S0USDT", "S2USDT"}
            answer = await client.subscribe("S0USDT", "S1USDT", "S2USDT", "NO")
            assert answer["symbols"] == [{"symbol": "S1USDT", "id": 8}]
            assert (await client.text())["code"] == "unknown_symbols"
            error = await client.text()
            assert (error["type"], error["code"], error["symbols"]) == (
                "error",
                "not_now",
                ["S0USDT", "S2USDT"],
            )
            server.symbols.without_room = set()
            assert (await client.subscribe("S0USDT"))["symbols"] == [{"symbol": "S0USDT", "id": 1}]
            server.trade(0, 3)
            await client.until_sum(1, 3)
            await client.leave()

    run(scenario())


def test_a_client_has_at_most_max_symbols_subscriptions() -> None:
    async def scenario() -> None:
        async with served(max_symbols=3) as server:
            client = await server.client()
            assert len((await client.subscribe("S0USDT", "S1USDT"))["symbols"]) == 2
            answer = await client.subscribe("S1USDT", "S2USDT", "S3USDT")
            assert [entry["symbol"] for entry in answer["symbols"]] == ["S1USDT", "S2USDT"]
            error = await client.text()
            assert (error["code"], error["symbols"]) == ("too_many_symbols", ["S3USDT"])
            error = await client.subscribe(*(f"S{i}USDT" for i in range(4)))
            assert (error["code"], "symbols" in error) == ("too_many_symbols", False)
            assert server.hub.fanout.watcher_count(server.market.slots[3]) == 0
            await client.leave()

    run(scenario())


MALFORMED: list[tuple[bytes, str]] = [
    (b"", "malformed"),
    (b"nothing", "malformed"),
    (b"[]", "malformed"),
    (b'"subscribe"', "malformed"),
    (b"[" * 16000, "malformed"),
    (b'{"type":' * 1800, "malformed"),
    (b"9" * 16000, "malformed"),
    (b'{"type":1}', "unknown_type"),
    (b"{}", "unknown_type"),
    (b'{"type":["subscribe"]}', "unknown_type"),
    (b'{"type":"Subscribe","symbols":["S0USDT"]}', "unknown_type"),
    (b'{"type":"' + b"x" * 16000 + b'"}', "unknown_type"),
    (b'{"type":"ping","x":1}', "unknown_field"),
    (b'{"type":"subscribe"}', "invalid_symbols"),
    (b'{"type":"subscribe","symbols":"S0USDT"}', "invalid_symbols"),
    (b'{"type":"subscribe","symbols":[]}', "invalid_symbols"),
    (b'{"type":"subscribe","symbols":{"0":"S0USDT"}}', "invalid_symbols"),
    (b'{"type":"subscribe","symbols":[1]}', "invalid_symbols"),
    (b'{"type":"subscribe","symbols":[null]}', "invalid_symbols"),
    (b'{"type":"subscribe","symbols":["S0USDT",true]}', "invalid_symbols"),
    (b'{"type":"subscribe","symbols":[""]}', "invalid_symbols"),
    (b'{"type":"subscribe","symbols":["' + b"X" * 51 + b'"]}', "invalid_symbols"),
    (b'{"type":"unsubscribe","symbols":[[["S0USDT"]]]}', "invalid_symbols"),
    (b'{"type":"subscribe","symbols":[' + b",".join([b'"a"'] * 4000) + b"]}", "too_many_symbols"),
]


def test_every_malformed_message_is_answered_with_its_code_and_a_short_text() -> None:
    async def scenario() -> None:
        async with served(malformed_limit=1000) as server:
            client = await server.client()
            for message, code in MALFORMED:
                client.writer.write(mask_frame(TEXT, message))
                answer = await client.text()
                assert (answer["type"], answer["code"]) == ("error", code), message[:60]
                assert len(answer["message"]) < 200
            assert server.hub.stats.value("malformed_commands") == len(MALFORMED)
            told = {code: server.hub.stats.value(client_error(code)) for code in ERROR_CODES}
            assert +Counter(told) == Counter(code for _, code in MALFORMED)
            await client.leave()

    run(scenario())


def test_malformed_messages_end_in_4400() -> None:
    async def scenario() -> None:
        async with served(malformed_limit=3) as server:
            client = await server.client()
            for _ in range(2):
                client.writer.write(mask_frame(TEXT, b"{"))
            client.writer.write(mask_frame(BINARY, b"\0"))
            assert await client.closed() == 4400
            await client.leave()

    run(scenario())


@pytest.mark.parametrize(
    ("frames", "code"),
    [
        (mask_frame(TEXT, b'{"type":"ping"}', masked=False), 1002),
        (mask_frame(TEXT, b'{"type":"ping"}', rsv=4), 1002),
        (mask_frame(TEXT, b'{"type":"ping"}', rsv=1), 1002),
        (mask_frame(PING, b"", rsv=2), 1002),
        (mask_frame(3, b"x"), 1002),
        (mask_frame(11, b"x"), 1002),
        (mask_frame(PING, b"x", fin=False), 1002),
        (mask_frame(PING, b"x" * 126), 1002),
        (mask_frame(0, b"x"), 1002),
        (mask_frame(TEXT, b"x", fin=False) + mask_frame(TEXT, b"y"), 1002),
        (mask_frame(BINARY, b"x", fin=False), 1008),
        (mask_frame(TEXT, b"\xff\xfe"), 1007),
        (mask_frame(TEXT, b'{"type":"\xed\xa0\x80"}'), 1007),
        (mask_frame(TEXT, b"x" * 16385), 1009),
        (mask_frame(TEXT, b"x" * 9000, fin=False) + mask_frame(0, b"x" * 9000), 1009),
        (mask_frame(TEXT, b"", fin=False) + mask_frame(0, b"", fin=False) * 200, 4429),
        (mask_frame(PING, b"x") * 200, 4429),
        (mask_frame(PONG, b"x") * 200, 4429),
        (mask_frame(TEXT, b'{"type":"ping"}') * 200, 4429),
        (mask_frame(CLOSE, b"\x03\xe8"), 1000),
        (mask_frame(CLOSE, b"\x0f\xa0bye"), 4000),
        (mask_frame(CLOSE), 1000),
        (mask_frame(CLOSE, b"\x03\xed"), 1002),
        (mask_frame(CLOSE, b"\x03"), 1002),
    ],
    ids=lambda value: value if isinstance(value, int) else "frames",  # masks are random
)
def test_frames_that_end_a_connection_and_the_code_they_get(frames: bytes, code: int) -> None:
    async def scenario() -> None:
        async with served() as server:
            client = await server.client()
            other = await server.client()
            client.writer.write(frames)
            assert await client.closed() == code
            assert server.hub.stats.value("rate_closes") == (code == 4429)
            client.writer.write(mask_frame(CLOSE, code.to_bytes(2, "big")))
            await client.ended()
            await client.leave()
            await server.until(lambda: len(server.hub.clients) == 1)
            other.send({"type": "ping"})
            assert (await other.text())["type"] == "pong"
            await other.leave()

    run(scenario())


def test_a_message_in_fragments_with_a_ping_between_is_one_message() -> None:
    async def scenario() -> None:
        async with served() as server:
            client = await server.client()
            message = orjson.dumps({"type": "subscribe", "symbols": ["S0USDT"]})
            client.writer.write(mask_frame(TEXT, message[:7], fin=False) + mask_frame(0, b"", fin=False))
            client.writer.write(mask_frame(PING, b"?") + mask_frame(0, message[7:]))
            assert await client.frame() == (PONG, b"?")
            assert (await client.text())["type"] == "subscribed"
            await client.leave()

    run(scenario())


def test_bytes_may_come_one_by_one() -> None:
    async def scenario() -> None:
        async with served() as server:
            client = await server.client()
            for byte in mask_frame(TEXT, b'{"type":"ping"}'):
                client.writer.write(bytes([byte]))
                await client.writer.drain()
                await asyncio.sleep(0)
            assert (await client.text())["type"] == "pong"
            await client.leave()

    run(scenario())


def test_json_mode_sends_prices_as_text() -> None:
    async def scenario() -> None:
        async with served(json=True) as server:
            client = await server.client()
            await client.subscribe("S1USDT")
            server.trade(1, 1500, price=2.5)
            assert await client.text() == {
                "type": "prices",
                "data": [{"symbol": "S1USDT", "price": 2.5, "volume": 1.5}],
            }
            await client.leave()

    run(scenario())


async def http(port: int, message: bytes) -> tuple[int, dict[str, str], Any]:
    """Status, headers and JSON body of one request; the server ends the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(message)
    head = await reader.readuntil(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    headers = {k.lower(): v for k, _, v in (line.partition(": ") for line in lines[1:] if line)}
    status = int(lines[0].split()[1])
    body: Any = None
    if status != 101:
        text = await reader.read()
        assert len(text) == int(headers["content-length"])
        body = orjson.loads(text) if headers["content-type"] == "application/json" else text
    writer.close()
    await writer.wait_closed()
    return status, headers, body


REQUESTS: list[tuple[bytes, int, str]] = [
    (request("/nowhere"), 404, "not_found"),
    (request("/", upgrade=False), 404, "not_found"),
    (request(upgrade=False), 426, "upgrade_required"),
    (request(headers={"Sec-WebSocket-Version": "8"}), 426, "unsupported_version"),
    (request(headers={"Origin": "https://evil.example"}), 403, "origin_not_allowed"),
    (request(headers={"Origin": "null"}), 403, "origin_not_allowed"),
    (request(headers={"Origin": "https://["}), 403, "origin_not_allowed"),
]


def test_requests_that_are_refused_get_the_one_error_shape() -> None:
    async def scenario() -> None:
        async with served() as server:
            for message, status, code in REQUESTS:
                answer = await http(server.port, message)
                assert (answer[0], answer[2]["error"]["code"]) == (status, code)
            status, _, body = await http(server.port, request("/health", upgrade=False))
            assert (status, body) == (200, {"status": "ok", "clients": 0})
            assert server.hub.stats.value("clients_refused") == len(REQUESTS)

    run(scenario())


def test_without_a_session_and_without_anonymous_clients_the_answer_is_401() -> None:
    async def scenario() -> None:
        async with served(anonymous=False) as server:
            status, _, body = await http(server.port, request())
            assert (status, body["error"]["code"]) == (401, "unauthorized")

    run(scenario())


def test_one_client_more_than_may_be_gets_503() -> None:
    async def scenario() -> None:
        async with served(max_clients=1) as server:
            client = await server.client()
            status, headers, body = await http(server.port, request())
            assert (status, headers["retry-after"], body["error"]["code"]) == (503, "10", "too_many_clients")
            await client.leave()
            await server.until(lambda: not server.hub.clients)
            await (await server.client()).leave()

    run(scenario())


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [
        (None, None),
        ("tradeback.v1", "tradeback.v1"),
        ("other, tradeback.v1", "tradeback.v1"),
        ("tradeback.v2", None),
        ("other", None),
    ],
)
def test_the_subprotocol_is_echoed_where_it_is_known(offered: str | None, chosen: str | None) -> None:
    async def scenario() -> None:
        async with served() as server:
            headers = {"Sec-WebSocket-Protocol": offered} if offered else {}
            status, answer, _ = await http(server.port, request(headers=headers))
            assert (status, answer.get("sec-websocket-protocol")) == (101, chosen)

    run(scenario())


def test_firefox_connection_header_is_understood() -> None:
    async def scenario() -> None:
        async with served() as server:
            client = await server.client(headers={"Connection": "keep-alive, Upgrade"})
            await client.leave()

    run(scenario())


@pytest.mark.parametrize(
    ("origin", "host", "allowed", "verdict"),
    [
        (None, "a.example", (), True),
        ("https://a.example:3000", "a.example:8081", (), True),
        ("https://A.example", "a.EXAMPLE:8081", (), True),
        ("http://[::1]:3000", "[::1]:8081", (), True),
        ("https://b.example", "a.example", (), False),
        ("https://b.example", "a.example", ("https://b.example",), True),
        ("https://b.example", "a.example", ("*",), True),
        ("https://a.example.evil", "a.example", (), False),
        ("null", "a.example", (), False),
        ("https://a.example", None, (), False),
        ("", "", (), False),
    ],
)
def test_origins(origin: str | None, host: str | None, allowed: tuple[str, ...], verdict: bool) -> None:
    assert origin_allowed(origin, host, allowed) == verdict


def test_stopping_closes_with_the_code_and_cuts_who_does_not_answer() -> None:
    async def scenario() -> None:
        clients: list[RawClient] = []
        async with served() as server:
            clients += [await server.client(), await server.client()]
            stopping = asyncio.ensure_future(server.hub.stop())
            with pytest.raises(Closed) as caught:
                await clients[0].frame()
            assert caught.value.code == 1001
            clients[0].writer.write(mask_frame(CLOSE, b"\x03\xe9"))
            await stopping
        for client in clients:
            await client.leave()

    run(scenario())
