"""Clients of other makers read what the server sends."""

from __future__ import annotations

from fractions import Fraction

import orjson
import pytest

from tests.e2e.hubs import run, served
from tests.reference.batch import decode_payload


def test_the_websockets_library_reads_every_frame() -> None:
    client = pytest.importorskip("websockets.asyncio.client", reason="it comes with the extra `bench`")

    async def scenario() -> None:
        async with served(130) as server:
            address = f"ws://127.0.0.1:{server.port}/api/v1/ws"
            async with client.connect(address, subprotocols=["tradeback.v1"]) as connection:
                assert connection.subprotocol == "tradeback.v1"
                await connection.send(
                    orjson.dumps({"type": "subscribe", "symbols": server.market.symbols}).decode()
                )
                answer = orjson.loads(await connection.recv())
                assert len(answer["symbols"]) == 130
                for index in range(130):
                    server.trade(index, index + 1)
                units: dict[int, Fraction] = {}
                while len(units) < 130:
                    for stream_id, _, volume in decode_payload(await connection.recv()):
                        units[stream_id] = Fraction(repr(volume)) * 1000
                assert units == {server.market.stream_id(i): i + 1 for i in range(130)}
                await (await connection.ping())
            assert connection.close_code == 1000

    run(scenario())
