"""`tradeback recorder`: stores what the server journals, and repairs what is missing."""

from __future__ import annotations

import asyncio
import contextlib
import signal

import click
import structlog

from tradeback.commands.lifeline import tell_ready
from tradeback.commands.options import with_config
from tradeback.config import Config, notices
from tradeback.exchange.choice import choose_exchange
from tradeback.log import set_up_logging
from tradeback.recorder.app import Recorder
from tradeback.recorder.lock import RecorderLock
from tradeback.store.catalog import open_catalog
from tradeback.store.history_sqlite import open_history

log = structlog.get_logger(__name__)


@click.command("recorder")
@click.option("--ready-fd", type=int, hidden=True)
@with_config
def recorder(config: Config, ready_fd: int | None) -> None:
    """Run the recorder: it stores what the server journals, makes bars of it, and fetches what is missing."""
    set_up_logging(config.log)
    for notice in notices(config):
        log.warning(notice)
    asyncio.run(_record(config, ready_fd))


async def _record(config: Config, ready_fd: int | None) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, stop.set)
    chosen = await choose_exchange(config.exchange)
    log.info("exchange chosen", exchange=chosen.name, reason=chosen.reason)
    config = config.model_copy(update={"exchange": chosen.apply(config.exchange)})
    folder = config.data.of(chosen.name)
    with (
        RecorderLock(folder),
        contextlib.closing(open_catalog(config)) as catalog,
        contextlib.closing(open_history(config, write=True)) as history,
    ):
        recording = Recorder(config, folder, chosen.name, history, catalog)
        await recording.run(lambda addresses: _tell(addresses, ready_fd), stop)
    log.info("recorder stopped")


def _tell(addresses: dict[str, str], ready_fd: int | None) -> None:
    log.info("recorder ready", **addresses)
    tell_ready(ready_fd, addresses)
