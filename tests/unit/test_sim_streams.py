"""The simulated exchange's WebSocket side, over real sockets: answers, limits, pings, ages, times."""

from __future__ import annotations

import asyncio
import socket
from dataclasses import replace
from decimal import Decimal
from typing import Any

import orjson
import pytest
from picows import WSError

from tests.consumer import SAFETY_SECONDS, Consumer
from tradeback.exchange.sim import Sim, SimConfig
from tradeback.exchange.sim.streams import StreamLimits

SYMBOLS = 5
ALL = [
    f"{name}@{kind}"
    for name in ("btcusdt", "ethusdt", "solusdt", "xrpusdt", "bnbusdt")
    for kind in ("trade", "aggTrade", "bookTicker")
]


def config(**options: Any) -> SimConfig:
    return SimConfig(**{"symbols": SYMBOLS, "rate": 20_000.0, "first_id": 100, "paused": True, **options})


async def run_messages(sim: Sim, count: int) -> None:
    """Let the market make `count` messages and all of them leave."""
    sim.resume(count)
    async with asyncio.timeout(SAFETY_SECONDS):
        while not sim.paused or not sim.drained():
            await asyncio.sleep(0.005)


def test_both_lines_agree_with_the_ledger() -> None:
    async def scenario() -> None:
        async with Sim(config()) as sim:
            consumer = await Consumer.open(f"{sim.ws_url}/stream?streams={'/'.join(ALL)}")
            await run_messages(sim, 5_000)
            await consumer.until(lambda: len(consumer.texts) == sim.messages)
            for symbol in sim.symbols:
                ledger = sim.ledger.of(symbol)
                trades = consumer.events(f"{symbol.lower()}@trade")
                aggs = consumer.events(f"{symbol.lower()}@aggTrade")
                assert len(trades) > 10
                assert [trade["t"] for trade in trades] == list(range(100, ledger.last_trade + 1))
                assert [agg["a"] for agg in aggs] == list(range(100, ledger.last_agg + 1))
                quantities = {trade["t"]: trade for trade in trades}
                expected = 100
                for agg in aggs:
                    assert agg["f"] == expected
                    singles = [quantities[single] for single in range(agg["f"], agg["l"] + 1)]
                    assert {single["p"] for single in singles} == {agg["p"]}
                    assert {single["T"] for single in singles} == {agg["T"]}
                    assert {single["m"] for single in singles} == {agg["m"]}
                    assert sum(Decimal(single["q"]) for single in singles) == Decimal(agg["q"])
                    expected = agg["l"] + 1
                assert expected == ledger.last_trade + 1
                assert sum(Decimal(trade["q"]) for trade in trades) == Decimal(ledger.sum_text())
                updates = [quote["u"] for quote in consumer.events(f"{symbol.lower()}@bookTicker")]
                assert updates == sorted(set(updates))
            await consumer.close()

    asyncio.run(scenario())


def test_two_exchanges_of_one_seed_differ_in_times_only() -> None:
    async def run() -> list[dict[str, Any]]:
        async with Sim(config(seed=9)) as sim:
            consumer = await Consumer.open(f"{sim.ws_url}/stream?streams={'/'.join(ALL)}")
            await run_messages(sim, 500)
            await consumer.until(lambda: len(consumer.texts) == sim.messages)
            await consumer.close()
            return [
                {key: value for key, value in event.items() if key not in ("E", "T")}
                for event in consumer.events()
            ]

    assert asyncio.run(run()) == asyncio.run(run())


