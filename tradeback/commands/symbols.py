"""`tradeback symbols sync | list`."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import closing

import click
import orjson
from rich.console import Console
from rich.table import Table

from tradeback.commands.options import with_config
from tradeback.commands.stored import decided
from tradeback.config import Config
from tradeback.errors import ExchangeError
from tradeback.exchange.binance import can_carry
from tradeback.exchange.choice import rest_bases
from tradeback.exchange.rest import ExchangeRest, RestPolicy
from tradeback.model import Symbol, SymbolInfo
from tradeback.store.catalog import open_catalog

PATIENCE = RestPolicy(attempts=2)  # someone waits for the answer


@click.group()
def symbols() -> None:
    """The catalog of symbols and their stream ids."""


@symbols.command()
@with_config
def sync(config: Config) -> None:
    """Take over the exchange's list of symbols; `auto` means binance."""
    if config.exchange.name == "auto":
        config = config.with_exchange("binance")
    listed = asyncio.run(_exchange_info(rest_bases(config.exchange)))
    carried = [info for info in listed if can_carry(info.symbol)]
    if len(carried) < len(listed):
        click.echo(f"Left out {len(listed) - len(carried)} symbols whose names cannot be carried.", err=True)
    with closing(open_catalog(config)) as catalog:
        result = catalog.sync_symbols(carried)
    click.echo(
        f"{config.exchange.name}: {len(carried)} symbols listed, {len(result.added)} added, "
        f"{len(result.changed)} changed, {len(result.deactivated)} deactivated."
    )


@symbols.command("list")
@click.option("--all", "with_inactive", is_flag=True, help="Inactive symbols too.")
@click.option("--json", "as_json", is_flag=True, help="A JSON array instead of a table.")
@with_config
def list_symbols(config: Config, with_inactive: bool, as_json: bool) -> None:
    """List the symbols with their stream ids; `auto` means binance where its catalog is there, else sim."""
    config = decided(config)
    with closing(open_catalog(config, create=False)) as catalog:
        found = catalog.symbols(active_only=not with_inactive)
    if as_json:
        click.echo(orjson.dumps([_as_json(symbol) for symbol in found], option=orjson.OPT_INDENT_2))
    else:
        Console().print(_as_table(config, found))


async def _exchange_info(bases: Sequence[str]) -> list[SymbolInfo]:
    """From the first that answers."""
    failures = []
    for base in bases:
        try:
            async with ExchangeRest(base, PATIENCE) as rest:
                return await rest.exchange_info()
        except ExchangeError as error:
            failures.append(f"{base}: {error}")
    raise ExchangeError(
        f"The exchange's symbols cannot be had ({'; '.join(failures)}): see EXCHANGE_REST_ENDPOINT, or start "
        "`tradeback sim` and choose --exchange sim"
    )


def _as_json(symbol: Symbol) -> dict[str, object]:
    info = symbol.info
    return {
        "symbol": info.symbol,
        "id": symbol.stream_id,
        "base_currency": info.base_currency,
        "quote_currency": info.quote_currency,
        "is_active": info.is_active,
        "price_precision": info.price_precision,
        "quantity_precision": info.quantity_precision,
        "min_quantity": _plain(info.min_quantity),
        "max_quantity": _plain(info.max_quantity),
        "step_size": _plain(info.step_size),
        "min_notional": _plain(info.min_notional),
    }


def _plain(amount: object) -> str | None:
    """Text, for a JSON number would lose digits."""
    return None if amount is None else f"{amount:f}"


def _as_table(config: Config, found: list[Symbol]) -> Table:
    table = Table(title=f"{config.exchange.name}: {len(found)} symbols", title_justify="left")
    table.add_column("id", justify="right")
    for heading in ("symbol", "base", "quote", "active"):
        table.add_column(heading)
    for heading in ("price digits", "quantity digits", "least quantity", "least notional"):
        table.add_column(heading, justify="right")
    for symbol in found:
        info = symbol.info
        table.add_row(
            str(symbol.stream_id),
            info.symbol,
            info.base_currency,
            info.quote_currency,
            "yes" if info.is_active else "no",
            str(info.price_precision),
            str(info.quantity_precision),
            _plain(info.min_quantity) or "",
            _plain(info.min_notional) or "",
        )
    return table
