"""The recorder process: opens everything in order, closes it in the reverse, and does nothing else itself.

counters -> repairs journal -> sinks -> control socket -> services

Sinks are threads. Services (repairs, backfill, watching) are asyncio tasks of the main thread, each started again
when it fails. None of them needs the exchange or the server to be there.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import structlog

from tradeback._fast.journal import JournalWriter
from tradeback._fast.stats import Stats
from tradeback.config import Config
from tradeback.control import RECORDER_SOCKET, SERVER_SOCKET, ControlClient, ControlSocket, Handler
from tradeback.errors import DataFolderError, TradebackError
from tradeback.exchange.rest import ExchangeRest, RestPolicy
from tradeback.log import change_level, count_problems, keep_problems
from tradeback.performance import tell_performance
from tradeback.recorder.accounts_watch import POLL_SECONDS, AccountsWatch
from tradeback.recorder.answers import Answers
from tradeback.recorder.asking import asked_backfill, asked_progress
from tradeback.recorder.backfill import Backfill
from tradeback.recorder.bus_sink import BusSink
from tradeback.recorder.cache_sink import CacheSink
from tradeback.recorder.counters import COMPONENTS, RECORDER_HISTOGRAMS, RECORDER_VALUES, question
from tradeback.recorder.day_volumes import DayVolumes
from tradeback.recorder.history_sink import HistorySink
from tradeback.recorder.indicators import EnigmaSink, LevelTarget
from tradeback.recorder.kept_bars import VouchedBars
from tradeback.recorder.logins_cache import LoginsCache
from tradeback.recorder.outbox import Outbox
from tradeback.recorder.repair import Repair
from tradeback.recorder.sinks import AT_ONCE, Enough, Sink, drop_other_cursors
from tradeback.recorder.symbols import SymbolBook
from tradeback.recorder.watch import Watch
from tradeback.resources import Resources
from tradeback.store.base import Accounts, Announcements, Cache, Catalog, History
from tradeback.store.bus_jetstream import JetStreamBus
from tradeback.store.bus_nats import NatsBus
from tradeback.store.requests_nats import NatsAnswers
from tradeback.store.stats import problem, read_all
from tradeback.store.timing import keep_times, tell_times

log = structlog.get_logger(__name__)

TICK = 0.025
PREPARE_RETRY = 1.0
COUNTERS_EVERY = 1.0
RETAIN_AFTER = 30.0
RETAIN_EVERY = 600.0
SERVICE_RETRY_MIN = 1.0
SERVICE_RETRY_MAX = 60.0
REST_ATTEMPTS = 2  # of one request; who asked waits longer and longer by itself, and lets others go first
SINK_IS_WELL, SINK_FAILS = 1, 2  # of the counters `sink_...`
REPAIRS_SEGMENT_BYTES = 4 * 1024 * 1024  # repairs are few

Service = Callable[[], Awaitable[None]]


class Recorder:
    """Stores one exchange's journals. `folder` is its data folder; the caller holds the recorder's lock, and closes
    `history`, `catalog`, `accounts` (None: the server is told of no sessions), and `cache` and `announcements`, which
    are None where none are configured."""

    def __init__(
        self,
        config: Config,
        folder: Path,
        exchange: str,
        history: History,
        catalog: Catalog,
        cache: Cache | None = None,
        accounts: Accounts | None = None,
        announcements: Announcements | None = None,
    ) -> None:
        self._config = config
        self._folder = folder
        self._exchange = exchange
        self.history = history
        self.catalog = catalog
        self.cache = cache
        self.accounts = accounts
        self.announcements = announcements
        self.symbols = SymbolBook(catalog)
        self.services: dict[str, Service] = {}
        self.handlers: dict[str, Handler] = {"status": self._status, "log": change_level}
        self.status: dict[str, Callable[[], Any]] = {}  # further parts of the status, by key
        self.counts: list[Callable[[], dict[str, int]]] = []  # further counters, by name
        self._started = time.monotonic()

    async def run(
        self,
        ready: Callable[[dict[str, str]], None],
        stop: asyncio.Event,
        *,
        until: Service | None = None,
        offline: bool = False,
    ) -> None:
        """Record until `stop` is set, or `until` returns. `ready` gets the control socket's address once it listens.

        `offline`: there is no exchange to ask, and none to watch. Raises what `until` raises, and DataFolderError
        where a file of the data folder cannot be used.
        """
        async with AsyncExitStack() as stack:
            self._open_files(stack)
            self.rest = await stack.enter_async_context(
                ExchangeRest(
                    self._config.exchange.rest_endpoint,
                    RestPolicy(attempts=REST_ATTEMPTS, weight_share=self._config.recorder.weight_share),
                )
            )
            self.server = ControlClient(self._folder / SERVER_SOCKET)
            stack.callback(self.server.close)
            # A connection of its own: a logout waits for no level and no list of symbols.
            self.account_line = ControlClient(self._folder / SERVER_SOCKET)
            stack.callback(self.account_line.close)
            self.outbox = Outbox(self.server, self.stats)
            if not offline:
                # After the sinks have ended: what they published last is sent too.
                stack.push_async_callback(self.outbox.flush)
            # A recording is no news, for clients, for the bus and for a cache of current prices.
            self.bus_sink = None if offline else self._make_bus_sink(stack)
            self.publishing = [] if offline else self._make_publishing_sinks()
            # The API keeps no bars of a file that it has itself.
            self.vouched_bars = (
                VouchedBars(self.cache, self.symbols.symbol)
                if self.cache is not None and self._config.database.influx.url and not offline
                else None
            )
            self.sinks = self._make_sinks([] if offline else [self.outbox, *self.publishing])
            drop_other_cursors(self._folder, {sink.name for sink in self.sinks})
            if not offline:
                self._make_services()
                self._make_answers(stack)
            stack.push_async_callback(self._stop_sinks)
            for sink in self.sinks:
                sink.start()
            control = ControlSocket(self._folder / RECORDER_SOCKET, self.handlers)
            stack.push_async_callback(control.stop)
            await control.start()
            tasks = [asyncio.create_task(self._keep_room(), name="repairs room")]
            for name, service in {
                **self.services,
                "counters": self._tell_counters,
                "retention": self._retain,
                "performance": self._tell_performance,
                "resources": Resources(self._config, self._folder, self.stats.put).watch,
            }.items():
                tasks.append(asyncio.create_task(self._serve(name, service), name=name))
            stack.push_async_callback(_cancel, tasks)
            ready({"control": str(self._folder / RECORDER_SOCKET)})
            await _wait(stop, until)

    def _open_files(self, stack: AsyncExitStack) -> None:
        self.stats = Stats.create(
            self._folder / "stats" / "recorder", "recorder", RECORDER_VALUES, RECORDER_HISTOGRAMS
        )
        stack.callback(self.stats.close)
        count_problems(lambda component, level: self.stats.increase(problem(COMPONENTS, component, level)))
        stack.callback(keep_problems)
        tell_times(lambda store, kind, ns: self.stats.observe_ns(question(store, kind), ns))
        stack.callback(keep_times)
        config = self._config.journal
        self.repairs = JournalWriter.open(
            self._folder / "repairs",
            self._exchange,
            segment_bytes=min(config.segment_bytes, REPAIRS_SEGMENT_BYTES),
            retention_bytes=config.retention_bytes,
        )
        stack.callback(self.repairs.close)

    def _make_publishing_sinks(self) -> list[CacheSink]:
        """Those of other machines' backends that are configured. They are targets of levels too."""
        if self.cache is None:
            return []
        recorder = self._config.recorder
        return [
            CacheSink(
                self._folder,
                self.stats,
                recorder.batch_window,
                self.cache,
                self.symbols,
                quote_window=recorder.quote_window,
                price_ttl=self._config.cache.redis.price_ttl,
            )
        ]

    def _make_sinks(self, level_targets: list[LevelTarget]) -> list[Sink]:
        """The sinks that there are, those that publish last."""
        if self.bus_sink is not None:
            level_targets = [*level_targets, self.bus_sink]
        influx = self._config.database.influx
        self.counts.append(lambda: {"points_refused": self.history.refused})
        self.history_sink = HistorySink(
            self._folder,
            self.stats,
            self._config.recorder.batch_window,
            self.history,
            self.symbols.quantity_precision,
            bars=self._config.features.aggregation_enabled,
            # A request costs InfluxDB more than what is in it.
            enough=Enough(influx.batch_points, influx.batch_time) if influx.url else AT_ONCE,
            changing=nullcontext if self.vouched_bars is None else self.vouched_bars.changing,
        )
        sinks: list[Sink] = [self.history_sink]
        self.enigma_sink: EnigmaSink | None = None
        if self._config.features.enigma_enabled:
            self.enigma_sink = EnigmaSink(
                self._folder,
                self.stats,
                self._config.recorder.batch_window,
                self.history,
                self.symbols,
                level_targets,
                keepers=self.publishing,
            )
            sinks.append(self.enigma_sink)
        if self.bus_sink is not None:
            sinks.append(self.bus_sink)
        return [*sinks, *self.publishing]

    def _make_bus_sink(self, stack: AsyncExitStack) -> BusSink | None:
        if not self._config.messaging.nats.url:
            return None
        nats = self._config.messaging.nats
        bus = JetStreamBus(nats) if nats.jetstream else NatsBus(nats)
        stack.push_async_callback(asyncio.to_thread, bus.close)
        return BusSink(self._folder, self.stats, self._config.recorder.batch_window, bus, self.symbols)

    def _make_answers(self, stack: AsyncExitStack) -> None:
        """Answer questions over the bus, where there is one."""
        if not self._config.messaging.nats.url:
            return
        answers = Answers(
            self._folder,
            self._exchange,
            self.symbols,
            lambda: read_all(self._folder / "stats"),
            self._stored,
            self._config.exchange.mute_limit,
        )
        stack.callback(answers.close)
        serving = NatsAnswers(self._config.messaging.nats, answers.answer)
        stack.push_async_callback(asyncio.to_thread, serving.close)
        self.status["requests"] = serving.state
        self.counts.append(serving.counts)

    def _make_services(self) -> None:
        """What runs beside the sinks, by name; each may add handlers and a part of the status."""
        loop = asyncio.get_running_loop()
        repair = Repair(
            self.history, self.rest, self.repairs, self.symbols.symbol, self._config.recorder.backfill_age
        )
        day_volumes = DayVolumes(
            self._folder, self.history, self.rest, self.symbols.known, self.server, self.stats
        )

        def on_gaps(stream_ids: frozenset[int]) -> None:
            _tell_loop(loop, repair.wake)
            _tell_loop(loop, partial(day_volumes.touched, stream_ids))

        self.history_sink.on_gaps = on_gaps
        self.services["publish"] = self.outbox.run
        watch = Watch(
            self.catalog,
            self.symbols,
            self.rest,
            self.server,
            self._config.recorder.catalog_refresh,
        )
        self.services["catalog"] = watch.refresh
        self.services["watch"] = watch.follow
        if self.accounts is not None:
            mysql = self._config.database.mysql
            poll = mysql.accounts_poll if mysql.host else POLL_SECONDS
            following = AccountsWatch(self.accounts, self.account_line, poll)
            if self.announcements is not None:
                self.announcements.listen(following.wake)
                self.status["announcements"] = self.announcements.state
                self.counts.append(self.announcements.counts)
            if self.cache is not None:
                logins = LoginsCache(self.cache, self._config.cache.redis.session_ttl)
                following.on_look = logins.take
                self.services["logins"] = logins.run
                self.status["logins"] = logins.state
                self.counts.append(logins.counts)
            self.services["accounts"] = following.follow
            self.services["expiry"] = following.expire
            self.status["accounts"] = following.state
        self.services["repair"] = _after(watch.asked, repair.run)
        self.services["day_volumes"] = _after(watch.asked, day_volumes.run)
        self.status["watch"] = watch.state
        self.status["day_volumes"] = day_volumes.state
        self.status["repair"] = repair.state
        self.counts += [repair.counts, self.rest.counts]
        if self._config.features.aggregation_enabled:
            backfill = Backfill(self.history, self.rest, self.symbols.symbol, self._config)
            if self.vouched_bars is not None:
                backfill.changing = self.vouched_bars.changing
                self.services["vouched_bars"] = self.vouched_bars.run
            repair.on_begin, repair.on_given_up = backfill.begin, backfill.mend
            if self.enigma_sink is not None:
                backfill.on_done = self.enigma_sink.refresh
            self.services["backfill"] = _after(watch.asked, backfill.run)
            self.status["backfill"] = backfill.state
            self.counts.append(backfill.counts)
            self.handlers["backfill"] = lambda message: asked_backfill(backfill, self.symbols.named, message)
            self.handlers["progress"] = lambda _: asked_progress(backfill)

    async def _stop_sinks(self) -> None:
        # The Enigma sink publishes at its end: those that it publishes to end after it.
        last: list[Sink] = [*self.publishing] if self.bus_sink is None else [*self.publishing, self.bus_sink]
        for sinks in ([sink for sink in self.sinks if sink not in last], last):
            for sink in sinks:
                sink.ask_to_stop()
            for sink in sinks:
                await asyncio.to_thread(sink.join)

    async def _serve(self, name: str, service: Service) -> None:
        """Run a service, again after it failed."""
        pause = SERVICE_RETRY_MIN
        while True:
            try:
                return await service()
            except TradebackError as error:
                log.error(
                    "a service of the recorder failed, it is started again", service=name, reason=str(error)
                )
            except Exception:  # a fault of ours must not end the recorder, nor go unnoticed
                log.exception("a service of the recorder failed, it is started again", service=name)
            self.stats.increase("service_errors")
            await asyncio.sleep(pause)
            pause = min(pause * 2, SERVICE_RETRY_MAX)

    async def _keep_room(self) -> None:
        """Have the next segment of the repairs ready before it is needed; say so once where it fails."""
        failed = False
        while True:
            if self.repairs.needs_prepare:
                try:
                    report = await asyncio.to_thread(self.repairs.prepare)
                except DataFolderError as error:
                    if not failed:
                        log.error("the repairs have no room: gaps stay open", reason=str(error))
                    failed = True
                    await asyncio.sleep(PREPARE_RETRY)
                    continue
                failed = False
                for lost in report.overrun:
                    log.error("a reader of the repairs lost its place", reason=lost)
            await asyncio.sleep(TICK)

    async def _retain(self) -> None:
        """Delete what is older than the configured ages, now and then.

        Age is by the time of the trades that come in: neither a clock that jumps nor a recording of long ago that is
        replayed has its data deleted.
        """
        await asyncio.sleep(RETAIN_AFTER)
        while True:
            if newest_ns := self.history_sink.newest_ns:
                deleted = await asyncio.to_thread(self.history.retain, min(newest_ns, time.time_ns()))
                self.stats.increase("rows_expired", sum(deleted.values()))
            await asyncio.sleep(RETAIN_EVERY)

    async def _tell_counters(self) -> None:
        """What sinks and services know of themselves, for whoever reads the mapped counters."""
        while True:
            for sink in self.sinks:
                state = sink.state()
                self.stats.put(f"lag_{sink.name}", sum(one["lag"] for one in state["journals"].values()))
                self.stats.put(f"sink_{sink.name}", SINK_FAILS if state["error"] else SINK_IS_WELL)
            self.stats.put("repairs_next_seq", self.repairs.next_seq)
            for counts in self.counts:
                for name, value in counts().items():
                    self.stats.put(name, value)
            await asyncio.sleep(COUNTERS_EVERY)

    def _stored(self) -> dict[str, Any]:
        """The part of the status that may be asked from any thread."""
        sinks = [sink.state() for sink in self.sinks]
        return {
            "sinks": sinks,
            "gaps": {
                "open": self.stats.value("gaps_open"),
                "unfillable": self.stats.value("gaps_unfillable"),
            },
            "ticks": self.stats.value("ticks"),
            "errors": [f"{sink['name']}: {sink['error']}" for sink in sinks if sink["error"]],
        }

    async def _tell_performance(self) -> None:
        await tell_performance(
            self._folder / "stats" / "recorder",
            self._config.log.performance,
            counted=("ticks", "minute_bars", "repair_trades", "sink_errors", "service_errors"),
            levels=(*(f"lag_{sink.name}" for sink in self.sinks), "gaps_open"),
            times=("commit",),
        )

    def _status(self, _: dict[str, Any]) -> dict[str, Any]:
        return {
            "type": "status",
            "exchange": self._exchange,
            "uptime": time.monotonic() - self._started,
            **self._stored(),
            **{key: part() for key, part in self.status.items()},
        }


def _after(first: Service, then: Service) -> Service:
    """A service that begins once `first` has returned."""

    async def run() -> None:
        await first()
        await then()

    return run


async def _wait(stop: asyncio.Event, until: Service | None) -> None:
    stopping = asyncio.ensure_future(stop.wait())
    waiting = [stopping] if until is None else [stopping, asyncio.ensure_future(until())]
    try:
        done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for future in done:
            await future
    finally:
        for future in waiting:
            future.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


async def _cancel(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _tell_loop(loop: asyncio.AbstractEventLoop, call: Callable[[], None]) -> None:
    """Tell the main thread, from a sink's; while the loop closes nobody needs to be told."""
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(call)
