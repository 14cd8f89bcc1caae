"""Hub: the WebSocket server's clients, the flush that serves them, and the limits that hold for them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from functools import partial
from http import HTTPStatus
from time import monotonic_ns
from typing import Any

import orjson
import structlog
from picows import WSUpgradeRequest, WSUpgradeResponseWithListener, ws_create_server

from tradeback._fast.epoll import EpollLoop
from tradeback._fast.fanout import FanOut
from tradeback._fast.listener import (
    ClientLimits,
    ClientListener,
    ClientSink,
    FlushHook,
    TextSink,
)
from tradeback._fast.stats import Stats
from tradeback.config import CorsConfig, WebSocketConfig
from tradeback.errors import CloseCode
from tradeback.server.accepting import BACKLOG, AcceptingSocket, bind
from tradeback.server.admission import Admission
from tradeback.server.client import Client
from tradeback.server.interest import Interest, Symbols
from tradeback.server.sessions import Sessions
from tradeback.server.settling import Settling
from tradeback.server.texts import Texts

SWEEP_TICK = 0.1  # seconds between two slices of the sweep
SWEEP_SLICES = 10  # of one sweep: each client is looked at once a second
STOP_GRACE = 2.0  # seconds that clients have to answer our CLOSE before they are cut

log = structlog.get_logger(__name__)


class PicowsLog:
    """What picows takes for a logger: it makes no child logger a connection of one that is no logging.Logger.

    A client that breaks the protocol is no news, and one that does so a thousand times a second must not fill
    the log; the exceptions of our own callbacks are.
    """

    def isEnabledFor(self, level: int) -> bool:
        return False

    def log(self, level: int, *args: Any) -> None: ...
    def debug(self, *args: Any) -> None: ...
    def info(self, *args: Any) -> None: ...
    def warning(self, *args: Any) -> None: ...
    def error(self, *args: Any) -> None: ...

    def exception(self, message: str, *args: Any) -> None:
        log.exception(
            "a callback of a client's connection raised", picows=message % args if args else message
        )


class Hub:
    """Serves clients from `fanout` until it is stopped. One loop, one thread.

    Whoever marks slots dirty calls `schedule_flush` after the reads of an iteration. `fanout` and `stats` outlive
    the hub; `stats` have the values of `counters.py`. `secret` signs session tokens. `binary` false sends updates as
    JSON text (decision 31).
    """

    def __init__(
        self,
        config: WebSocketConfig,
        fanout: FanOut,
        symbols: Symbols,
        *,
        cors: CorsConfig | None = None,
        secret: bytes | None = None,
        binary: bool = True,
    ) -> None:
        self.config = config
        self.fanout = fanout
        self.stats: Stats = fanout.stats
        self.interest = Interest(symbols)
        self.clients: dict[Client, ClientListener] = {}
        self.texts = Texts(fanout, self.clients)
        self.sessions: Sessions[Client] = Sessions()
        self.settling = Settling(self.sessions, self.stats)
        self._admission = Admission(config, self.sessions, cors=cors, secret=secret)
        self._limits = ClientLimits(config)
        self._binary = binary
        self._budget_ns = int(config.flush_budget * 1e9)
        self.authenticated = 0  # clients that are logged in
        self._flush_scheduled = False
        self._hooked = False  # the loop flushes at the end of each iteration
        self._swept: list[ClientListener] = []
        self._sweep_timer: asyncio.TimerHandle | None = None
        self._server: asyncio.Server | None = None
        self._socket: AcceptingSocket | None = None
        self._empty: asyncio.Event = asyncio.Event()
        self._stopping = False
        self._stop_code = CloseCode.GOING_AWAY

    async def start(self, host: str, port: int) -> None:
        """Listen. Raises OSError where the address cannot be had."""
        config = self.config
        self._loop = asyncio.get_running_loop()
        self._socket = bind(
            self._loop,
            host,
            port,
            rate=config.accepts_per_second,
            receive_buffer=config.receive_buffer,
            notsent_lowat=config.notsent_lowat,
        )
        try:
            self._server = await ws_create_server(
                self._on_request,
                None,
                None,
                sock=self._socket,
                backlog=BACKLOG,
                websocket_handshake_timeout=config.handshake_timeout,
                logger_name=PicowsLog(),  # type: ignore[arg-type]
                enable_auto_ping=False,
                enable_auto_pong=False,
                max_frame_size=config.max_message_bytes,
                read_buffer_init_size=config.read_buffer,
                use_aiofastnet=True,
            )
        except BaseException:
            self._socket.close()
            raise
        # aiofastnet has no public call to watch a socket again; the version is pinned.
        self._socket.on_room(partial(self._server._start_serving_one_listener, self._socket))  # type: ignore[attr-defined]
        self._sweep_timer = self._loop.call_later(SWEEP_TICK, self._sweep)
        if isinstance(self._loop, EpollLoop):
            self._loop.set_iteration_hook(FlushHook(self.fanout, self._budget_ns, self._on_failed_writes))
            self._hooked = True

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens."""
        if self._socket is None:
            raise RuntimeError("the hub does not listen: start it first")
        host, port = self._socket.getsockname()[:2]
        return host, port

    def reload(self, config: WebSocketConfig, cors: CorsConfig) -> None:
        """Have other limits for the clients that come from now on, and other origins."""
        self.config = config
        self._limits = ClientLimits(config)
        self._admission.reload(config, cors)

    def refuse_all(self) -> None:
        """Let nobody in any more, and say so to health checks: 503 either way."""
        self._admission.draining = True

    def memory_is_used_up(self, used_up: bool) -> None:
        """Let no further client in as long as this is so: those who are there are served."""
        self._admission.no_memory = used_up

    async def stop(self, code: CloseCode = CloseCode.GOING_AWAY) -> None:
        """Accept nobody, close all with `code`, and cut those who do not answer."""
        self._stopping = True
        self._stop_code = code
        self.texts.stop()
        self.settling.stop()
        if self._sweep_timer is not None:
            self._sweep_timer.cancel()
        server = self._server
        if server is None:
            return
        server.close()
        for listener in list(self.clients.values()):
            listener.close(
                code, "the server stops" if code == CloseCode.GOING_AWAY else "the server restarts"
            )
        if self.clients:
            self._empty.clear()
            try:
                await asyncio.wait_for(self._empty.wait(), STOP_GRACE)
            except TimeoutError:
                log.info("clients did not answer the server's closing", clients=len(self.clients))
        # Also those whose handshake is not done.
        server.abort_clients()  # type: ignore[attr-defined,unused-ignore]
        await server.wait_closed()
        self._server = None
        if isinstance(self._loop, EpollLoop):
            self._loop.set_iteration_hook(None)
            self._hooked = False

    # ---------------------------------------------------------------- clients

    def _on_request(self, request: WSUpgradeRequest) -> WSUpgradeResponseWithListener:
        response, credential = self._admission.answer(request, len(self.clients))
        if response.status != 101:
            if response.status >= 400:
                self.stats.increase("clients_refused")
            if response.status == HTTPStatus.UNAUTHORIZED:
                self.stats.increase("unauthorized")
            return WSUpgradeResponseWithListener(response, None)
        sink = ClientSink() if self._binary else TextSink(self.interest.names, orjson.dumps)
        listener = ClientListener(self.fanout, self._limits, sink, Client(self, credential))
        return WSUpgradeResponseWithListener(response, listener)

    def on_open(self, client: Client) -> None:
        """A client's connection stands."""
        self.clients[client] = client.listener
        self.stats.increase("clients_total")
        self.stats.put("clients", len(self.clients))
        if client.credential is not None:
            self.sessions.join(client, client.credential)
            self.settling.join(client)
        if self._stopping:
            client.listener.close(self._stop_code, "the server stops")

    def on_authenticated(self, change: int) -> None:
        """So many clients more are logged in."""
        self.authenticated += change
        self.stats.put("clients_authenticated", self.authenticated)

    def on_lost(self, client: Client) -> None:
        """Its connection is gone."""
        self.clients.pop(client, None)
        self.stats.put("clients", len(self.clients))
        if client.credential is not None:
            self.sessions.leave(client, client.credential)
            self.settling.leave(client)
            if client.authenticated:
                self.on_authenticated(-1)
        if not self.clients:
            self._empty.set()

    def publish(self, messages: Iterable[tuple[str, dict[str, Any]]]) -> int:
        """Have each message, a JSON text, sent to the clients that are subscribed to its symbol; returns how many
        messages somebody waits for. See `server/texts.py` for when, and for whom not."""
        waited_for = 0
        for symbol, message in messages:
            carried = self.interest.find(symbol)
            if carried is not None:
                self.texts.put(carried.slot, str(message.get("type")), orjson.dumps(message))
                waited_for += 1
        return waited_for

    def _sweep(self) -> None:
        """Look after a slice of the clients: pings, dead peers, those blocked too long, closings too slow; and after
        sessions that expire."""
        self._sweep_timer = self._loop.call_later(SWEEP_TICK, self._sweep)
        self.settling.tick()
        if not self._swept:
            self._swept = list(self.clients.values())
            self._slice = -(-len(self._swept) // SWEEP_SLICES)
        now = monotonic_ns()
        for listener in self._swept[-self._slice :]:
            listener.check(now)
        del self._swept[-self._slice :]

    # ---------------------------------------------------------------- flush

    def schedule_flush(self) -> None:
        """Flush after what is running now: at the end of EpollLoop's iteration, in the next one of other loops."""
        if not self._hooked and not self._flush_scheduled:
            self._flush_scheduled = True
            self._loop.call_soon(self._flush_soon)

    def _flush_soon(self) -> None:
        self._flush_scheduled = False
        if self.flush():
            self.schedule_flush()

    def flush(self) -> bool:
        """One chunk of at most `flush_budget`; whether clients still wait, so that a further one is due after the
        feeds were read."""
        waiting = self.fanout.flush(monotonic_ns(), self._budget_ns) if self.fanout.pending else 0
        self._on_failed_writes()
        return waiting > 0

    def _on_failed_writes(self) -> None:
        for handle, _, error in self.fanout.take_failed():
            self._on_failed_write(handle, error)

    def _on_failed_write(self, handle: int, error: Exception) -> None:
        log.error("writing to a client raised", error=repr(error))
        for listener in list(self.clients.values()):
            if listener.handle == handle:
                listener.abort()