@pytest.mark.parametrize("path", ["/ws", "/stream"])
def test_control_messages_are_answered_as_the_exchange_answers(path: str) -> None:
    async def scenario() -> None:
        limits = StreamLimits(messages_per_second=1_000, streams=4)
        async with Sim(config(limits=limits)) as sim:
            consumer = await Consumer.open(sim.ws_url + path)
            ask = consumer.ask
            subscribe = {"method": "SUBSCRIBE", "params": ["btcusdt@trade", "ethusdt@trade"], "id": 1}
            assert await ask(subscribe) == {"result": None, "id": 1}
            assert await ask({"method": "LIST_SUBSCRIPTIONS", "id": 3}) == {
                "result": ["btcusdt@trade", "ethusdt@trade"],
                "id": 3,
            }
            gone = {"method": "UNSUBSCRIBE", "params": ["ethusdt@trade", "never@trade"], "id": "x"}
            assert await ask(gone) == {"result": None, "id": "x"}
            assert (await ask({"method": "LIST_SUBSCRIPTIONS", "id": 4}))["result"] == ["btcusdt@trade"]
            combined = path == "/stream"
            assert await ask({"method": "GET_PROPERTY", "params": ["combined"], "id": 5}) == {
                "result": combined,
                "id": 5,
            }
            flip = {"method": "SET_PROPERTY", "params": ["combined", not combined], "id": 6}
            assert await ask(flip) == {"result": None, "id": 6}
            for wrong, code in (
                ("{", 3),
                ("[]", 2),
                ({"id": 1}, 2),
                ({"method": "BUY", "id": 1}, 2),
                ({"method": "SUBSCRIBE", "params": ["a@trade"], "id": -1}, 2),
                ({"method": "SUBSCRIBE", "params": ["a@trade"], "id": 1.5}, 2),
                ({"method": "SUBSCRIBE", "params": "a@trade", "id": 1}, 2),
                ({"method": "SUBSCRIBE", "params": [7], "id": 1}, 2),
                ({"method": "SUBSCRIBE", "params": [], "id": 1}, 2),
                ({"method": "SUBSCRIBE", "params": [f"s{n}@trade" for n in range(4)], "id": 1}, 2),
                ({"method": "SUBSCRIBE", "params": ["a@trade"], "id": 1, "extra": 1}, 2),
                ({"method": "SET_PROPERTY", "params": ["colour", True], "id": 1}, 0),
                ({"method": "SET_PROPERTY", "params": ["combined", 1], "id": 1}, 1),
                ({"method": "SET_PROPERTY", "params": [1], "id": 1}, 2),
                ({"method": "SET_PROPERTY", "params": ["combined"], "id": 1}, 2),
            ):
                answer = await ask(wrong)
                assert (answer["code"], bool(answer["msg"])) == (code, True), wrong
            assert (await ask({"method": "LIST_SUBSCRIPTIONS", "id": 4}))["result"] == ["btcusdt@trade"]
            await run_messages(sim, 200)
            await consumer.until(lambda: len(consumer.events()) > 5)
            wrapped = [b'"stream"' in text for text in consumer.texts if b'"trade"' in text]
            assert set(wrapped) == {not combined}
            await consumer.close()

    asyncio.run(scenario())


def test_raw_streams_come_without_an_envelope_and_in_microseconds_where_asked() -> None:
    async def scenario() -> None:
        async with Sim(config()) as sim:
            urls = [
                "/ws/btcusdt@trade",
                "/ws/btcusdt@trade?timeUnit=MICROSECOND",
                "/stream?streams=btcusdt@trade&timeUnit=microsecond",
                "/stream?streams=btcusdt@trade&timeUnit=MILLISECOND",
            ]
            raw, raw_us, combined_us, combined = [await Consumer.open(sim.ws_url + url) for url in urls]
            await run_messages(sim, 300)
            of_all = []
            for consumer in (raw, raw_us, combined_us, combined):
                count = sim.ledger.of("BTCUSDT").trade_count
                await consumer.until(lambda consumer=consumer, count=count: len(consumer.texts) == count)
                of_all.append(consumer.events())
                await consumer.close()
            assert all(b"stream" not in text for text in raw.texts + raw_us.texts)
            assert all(text.startswith(b'{"stream":"btcusdt@trade","data":{') for text in combined.texts)
            for plain, micro, wrapped_micro, wrapped in zip(*of_all, strict=True):
                assert plain == wrapped
                assert micro == wrapped_micro
                assert micro["T"] // 1_000 == plain["T"]
                assert {**micro, "E": 0, "T": 0} == {**plain, "E": 0, "T": 0}

    asyncio.run(scenario())


def test_a_wrong_path_and_too_many_streams_are_refused() -> None:
    async def scenario() -> None:
        async with Sim(config(limits=StreamLimits(streams=3))) as sim:
            for path in ("/", "/other", "/ws/a@trade/b@trade/c@trade/d@trade"):
                with pytest.raises(WSError):
                    await Consumer.open(sim.ws_url + path)

    asyncio.run(scenario())


