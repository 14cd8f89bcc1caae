"""SIGHUP: the configuration is read again, and what can be changed while a process runs is changed.

The environment of a process cannot be changed from outside: it is the YAML file, and the files that `NAME_FILE` name,
that may say something new. Where they are wrong, a sentence is logged and nothing changes.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable

import click
import structlog

from tradeback.config import Config
from tradeback.errors import TradebackError
from tradeback.log import set_up_logging

LOADER = "tradeback.load_config"  # where `with_config` leaves how the configuration was loaded

log = structlog.get_logger(__name__)


def loader() -> Callable[[], Config]:
    """How the configuration of the command that runs is loaded, to be called again."""
    load: Callable[[], Config] = click.get_current_context().meta[LOADER]
    return load


def reload_config(load: Callable[[], Config]) -> Config | None:
    """What the configuration says now, with its logging in force; None where it is wrong, which is logged."""
    try:
        config = load()
    except TradebackError as error:
        log.error("the configuration is refused, nothing changes", reason=str(error))
        return None
    set_up_logging(config.log)
    log.info("the configuration was read again")
    return config


def on_hangup(load: Callable[[], Config], apply: Callable[[Config], None] | None = None) -> None:
    """From now on read the configuration again on SIGHUP, in the running loop; `apply` takes over what is new."""

    def hang_up() -> None:
        config = reload_config(load)
        if config is not None and apply is not None:
            apply(config)

    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, hang_up)
