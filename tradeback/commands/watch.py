"""`tradeback watch`: a live table on a terminal, a line an update elsewhere."""

from __future__ import annotations

import asyncio
import math
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime

import click
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from tradeback.client import Client, Update
from tradeback.commands.options import with_config
from tradeback.config import Config
from tradeback.errors import TradebackError

WS_PATH = "/api/v1/ws"
REDRAWS_PER_SECOND = 8
RATE_WINDOW_S = 5.0
STALE_AFTER_S = 30.0


@click.command()
@click.argument("symbols", nargs=-1, required=True, metavar="SYMBOL...")
@click.option("--url", help=f"Of the event server  [default: ws://127.0.0.1:WS_PORT{WS_PATH}]")
@click.option("--count", type=click.IntRange(1), help="End after so many updates.")
@click.option("--seconds", type=click.FloatRange(0, min_open=True), help="End after so many seconds.")
@with_config
def watch(
    config: Config, symbols: tuple[str, ...], url: str | None, count: int | None, seconds: float | None
) -> None:
    """Show the prices of symbols as they change.

    On a terminal a table; otherwise a line an update: time, symbol, price, volume. Exit code 1 where no
    server was reached.
    """
    url = url or f"ws://127.0.0.1:{config.server.ws_port}{WS_PATH}"
    try:
        asyncio.run(_watch(url, symbols, count or math.inf, seconds))
    except KeyboardInterrupt:
        click.echo(err=True)


async def _watch(url: str, symbols: tuple[str, ...], count: float, seconds: float | None) -> None:
    console = Console()
    show = _draw if console.is_terminal else _print
    notices: list[str] = []

    def on_notice(sentence: str) -> None:
        notices.append(sentence)
        if not console.is_terminal:
            click.echo(sentence, err=True)

    async with Client(url, symbols, on_notice=on_notice) as client:
        try:
            async with asyncio.timeout(seconds):
                await show(client, count, console, notices)
        except TimeoutError:
            if not client.connections:
                raise TradebackError(
                    f"{client.last_failure or f'{url} did not answer'}: start a server with `tradeback up`, "
                    "or name another with --url"
                ) from None


async def _first(client: Client, count: float) -> AsyncIterator[Update]:
    seen = 0
    async for update in client:
        yield update
        seen += 1
        if seen >= count:
            return


async def _print(client: Client, count: float, console: Console, notices: list[str]) -> None:
    async for update in _first(client, count):
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        sys.stdout.write(f"{now} {update.symbol} {update.price:.12g} {update.volume:.12g}\n")
        sys.stdout.flush()


@dataclass(slots=True)
class _Row:
    """What the table shows of a symbol."""

    first_price: float
    price: float
    volume: float = 0.0
    updates: int = 0
    rate: float = 0.0
    rose: bool | None = None
    updated_at: float = 0.0

    def take(self, update: Update, now: float) -> None:
        if update.price != self.price:
            self.rose = update.price > self.price
        self.price = update.price
        self.volume += update.volume
        self.updates += 1
        # A mean that forgets: each update adds one, and what was there fades over the window.
        self.rate = self.rate_at(now) + 1 / RATE_WINDOW_S
        self.updated_at = now

    def rate_at(self, now: float) -> float:
        return self.rate * math.exp((self.updated_at - now) / RATE_WINDOW_S)


async def _draw(client: Client, count: float, console: Console, notices: list[str]) -> None:
    rows: dict[str, _Row] = {}

    async def take() -> None:
        async for update in _first(client, count):
            row = rows.setdefault(update.symbol, _Row(update.price, update.price))
            row.take(update, time.monotonic())

    taking = asyncio.create_task(take())
    try:
        with Live(console=console, auto_refresh=False) as live:
            while not taking.done():
                live.update(_table(client, rows, notices), refresh=True)
                await asyncio.wait([taking], timeout=1 / REDRAWS_PER_SECOND)
            live.update(_table(client, rows, notices), refresh=True)
        await taking
    finally:
        taking.cancel()


def _table(client: Client, rows: dict[str, _Row], notices: list[str]) -> Table:
    now = time.monotonic()
    rate = sum(row.rate_at(now) for row in rows.values())
    trip = f"{client.round_trip_s * 1e3:.2f} ms" if client.round_trip_s is not None else "-"
    state = "connected" if client.connected else "not connected"
    table = Table(title=f"{client.url}: {state}, ping {trip}, {rate:,.1f} updates/s", title_justify="left")
    table.add_column("symbol")
    for heading in ("price", "change", "volume", "updates/s", "age"):
        table.add_column(heading, justify="right")
    for symbol in client.symbols:
        row = rows.get(symbol)
        if row is None:
            table.add_row(symbol, *["-"] * 5)
            continue
        change = (row.price / row.first_price - 1) * 100 if row.first_price else 0.0
        age = now - row.updated_at
        colour = {None: "", True: "green", False: "red"}[row.rose]
        table.add_row(
            symbol,
            Text(f"{row.price:,.10g}", style=colour),
            f"{change:+.3f} %",
            f"{row.volume:,.10g}",
            f"{row.rate_at(now):,.1f}",
            Text(f"{age:.1f} s", style="yellow" if age > STALE_AFTER_S else ""),
        )
    if notices:
        table.caption = notices[-1]
    return table