def test_too_many_connection_attempts_are_refused_until_their_time_is_over() -> None:
    async def scenario() -> None:
        limits = StreamLimits(attempts=3, attempts_seconds=1_000.0)
        async with Sim(config(limits=limits)) as sim:
            consumer = await Consumer.open(sim.ws_url + "/ws")
            with pytest.raises(WSError):
                await Consumer.open(sim.ws_url + "/wrong")
            await (await Consumer.open(sim.ws_url + "/ws")).close()
            for _ in range(2):
                with pytest.raises(WSError, match="429"):
                    await Consumer.open(sim.ws_url + "/ws")
            assert (sim.hub.connects, sim.hub.refused) == (2, 2)
            assert not consumer.gone.is_set()
            sim.hub.limits = replace(limits, attempts_seconds=0.0)
            await (await Consumer.open(sim.ws_url + "/ws")).close()
            await consumer.close()

    asyncio.run(scenario())


def test_more_than_five_messages_a_second_end_the_connection() -> None:
    async def scenario() -> None:
        async with Sim(config()) as sim:
            consumer = await Consumer.open(sim.ws_url + "/ws")
            for number in range(6):
                consumer.send({"method": "LIST_SUBSCRIPTIONS", "id": number})
            await consumer.closed()
            assert consumer.close_code == 1008
            assert len(consumer.texts) == 5
            assert sim.hub.rate_cuts == 1

    asyncio.run(scenario())


def test_a_connection_is_pinged_and_cut_without_a_pong() -> None:
    async def scenario() -> None:
        limits = StreamLimits(ping_interval=0.05, pong_timeout=10.0, messages_per_second=1_000)
        async with Sim(config(limits=limits)) as sim:
            answering = await Consumer.open(sim.ws_url + "/ws")
            silent = await Consumer.open(sim.ws_url + "/ws", answer_pings=False)
            await silent.closed()
            assert silent.pings
            assert all(ping.isdigit() for ping in silent.pings)
            assert not answering.gone.is_set()
            await answering.close()

    asyncio.run(scenario())


def test_a_connection_ends_at_its_age() -> None:
    async def scenario() -> None:
        async with Sim(config(limits=StreamLimits(max_age=0.2, ping_interval=0.1))) as sim:
            consumer = await Consumer.open(sim.ws_url + "/ws")
            await consumer.closed()
            assert consumer.close_code == 1001

    asyncio.run(scenario())


def test_a_consumer_that_does_not_read_is_cut_and_costs_bounded_memory() -> None:
    async def scenario() -> None:
        limits = StreamLimits(unsent_bytes=200_000)
        async with Sim(config(paused=False, limits=limits)) as sim:
            reader = await Consumer.open(sim.ws_url + "/stream?streams=btcusdt@trade")
            host, port = sim.ws_url.removeprefix("ws://").split(":")
            deaf = socket.socket()
            deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
            deaf.connect((host, int(port)))
            names = "/".join(ALL)
            deaf.sendall(
                f"GET /stream?streams={names} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n"
                "Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
                "Sec-WebSocket-Version: 13\r\n\r\n".encode()
            )
            most = 0
            async with asyncio.timeout(SAFETY_SECONDS):
                while sim.hub.slow_cuts == 0:
                    await asyncio.sleep(0.01)
                    most = max([most, *(connection.unsent() for connection in sim.hub.connections)])
            assert most < 2_000_000
            await reader.until(lambda: not [c for c in sim.hub.connections if len(c.streams) > 1])
            assert len(sim.hub.connections) == 1
            deaf.close()
            await reader.close()

    asyncio.run(scenario())


def test_first_ids_rise_across_restarts() -> None:
    async def last_id() -> tuple[int, int]:
        async with Sim(config(first_id=None)) as sim:
            await run_messages(sim, 200)
            of = sim.ledger.of("BTCUSDT")
            first = next(of.trades.from_value(0))[0]
            return first, of.last_trade

    first, last = asyncio.run(last_id())
    first_after, _ = asyncio.run(last_id())
    assert first <= last < first_after


def test_messages_are_laid_out_as_documented() -> None:
    async def scenario() -> None:
        async with Sim(config()) as sim:
            consumer = await Consumer.open(sim.ws_url + "/stream?streams=" + "/".join(ALL))
            await run_messages(sim, 100)
            await consumer.until(lambda: len(consumer.texts) == sim.messages)
            keys = {
                orjson.loads(text)["stream"].split("@")[1]: list(orjson.loads(text)["data"])
                for text in consumer.texts
            }
            assert keys == {
                "trade": ["e", "E", "s", "t", "p", "q", "T", "m", "M"],
                "aggTrade": ["e", "E", "s", "a", "p", "q", "f", "l", "T", "m", "M"],
                "bookTicker": ["u", "s", "b", "B", "a", "A"],
            }
            await consumer.close()

    asyncio.run(scenario())
