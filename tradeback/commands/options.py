"""The options that every command with a configuration has."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click

from tradeback.commands.reloading import LOADER
from tradeback.config import load_config

# option -> key of the configuration
_FLAGS = {"data_dir": "data.folder", "exchange": "exchange.name", "log_level": "log.level"}


def with_config(
    command: Callable[..., None] | None = None,
    *,
    defaults: Mapping[str, object] | None = None,
    flags: Mapping[str, str] | None = None,
) -> Callable[..., Any]:
    """Decorates a command: adds the options, and calls it with the configuration as `config`.

    `defaults` are the command's own, weaker than the file and the environment (see `load_config`); `flags`
    names options of its own that stand for keys, and that it then does not get itself.
    """
    if command is None:
        return functools.partial(with_config, defaults=defaults, flags=flags)

    @click.option("--config", "path", type=click.Path(path_type=Path), help="YAML file  [else: CONFIG_PATH]")
    @click.option("--data-dir", type=click.Path(path_type=Path), help="Where everything is kept  [DATA_DIR]")
    @click.option("--exchange", help="auto, binance or sim  [TRADEBACK_EXCHANGE]")
    @click.option("--log-level", help="debug, info, warning or error  [LOG_LEVEL]")
    @functools.wraps(command)
    def configured(*, path: Path | None, **options: Any) -> None:
        given = {key: options.pop(name) for name, key in {**_FLAGS, **(flags or {})}.items()}
        load = functools.partial(load_config, path, flags=given, defaults=defaults)
        click.get_current_context().meta[LOADER] = load
        command(config=load(), **options)

    return configured
