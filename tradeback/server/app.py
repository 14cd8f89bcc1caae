"""The server process: opens everything in order, closes it in the reverse, and does nothing else itself.

journal and table -> counters -> the table brought up to the journal -> fan-out -> hub -> feeds -> control socket
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

import structlog

from tradeback._fast.epoll import EpollLoop
from tradeback._fast.fanout import FanOut
from tradeback._fast.ingest import Ingest
from tradeback._fast.journal import JournalWriter
from tradeback._fast.stats import Stats
from tradeback._fast.table import SymbolTable
from tradeback.config import Config
from tradeback.control import SERVER_SOCKET, ControlSocket
from tradeback.errors import CloseCode, ConfigError, DataFolderError
from tradeback.log import change_level, count_problems, keep_problems
from tradeback.model import Symbol
from tradeback.performance import tell_performance
from tradeback.recovery import bring_up
from tradeback.resources import Resources
from tradeback.server.carried import CarriedSymbols
from tradeback.server.control import ControlHandlers
from tradeback.server.counters import COMPONENTS, SERVER_VALUES, tell_levels
from tradeback.server.draining import drain
from tradeback.server.feed import Feeds
from tradeback.server.hub import Hub
from tradeback.server.upkeep import Upkeep
from tradeback.store.stats import problem

log = structlog.get_logger(__name__)

# What the line of a minute tells of them.
COUNTED = (
    *(
        "messages_trade",
        "messages_agg_trade",
        "messages_quote",
        "duplicates",
        "journal_records",
        "records_sent",
    ),
    *("bytes_sent", "conflated", "slow_closes"),
)


class Server:
    """One exchange's events in, clients' frames out. `folder` is the data folder of this exchange.

    `secret` signs session tokens; without it no token is good.
    """

    def __init__(
        self,
        config: Config,
        folder: Path,
        exchange: str,
        symbols: list[Symbol],
        secret: bytes | None = None,
    ) -> None:
        self._config = config
        self._folder = folder
        self._exchange = exchange
        self._symbols = symbols
        self._secret = secret

    async def run(self, ready: Callable[[dict[str, str]], None], stop: asyncio.Event) -> None:
        """Serve until `stop` is set. `ready` gets the addresses once clients can connect.

        Raises DataFolderError where a file of the data folder cannot be used, ConfigError where a port is taken.
        """
        async with AsyncExitStack() as stack:
            self._open_files(stack)
            self.fanout = FanOut(self.table, self.stats)
            self.ingest = Ingest(self.table, self.journal, self.fanout, self.stats)
            # EpollLoop flushes at the end of each iteration; other loops are asked to after each read.
            hooked = isinstance(asyncio.get_running_loop(), EpollLoop)
            self.feeds = Feeds(self.ingest, self._config.exchange, None if hooked else self._after_reads)
            self.carried = CarriedSymbols(
                self.table,
                self._symbols,
                linger=self._config.exchange.linger,
                on_want=self.feeds.want,
                on_drop=self.feeds.drop,
            )
            stack.callback(self.carried.close)
            self.hub = Hub(
                self._config.websocket,
                self.fanout,
                self.carried,
                cors=self._config.server.cors,
                secret=self._secret,
                binary=self._config.features.binary_websocket,
            )
            stack.push_async_callback(self.hub.stop, CloseCode.SERVICE_RESTART)
            await self._listen(self._config.server.host, self._config.server.ws_port)
            for symbol in self.carried.pin(self._config.exchange.symbols):
                log.warning("a configured symbol is not known at the exchange", symbol=symbol)
            stack.push_async_callback(self.feeds.stop)
            self.feeds.start()
            handlers = ControlHandlers(
                self._exchange,
                self._config.exchange.symbols,
                self.ingest,
                self.feeds,
                self.carried,
                self.hub,
            )
            control = ControlSocket(self._folder / SERVER_SOCKET, {**handlers.by_type(), "log": change_level})
            stack.push_async_callback(control.stop)
            await control.start()
            upkeep = Upkeep(self.ingest, self._config.journal.segment_bytes, self._after_reads)
            stack.callback(upkeep.stop)
            upkeep.start()
            telling = asyncio.create_task(
                tell_performance(
                    self._folder / "stats" / "server",
                    self._config.log.performance,
                    counted=COUNTED,
                    levels=("clients", "clients_blocked"),
                    times=("recv_to_send", "event_to_send", "loop_iteration"),
                ),
                name="performance",
            )
            stack.callback(telling.cancel)
            levels = asyncio.create_task(tell_levels(self.feeds, self.ingest, self.stats), name="levels")
            stack.callback(levels.cancel)
            resources = Resources(self._config, self._folder, self.stats.put, self.hub.memory_is_used_up)
            resources.tell_at_start(self._config.websocket.max_clients, self._folder / "journal")
            watching = asyncio.create_task(resources.watch(), name="resources")
            stack.callback(watching.cancel)
            ready(self.addresses())
            await stop.wait()
            await drain(self.hub, self._config.websocket.drain)

    def reload(self, config: Config) -> None:
        """Take over what can be changed once it is ready: the limits of clients that come from now on, how many and
        which origins are let in, and the time of draining."""
        self._config = self._config.model_copy(update={"websocket": config.websocket})
        self.hub.reload(config.websocket, config.server.cors)

    async def _listen(self, host: str, port: int) -> None:
        try:
            await self.hub.start(host, port)
        except OSError as error:
            raise ConfigError(
                f"the WebSocket server cannot listen on {host}:{port}: {error.strerror or error}; stop what "
                "listens there, or choose another address (SERVER_HOST, WS_PORT)"
            ) from error

    def addresses(self) -> dict[str, str]:
        """Where clients and health checks connect."""
        host, port = self.hub.address
        base = f"{host}:{port}"
        return {"websocket": f"ws://{base}/api/v1/ws", "health": f"http://{base}/health"}

    def _open_files(self, stack: AsyncExitStack) -> None:
        config = self._config.journal
        try:
            (self._folder / "stats").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataFolderError(
                f"{self._folder / 'stats'} cannot be made: {error.strerror}; see to what lies there, or choose "
                "another data folder with DATA_DIR"
            ) from error
        self.journal = JournalWriter.open(
            self._folder / "journal",
            self._exchange,
            segment_bytes=config.segment_bytes,
            retention_bytes=config.retention_bytes,
        )
        table_path = self._folder / "table"
        try:
            self.table = SymbolTable.open(str(table_path), self._exchange)
        except BaseException:
            self.journal.close()
            raise
        stack.callback(self._close_journal_and_table)
        self.stats = Stats.create(self._folder / "stats" / "server", "server", SERVER_VALUES)
        stack.callback(self.stats.close)
        count_problems(lambda component, level: self.stats.increase(problem(COMPONENTS, component, level)))
        stack.callback(keep_problems)
        bring_up(self.table, table_path, self.journal, self._symbols)
        self.journal.append_start(time.time_ns())

    def _close_journal_and_table(self) -> None:
        """The journal goes to the disk before the table is marked clean.

        Or a machine that went down between the two would leave a table ahead of its journal that passes for a good
        one. So where the journal cannot be closed, the table stays marked as open.
        """
        self.journal.close()
        self.table.close()

    def _after_reads(self) -> None:
        if self.fanout.pending:
            self.hub.schedule_flush()
