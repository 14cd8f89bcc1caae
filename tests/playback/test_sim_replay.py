"""Recordings played by the simulated exchange arrive exactly as they were recorded."""

from __future__ import annotations

import asyncio
import gzip
import time
from collections import defaultdict
from decimal import Decimal
from pathlib import Path

import orjson
import pytest

from tests.consumer import SAFETY_SECONDS, Consumer
from tradeback.errors import ExchangeError
from tradeback.exchange.recording import RecordingWriter, read_recording
from tradeback.exchange.sim import Sim, SimConfig

TEXT = '{"e":"trade","x":"\u20ac\\n"}'
FILES = [
    "ws_binance_spot_20210404_btc_eth_dot",
    "ws_binance_spot_20210405_10sym",
    "ws_binance_spot_20210417_10sym",
    "ws_trade_us_trxusdt_20250304_a",
]


def by_stream(payloads: list[bytes]) -> dict[str, list[bytes]]:
    found: dict[str, list[bytes]] = defaultdict(list)
    for payload in payloads:
        found[orjson.loads(payload)["stream"]].append(payload)
    return dict(found)


async def ended(sim: Sim) -> None:
    async with asyncio.timeout(SAFETY_SECONDS):
        while not (sim.ended and sim.drained()):
            await asyncio.sleep(0.01)


async def play(config: SimConfig) -> tuple[list[bytes], Sim]:
    """All that a consumer of every stream of the recording gets."""
    streams = {orjson.loads(text)["stream"] for _, text in read_recording(config.replay or Path())}
    if config.derive_trades:
        streams |= {stream.replace("aggTrade", "trade") for stream in streams if "aggTrade" in stream}
    async with Sim(config) as sim:
        consumer = await Consumer.open(f"{sim.ws_url}/stream?streams={'/'.join(sorted(streams))}")
        sim.resume()
        await ended(sim)
        await consumer.until(lambda: len(consumer.texts) == sim.messages)
        await consumer.close()
        return consumer.texts, sim


@pytest.mark.parametrize("name", FILES)
def test_a_replay_equals_the_file(recordings: Path, name: str) -> None:
    path = recordings / f"{name}.jsonl.gz"
    texts, sim = asyncio.run(play(SimConfig(replay=path, speed=0, paused=True)))
    assert texts == [text.encode() for _, text in read_recording(path)]
    assert sim.messages == len(texts)


def test_raw_streams_get_what_was_inside_the_envelope(recordings: Path) -> None:
    path = recordings / f"{FILES[3]}.jsonl.gz"

    async def scenario() -> list[bytes]:
        async with Sim(SimConfig(replay=path, speed=0, paused=True)) as sim:
            consumer = await Consumer.open(f"{sim.ws_url}/ws/trxusdt@trade")
            sim.resume()
            await ended(sim)
            await consumer.until(lambda: len(consumer.texts) == sim.messages)
            await consumer.close()
            return consumer.texts

    head = '{"stream":"trxusdt@trade","data":'
    expected = [text.removeprefix(head)[:-1].encode() for _, text in read_recording(path)]
    assert asyncio.run(scenario()) == expected


def test_the_ledger_is_what_the_recording_holds(recordings: Path) -> None:
    path = recordings / f"{FILES[1]}.jsonl.gz"
    texts, sim = asyncio.run(play(SimConfig(replay=path, speed=0, paused=True)))
    found = by_stream(texts)
    aggs_seen = 0
    for symbol in sim.symbols:
        rows = [orjson.loads(text)["data"] for text in found.get(f"{symbol.lower()}@aggTrade", [])]
        of = sim.ledger.of(symbol)
        aggs_seen += len(rows)
        assert of.trade_count == sum(row["l"] - row["f"] + 1 for row in rows)
        assert Decimal(of.sum_text()) == sum(Decimal(row["q"]) for row in rows)
        assert [row[0] for row in of.aggs.from_value(0)] == [row["a"] for row in rows]
        assert [row[0] for row in of.trades.from_value(0)] == [
            row["f"] for row in rows if row["f"] == row["l"]
        ]
        assert sum(bar.volume for bar in of.bars.values()) == of.total
    assert aggs_seen == 1_240


def test_precision_comes_from_the_text_or_from_the_exchange_info_given(recordings: Path) -> None:
    path = recordings / f"{FILES[1]}.jsonl.gz"
    derived = Sim(SimConfig(replay=path, speed=0))
    given = Sim(
        SimConfig(replay=path, speed=0, exchange_info=recordings / "exchangeInfo_binance_20210417.json.gz")
    )
    assert derived.symbols == given.symbols
    for symbol in derived.symbols:
        rows = [sim.symbol_rows[symbol].row for sim in (derived, given)]
        assert rows[0]["baseAsset"] == rows[1]["baseAsset"]
        ticks = [Decimal(row["filters"][0]["tickSize"]) for row in rows]
        assert ticks[0] % ticks[1] == 0


def test_trades_are_derived_from_aggtrades_of_one_trade(recordings: Path) -> None:
    path = recordings / f"{FILES[0]}.jsonl.gz"
    texts, sim = asyncio.run(play(SimConfig(replay=path, speed=0, paused=True, derive_trades=True)))
    found = by_stream(texts)
    assert sim.trades > 500
    for symbol in ("BTCUSDT", "ETHUSDT", "DOTUSDT"):
        singles = [
            agg
            for agg in (orjson.loads(text)["data"] for text in found[f"{symbol.lower()}@aggTrade"])
            if agg["f"] == agg["l"]
        ]
        trades = [orjson.loads(text)["data"] for text in found[f"{symbol.lower()}@trade"]]
        assert [(trade["t"], trade["p"], trade["q"], trade["T"], trade["m"]) for trade in trades] == [
            (agg["f"], agg["p"], agg["q"], agg["T"], agg["m"]) for agg in singles
        ]


