"""The command line: one table of commands. A command's module is imported when the command is run, so that
`tradeback --help` need not load what a server needs.

Exit codes: 0 done, 1 an error, told in one sentence, 2 wrong usage.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

import click

from tradeback.errors import TradebackError

# name -> module:function, and the line that `--help` prints, which is the first of the function's docstring
COMMANDS = {
    "up": (
        "tradeback.commands.up:up",
        "Run everything on this machine: server, recorder, API, and the simulated exchange where no other is there.",
    ),
    "server": (
        "tradeback.commands.server:server",
        "Run the event server: one exchange's streams in, clients' frames out.",
    ),
    "recorder": (
        "tradeback.commands.recorder:recorder",
        "Run the recorder: it stores what the server journals, makes bars of it, and fetches what is missing.",
    ),
    "api": (
        "tradeback.commands.api:api",
        "Run the REST interface: symbols, prices, bars, TradingView, logins, watchlists, health and metrics.",
    ),
    "sim": (
        "tradeback.commands.sim:sim_command",
        "Run a simulated exchange that speaks Binance's protocol, and misbehaves on request (/sim/fault).",
    ),
    "watch": ("tradeback.commands.watch:watch", "Show the prices of symbols as they change."),
    "backfill": (
        "tradeback.commands.backfill:backfill",
        "Fetch bars of the past from the exchange, into the history.",
    ),
    "symbols": ("tradeback.commands.symbols:symbols", "The catalog of symbols and their stream ids."),
    "user": ("tradeback.commands.user:user", "The users who can log in: add, list, disable and so on."),
    "migrate": (
        "tradeback.commands.migrate:migrate",
        "The schema of the database of symbols and users: see it, bring it up to date, take a step back.",
    ),
    "record": (
        "tradeback.commands.record:record",
        "Record the exchange's streams into FILE (.jsonl, or .jsonl.gz), for `tradeback sim --replay`.",
    ),
    "tail": (
        "tradeback.commands.tail:tail_command",
        "Print the journal as it grows, one JSON line a record.",
    ),
    "verify": (
        "tradeback.commands.verify:verify",
        "Compare stored bars with the exchange's, and stored trades with their ids.",
    ),
    "export": ("tradeback.commands.export:export", "Write what is stored as CSV, JSON lines or Parquet."),
    "backup": (
        "tradeback.commands.backup:backup",
        "Copy what is kept on this machine, while everything runs.",
    ),
    "health": (
        "tradeback.commands.health:health",
        "Ask processes of this machine whether they live: server, recorder, api; all where none is named.",
    ),
    "metrics": (
        "tradeback.commands.metrics:metrics",
        "The metrics at /api/v1/metrics: describe them, or print those of this machine's server and recorder.",
    ),
    "log": (
        "tradeback.commands.log:log",
        "Log from LEVEL up, in COMPONENT or everywhere, until the next restart or reload.",
    ),
    "config": ("tradeback.commands.config:config", "The configuration: check it, print it, describe it."),
}


class CommandTable(click.Group):
    """A group whose commands stand in COMMANDS."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name][0].partition(":")
        command = getattr(import_module(module), name)
        if not isinstance(command, click.Command):
            raise TypeError(f"{COMMANDS[cmd_name][0]} is no click command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except TradebackError as error:
            raise click.ClickException(str(error)) from error


def _end_with_parent(_: click.Context, __: click.Parameter, descriptor: int | None) -> None:
    if descriptor is None:
        return
    lifeline = import_module("tradeback.commands.lifeline")
    try:
        lifeline.end_with_parent(descriptor)
    except OSError as error:
        raise click.BadParameter(f"{descriptor} is no open descriptor") from error


@click.group(cls=CommandTable, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="tradeback")
@click.option("--parent-fd", type=int, hidden=True, expose_value=False, callback=_end_with_parent)
def main() -> None:
    """Trade-Back: exchange streams in, binary WebSocket frames out, nothing lost on the way."""
