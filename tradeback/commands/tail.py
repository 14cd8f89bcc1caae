"""`tradeback tail`: the journal as it grows, one JSON line a record."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import click
import orjson

from tradeback._fast.journal import (
    JournalBegin,
    JournalCursor,
    JournalGap,
    JournalOther,
    JournalStart,
    JournalTrade,
    Record,
)
from tradeback.commands.options import with_config
from tradeback.commands.outputs import drop_standard_output
from tradeback.config import Config
from tradeback.errors import ConfigError

# What a follower waits for at a time; a Ctrl-C is seen at once in any case.
_WAIT_SECONDS = 3600.0
_KINDS: dict[type, str] = {
    JournalTrade: "trade",
    JournalGap: "gap",
    JournalStart: "start",
    JournalBegin: "begin",
    JournalOther: "other",
}


def tail(folder: Path, *, start: str | int = "newest", follow: bool = True) -> Iterator[Record]:
    """The records of the journal in `folder` from `start` on ("oldest", "newest" or a sequence number).

    With `follow` it waits for more, for ever, and for a journal that does not exist yet.
    Raises DataFolderError, and PlaceLostError where retention overtakes it.
    """
    with JournalCursor.open(folder, start=start) as cursor:
        while True:
            yield from cursor
            if not follow:
                return
            cursor.wait(_WAIT_SECONDS)


def as_json(record: Record) -> bytes:
    """One line: `seq`, `kind`, then the record's fields as the journal has them; times are unix ns."""
    fields: dict[str, Any] = record._asdict()
    line = {"seq": fields.pop("seq"), "kind": _KINDS[type(record)]}
    if isinstance(record, JournalOther):
        line |= {"code": record.kind, "data": record.data.hex()}
    else:
        line |= fields
    return orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)


def _start(_context: click.Context, _parameter: click.Parameter, value: str) -> str | int:
    if value in ("oldest", "newest"):
        return value
    if value.isdigit() and 0 < int(value) < 2**64:
        return int(value)
    raise click.BadParameter(f"{value!r}: give oldest, newest, or a record's number, which is above 0")


def _folder(config: Config) -> Path:
    """With the exchange left to `auto`, the one whose journal is there."""
    if config.exchange.name != "auto":
        return config.data.of(config.exchange.name) / "journal"
    found = [name for name in ("binance", "sim") if (config.data.of(name) / "journal").is_dir()]
    if len(found) != 1:
        seen = "there are journals of binance and sim" if found else "there is no journal yet"
        raise ConfigError(
            f"{seen} in {config.data.folder}: choose one with --exchange binance or --exchange sim"
        )
    return config.data.of(found[0]) / "journal"


@click.command("tail")
@click.option(
    "--from",
    "start",
    default="newest",
    callback=_start,
    help="oldest, newest, or a record's number  [default: newest]",
)
@click.option("--follow/--no-follow", default=True, help="Wait for more records  [default: follow]")
@click.option("--limit", type=click.IntRange(min=1), help="End after so many records")
@with_config
def tail_command(config: Config, start: str | int, follow: bool, limit: int | None) -> None:
    """Print the journal as it grows, one JSON line a record."""
    records = islice(tail(_folder(config), start=start, follow=follow), limit)
    try:
        for record in records:
            sys.stdout.buffer.write(as_json(record))
            # A line at a time: who pipes this wants to see it grow.
            sys.stdout.buffer.flush()
    except BrokenPipeError:
        drop_standard_output()
    except KeyboardInterrupt:
        click.echo(err=True)
