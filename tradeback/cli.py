"""The command line."""

from __future__ import annotations

import click

from tradeback.exchange.sim.command import sim_command


@click.group()
@click.version_option(package_name="tradeback")
def main() -> None:
    """Trade-Back: exchange streams in, binary WebSocket frames out, nothing lost on the way."""


main.add_command(sim_command)
