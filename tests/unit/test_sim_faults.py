"""Every fault of the simulated exchange, asked for over HTTP, is shown to have its effect and no other."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Any

import httpx
import orjson
import pytest

from tests.consumer import SAFETY_SECONDS, Consumer
from tests.unit.test_sim_streams import config, run_messages
from tradeback.exchange.sim import Sim
from tradeback.exchange.sim.faults import KINDS

TRADES, AGGS, QUOTES = (f"btcusdt@{kind}" for kind in ("trade", "aggTrade", "bookTicker"))


KLINES = "/api/v3/klines?symbol=BTCUSDT&interval=1m"


class Bench:
    """A paused exchange of one symbol, a connection a line, and an HTTP client."""

    def __init__(self, sim: Sim, http: httpx.AsyncClient, lines: dict[str, Consumer]) -> None:
        self.sim = sim
        self.http = http
        self.trades, self.aggs = lines[TRADES], lines[AGGS]

    async def fault(self, **query: Any) -> None:
        answer = await self.http.get("/sim/fault", params=query)
        assert answer.status_code == 200, answer.text

    async def state(self) -> dict[str, Any]:
        return orjson.loads((await self.http.get("/sim/state")).content)  # type: ignore[no-any-return]

    async def make(self, messages: int = 100) -> None:
        await run_messages(self.sim, messages)
        of = self.sim.ledger.of("BTCUSDT")
        await self.aggs.until(lambda: self.aggs.gone.is_set() or len(self.aggs.texts) >= of.agg_count)


def with_bench(scenario: Any) -> None:
    async def run() -> None:
        async with Sim(config(symbols=1)) as sim, httpx.AsyncClient(base_url=sim.rest_url) as http:
            lines = {name: await Consumer.open(f"{sim.ws_url}/ws/{name}") for name in (TRADES, AGGS)}
            async with asyncio.timeout(SAFETY_SECONDS):
                await scenario(Bench(sim, http, lines))
            for line in lines.values():
                if not line.gone.is_set():
                    await line.close()

    asyncio.run(run())


def ids(consumer: Consumer) -> list[int]:
    return [event["t"] for event in consumer.events()]


@pytest.mark.parametrize("name", [TRADES, "trade"])
def test_skip_loses_messages_of_one_line_and_the_ledger_keeps_them(name: str) -> None:
    async def scenario(bench: Bench) -> None:
        await bench.fault(kind="skip", stream=name, count=3)
        await bench.make()
        of = bench.sim.ledger.of("BTCUSDT")
        await bench.trades.until(lambda: len(bench.trades.texts) == of.trade_count - 3)
        assert ids(bench.trades) == list(range(103, of.last_trade + 1))
        assert [row[0] for row in of.trades.from_value(0)] == list(range(100, of.last_trade + 1))
        assert sum(agg["l"] - agg["f"] + 1 for agg in bench.aggs.events()) == of.trade_count
        assert (await bench.state())["faults_done"] == {"skip": 3}

    with_bench(scenario)


def test_repeat_sends_a_message_twice() -> None:
    async def scenario(bench: Bench) -> None:
        await bench.fault(kind="repeat", stream=TRADES, count=2)
        await bench.make()
        await bench.trades.until(lambda: len(bench.trades.texts) == bench.sim.trades + 2)
        assert ids(bench.trades)[:5] == [100, 100, 101, 101, 102]

    with_bench(scenario)


def test_reorder_lets_the_next_message_overtake() -> None:
    async def scenario(bench: Bench) -> None:
        await bench.fault(kind="reorder", stream=TRADES, count=2)
        await bench.make()
        await bench.trades.until(lambda: len(bench.trades.texts) == bench.sim.trades)
        assert ids(bench.trades)[:6] == [101, 100, 103, 102, 104, 105]

    with_bench(scenario)


def test_a_message_held_for_reordering_leaves_in_the_end() -> None:
    async def scenario(bench: Bench) -> None:
        await bench.fault(kind="reorder", stream="aggTrade", count=1)
        bench.sim.resume(1)
        await bench.aggs.until(lambda: len(bench.aggs.texts) == bench.sim.agg_trades > 0)

    with_bench(scenario)


def test_garbage_is_of_several_kinds_and_passes() -> None:
    async def scenario(bench: Bench) -> None:
        await bench.fault(kind="garbage", stream=TRADES, count=8)
        await bench.make()
        last = bench.sim.ledger.of("BTCUSDT").last_trade
        await bench.trades.until(lambda: str(last).encode() in bench.trades.texts[-1])
        assert bench.trades.binaries == [bytes(range(256))]
        assert max(map(len, bench.trades.texts)) > 100_000
        rubbish, good = bench.trades.texts[:7], bench.trades.texts[7:]
        assert sum(not _is_json(text) for text in rubbish) == 6
        assert [orjson.loads(text)["t"] for text in good] == list(range(108, last + 1))

    with_bench(scenario)


def _is_json(text: bytes) -> bool:
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError:
        return False
    return True


def test_truncate_cuts_frames_of_a_stream_or_rest_bodies_without_one() -> None:
    async def scenario(bench: Bench) -> None:
        await bench.fault(kind="truncate", stream=TRADES)
        await bench.make()
        await bench.trades.until(lambda: len(bench.trades.texts) == bench.sim.trades)
        assert [_is_json(text) for text in bench.trades.texts[:2]] == [False, True]
        await bench.fault(kind="truncate")
        answers = [await bench.http.get("/api/v3/trades?symbol=BTCUSDT") for _ in range(2)]
        assert [(answer.status_code, _is_json(answer.content)) for answer in answers] == [
            (200, False),
            (200, True),
        ]

    with_bench(scenario)


def test_cut_ends_the_connections_that_carry_the_stream() -> None:
    async def scenario(bench: Bench) -> None:
        await bench.fault(kind="cut", stream="trade")
        await bench.trades.closed()
        assert bench.trades.close_code is None
        await bench.make()
        assert not bench.aggs.gone.is_set()
        again = await Consumer.open(f"{bench.sim.ws_url}/ws/{TRADES}")
        await bench.make()
        assert not again.gone.is_set()
        await again.close()

    with_bench(scenario)


def test_cut_for_a_time_cuts_newcomers_too() -> None:
    async def scenario(bench: Bench) -> None:
        await bench.fault(kind="cut", stream="trade", seconds=1_000)
        await bench.trades.closed()
        while bench.sim.faults.done["cut"] < 3:
            again = await Consumer.open(f"{bench.sim.ws_url}/ws")
            again.send({"method": "SUBSCRIBE", "params": [TRADES], "id": 1})
            await again.closed()
        await bench.http.get("/sim/clear")
        again = await Consumer.open(f"{bench.sim.ws_url}/ws/{TRADES}")
        assert (await again.ask({"method": "LIST_SUBSCRIPTIONS", "id": 1}))["result"] == [TRADES]
        assert not bench.aggs.gone.is_set()
        await again.close()

    with_bench(scenario)


def test_mute_keeps_the_connection_and_sends_nothing() -> None:
    async def scenario(bench: Bench) -> None:
        await bench.fault(kind="mute", stream="trade", seconds=1_000)
        await bench.make()
        muted_until = bench.sim.trades
        assert bench.trades.texts == []
        assert len(bench.aggs.texts) == bench.sim.agg_trades
        await bench.http.get("/sim/clear")
        assert (await bench.state())["faults"] == []
        await bench.make()
        await bench.trades.until(lambda: len(bench.trades.texts) == bench.sim.trades - muted_until)
        assert ids(bench.trades)[0] == 100 + muted_until
        assert not bench.trades.gone.is_set()

    with_bench(scenario)


def test_a_subscription_is_refused_or_stays_unanswered() -> None:
    async def scenario(bench: Bench) -> None:
        asked = {"method": "SUBSCRIBE", "params": ["ethusdt@trade", QUOTES], "id": 7}
        await bench.fault(kind="refuse", stream=QUOTES)
        answer = await bench.aggs.ask(asked)
        assert answer == {"code": 2, "msg": f"Invalid request: {QUOTES} is refused", "id": 7}
        await bench.fault(kind="unanswered", stream="bookTicker")
        bench.aggs.send(asked)
        listed = await bench.aggs.ask({"method": "LIST_SUBSCRIPTIONS", "id": 8})
        assert listed == {"result": [AGGS], "id": 8}
        assert (await bench.aggs.ask(asked)) == {"result": None, "id": 7}
        assert (await bench.state())["faults_done"] == {"refuse": 1, "unanswered": 1}

    with_bench(scenario)


def test_shutdown_is_announced_and_then_happens() -> None:
    async def scenario(bench: Bench) -> None:
        combined = await Consumer.open(f"{bench.sim.ws_url}/stream?streams={QUOTES}")
        await bench.fault(kind="shutdown", seconds=0.3)
        await combined.until(lambda: bool(combined.texts))
        await bench.trades.until(lambda: bool(bench.trades.texts))
        assert orjson.loads(combined.texts[0])["stream"] == "!serverShutdown"
        assert orjson.loads(combined.texts[0])["data"]["e"] == "serverShutdown"
        assert orjson.loads(bench.trades.texts[0])["e"] == "serverShutdown"
        for line in (combined, bench.trades, bench.aggs):
            await line.closed()
            assert line.close_code == 1012

    with_bench(scenario)


@pytest.mark.parametrize(("kind", "statuses"), [("rest429", {429}), ("rest418", {418}), ("rest5xx", {503})])
def test_rest_refusals(kind: str, statuses: set[int]) -> None:
    async def scenario(bench: Bench) -> None:
        await bench.fault(kind=kind, count=2)
        answers = [await bench.http.get("/api/v3/time") for _ in range(3)]
        assert {answer.status_code for answer in answers[:2]} == statuses
        assert answers[2].status_code == 200
        assert all(_is_json(answer.content) for answer in answers)
        if kind != "rest5xx":
            assert int(answers[0].headers["Retry-After"]) >= 1

    with_bench(scenario)


def test_html_stall_and_wrong_columns() -> None:
    async def scenario(bench: Bench) -> None:
        await bench.make()
        await bench.fault(kind="html", count=2)
        answers = [await bench.http.get("/api/v3/time") for _ in range(2)]
        assert [answer.status_code for answer in answers] == [200, 502]
        assert all(answer.text.startswith("<html>") for answer in answers)

        await bench.fault(kind="stall", seconds=1_000)
        with pytest.raises(httpx.TimeoutException):
            await bench.http.get("/api/v3/time", timeout=0.3)
        stalled = asyncio.create_task(bench.http.get("/api/v3/time", timeout=SAFETY_SECONDS))
        while bench.sim.faults.done["stall"] < 2:
            await asyncio.sleep(0.01)
        assert not stalled.done()
        await bench.http.get("/sim/clear")
        assert (await stalled).status_code == 504
        assert (await bench.http.get("/api/v3/time")).status_code == 200

        await bench.fault(kind="badcolumns")
        wrong, right = [(await bench.http.get(KLINES)).json()[0] for _ in range(2)]
        assert (len(wrong), len(right)) == (5, 12)
        await bench.fault(kind="badcolumns")
        wrong, right = [(await bench.http.get("/api/v3/trades?symbol=BTCUSDT")).json()[0] for _ in range(2)]
        assert (set(wrong) & set(right), "id" in right) == (set(), True)

    with_bench(scenario)


@pytest.mark.parametrize("kind", ["html", "truncate", "badcolumns", "rest5xx", "stall", "rest429", "rest418"])
def test_a_fault_of_rest_can_be_of_one_path_alone(kind: str) -> None:
    async def scenario(bench: Bench) -> None:
        await bench.make()
        await bench.fault(kind=kind, path="klines", count=1, seconds=SAFETY_SECONDS)
        assert (await bench.state())["faults"][0]["path"] == "klines"
        trades = (await bench.http.get("/api/v3/trades?symbol=BTCUSDT")).json()
        assert trades[0]["id"] == 100
        spoiled = asyncio.create_task(bench.http.get(KLINES, timeout=SAFETY_SECONDS))
        while not bench.sim.faults.done[kind]:
            await asyncio.sleep(0.01)
        if kind == "stall":
            await bench.http.get("/sim/clear")
        answer = await spoiled
        right = await bench.http.get(KLINES)
        assert right.status_code == 200
        assert (answer.status_code, answer.content) != (200, right.content)
        assert len(right.json()[0]) == 12

    with_bench(scenario)


def test_the_ledger_is_read_page_by_page_whatever_faults_and_weights() -> None:
    async def scenario(bench: Bench) -> None:
        await bench.make(3_000)
        of = bench.sim.ledger.of("BTCUSDT")
        await bench.trades.until(lambda: len(bench.trades.texts) == of.trade_count)
        for kind in ("html", "rest5xx", "truncate", "badcolumns", "rest418"):
            await bench.fault(kind=kind, seconds=SAFETY_SECONDS)
        rows: list[list[Any]] = []
        while page := (
            await bench.http.get(f"/sim/trades?symbol=BTCUSDT&from_id={100 + len(rows)}&limit=400")
        ).json():
            rows += page
        assert [row[0] for row in rows] == list(range(100, of.last_trade + 1))
        assert (await bench.http.get("/sim/trades?symbol=BTCUSDT")).json() == rows
        assert (await bench.http.get(f"/sim/trades?symbol=BTCUSDT&from_id={10**15}")).json() == []
        assert sum(Decimal(row[3]) for row in rows) == Decimal(of.sum_text())
        assert rows[7] == [
            107,
            rows[7][1],
            bench.trades.events()[7]["p"],
            bench.trades.events()[7]["q"],
            bench.trades.events()[7]["m"],
        ]
        assert rows[7][1] // 1_000 == bench.trades.events()[7]["T"]
        bars = (await bench.http.get("/sim/bars?symbol=BTCUSDT")).json()
        await bench.http.get("/sim/clear")
        assert sum(bar[8] for bar in bars) == len(rows)
        assert bars == (await bench.http.get(f"{KLINES}&startTime={bars[0][0]}")).json()

    with_bench(scenario)


def test_a_host_with_market_data_only_has_no_historical_trades() -> None:
    async def scenario() -> None:
        async with (
            Sim(config(market_data_only=True)) as sim,
            httpx.AsyncClient(base_url=sim.rest_url) as http,
        ):
            await run_messages(sim, 100)
            absent = await http.get("/api/v3/historicalTrades?symbol=BTCUSDT&fromId=1")
            nowhere = await http.get("/api/v3/nowhere")
            assert (absent.status_code, absent.text) == (nowhere.status_code, nowhere.text)
            assert absent.status_code == 404
            assert absent.headers["Content-Type"].startswith("text/html")
            assert (await http.get("/api/v3/aggTrades?symbol=BTCUSDT")).json()[0]["f"] == 100
            with pytest.raises(ValueError, match="unknown"):
                sim.fault("html", path="historicalTrades")

    asyncio.run(scenario())


def test_an_exchange_stops_while_it_stalls() -> None:
    async def scenario() -> None:
        async with Sim(config()) as sim, httpx.AsyncClient(base_url=sim.rest_url) as http:
            sim.fault("stall", seconds=1_000.0)
            asked = asyncio.create_task(http.get("/api/v3/time", timeout=SAFETY_SECONDS))
            async with asyncio.timeout(SAFETY_SECONDS):
                while not sim.faults.done["stall"]:
                    await asyncio.sleep(0.01)
                await sim.stop()
            assert (await asked).status_code == 503

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "path",
    [
        "fault",
        "fault?kind=explode",
        "fault?kind=skip&count=0",
        "fault?kind=skip&count=-1",
        "fault?kind=skip&count=x",
        "fault?kind=mute&seconds=0",
        "fault?kind=mute&seconds=nan",
        "fault?kind=mute&seconds=inf",
        "fault?kind=mute&streams=trade",
        "fault?kind=skip&stream=depth",
        "resume?messages=0",
        "pause?now=1",
        "state?verbose=1",
        "clear?kind=cut",
        "fault?kind=html&path=nowhere",
        "fault?kind=cut&path=klines",
        "fault?kind=truncate&stream=trade&path=klines",
        "ledger?symbol=NOSUCH",
        "trades?symbol=NOSUCH",
        "trades?from_id=5",
        "trades?symbol=BTCUSDT&limit=50001",
        "trades?symbol=BTCUSDT&from_id=x",
        f"trades?symbol=BTCUSDT&from_id={10**30}",
        "bars",
        "ledger?name=BTCUSDT",
    ],
)
def test_bad_parameters_are_answered_with_a_sentence(path: str) -> None:
    async def scenario(bench: Bench) -> None:
        answer = await bench.http.get(f"/sim/{path}")
        assert answer.status_code == 400
        assert len(answer.json()["error"].split()) > 4
        assert (await bench.state())["faults"] == []

    with_bench(scenario)


def test_an_order_by_hand_makes_exactly_its_trades() -> None:
    async def scenario(bench: Bench) -> None:
        fills = [("96500.01", "0.5"), ("96500.01", "0.25"), ("96500.02", "0.00001")]
        bench.sim.order("BTCUSDT", fills, buyer_is_maker=True)
        await bench.trades.until(lambda: len(bench.trades.texts) == 3)
        await bench.aggs.until(lambda: len(bench.aggs.texts) == 2)
        assert [(trade["p"], trade["q"], trade["m"]) for trade in bench.trades.events()] == [
            ("96500.01000000", "0.50000000", True),
            ("96500.01000000", "0.25000000", True),
            ("96500.02000000", "0.00001000", True),
        ]
        assert [(agg["f"], agg["l"], agg["q"]) for agg in bench.aggs.events()] == [
            (100, 101, "0.75000000"),
            (102, 102, "0.00001000"),
        ]
        assert bench.sim.ledger.of("BTCUSDT").sum_text() == "0.75001000"
        with pytest.raises(ValueError, match="not traded here"):
            bench.sim.order("NOSUCH", fills)

    with_bench(scenario)


def test_every_kind_of_fault_is_in_the_sentence_about_kinds() -> None:
    async def scenario(bench: Bench) -> None:
        answer = await bench.http.get("/sim/fault?kind=explode")
        assert all(kind in answer.json()["error"] for kind in KINDS)

    with_bench(scenario)


def test_pause_and_resume_over_http() -> None:
    async def scenario(bench: Bench) -> None:
        assert (await bench.state())["paused"]
        await bench.http.get("/sim/resume")
        await bench.trades.until(lambda: len(bench.trades.texts) > 20)
        await bench.http.get("/sim/pause")
        state = await bench.state()
        assert state["paused"]
        await asyncio.sleep(0.05)
        after = await bench.state()
        assert after["messages"] == state["messages"]
        totals = (await bench.http.get("/sim/ledger?symbol=BTCUSDT")).json()
        assert totals["count"] == after["trades"]
        assert totals["last_id"] == 99 + after["trades"]
        everything = (await bench.http.get("/sim/ledger")).json()
        assert everything == {"BTCUSDT": totals}

    with_bench(scenario)
