"""`tradeback watch`: a live table on a terminal, a line an event elsewhere."""

from __future__ import annotations

import asyncio
import math
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import click
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from tradeback.client import AutoSubscribed, AutoUnsubscribed, Client, Credentials, Event, Update
from tradeback.commands.options import with_config
from tradeback.config import Config
from tradeback.errors import AccountError, TradebackError
from tradeback.passwords import MOST_BYTES

WS_PATH = "/api/v1/ws"
REDRAWS_PER_SECOND = 8
RATE_WINDOW_S = 5.0
STALE_AFTER_S = 30.0


class _FromEnvironment(click.Option):
    """A value that the environment alone can give: any process of the machine could read it in the command line."""

    def add_to_parser(self, parser: click.parser._OptionParser, ctx: click.Context) -> None:
        """The parser does not know it."""


@click.command()
@click.argument("symbols", nargs=-1, metavar="[SYMBOL]...")
@click.option("--url", help=f"Of the event server  [default: ws://127.0.0.1:WS_PORT{WS_PATH}]")
@click.option("--user", help="Log in as this user; the password is asked for, or see below.")
@click.option(
    "--password-file",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="File with the password in its first line.",
)
@click.option("--rest", help="Where to log in  [default: http://127.0.0.1:SERVER_PORT]")
@click.option("--count", type=click.IntRange(1), help="End after so many updates.")
@click.option("--seconds", type=click.FloatRange(0, min_open=True), help="End after so many seconds.")
@click.option("--password", envvar="TRADEBACK_PASSWORD", hidden=True, cls=_FromEnvironment)
@with_config
def watch(
    config: Config,
    symbols: tuple[str, ...],
    url: str | None,
    user: str | None,
    password_file: Path | None,
    password: str | None,
    rest: str | None,
    count: int | None,
    seconds: float | None,
) -> None:
    """Show the prices of symbols as they change.

    With --user and no symbols, those of the user's watchlist. On a terminal a table; otherwise a line an update: time,
    symbol, price, volume. The password can also be in the environment, as TRADEBACK_PASSWORD. Exit code 1 where no
    server was reached.
    """
    if user is None and not symbols:
        raise click.UsageError("Name symbols, or log in with --user to see a watchlist.")
    credentials = None
    if user is not None:
        rest = rest or f"http://127.0.0.1:{config.server.port}"
        credentials = Credentials(rest, user, _password(user, password_file, password))
    url = url or f"ws://127.0.0.1:{config.server.ws_port}{WS_PATH}"
    try:
        asyncio.run(_watch(url, symbols, credentials, count or math.inf, seconds))
    except KeyboardInterrupt:
        click.echo(err=True)


async def _watch(
    url: str, symbols: tuple[str, ...], credentials: Credentials | None, count: float, seconds: float | None
) -> None:
    console = Console()
    show = _draw if console.is_terminal else _print
    notices = _Notices(quiet=console.is_terminal)
    async with Client(url, symbols, credentials=credentials, on_notice=notices.take) as client:
        try:
            async with asyncio.timeout(seconds):
                await show(client, count, console, notices)
        except TimeoutError:
            if not client.connections:
                raise TradebackError(
                    f"{client.last_failure or f'{url} did not answer'}: start a server with `tradeback up`, "
                    "or name another with --url"
                ) from None


class _Notices:
    """What the client has to say: the last of it under the table, all of it where there is none."""

    def __init__(self, *, quiet: bool) -> None:
        self.last = ""
        self._quiet = quiet

    def take(self, sentence: str) -> None:
        self.last = sentence
        if not self._quiet:
            click.echo(sentence, err=True)


async def _first(client: Client, count: float) -> AsyncIterator[Event]:
    """Events, up to that many updates."""
    seen = 0
    async for event in client.events():
        yield event
        seen += isinstance(event, Update)
        if seen >= count:
            return


async def _print(client: Client, count: float, console: Console, notices: _Notices) -> None:
    async for event in _first(client, count):
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        match event:
            case Update(symbol, price, volume):
                line = f"{symbol} {price:.12g} {volume:.12g}"
            case AutoSubscribed(symbol):
                line = f"{symbol} is on the watchlist"
            case AutoUnsubscribed(symbol):
                line = f"{symbol} is off the watchlist"
            case _:
                continue
        sys.stdout.write(f"{now} {line}\n")
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


async def _draw(client: Client, count: float, console: Console, notices: _Notices) -> None:
    rows: dict[str, _Row] = {}

    async def take() -> None:
        async for event in _first(client, count):
            if isinstance(event, Update):
                row = rows.setdefault(event.symbol, _Row(event.price, event.price))
                row.take(event, time.monotonic())

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


def _table(client: Client, rows: dict[str, _Row], notices: _Notices) -> Table:
    """Everything is Text: what a server or a caller says is no markup."""
    now = time.monotonic()
    rate = sum(row.rate_at(now) for row in rows.values())
    trip = f"{client.round_trip_s * 1e3:.2f} ms" if client.round_trip_s is not None else "-"
    state = "connected" if client.connected else "not connected"
    if client.login is not None:
        state = f"{client.login.username}, {state}"
    title = Text(f"{client.url}: {state}, ping {trip}, {rate:,.1f} updates/s", style="table.title")
    table = Table(title=title, title_justify="left")
    table.add_column("symbol")
    for heading in ("price", "change", "volume", "updates/s", "age"):
        table.add_column(heading, justify="right")
    for symbol in client.symbols:
        row = rows.get(symbol)
        if row is None:
            table.add_row(Text(symbol), *["-"] * 5)
            continue
        change = (row.price / row.first_price - 1) * 100 if row.first_price else 0.0
        age = now - row.updated_at
        colour = {None: "", True: "green", False: "red"}[row.rose]
        table.add_row(
            Text(symbol),
            Text(f"{row.price:,.10g}", style=colour),
            f"{change:+.3f} %",
            f"{row.volume:,.10g}",
            f"{row.rate_at(now):,.1f}",
            Text(f"{age:.1f} s", style="yellow" if age > STALE_AFTER_S else ""),
        )
    if notices.last:
        table.caption = Text(notices.last)
    return table


def _password(user: str, file: Path | None, environment: str | None) -> str:
    """From the file, the environment, or a prompt."""
    if file is not None:
        try:
            with file.open("rb") as content:  # an endless line must end
                return content.readline(MOST_BYTES + 2).decode().rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            raise AccountError(f"The password file {file} cannot be read as text ({error})") from error
    if environment is not None:
        return environment
    if not sys.stdin.isatty():
        raise AccountError(
            "There is no terminal to ask for a password: give it with --password-file, or in TRADEBACK_PASSWORD"
        )
    password: str = click.prompt(f"Password of {user}", hide_input=True, err=True)
    return password