def write(path: Path, gaps: list[float]) -> None:
    now = 1_000.0
    with RecordingWriter(path) as writer:
        for number, gap in enumerate(gaps):
            now += gap
            trade = {
                "e": "trade",
                "E": 1,
                "s": "AUSDT",
                "t": number,
                "p": "1.5",
                "q": "2",
                "T": 1,
                "m": True,
                "M": True,
            }
            writer.write(now, orjson.dumps({"stream": "ausdt@trade", "data": trade}))


def test_a_speed_keeps_the_intervals(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    write(path, [0.0, *[0.1] * 10])

    async def timed(speed: float) -> float:
        async with Sim(SimConfig(replay=path, speed=speed, paused=True)) as sim:
            consumer = await Consumer.open(f"{sim.ws_url}/ws/ausdt@trade")
            start = time.monotonic()
            sim.resume()
            await consumer.until(lambda: len(consumer.texts) == 11)
            took = time.monotonic() - start
            await consumer.close()
            return took

    assert asyncio.run(timed(2.0)) >= 0.49


def test_a_replay_waits_for_subscriptions(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.gz"
    write(path, [0.0] * 50)

    async def scenario() -> None:
        async with Sim(SimConfig(replay=path, speed=0, settle=0.05)) as sim:
            idle = await Consumer.open(f"{sim.ws_url}/ws")
            await asyncio.sleep(0.2)
            assert sim.messages == 0
            idle.send({"method": "SUBSCRIBE", "params": ["ausdt@trade"], "id": 1})
            await ended(sim)
            await idle.until(lambda: len(idle.texts) == 51)
            await idle.close()

    asyncio.run(scenario())


def test_as_fast_as_the_consumer_takes_it_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.gz"
    big = "x" * 60_000
    with RecordingWriter(path) as writer:
        for number in range(600):
            writer.write(
                1.0, orjson.dumps({"stream": "ausdt@depth", "data": {"e": "depth", "n": number, "x": big}})
            )

    async def scenario() -> None:
        async with Sim(SimConfig(replay=path, speed=0, paused=True)) as sim:
            consumer = await Consumer.open(f"{sim.ws_url}/ws/ausdt@depth")
            assert consumer.transport is not None
            consumer.transport.underlying_transport.pause_reading()  # type: ignore[attr-defined]
            sim.resume()
            stalled = -1
            async with asyncio.timeout(SAFETY_SECONDS):
                while stalled != sim.messages or sim.messages == 0:
                    stalled = sim.messages
                    await asyncio.sleep(0.2)
            assert stalled < 600
            assert not sim.ended
            consumer.transport.underlying_transport.resume_reading()  # type: ignore[attr-defined]
            await ended(sim)
            await consumer.until(lambda: len(consumer.texts) == 600)
            assert [orjson.loads(text)["n"] for text in consumer.texts] == list(range(600))
            assert sim.hub.slow_cuts == 0
            await consumer.close()

    asyncio.run(scenario())


def test_a_recording_is_read_as_it_was_written(tmp_path: Path) -> None:
    for name in ("a.jsonl", "a.jsonl.gz"):
        path = tmp_path / name
        for part in range(2):
            with RecordingWriter(path) as writer:
                writer.write(1.5 + part, TEXT)
                writer.write(2.5 + part, b"{}")
                assert writer.messages == 2
        texts = [(1.5, TEXT), (2.5, "{}"), (2.5, TEXT), (3.5, "{}")]
        assert list(read_recording(path)) == texts


@pytest.mark.parametrize(
    "line",
    ["", "x", "[]", '{"t":1}', '{"m":"a"}', '{"t":"1","m":"a"}', '{"t":1,"m":2}', '{"t":true,"m":"a"}'],
)
def test_a_line_that_is_no_message_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"t":1,"m":"{}"}\n' + line + "\n")
    with pytest.raises(ExchangeError, match="line 2 of"):
        list(read_recording(path))


def test_a_file_that_cannot_be_read_or_played_is_named(tmp_path: Path) -> None:
    torn = tmp_path / "torn.jsonl.gz"
    torn.write_bytes(gzip.compress(b'{"t":1,"m":"{}"}\n' * 100)[:30])
    with pytest.raises(ExchangeError, match="cannot be read"):
        list(read_recording(torn))
    with pytest.raises(ExchangeError, match="cannot be read"):
        list(read_recording(tmp_path / "absent.jsonl"))
    with pytest.raises(ExchangeError, match="cannot be written"):
        RecordingWriter(tmp_path / "absent" / "a.jsonl")
    strange = tmp_path / "strange.jsonl"
    strange.write_text('{"t":1,"m":"[]"}\n')
    with pytest.raises(ExchangeError, match="line 1 of"):
        Sim(SimConfig(replay=strange))
    strange.write_text(
        '{"t":1,"m":"{\\"stream\\":\\"a@trade\\",\\"data\\":{\\"e\\":\\"trade\\",\\"s\\":\\"A\\"}}"}\n'
    )
    with pytest.raises(ExchangeError, match="line 1 of"):
        Sim(SimConfig(replay=strange))
    empty = tmp_path / "empty.jsonl"
    empty.touch()
    with pytest.raises(ExchangeError, match="exchangeInfo"):
        Sim(SimConfig(replay=empty, exchange_info=strange))
