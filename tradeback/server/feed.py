"""Feeds: our side of the exchange's streams. A line of streams (all trades, say) rides on one feed or more.

A feed keeps one connection delivering: it reconnects with backoff, notices one that is connected but mute, and
before an old connection ends has the next one delivering.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Callable, Iterator

import structlog

from tradeback._fast.ingest import Ingest
from tradeback.config import ExchangeConfig
from tradeback.errors import ExchangeError
from tradeback.exchange.binance import BOOK_TICKER, COMBINED_PATH, STREAM_TYPES, stream_name
from tradeback.server.connection import FeedConnection
from tradeback.server.subscriptions import Refusals

log = structlog.get_logger(__name__)

BACKOFF_CAP = 60.0
AT_ONCE = 0.25
AT_ONCE_EVERY = 10.0
STABLE_AFTER = 30.0
SHOWN_REFUSALS = 20


def backoff_delays(first: float) -> Iterator[float]:
    """Seconds to wait before each further try: doubling up to a minute, each with full jitter above a half."""
    delay = min(first, BACKOFF_CAP)
    while True:
        yield delay * random.uniform(0.5, 1.0)
        delay = min(delay * 2, BACKOFF_CAP)


class Feed:
    """Up to 1024 streams of one type, over one connection at a time (two while one relieves the other)."""

    def __init__(
        self,
        name: str,
        stream_type: str,
        ingest: Ingest,
        config: ExchangeConfig,
        url: str,
        after_reads: Callable[[], None] | None,
        witness_ns: Callable[[], int],
    ) -> None:
        self.name = name
        self.stream_type = stream_type
        self.symbols: set[str] = set()
        self.connects = 0
        self.last_error: str | None = None
        self._ingest = ingest
        self._config = config
        self._url = url
        self._after_reads = after_reads
        self._witness_ns = witness_ns
        self._current: FeedConnection | None = None
        self._next: FeedConnection | None = None
        self._task: asyncio.Task[None] | None = None
        self._delays = backoff_delays(config.reconnect_interval)
        self._refusals = Refusals()
        self._heard_ns = 0
        self._carries_ns = 0
        self._at_once: float | None = None  # when it was last tried again at once, in the loop's time
        self._renewed: float | None = None  # when a renewal was last asked for
        self._missed_from = 0  # last message of the connection beside which others brought trades

    @property
    def connected(self) -> bool:
        """Whether a connection is open now."""
        return self._current is not None and self._current.failure is None

    @property
    def last_message_ns(self) -> int:
        """Monotonic time of the last market message, 0 where none came yet on this connection."""
        return self._current.listener.last_market_ns if self._current is not None else 0

    @property
    def heard_ns(self) -> int:
        """Monotonic time of the last market message on any connection, 0 where none ever came."""
        self._heard_ns = max(self._heard_ns, self.last_message_ns)
        return self._heard_ns

    @property
    def silent_since_ns(self) -> int:
        """Monotonic time of the last market message, or since when it has carried something where that is later; 0
        where it never did."""
        return max(self.heard_ns, self._carries_ns)

    def describe(self) -> dict[str, object]:
        """The state of this feed for the control socket."""
        age = (time.monotonic_ns() - self.last_message_ns) / 1e9 if self.last_message_ns else None
        return {
            "name": self.name,
            "connected": self.connected,
            "streams": len(self.symbols),
            "subscribed": self._current.subscribed if self._current is not None else 0,
            "refused": len(self._refusals),
            "refusals": self._refusals.reasons(SHOWN_REFUSALS),
            "connects": self.connects,
            "last_message_age": age,
            "last_error": self.last_error,
        }

    def start(self) -> None:
        """Connect, and stay connected until `stop`."""
        self._task = asyncio.create_task(self._run(), name=f"feed {self.name}")

    async def stop(self) -> None:
        """Close the connection and end."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._close()

    async def _close(self) -> None:
        for connection in (self._current, self._next):
            if connection is not None:
                await connection.close()
        self._current = self._next = None

    def add(self, symbol: str) -> None:
        """Carry the symbol's stream from now on."""
        if not self.symbols:
            self._carries_ns = time.monotonic_ns()
        self.symbols.add(symbol)
        self._tell()

    def remove(self, symbol: str) -> None:
        """Carry it no longer."""
        self.symbols.discard(symbol)
        self._tell()

    def _tell(self) -> None:
        streams = self._streams()
        self._refusals.keep(streams)
        for connection in (self._current, self._next):
            if connection is not None:
                connection.want(streams)

    def _streams(self) -> set[str]:
        return {stream_name(symbol, self.stream_type) for symbol in self.symbols}

    async def _run(self) -> None:
        while True:
            try:
                self._current = await self._open()
                while True:
                    await self._watch(self._current)
                    await self._relieve(self._current)
            except ExchangeError as error:
                self.last_error = str(error)
                log.warning("feed interrupted", feed=self.name, reason=str(error))
            except Exception as error:  # a fault of ours: without a new try the feed would be gone for good
                self.last_error = repr(error)
                log.exception("a feed raised", feed=self.name)
            connection = self._current
            await self._close()
            await asyncio.sleep(self._pause_after(connection))

    def _pause_after(self, connection: FeedConnection | None) -> float:
        """Seconds until the next try. A line that delivered is missed now; one that keeps failing is not pressed."""
        now = asyncio.get_running_loop().time()
        if connection is not None:
            if now - connection.opened_at > STABLE_AFTER:
                self._delays = backoff_delays(self._config.reconnect_interval)
            rested = self._at_once is None or now - self._at_once > AT_ONCE_EVERY
            if rested and connection.listener.last_market_ns:
                self._at_once = now
                return min(AT_ONCE, self._config.reconnect_interval) * random.uniform(0.5, 1.0)
        return next(self._delays)

    async def _open(self) -> FeedConnection:
        connection = FeedConnection(self.name, self._ingest, self._config, self._refusals, self._after_reads)
        await connection.open(self._url)
        connection.want(self._streams())
        self.connects += 1
        log.info("feed connected", feed=self.name, url=self._url, streams=len(self.symbols))
        return connection

    async def _watch(self, connection: FeedConnection) -> None:
        """Return when the connection has to be relieved in good order; raise ExchangeError when it is of no use."""
        loop = asyncio.get_running_loop()
        interval = min(1.0, self._config.mute_limit / 4)
        while True:
            began = loop.time()
            try:
                async with asyncio.timeout(interval):
                    await connection.attention.wait()
            except TimeoutError:
                # Where it was this process that was held up, what came meanwhile is still to be read.
                if loop.time() - began < 2 * interval:
                    self._check_silence(connection)
            if connection.failure is not None:
                raise ExchangeError(connection.failure)
            if connection.renewal_asked or loop.time() - connection.opened_at > self._config.connection_age:
                return

    def _check_silence(self, connection: FeedConnection) -> None:
        """A quiet market and a dead line look alike: a ping tells the one, the other lines tell the rest."""
        now, limit = time.monotonic_ns(), self._config.mute_limit
        silent = (now - connection.listener.last_frame_ns) / 1e9
        if silent > limit:
            connection.fail(f"{self.name}: not a sign of life for {silent:.0f} s, pings unanswered")
        elif silent > min(self._config.ping_interval, limit / 2):
            connection.ping()
        heard = max(connection.listener.last_market_ns, connection.subscribed_ns)
        missed = connection.subscribed_ns and (now - heard) / 1e9 > limit and self._witness_ns() > heard
        if self._refusals:
            missed = False  # what the others bring may be of a stream that this one is refused
        if missed and self._missed_from == heard:
            connection.fail(f"{self.name}: no message for {limit:.0f} s while other feeds bring trades")
        # At the first look the other feeds may merely have been the faster ones with the first trade in a while.
        self._missed_from = heard if missed else 0

    async def _relieve(self, old: FeedConnection) -> None:
        """Have the next connection deliver, then close the old one. The table drops what both bring.

        Returns with the old one still there where that did not work out. Raises ExchangeError where it was lost
        meanwhile, and there is no other.
        """
        if old.renewal_asked:
            await self._lasts(old, self._pause_between_renewals())
        old.attention.clear()
        log.info("feed is relieved", feed=self.name, asked=old.renewal_asked)
        try:
            self._next = await self._open()
            await self._delivering(self._next, old)
        except ExchangeError as error:
            if self._next is not None:
                await self._next.close()
                self._next = None
            log.warning("not relieved, the old connection goes on", feed=self.name, reason=str(error))
            await self._lasts(old, next(self._delays))
            return
        if asyncio.get_running_loop().time() - old.opened_at > STABLE_AFTER:
            self._delays = backoff_delays(self._config.reconnect_interval)
        self._current, self._next = self._next, old
        await old.close()
        self._next = None

    def _pause_between_renewals(self) -> float:
        """Seconds to wait before a renewal that was asked for: none, unless an exchange asks again and again."""
        now, before = asyncio.get_running_loop().time(), self._renewed
        self._renewed = now
        return 0.0 if before is None or now - before > STABLE_AFTER else next(self._delays)

    @staticmethod
    async def _lasts(connection: FeedConnection, seconds: float) -> None:
        """Wait. Raises ExchangeError as soon as the connection is lost."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await connection.failed.wait()
        if connection.failure is not None:
            raise ExchangeError(connection.failure)

    async def _delivering(self, connection: FeedConnection, old: FeedConnection) -> None:
        """Wait until the connection can take over from the old one. Raises ExchangeError where it cannot."""
        limit = self._config.mute_limit
        try:
            async with asyncio.timeout(limit):
                await connection.delivering()
        except TimeoutError:
            if not connection.settled:
                raise ExchangeError(f"{self.name}: not all was subscribed within {limit:g} s") from None
            if old.failure is None and old.listener.last_market_ns > connection.subscribed_ns:
                raise ExchangeError(
                    f"{self.name}: the next connection brings nothing, while the old one does"
                ) from None
            log.info("the next connection brought nothing yet, as a quiet market would", feed=self.name)
        if connection.failure is not None:
            raise ExchangeError(connection.failure)


class Shard:
    """The feeds that carry the same symbols: one for each type of stream."""

    def __init__(
        self, number: int, ingest: Ingest, config: ExchangeConfig, after_reads: Callable[[], None] | None
    ) -> None:
        url = config.ws_endpoint.rstrip("/") + COMBINED_PATH
        self.symbols: set[str] = set()
        self.feeds = [
            Feed(
                f"{stream_type}-{number}",
                stream_type,
                ingest,
                config,
                url,
                after_reads,
                self._newest_trade_ns,
            )
            for stream_type in STREAM_TYPES
        ]

    def _newest_trade_ns(self) -> int:
        return max(feed.last_message_ns for feed in self.feeds if feed.stream_type != BOOK_TICKER)


class Feeds:
    """All feeds. A symbol rides on one shard, the emptiest; they are as many as `max_connections` has room for, and
    more where the exchange's limit of streams is met."""

    def __init__(
        self, ingest: Ingest, config: ExchangeConfig, after_reads: Callable[[], None] | None
    ) -> None:
        self.shards: list[Shard] = []
        self._ingest = ingest
        self._config = config
        self._after_reads = after_reads
        self._shard_of: dict[str, Shard] = {}
        self._running = False

    def __iter__(self) -> Iterator[Feed]:
        return (feed for shard in self.shards for feed in shard.feeds)

    def start(self) -> None:
        """Connect the feeds of the symbols carried so far, and of those to come as they come."""
        self._running = True
        for feed in self:
            feed.start()

    async def stop(self) -> None:
        """Close every connection."""
        self._running = False
        await asyncio.gather(*(feed.stop() for feed in self))

    def want(self, symbol: str) -> None:
        """Carry the streams of the symbol."""
        roomy = (one for one in self.shards if len(one.symbols) < self._config.streams_per_connection)
        shard = min(roomy, key=lambda one: len(one.symbols), default=None)
        spread = self._config.max_connections // len(STREAM_TYPES)
        if shard is None or (shard.symbols and len(self.shards) < spread):
            shard = Shard(len(self.shards), self._ingest, self._config, self._after_reads)
            self.shards.append(shard)
            if self._running:
                for feed in shard.feeds:
                    feed.start()
        shard.symbols.add(symbol)
        self._shard_of[symbol] = shard
        for feed in shard.feeds:
            feed.add(symbol)

    def drop(self, symbol: str) -> None:
        """Carry them no longer."""
        shard = self._shard_of.pop(symbol)
        shard.symbols.discard(symbol)
        for feed in shard.feeds:
            feed.remove(symbol)
