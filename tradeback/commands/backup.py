"""`tradeback backup`: what is kept on this machine, copied while everything runs."""

from __future__ import annotations

from pathlib import Path

import click

from tradeback.commands.interruption import Interruption
from tradeback.commands.options import with_config
from tradeback.commands.stored import decided
from tradeback.config import Config
from tradeback.store.backup import copy_folder


@click.command("backup")
@with_config
@click.argument("target", type=click.Path(path_type=Path))
def backup(config: Config, target: Path) -> None:
    """Copy what is kept on this machine, while everything runs.

    TARGET is a folder that is made. To restore it, end the processes and put it where the exchange's folder was in the
    data folder. What MySQL and InfluxDB keep is theirs to back up.
    """
    config = decided(config)
    source = config.data.of(config.exchange.name)
    with Interruption() as interruption:
        copied = copy_folder(source, target, interruption.watch)
    click.echo(f"{config.exchange.name}: {copied / 1e6:,.1f} MB from {source} to {target}")
