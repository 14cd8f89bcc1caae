"""`tradeback user add | list | passwd | disable | enable | patterns`.

A password comes from a prompt or from standard input, never from the command line, where any process of the machine
could read it.
"""

from __future__ import annotations

import sys
from contextlib import closing
from datetime import UTC, datetime

import click
import orjson
from rich.console import Console
from rich.table import Table

from tradeback.commands.options import with_config
from tradeback.commands.stored import decided
from tradeback.config import Config
from tradeback.errors import AccountError
from tradeback.model import EVERY_SYMBOL, User
from tradeback.passwords import MOST_BYTES, hash_password
from tradeback.store.accounts import SqlAccounts, open_accounts

_stdin = click.option(
    "--password-stdin", "from_stdin", is_flag=True, help="Read the password from standard input, one line."
)


@click.group()
def user() -> None:
    """The users who can log in: add, list, disable and so on."""


@user.command()
@click.argument("username")
@click.option(
    "--pattern",
    "patterns",
    multiple=True,
    help="Symbols that the user may watch, such as *USDT; all by default.",
)
@_stdin
@with_config
def add(config: Config, username: str, patterns: tuple[str, ...], from_stdin: bool) -> None:
    """Add a user, who can log in at once."""
    config = decided(config)
    password_hash = hash_password(_password(from_stdin))
    with closing(open_accounts(config)) as accounts:
        added = accounts.add_user(username, password_hash, patterns or EVERY_SYMBOL)
    click.echo(
        f"{config.exchange.name}: added {added.username}, who may watch {' '.join(added.symbol_patterns)}."
    )


@user.command("list")
@click.option("--json", "as_json", is_flag=True, help="A JSON array instead of a table.")
@with_config
def list_users(config: Config, as_json: bool) -> None:
    """List the users."""
    config = decided(config)
    with closing(open_accounts(config, create=False)) as accounts:
        found = accounts.users()
        counts: dict[int, int] = {}
        for session in accounts.active_sessions():
            counts[session.user_id] = counts.get(session.user_id, 0) + 1
    if as_json:
        rows = [_as_json(one, counts.get(one.id, 0)) for one in found]
        click.echo(orjson.dumps(rows, option=orjson.OPT_INDENT_2))
        return
    table = Table(title=f"{config.exchange.name}: {len(found)} users", title_justify="left")
    for heading in ("user", "active", "symbols", "added"):
        table.add_column(heading)
    table.add_column("sessions", justify="right")
    for one in found:
        active = "yes" if one.is_active else "no"
        count = str(counts.get(one.id, 0))
        table.add_row(one.username, active, " ".join(one.symbol_patterns), _time(one.created_at), count)
    Console().print(table)


@user.command()
@click.argument("username")
@_stdin
@with_config
def passwd(config: Config, username: str, from_stdin: bool) -> None:
    """Change a password; the user's sessions end."""
    config = decided(config)
    with closing(open_accounts(config, create=False)) as accounts:
        found = _known(accounts, username)
        ended = accounts.set_password(found.id, hash_password(_password(from_stdin)))
    click.echo(f"{config.exchange.name}: {found.username} has a new password; {_sessions(ended)} ended.")


@user.command()
@click.argument("username")
@with_config
def disable(config: Config, username: str) -> None:
    """Let a user log in no more; the user's sessions end."""
    config = decided(config)
    with closing(open_accounts(config, create=False)) as accounts:
        found = _known(accounts, username)
        ended = accounts.set_active(found.id, False)
    click.echo(f"{config.exchange.name}: {found.username} is disabled; {_sessions(ended)} ended.")


@user.command()
@click.argument("username")
@with_config
def enable(config: Config, username: str) -> None:
    """Let a disabled user log in again."""
    config = decided(config)
    with closing(open_accounts(config, create=False)) as accounts:
        found = _known(accounts, username)
        accounts.set_active(found.id, True)
    click.echo(f"{config.exchange.name}: {found.username} can log in.")


@user.command()
@click.argument("username")
@click.argument("patterns", nargs=-1, required=True)
@with_config
def patterns(config: Config, username: str, patterns: tuple[str, ...]) -> None:
    """Set which symbols a user may watch: BTCUSDT, *USDT (any text), BTC???? (any characters); '*' for all."""
    config = decided(config)
    with closing(open_accounts(config, create=False)) as accounts:
        found = _known(accounts, username)
        accounts.set_patterns(found.id, patterns)
        changed = _known(accounts, username)
    click.echo(f"{config.exchange.name}: {changed.username} may watch {' '.join(changed.symbol_patterns)}.")


def _known(accounts: SqlAccounts, username: str) -> User:
    found = accounts.user(username)
    if found is None:
        raise AccountError(f"There is no user {username}: `tradeback user list` names them")
    return found[0]


def _password(from_stdin: bool) -> str:
    if from_stdin:
        # Bytes: what cannot be read as text must be told in a sentence, and an endless line must end.
        line = sys.stdin.buffer.readline(MOST_BYTES + 2)
        try:
            return line.decode().rstrip("\r\n")
        except UnicodeDecodeError:
            raise AccountError("The password on standard input is no UTF-8 text: give one that is") from None
    if not sys.stdin.isatty():
        raise AccountError("There is no terminal to ask for a password: give it with --password-stdin")
    password: str = click.prompt("Password", hide_input=True, confirmation_prompt="Again", err=True)
    return password


def _sessions(count: int) -> str:
    return "one session" if count == 1 else f"{count} sessions"


def _time(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def _as_json(one: User, sessions: int) -> dict[str, object]:
    return {
        "id": one.id,
        "username": one.username,
        "is_active": one.is_active,
        "symbol_patterns": one.symbol_patterns,
        "created_at": one.created_at,
        "sessions": sessions,
    }
