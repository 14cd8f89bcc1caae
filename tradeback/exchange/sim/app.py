"""`Sim`: the simulated exchange, put together, started and stopped. One thread, one asyncio loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from tradeback.exchange.binance import can_carry
from tradeback.exchange.sim.control import ControlApi
from tradeback.exchange.sim.faults import KINDS, REST_KINDS, STREAM_TYPES, Faults
from tradeback.exchange.sim.history import BEGIN_MS, History
from tradeback.exchange.sim.klines import KlineStreams
from tradeback.exchange.sim.ledger import Ledger, SymbolLedger
from tradeback.exchange.sim.market import Market, MarketSymbol, Order, make_symbols, new_symbol
from tradeback.exchange.sim.messages import Template, to_units
from tradeback.exchange.sim.replay import Replay, ReplayEvent
from tradeback.exchange.sim.rest import MarketRest, SymbolRow, rows_of_market, serve
from tradeback.exchange.sim.streams import Stream, StreamHub, StreamLimits

# One turn makes at most so many messages before consumers and REST get the loop again.
TURN_MESSAGES = 1_000
REPLAY_BATCH = 64
MAX_BEHIND_SECONDS = 1.0
END_POLL = 0.02
# Trade ids of a run begin at the clock, in tenths of milliseconds since 2020: they rise across restarts as
# long as a symbol trades less than 10,000 times a second.
ID_EPOCH_MS = BEGIN_MS
LISTED_PRICE = 10.0  # USD, of a symbol that is listed later


@dataclass(frozen=True, slots=True)
class SimConfig:
    """Everything that can be chosen. Port 0 is any free port.

    `rate` is in messages a second over all streams; `speed` (replay) is a factor, 0 as fast as consumers
    take it; a replay that is not `paused` begins when subscriptions have not changed for `settle` seconds.
    Kline streams tell of the bar in progress every `kline_interval` seconds.
    `history_rows` bounds the ledger: trades and aggTrades kept, 40 to 56 bytes each. `history`: klines go back
    beyond the start, to 2020 (`sim.history`); a replay has none. `market_data_only`: no historicalTrades, as on
    the exchange's host that has market data only.
    """

    host: str = "127.0.0.1"
    port: int = 0
    rest_port: int = 0
    symbols: int = 20
    rate: float = 1_000.0
    seed: int = 1
    steady: bool = False
    first_id: int | None = None
    paused: bool = False
    replay: Path | None = None
    speed: float = 1.0
    exchange_info: Path | None = None
    settle: float = 1.0
    kline_interval: float = 2.0
    derive_trades: bool = False
    history: bool = True
    history_rows: int = 3_000_000
    weight_limit: int = 6_000
    market_data_only: bool = False
    limits: StreamLimits = field(default_factory=StreamLimits)


class _Lines:
    """What the market needs of a symbol to publish its orders."""

    __slots__ = ("agg_trade", "book_ticker", "ledger", "template", "trade")

    def __init__(self, symbol: str, hub: StreamHub, ledger: Ledger) -> None:
        self.ledger: SymbolLedger = ledger.of(symbol)
        self.template = Template(symbol)
        lower = symbol.lower()
        self.trade: Stream = hub.stream(f"{lower}@trade")
        self.agg_trade: Stream = hub.stream(f"{lower}@aggTrade")
        self.book_ticker: Stream = hub.stream(f"{lower}@bookTicker")
        for stream in (self.trade, self.agg_trade, self.book_ticker):
            stream.lasting = True


class Sim:
    """A running simulated exchange; `async with Sim(SimConfig(...)) as sim` in tests.

    `ws_url` and `rest_url` are known once it is started. Everything under `/sim/` is also a method here.
    """

    def __init__(self, config: SimConfig | None = None) -> None:
        self.config = config = config or SimConfig()
        self.faults = Faults()
        self.hub = StreamHub(config.limits, self.faults)
        self.ledger = Ledger(config.history_rows)
        self.ws_url = ""
        self.rest_url = ""
        self.trades = self.agg_trades = self.quotes = 0
        self.ended = False
        self.behind_seconds = 0.0
        self._left: int | None = None
        self._running = asyncio.Event()
        if not config.paused:
            self._running.set()
        self._runner: asyncio.Task[None] | None = None
        self._by_name: dict[str, MarketSymbol] = {}
        self._kline_runner: asyncio.Task[None] | None = None
        self._replay: Replay | None = None
        self.history: History | None = None
        # The exchange's clock, µs: the machine's, except that it never goes back.
        self._now_us = time.time_ns() // 1_000
        self._first_id = 0
        rows: dict[str, SymbolRow]
        if config.replay is not None:
            self._replay = Replay(config.replay, config.exchange_info, derive_trades=config.derive_trades)
            rows = self._replay.symbols
        else:
            first_id = config.first_id
            if first_id is None:
                first_id = (self._now_us // 1_000 - ID_EPOCH_MS) * 10
            self._first_id = first_id
            symbols = make_symbols(config.symbols, config.seed, first_id)
            self._market = Market(symbols, max(config.rate, 1e-9), config.seed, steady=config.steady)
            self._by_name = {symbol.name: symbol for symbol in symbols}
            self._lines = {symbol.name: _Lines(symbol.name, self.hub, self.ledger) for symbol in symbols}
            if config.history:
                self.history = History(symbols, config.seed, self._now_us // 1_000)
                for symbol in symbols:
                    if last := self.history.last_price(symbol.name):
                        symbol.go_to(last)
            self._klines = KlineStreams(self.hub, self.ledger, self.history)
            rows = rows_of_market(symbols)
        self.symbol_rows = rows
        self.symbols = list(rows)
        self.rest = MarketRest(
            rows,
            self.ledger,
            self.faults,
            config.weight_limit,
            self.history,
            market_data_only=config.market_data_only,
        )

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        config = self.config
        port = await self.hub.start(config.host, config.port)
        self.ws_url = f"ws://{config.host}:{port}"
        rest_port = await serve(self.rest, ControlApi(self).routes(), config.host, config.rest_port)
        self.rest_url = f"http://{config.host}:{rest_port}"
        if self._replay is not None:
            self._runner = asyncio.create_task(self._run_replay(self._replay), name="sim replay")
        else:
            self._runner = asyncio.create_task(self._run_market(), name="sim market")
            self._kline_runner = asyncio.create_task(self._run_klines(), name="sim klines")

    async def stop(self) -> None:
        tasks = [task for task in (self._runner, self._kline_runner) if task is not None]
        for task in tasks:
            task.cancel()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        await self.rest.stop()
        await self.hub.stop()
        for outcome in outcomes:
            if isinstance(outcome, Exception):
                raise outcome

    def on_failure(self, tell: Callable[[], None]) -> None:
        """Call `tell` should the market or the replay break off with an error, which `stop` then raises."""

        def ended(runner: asyncio.Task[None]) -> None:
            if not runner.cancelled() and runner.exception() is not None:
                tell()

        if self._runner is not None:
            self._runner.add_done_callback(ended)

    # What `/sim/...` offers.

    @property
    def paused(self) -> bool:
        return not self._running.is_set()

    def pause(self) -> None:
        self._running.clear()

    def resume(self, messages: int | None = None) -> None:
        """Go on; with `messages`, pause by itself after so many (an order is never cut in two)."""
        self._left = messages
        self._running.set()

    def fault(
        self,
        kind: str,
        stream: str | None = None,
        count: int | None = None,
        seconds: float | None = None,
        path: str | None = None,
    ) -> None:
        """Misbehave. ValueError for an unknown kind, type of stream or path, and for a path that cannot matter."""
        if kind not in KINDS:
            raise ValueError(f"kind {kind!r} is unknown: give one of {', '.join(sorted(KINDS))}")
        if stream is not None and "@" not in stream and stream not in STREAM_TYPES:
            types = ", ".join(STREAM_TYPES)
            raise ValueError(f"stream {stream!r} is unknown: give a name (btcusdt@trade) or a type: {types}")
        if path is not None:
            of_rest = kind in REST_KINDS or (kind == "truncate" and stream is None)
            if not of_rest:
                raise ValueError(f"path is for faults of REST answers, and {kind} is none: leave it out")
            if path not in self.rest.routes:
                raise ValueError(f"path {path!r} is unknown: give one of {', '.join(self.rest.routes)}")
        self.hub.apply_fault(self.faults.add(kind, stream, count, seconds, path))

    def clear_faults(self) -> None:
        """Behave again, at once."""
        self.hub.clear_faults()

    @property
    def messages(self) -> int:
        """Messages made, whether or not anybody carried their streams."""
        return self.trades + self.agg_trades + self.quotes

    def drained(self) -> bool:
        """Whether all that was made has left this process."""
        return self.hub.drained()

    async def replayed(self) -> None:
        """Wait until the recording has ended and every consumer has read what it was sent of it."""
        while not (self.ended and self.drained()):
            if self._runner is not None and self._runner.done():
                await self._runner
            await asyncio.sleep(END_POLL)
        await self.hub.read_by_all()

    def order(self, symbol: str, fills: list[tuple[str, str]], *, buyer_is_maker: bool = False) -> Order:
        """Make one taker order by hand and send it: `fills` are (price, quantity) as text, one trade each."""
        if symbol not in self._by_name:
            raise ValueError(f"symbol {symbol!r} is not traded here; a replay takes no orders")
        units = [(to_units(price), to_units(quantity)) for price, quantity in fills]
        made = Order(self._by_name[symbol], buyer_is_maker, units, None)
        self.publish(made)
        self.hub.flush()
        return made

    def list_symbol(self, name: str) -> None:
        """List a symbol that is new, or one that was delisted again. A new one trades like the others from now on."""
        if self._replay is not None or not can_carry(name):
            raise ValueError(f"symbol {name!r} cannot be listed: give A-Z and 0-9; a replay lists no more")
        if name not in self._by_name:
            symbol = new_symbol(name, LISTED_PRICE, self._first_id)
            self._by_name[name] = symbol
            self._lines[name] = _Lines(name, self.hub, self.ledger)
            self._market.add(symbol)
            self.symbol_rows |= rows_of_market([symbol])
            self.symbols.append(name)
        self.symbol_rows[name].row["status"] = "TRADING"

    def delist_symbol(self, name: str) -> None:
        """Say that a symbol is not traded any more. (Its orders go on, as an exchange's last ones do.)"""
        if name not in self.symbol_rows:
            raise ValueError(f"symbol {name!r} is not traded here; /api/v3/exchangeInfo lists the symbols")
        self.symbol_rows[name].row["status"] = "BREAK"

    # The market.

    def publish(self, order: Order) -> None:
        """Enter one order in the ledger and queue its messages; `hub.flush()` sends them."""
        lines = self._lines[order.symbol.name]
        hub, ledger, template, of = self.hub, self.ledger, lines.template, lines.ledger
        now = self._now_us = max(self._now_us, time.time_ns() // 1_000)
        maker = b"true" if order.maker else b"false"
        trade_id = order.first_trade
        stream = lines.trade
        for price, quantity in order.fills:
            ledger.add_trade(of, trade_id, now, price, quantity, order.maker)
            if stream.wanted:
                numbers = (trade_id, *divmod(price, 100_000_000), *divmod(quantity, 100_000_000))
                ms = template.trade % (now // 1_000, *numbers, now // 1_000, maker)
                hub.send(stream, ms, template.trade % (now, *numbers, now, maker) if stream.us else b"")
            trade_id += 1
        stream = lines.agg_trade
        for agg_id, price, quantity, first, last in order.aggs:
            ledger.add_agg_trade(of, agg_id, now, price, quantity, order.maker, first, last)
            if stream.wanted:
                of_agg = (agg_id, *divmod(price, 100_000_000), *divmod(quantity, 100_000_000), first, last)
                ms = template.agg_trade % (now // 1_000, *of_agg, now // 1_000, maker)
                hub.send(stream, ms, template.agg_trade % (now, *of_agg, now, maker) if stream.us else b"")
        if order.quote is not None:
            of.last_quote = order.quote
            self.quotes += 1
            stream = lines.book_ticker
            if stream.wanted:
                update, bid, bid_qty, ask, ask_qty = order.quote
                ms = template.book_ticker % (
                    update,
                    *divmod(bid, 100_000_000),
                    *divmod(bid_qty, 100_000_000),
                    *divmod(ask, 100_000_000),
                    *divmod(ask_qty, 100_000_000),
                )
                hub.send(stream, ms, ms)
        self.trades += len(order.fills)
        self.agg_trades += len(order.aggs)

    async def _run_market(self) -> None:
        market, hub = self._market, self.hub
        if self.config.rate <= 0:
            return
        gap = 0.0
        while True:
            await self._running.wait()
            due = time.monotonic() + gap
            while not self.paused:
                now = time.monotonic()
                if now - due > MAX_BEHIND_SECONDS:
                    self.behind_seconds += now - due
                    due = now
                made = 0
                while due <= now and made < TURN_MESSAGES and not self.paused:
                    gap, order = market.next()
                    self.publish(order)
                    made += order.messages
                    self._count_down(order.messages)
                    due += gap
                if made:
                    hub.flush()
                await asyncio.sleep(
                    min(max(due - time.monotonic(), 0.001), 0.05) if made < TURN_MESSAGES else 0
                )

    def klines_now(self, now_ms: int) -> None:
        """Send what the kline streams have to tell at a time (unix ms)."""
        self._klines.tell(now_ms)
        self.hub.flush()

    async def _run_klines(self) -> None:
        while True:
            await asyncio.sleep(self.config.kline_interval)
            self.klines_now(time.time_ns() // 1_000_000)

    def _count_down(self, messages: int) -> None:
        if self._left is not None:
            self._left -= messages
            if self._left <= 0:
                self._left = None
                self.pause()

    async def _run_replay(self, replay: Replay) -> None:
        hub, speed = self.hub, self.config.speed
        await self._settled()
        began = previous = None
        made = 0
        for event in replay:
            if self.paused:
                hub.flush()
                await self._running.wait()
                began = None
            if speed:
                if began is None or previous is None:
                    began, previous = time.monotonic(), event.received
                due = began + (event.received - previous) / speed
                now = time.monotonic()
                if due > now or made >= TURN_MESSAGES:
                    hub.flush()
                    made = 0
                    await asyncio.sleep(max(due - now, 0.0))
            elif made >= REPLAY_BATCH:
                hub.flush()
                made = 0
                await hub.writable()
                await asyncio.sleep(0)
            made += 1
            self._replayed(replay, event)
        hub.flush()
        self.ended = True

    def _replayed(self, replay: Replay, event: ReplayEvent) -> None:
        replay.enter(event, self.ledger)
        if event.kind == "trade":
            self.trades += 1
        elif event.kind == "aggTrade":
            self.agg_trades += 1
        else:
            self.quotes += 1
        stream = self.hub.stream(event.stream)
        if stream.wanted:
            self.hub.send(stream, event.payload, event.payload)
        self._count_down(1)

    async def _settled(self) -> None:
        """Let a replay begin: when a paused one is resumed, else when subscriptions have settled."""
        if self.paused:
            await self._running.wait()
            return
        changes = -1
        while changes != self.hub.changes or not self.hub.carried():
            changes = self.hub.changes
            await asyncio.sleep(self.config.settle)
