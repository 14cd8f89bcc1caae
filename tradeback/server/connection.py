"""One WebSocket connection to the exchange: subscribing within its limits, and telling life from silence."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable

import orjson
import structlog
from picows import WSError, WSMsgType, WSTransport, ws_connect

from tradeback._fast.ingest import Ingest
from tradeback._fast.listener import FeedListener
from tradeback.config import ExchangeConfig
from tradeback.errors import ExchangeError
from tradeback.exchange.binance import canonical_message

log = structlog.get_logger(__name__)

CONNECT_TIMEOUT = 10.0
ANSWER_TIMEOUT = 15.0
STREAMS_PER_MESSAGE = 200
DELIVERY_POLL = 0.05
SHOWN_BYTES = 200
MAX_FRAME_BYTES = 16 * 1024 * 1024


class FeedConnection:
    """Carries a set of streams over one connection until it is lost or closed.

    The exchange counts every message that it gets and cuts who sends too many, so SUBSCRIBE and UNSUBSCRIBE
    leave at most `messages_per_second` times a second, and what changed in between goes together.

    `attention` is set when its owner has to look: `failure` then says why the connection is of no more use, or
    `renewal_asked` that the exchange is about to close it.
    """

    def __init__(
        self, name: str, ingest: Ingest, config: ExchangeConfig, after_reads: Callable[[], None] | None
    ) -> None:
        self.name = name
        self.subscribed: set[str] = set()
        self.attention = asyncio.Event()
        self.failure: str | None = None
        self.renewal_asked = False
        self.opened_at = 0.0
        self.subscribed_ns = 0
        self._config = config
        self._wanted: set[str] = set()
        self._changed = asyncio.Event()
        self._unanswered: dict[int, asyncio.Future[None]] = {}
        self._next_id = 1
        self._transport: WSTransport | None = None
        self._subscribing: asyncio.Task[None] | None = None
        self.listener = FeedListener(
            ingest,
            on_other=self._on_other,
            on_unusual=self._on_unusual,
            on_malformed=self._on_malformed,
            on_lost=self._on_lost,
            after_reads=after_reads,
        )

    async def open(self, url: str) -> None:
        """Connect, and from now on keep subscribed what `want` asks for. Raises ExchangeError where that fails."""
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                transport, _ = await ws_connect(
                    lambda: self.listener,
                    url,
                    websocket_handshake_timeout=CONNECT_TIMEOUT,
                    enable_auto_ping=False,
                    enable_auto_pong=True,
                    max_frame_size=MAX_FRAME_BYTES,
                    read_buffer_init_size=256 * 1024,
                )
        except (OSError, TimeoutError, ValueError, RuntimeError, WSError) as error:
            raise ExchangeError(
                f"{self.name}: no connection to {url}: {error or type(error).__name__}"
            ) from error
        if transport.is_disconnected:
            # Also where it hung up before it answered the upgrade.
            raise ExchangeError(f"{self.name}: no connection to {url}: it was closed at once")
        self._transport = transport
        self.opened_at = asyncio.get_running_loop().time()
        self._subscribing = asyncio.create_task(self._keep_subscribed(), name=f"subscribing {self.name}")

    def want(self, streams: Iterable[str]) -> None:
        """The streams to carry from now on; the difference to those subscribed goes out at the next turn."""
        self._wanted = set(streams)
        if self._wanted != self.subscribed:
            self._changed.set()

    async def _keep_subscribed(self) -> None:
        pause = 1.0 / self._config.messages_per_second
        while True:
            await self._changed.wait()
            missing = sorted(self._wanted - self.subscribed)[:STREAMS_PER_MESSAGE]
            surplus = sorted(self.subscribed - self._wanted)[:STREAMS_PER_MESSAGE]
            try:
                if missing:
                    await self._ask("SUBSCRIBE", missing)
                    self.subscribed.update(missing)
                elif surplus:
                    await self._ask("UNSUBSCRIBE", surplus)
                    self.subscribed.difference_update(surplus)
                else:
                    self._changed.clear()
                    self.subscribed_ns = time.monotonic_ns() if self.subscribed else 0
                    continue
            except ExchangeError as error:
                self.fail(str(error))
                return
            await asyncio.sleep(pause)

    async def delivering(self) -> None:
        """Wait until everything wanted is subscribed and a first market message has come, or it failed."""
        while self.failure is None and not (self.subscribed_ns and self.listener.last_market_ns):
            await asyncio.sleep(DELIVERY_POLL)

    def fail(self, reason: str) -> None:
        """Declare the connection of no more use; the first reason stays."""
        if self.failure is None:
            self.failure = reason
        self.attention.set()

    def ping(self) -> None:
        """Ask for a sign of life; the answer counts as a frame of the listener."""
        if self._transport is not None and not self._transport.is_disconnected:
            self._transport.send_ping()

    def close(self) -> None:
        """Close at once and for good."""
        if self._subscribing is not None:
            self._subscribing.cancel()
        if self._transport is not None and not self._transport.is_disconnected:
            self._transport.send_close()
            self._transport.disconnect(graceful=False)

    async def _ask(self, method: str, streams: list[str]) -> None:
        if self._transport is None or self._transport.is_disconnected:
            raise ExchangeError(f"{self.name}: the connection was lost before {method} was sent")
        number, self._next_id = self._next_id, self._next_id + 1
        answer = self._unanswered[number] = asyncio.get_running_loop().create_future()
        message = orjson.dumps({"method": method, "params": streams, "id": number})
        self._transport.send(WSMsgType.TEXT, message)
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT):
                await answer
        except TimeoutError:
            raise ExchangeError(
                f"{self.name}: no answer to {method} of {len(streams)} streams within {ANSWER_TIMEOUT:.0f} s"
            ) from None
        finally:
            del self._unanswered[number]

    def _on_lost(self) -> None:
        self.fail(f"{self.name}: the exchange closed the connection")

    def _on_unusual(self, message: bytes) -> bytes | None:
        """What the compiled decoder leaves to the slow path: the same event in the order it expects, if it is one."""
        try:
            canonical = canonical_message(message)
        except ExchangeError as error:
            log.warning("message refused", feed=self.name, reason=str(error))
            return None
        if canonical is None:
            self._on_other(message)
        return canonical

    def _on_malformed(self, message: bytes) -> None:
        log.warning(
            "message not understood", feed=self.name, size=len(message), message=message[:SHOWN_BYTES]
        )

    def _on_other(self, message: bytes) -> None:
        """Whatever is no market event: answers to our requests, errors, the announcement of a shutdown."""
        try:
            content = orjson.loads(message)
        except orjson.JSONDecodeError:
            self._on_malformed(message)
            return
        if not isinstance(content, dict):
            self._on_malformed(message)
            return
        data = content.get("data")
        event = data.get("e") if isinstance(data, dict) else content.get("e")
        if event == "serverShutdown":
            log.info("the exchange announces a shutdown: the next connection is opened now", feed=self.name)
            self.renewal_asked = True
            self.attention.set()
            return
        error = content.get("error", content if "code" in content and "msg" in content else None)
        number = content.get("id")
        answer = self._unanswered.get(number) if isinstance(number, int) else None
        if error is not None:
            failure = ExchangeError(
                f"{self.name}: the exchange refused a request: {message[:SHOWN_BYTES].decode(errors='replace')}"
            )
            for waiting in [answer] if answer is not None else list(self._unanswered.values()):
                if not waiting.done():
                    waiting.set_exception(failure)
            log.warning("the exchange refused a request", feed=self.name, message=message[:SHOWN_BYTES])
        elif answer is not None and not answer.done():
            answer.set_result(None)
