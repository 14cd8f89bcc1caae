"""One WebSocket connection to the exchange: subscribing within its limits, and telling life from silence."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterable

import orjson
import structlog
from picows import WSError, WSMsgType, WSProtocolError, WSTransport, ws_connect

from tradeback._fast.ingest import Ingest
from tradeback._fast.listener import FeedListener
from tradeback.config import ExchangeConfig
from tradeback.errors import ExchangeError
from tradeback.exchange.binance import canonical_message
from tradeback.server.subscriptions import Refusals, Request, Subscriptions

log = structlog.get_logger(__name__)

CONNECT_TIMEOUT = 10.0
ANSWER_TIMEOUT = 15.0
CLOSE_TIMEOUT = 5.0
STREAMS_PER_MESSAGE = 200
DELIVERY_POLL = 0.05
SHOWN_BYTES = 200
MAX_FRAME_BYTES = 16 * 1024 * 1024


class FeedConnection:
    """Carries a set of streams over one connection until it is lost or closed.

    The exchange counts every message that it gets and cuts who sends too many, so SUBSCRIBE and UNSUBSCRIBE
    leave at most `messages_per_second` times a second, and what changed in between goes together.

    `attention` is set when its owner has to look: `failure` then says why the connection is of no more use, or
    `renewal_asked` that the exchange is about to close it. `failed` is set with the failure.
    """

    def __init__(
        self,
        name: str,
        ingest: Ingest,
        config: ExchangeConfig,
        refusals: Refusals,
        after_reads: Callable[[], None] | None,
    ) -> None:
        self.name = name
        self.attention = asyncio.Event()
        self.failed = asyncio.Event()
        self.failure: str | None = None
        self.renewal_asked = False
        self.opened_at = 0.0
        self.settled = False  # whether all that is wanted was asked for
        self.subscribed_ns = 0  # when that was last so, in monotonic time; 0 where nothing is subscribed
        self._subscriptions = Subscriptions(
            refusals, limit=config.streams_per_connection, per_message=STREAMS_PER_MESSAGE
        )
        self._pause = 1.0 / config.messages_per_second
        # Who leaves requests unanswered for so long would be given up for mute as well.
        self._answer_timeout = min(ANSWER_TIMEOUT, config.mute_limit)
        self._changed = asyncio.Event()
        self._pending: tuple[int, asyncio.Future[str | None]] | None = None
        self._next_id = 1
        self._worked_off = asyncio.Event()  # set while no message waits for the slow path
        self._worked_off.set()
        self._transport: WSTransport | None = None
        self._subscribing: asyncio.Task[None] | None = None
        self._following: asyncio.Task[None] | None = None
        self.listener = FeedListener(
            ingest,
            on_other=self._on_other,
            on_unusual=self._on_unusual,
            on_malformed=self._on_malformed,
            after_reads=after_reads,
            on_waiting=self._on_waiting,
        )

    @property
    def subscribed(self) -> int:
        """How many streams the exchange has agreed to send."""
        return len(self._subscriptions.subscribed)

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
        except BaseException as error:
            # The upgrade may still be answered, when nobody waits for it any more.
            self.listener.abandoned = True
            if isinstance(error, (OSError, TimeoutError, ValueError, RuntimeError, WSError)):
                raise ExchangeError(
                    f"{self.name}: no connection to {url}: {error or type(error).__name__}"
                ) from error
            raise
        self._transport = transport
        self.opened_at = asyncio.get_running_loop().time()
        self._following = asyncio.create_task(self._follow(transport), name=f"end of {self.name}")
        if transport.is_disconnected:
            # Also where it hung up before it answered the upgrade.
            await self._following
            raise ExchangeError(
                f"{self.name}: no connection to {url}: it was closed at once ({self.failure})"
            )
        self._subscribing = asyncio.create_task(self._keep_subscribed(), name=f"subscribing {self.name}")

    def want(self, streams: Iterable[str]) -> None:
        """The streams to carry from now on; the difference to those subscribed goes out at the next turn."""
        self._subscriptions.wanted = set(streams)
        self.settled = False
        self._changed.set()

    async def _follow(self, transport: WSTransport) -> None:
        """Wait for the end of the connection, and say why it came; only here picows tells its own errors."""
        try:
            await transport.wait_disconnected()
        except WSProtocolError as error:
            self.fail(f"{self.name}: the exchange broke the WebSocket protocol: {error}")
        except Exception as error:  # a callback's, so a fault of ours; the feed makes another connection
            log.exception("a message of the exchange could not be taken", feed=self.name)
            self.fail(f"{self.name}: a message of the exchange could not be taken: {error!r}")
        else:
            told = transport.close_handshake
            why = ""
            if told is not None and told.recv is not None:
                why = f" with code {told.recv.code:d} {told.recv.reason or ''}".rstrip()
            self.fail(f"{self.name}: the exchange closed the connection{why}")

    async def _keep_subscribed(self) -> None:
        try:
            while True:
                request = self._subscriptions.next_request(time.monotonic())
                if request is None:
                    await self._rest()
                else:
                    await self._carry_out(request)
                    await asyncio.sleep(self._pause)
        except ExchangeError as error:
            self.fail(f"{self.name}: {error}")
        except Exception as error:  # a fault of ours: nothing more would be subscribed, and nobody would know
            log.exception("subscribing raised", feed=self.name)
            self.fail(f"{self.name}: subscribing raised {error!r}")

    async def _rest(self) -> None:
        """Wait until something else is wanted, or a refused stream is to be tried again."""
        self.settled = True
        self.subscribed_ns = time.monotonic_ns() if self.subscribed else 0
        self._changed.clear()
        due = self._subscriptions.refusals.first_due()
        pause = None if due is None else max(due[0] - time.monotonic(), self._pause)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(pause):
                await self._changed.wait()

    async def _carry_out(self, request: Request) -> None:
        reason = await self._ask(request)
        now = time.monotonic()
        if reason is None:
            regained, left_out = self._subscriptions.accepted(request, now)
            for stream in regained:
                log.info("a refused stream is accepted now", feed=self.name, stream=stream)
        else:
            log.debug("request refused", feed=self.name, streams=len(request.streams), reason=reason)
            left_out = self._subscriptions.refused(request, reason, now)
        for stream, why in left_out.items():
            log.warning(
                "the exchange refuses a stream: it is left out", feed=self.name, stream=stream, reason=why
            )

    async def delivering(self) -> None:
        """Wait until everything wanted is subscribed and a first market message has come, or it failed."""
        while self.failure is None and not (
            self.settled and (self.listener.last_market_ns or not self.subscribed)
        ):
            await asyncio.sleep(DELIVERY_POLL)

    def fail(self, reason: str) -> None:
        """Declare the connection of no more use; the first reason stays."""
        if self.failure is None:
            self.failure = reason
        self.failed.set()
        self.attention.set()

    def ping(self) -> None:
        """Ask for a sign of life; the answer counts as a frame of the listener."""
        if self._transport is not None and not self._transport.is_disconnected:
            self._transport.send_ping()

    async def close(self) -> None:
        """Close at once and for good; returns when nothing of it runs any more."""
        if self._subscribing is not None:
            self._subscribing.cancel()
            await asyncio.gather(self._subscribing, return_exceptions=True)
        if self._transport is not None and not self._transport.is_disconnected:
            self._transport.send_close()
            self._transport.disconnect(graceful=False)
        if self._following is not None:
            await asyncio.wait({self._following}, timeout=CLOSE_TIMEOUT)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_TIMEOUT):
                await self._worked_off.wait()
        self.listener.drop_waiting()

    async def _ask(self, request: Request) -> str | None:
        """Send it and wait for the answer: None, or what the exchange has against it."""
        if self._transport is None or self._transport.is_disconnected:
            raise ExchangeError(f"the connection was lost before {request.method} was sent")
        number, self._next_id = self._next_id, self._next_id + 1
        answer: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
        self._pending = number, answer
        message = orjson.dumps({"method": request.method, "params": request.streams, "id": number})
        self._transport.send(WSMsgType.TEXT, message)
        try:
            async with asyncio.timeout(self._answer_timeout):
                return await answer
        except TimeoutError:
            raise ExchangeError(
                f"no answer to {request.method} of {len(request.streams)} streams within "
                f"{self._answer_timeout:g} s"
            ) from None
        finally:
            self._pending = None

    def _on_waiting(self) -> None:
        self._worked_off.clear()
        asyncio.get_running_loop().call_soon(self._work_off)

    def _work_off(self) -> None:
        """A turn of the slow path, with the clients' turns in between."""
        try:
            more = self.listener.work_off()
        except Exception as error:  # a fault of ours; the feed makes another connection
            log.exception("a message of the exchange could not be taken", feed=self.name)
            self.fail(f"{self.name}: a message of the exchange could not be taken: {error!r}")
            more = self.listener.waiting > 0
        if more:
            asyncio.get_running_loop().call_soon(self._work_off)
        else:
            self._worked_off.set()

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
        # An answer tells the number of its request; an error may come without.
        error = content.get("error", content if "code" in content and "msg" in content else None)
        number, pending = content.get("id"), self._pending
        ours = pending is not None and (
            number == pending[0] if type(number) is int else number is None and error is not None
        )
        if pending is None or not ours or pending[1].done():
            if error is not None:
                log.warning("the exchange complains", feed=self.name, message=message[:SHOWN_BYTES])
        elif error is not None:
            said = error.get("msg") if isinstance(error, dict) else None
            pending[1].set_result(
                said[:SHOWN_BYTES]
                if isinstance(said, str)
                else message[:SHOWN_BYTES].decode(errors="replace")
            )
        elif "result" in content:
            pending[1].set_result(None)
