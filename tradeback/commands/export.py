"""`tradeback export trades | bars`: what is stored, as a file for other programs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click

from tradeback._fast.record import FLAGS
from tradeback.commands.formats import WRITERS, Column, Format, Row, write_rows
from tradeback.commands.interruption import Interruption
from tradeback.commands.options import with_config
from tradeback.commands.outputs import open_output
from tradeback.commands.stored import decided, known_symbol
from tradeback.commands.times import with_range
from tradeback.config import Config
from tradeback.model import RESOLUTIONS
from tradeback.store.base import History
from tradeback.store.histories import open_history

BARS_AT_ONCE = 50_000
EVERYTHING = "1970-01-01"

TRADES = (
    Column("time", "time", "when it was traded, by the exchange's clock"),
    Column("trade_id", "integer", "the exchange's id; the last one where a row stands for several trades"),
    Column("trade_count", "integer", "how many trades the row stands for"),
    Column("price", "number", "in the quote currency"),
    Column("volume", "number", "quantity traded, in the base currency"),
    Column("bid", "number", "best bid that was known when it arrived; empty where none was"),
    Column("ask", "number", "best ask likewise"),
    Column("side", "text", "the taker's: buy or sell"),
    Column("origin", "text", "live, or repair: fetched from the exchange afterwards"),
)
BARS = (
    Column("time", "time", "when the bar opens"),
    Column("open", "number", "price of the first trade, in the quote currency"),
    Column("high", "number", "highest price"),
    Column("low", "number", "lowest price"),
    Column("close", "number", "price of the last trade"),
    Column("volume", "number", "quantity traded, in the base currency: the exact sum"),
    Column("trade_count", "integer", "how many trades it is made of"),
)


def _described(columns: tuple[Column, ...]) -> str:
    """The columns for `--help`. The \\b has click leave the lines as they are."""
    width = max(len(column.name) for column in columns)
    return "\b\nColumns:\n" + "\n".join(f"  {column.name:{width}}  {column.says}" for column in columns)


def _with_output(command: Callable[..., None]) -> Callable[..., Any]:
    path = click.Path(path_type=Path)
    command = click.option("--output", type=path, help="File to write  [default: standard output]")(command)
    return click.option(
        "--format",
        "form",
        type=click.Choice(list(WRITERS)),
        default="csv",
        show_default=True,
        help="parquet goes to a file alone",
    )(command)


@click.group()
def export() -> None:
    """Write what is stored as CSV, JSON lines or Parquet.

    Reads only, also while a recorder runs. Times are ISO 8601 in UTC, in Parquet timestamps in ns; numbers are the
    exchange's to the last digit. A file appears once all of it is written.
    """


@export.command(epilog=_described(TRADES))
@click.argument("symbol")
@with_range(EVERYTHING)
@_with_output
@with_config
def trades(config: Config, symbol: str, start: int, end: int, form: Format, output: Path | None) -> None:
    """Write the stored trades of SYMBOL, by rising time and id."""

    def rows(history: History, stream_id: int) -> Iterator[Row]:
        maker, repair = FLAGS["buyer_maker"], FLAGS["repair"]
        for tick in history.ticks(stream_id, start, end):
            yield (
                tick.ts_event,
                tick.trade_id,
                tick.trade_count,
                tick.price,
                tick.volume,
                tick.bid or None,
                tick.ask or None,
                "sell" if tick.flags & maker else "buy",
                "repair" if tick.flags & repair else "live",
            )

    _export(config, symbol, form, output, TRADES, rows)


@export.command(epilog=_described(BARS))
@click.argument("symbol")
@with_range(EVERYTHING)
@click.option("--resolution", type=click.Choice(list(RESOLUTIONS)), default="1m", show_default=True)
@_with_output
@with_config
def bars(
    config: Config, symbol: str, start: int, end: int, resolution: str, form: Format, output: Path | None
) -> None:
    """Write the stored bars of SYMBOL that open in the range, the one in progress too."""

    def rows(history: History, stream_id: int) -> Iterator[Row]:
        span = BARS_AT_ONCE * RESOLUTIONS[resolution]
        for first in range(start, end, span):
            yield from history.bars(stream_id, resolution, first, min(first + span, end))

    _export(config, symbol, form, output, BARS, rows, resolution=resolution)


def _export(
    config: Config,
    name: str,
    form: Format,
    output: Path | None,
    columns: tuple[Column, ...],
    rows: Callable[[History, int], Iterator[Row]],
    **about: str,
) -> None:
    if form == "parquet" and output is None:
        raise click.UsageError("Parquet is a file with an end, not a stream: name one with --output")
    config = decided(config)
    symbol = known_symbol(config, name)
    written = None
    about = {"symbol": symbol.name, "exchange": config.exchange.name, **about}
    with (
        contextlib.closing(open_history(config, write=False)) as history,
        Interruption() as interruption,
        open_output(output) as file,
    ):
        written = write_rows(file, form, columns, interruption.watch(rows(history, symbol.stream_id)), about)
        interruption.check()
    if output is not None and written is not None:
        click.echo(f"{written:,} rows written to {output}", err=True)
