"""`tradeback recorder`: stores what the server journals, and repairs what is missing."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, TypeVar

import click
import structlog

from tradeback.ceilings import allow_descriptors
from tradeback.commands.lifeline import tell_ready
from tradeback.commands.options import with_config
from tradeback.commands.reloading import loader, on_hangup
from tradeback.commands.supervisor import feed_watchdog, on_end, still_starting
from tradeback.config import Config, notices
from tradeback.errors import StoreError, TradebackError
from tradeback.exchange.choice import choose_exchange
from tradeback.log import set_up_logging
from tradeback.recorder.app import Recorder
from tradeback.recorder.ending import journal_ended, replay_ended
from tradeback.recorder.lock import RecorderLock
from tradeback.store.accounts import open_accounts
from tradeback.store.announcements import open_announcements
from tradeback.store.cache_redis import open_cache
from tradeback.store.catalog import open_catalog
from tradeback.store.histories import open_history

log = structlog.get_logger(__name__)

OPEN_RETRY_MIN = 0.5
OPEN_RETRY_MAX = 10.0
WAIT_FOR_STORE = 120.0  # longer than one try to open a store takes
DESCRIPTORS = (
    256  # files of the journals for each sink, connections to stores, to the exchange and to the server
)


@click.command("recorder")
@click.option(
    "--replay",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Push this recording through the journal into the stores; no server may run on the data folder.",
)
@click.option(
    "--exit-at-end",
    is_flag=True,
    help="End once all is stored: the recording, or what the server journaled, when no server runs any more.",
)
@click.option("--ready-fd", type=int, hidden=True)
@with_config
def recorder(config: Config, replay: Path | None, exit_at_end: bool, ready_fd: int | None) -> None:
    """Run the recorder: it stores what the server journals, makes bars of it, and fetches what is missing."""
    if replay is not None and not exit_at_end:
        raise click.UsageError(
            "give --exit-at-end with --replay: behind a recording there is nothing to wait for"
        )
    set_up_logging(config.log)
    for notice in notices(config):
        log.warning(notice)
    allow_descriptors(DESCRIPTORS, DESCRIPTORS, "the recorder")
    asyncio.run(_record(config, replay, exit_at_end, ready_fd, loader()))


async def _record(
    config: Config, replay: Path | None, exit_at_end: bool, ready_fd: int | None, load: Callable[[], Config]
) -> None:
    stop = asyncio.Event()
    limit = threading.Timer(config.recorder.end_limit, _give_up, (config.recorder.end_limit,))
    limit.daemon = True

    def ask_to_end(_: signal.Signals) -> None:
        if not stop.is_set():
            limit.start()
        stop.set()

    on_end(ask_to_end)
    on_hangup(load)
    if replay is not None and config.exchange.name == "auto":
        config = config.with_exchange("sim")
    chosen = await choose_exchange(config.exchange)
    log.info("exchange chosen", exchange=chosen.name, reason=chosen.reason)
    config = config.model_copy(update={"exchange": chosen.apply(config.exchange)})
    folder = config.data.of(chosen.name)
    if replay is not None and (silent := _published(config)):
        log.warning("a recording is no news: it goes into the stores alone", not_published_to=silent)
    with RecorderLock(folder), contextlib.ExitStack() as stack:
        catalog = await _opened(lambda: open_catalog(config), stop, stack)
        accounts = await _opened(lambda: open_accounts(config), stop, stack)
        history = await _opened(lambda: open_history(config, write=True), stop, stack)
        if catalog is None or accounts is None or history is None:
            log.info("recorder stopped before its stores could be opened")
            return
        cache = open_cache(config)
        if cache is not None:
            stack.callback(cache.close)
        announcements = None if replay is not None else open_announcements(config)
        if announcements is not None:
            stack.callback(announcements.close)
        recording = Recorder(config, folder, chosen.name, history, catalog, cache, accounts, announcements)

        async def end() -> None:
            if replay is None:
                await journal_ended(folder, recording.sinks)
            else:
                await _replay(replay, recording, config, folder)

        await recording.run(
            lambda addresses: _tell(addresses, ready_fd),
            stop,
            until=end if exit_at_end else None,
            offline=replay is not None,
        )
        if replay is not None and stop.is_set():
            raise TradebackError(f"stopped before the end of {replay}: the same command goes on where it was")
    log.info("recorder stopped")


def _give_up(seconds: float) -> None:
    """End at once. It is no fault: each sink reads again what it had not committed, from its place."""
    log.error(
        "a store hangs while the recorder ends: it is not waited for, the next start goes on from the saved places",
        seconds=seconds,
    )
    os._exit(0)


class _Closable(Protocol):
    def close(self) -> None: ...


Kind = TypeVar("Kind", bound=_Closable)


async def _opened(
    open_it: Callable[[], Kind], stop: asyncio.Event, stack: contextlib.ExitStack
) -> Kind | None:
    """What is opened, and closed with the stack. One on a machine that does not answer is waited for: the server goes
    on journaling meanwhile. None where `stop` came before it."""
    pause, said = OPEN_RETRY_MIN, ""
    while not stop.is_set():
        try:
            opened = await asyncio.to_thread(open_it)
        except StoreError as error:
            if not error.away:
                raise
            if str(error) != said:
                log.warning(
                    "a store is away: it is waited for, and the journal keeps what comes", reason=str(error)
                )
            said = str(error)
            still_starting(pause + WAIT_FOR_STORE)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await stop.wait()
            pause = min(pause * 2, OPEN_RETRY_MAX)
        else:
            stack.callback(opened.close)
            return opened
    return None


def _published(config: Config) -> list[str]:
    """Where a recorder publishes, by the settings that name it."""
    named = {"NATS_URL": config.messaging.nats.url, "REDIS_ADDR": config.cache.redis.addr}
    return [setting for setting, where in named.items() if where]


async def _replay(path: Path, recording: Recorder, config: Config, folder: Path) -> None:
    report = await replay_ended(
        path, folder, config.exchange.name, recording.catalog, config.journal, recording.sinks
    )
    log.info(
        "the recording is stored",
        recording=str(path),
        messages=report.messages,
        new_records=report.journaled,
    )
    if report.faults:
        raise TradebackError(f"{report.faults}; all else is stored")


def _tell(addresses: dict[str, str], ready_fd: int | None) -> None:
    log.info("recorder ready", **addresses)
    feed_watchdog()
    tell_ready(ready_fd, addresses)
