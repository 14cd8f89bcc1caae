"""Watch: follows the exchange's list of symbols and the catalog, and tells the server what is new or changed.

The server opens no database after its start. What it is told stands in the catalog already, so that it may be away,
hang or be started again: it gets all of it on each connection, and after that what changes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

import structlog

from tradeback.control import ControlClient
from tradeback.errors import ControlError, ControlRefusedError, ExchangeError, SymbolLimitError
from tradeback.exchange.binance import can_carry
from tradeback.exchange.rest import ExchangeRest
from tradeback.model import Symbol, SymbolInfo
from tradeback.recorder.symbols import SymbolBook
from tradeback.store.base import Catalog

log = structlog.get_logger(__name__)

# One line takes the server's loop about a millisecond.
SYMBOLS_PER_LINE = 100
RECONNECT_MIN = 0.25
RECONNECT_MAX = 5.0
LOOK_EVERY = 0.25  # whether the connection still stands
# Others may write to the catalog too: `tradeback symbols sync`, the server when it starts.
CATALOG_EVERY = 30.0
REFRESH_RETRY_MIN = 5.0
REFRESH_RETRY_MAX = 300.0
# An answer that lacks so much of what is active was cut short on its way, or is that of another exchange.
LEAST_SHARE = 0.5


class Watch:
    """Two services: `refresh` asks the exchange every `interval` seconds and brings the catalog up to date, `follow`
    tells the server. One loop."""

    def __init__(
        self,
        catalog: Catalog,
        symbols: SymbolBook,
        rest: ExchangeRest,
        server: ControlClient,
        interval: float,
    ) -> None:
        self._catalog = catalog
        self._symbols = symbols
        self._rest = rest
        self._server = server
        self._interval = interval
        self._changed = asyncio.Event()
        self._told: dict[str, Symbol] = {}  # what the server knows by this connection
        self._connection = 0
        self._error = ""
        self._asked = asyncio.Event()

    async def asked(self) -> None:
        """Wait until the exchange was asked for its list once, whether it gave it or not: with it come the limits of
        its REST interface, within which others may ask then."""
        await self._asked.wait()

    def state(self) -> dict[str, Any]:
        """For the status: what the server was told on the connection that stands."""
        return {"connected": self._server.connected, "told": len(self._told), "error": self._error}

    async def refresh(self) -> None:
        """Take over the exchange's list, for ever. What cannot be had or believed leaves the catalog as it is."""
        pause = REFRESH_RETRY_MIN
        while True:
            try:
                await self._refresh_once()
            except ExchangeError as error:
                self._asked.set()
                log.warning("symbols not refreshed, those of the catalog serve", reason=str(error))
                await asyncio.sleep(min(pause, self._interval))
                pause = min(pause * 2, REFRESH_RETRY_MAX)
            else:
                pause = REFRESH_RETRY_MIN
                await asyncio.sleep(self._interval)

    async def follow(self) -> None:
        """Keep a connection to the server, and tell it all symbols and then what changes, for ever."""
        pause = RECONNECT_MIN
        while True:
            try:
                await self._server.connect()
                await self._tell()
            except ControlError as error:
                if str(error) != self._error:
                    log.info("the server is not told of symbols at the moment", reason=str(error))
                self._error = str(error)
                await asyncio.sleep(pause)
                pause = min(pause * 2, RECONNECT_MAX)
                continue
            self._error = ""
            pause = RECONNECT_MIN
            await self._wait()

    async def _refresh_once(self) -> None:
        listed = [info for info in await self._rest.exchange_info() if can_carry(info.symbol)]
        self._asked.set()
        _believable(listed, await asyncio.to_thread(self._symbols.read))
        try:
            result = await asyncio.to_thread(self._catalog.sync_symbols, listed)
        except SymbolLimitError as error:
            log.error("symbols are left out", reason=str(error))
        else:
            for names, event in (
                (result.added, "symbols added"),
                (result.changed, "symbols changed"),
                (result.deactivated, "symbols deactivated"),
            ):
                if names:
                    log.info(event, count=len(names), first=names[:10])
        self._changed.set()

    async def _tell(self) -> None:
        """Tell the server what it has not been told on this connection. Raises ControlError."""
        self._changed.clear()
        symbols = await asyncio.to_thread(self._symbols.read)
        if self._connection != self._server.connects:
            self._connection = self._server.connects
            self._told = {}
        new = [symbol for symbol in symbols if self._told.get(symbol.name) != symbol]
        for start in range(0, len(new), SYMBOLS_PER_LINE):
            part = new[start : start + SYMBOLS_PER_LINE]
            try:
                await self._server.ask({"type": "learn", "symbols": [symbol.to_row() for symbol in part]})
            except ControlRefusedError as error:
                # The same would be refused again; what else there is must get through.
                log.error("the server refused symbols of the catalog", reason=str(error))
            if self._connection != self._server.connects:
                # The connection was made anew on the way: what was told before may be lost.
                self._changed.set()
                return
            self._told |= {symbol.name: symbol for symbol in part}

    async def _wait(self) -> None:
        """Until there may be something to tell, or somebody to tell it to."""
        loop = asyncio.get_running_loop()
        until = loop.time() + CATALOG_EVERY
        while loop.time() < until and self._server.connected and self._connection == self._server.connects:
            try:
                async with asyncio.timeout(LOOK_EVERY):
                    await self._changed.wait()
                return
            except TimeoutError:
                continue


def _believable(listed: Iterable[SymbolInfo], known: Iterable[Symbol]) -> None:
    """Raise ExchangeError where most of what is traded would end at once."""
    active = {symbol.name for symbol in known if symbol.info.is_active}
    left = active & {info.symbol for info in listed if info.is_active}
    if len(left) < LEAST_SHARE * len(active):
        raise ExchangeError(
            f"the exchange lists {len(left)} of the {len(active)} symbols that are traded: it is not believed; where "
            "that is right, `tradeback symbols sync` takes it over"
        )
