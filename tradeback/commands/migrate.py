"""`tradeback migrate up | down | status | copy`: the database that symbols and users are in, SQLite or MySQL."""

from __future__ import annotations

from contextlib import closing

import click

from tradeback.commands.options import with_config
from tradeback.commands.stored import decided
from tradeback.config import Config, DatabaseConfig
from tradeback.errors import ConfigError
from tradeback.store.catalog import catalog_database, open_catalog
from tradeback.store.catalog_copy import copy_catalog
from tradeback.store.database import Database
from tradeback.store.identity import exchange_of
from tradeback.store.schema import SCHEMA_VERSION, bring_up_to_date, take_back, version_of


@click.group()
def migrate() -> None:
    """The schema of the database of symbols and users: see it, bring it up to date, take a step back."""


@migrate.command()
@with_config
def status(config: Config) -> None:
    """Show which migrations were run; ends with 1 where one is missing."""
    from tradeback.store.migrations import versions

    with closing(_database(config)) as database:
        version = version_of(database)
        exchange = exchange_of(database) if version == SCHEMA_VERSION else None
    click.echo(
        f"{database.place}: {version or 'empty'}" + (f", of the exchange {exchange}" if exchange else "")
    )
    for known, doc in versions().items():
        done = version is not None and known <= version
        click.echo(f"{'done   ' if done else 'missing'}  {known:<22} {doc}")
    if version != SCHEMA_VERSION:
        raise SystemExit(1)


@migrate.command()
@with_config
def up(config: Config) -> None:
    """Run what is missing; a run that was cut off goes on. Every process does so when it starts."""
    if config.exchange.name == "auto" and config.database.mysql.host:
        # Of which exchange it is, is noted by the first process that knows.
        with closing(_database(config)) as database:
            before = version_of(database)
            bring_up_to_date(database)
    else:
        config = decided(config)
        with closing(catalog_database(config, create=True)) as database:
            before = version_of(database)
        open_catalog(config).close()
    if before == SCHEMA_VERSION:
        click.echo(f"{database.place}: nothing to do, {SCHEMA_VERSION} is the newest.")
    else:
        click.echo(f"{database.place}: from {before or 'nothing'} to {SCHEMA_VERSION}.")


@migrate.command()
@click.option("--yes", is_flag=True, help="Also where data are lost with it.")
@with_config
def down(config: Config, yes: bool) -> None:
    """Take the newest migration back, before an older version of this program is to run; end all processes first."""
    with closing(_database(config)) as database:
        version, before = take_back(database, lose=yes)
    click.echo(f"{database.place}: from {version} to {before or 'nothing'}.")


@migrate.command()
@with_config
def copy(config: Config) -> None:
    """Copy symbols, users, sessions and watchlists from the data folder's SQLite file into an empty MySQL database; end
    all processes first."""
    if not config.database.mysql.host:
        raise ConfigError("There is no MySQL to copy into: name it with MYSQL_HOST")
    embedded = config.model_copy(update={"database": DatabaseConfig()})
    with (
        closing(catalog_database(decided(embedded))) as source,
        closing(catalog_database(config)) as target,
    ):
        copied = copy_catalog(source, target)
    click.echo(
        f"{source.place} to {target.place}: {copied['symbolsmap']:,} symbols, {copied['users']:,} users, "
        f"{copied['market_watch']:,} symbols of watchlists."
    )


def _database(config: Config) -> Database:
    return catalog_database(config if config.database.mysql.host else decided(config))
