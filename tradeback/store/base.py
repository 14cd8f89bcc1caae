"""The interfaces of the stores. Each has an embedded backend that needs no service, and one contract suite
(`tests/store`) that every backend passes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from tradeback.model import Symbol, SymbolInfo


@dataclass(frozen=True, slots=True)
class SyncResult:
    """Names of the symbols that a sync touched, each in one of the three."""

    added: tuple[str, ...]
    changed: tuple[str, ...]
    deactivated: tuple[str, ...]


class Catalog(Protocol):
    """The symbols and their stream ids. Every method may block on I/O: none is for the event server's loop.

    Errors: DataFolderError where the catalog is locked, full, read-only, foreign or torn.
    """

    def sync_symbols(self, infos: Iterable[SymbolInfo]) -> SyncResult:
        """Take over the exchange's list; safe when several processes do it at once.

        A symbol that is new gets the next stream id, 1 to 65535, which it keeps for ever and which no other
        symbol gets, not even after it was deleted. One that is no longer listed becomes inactive. Where ids
        run out, all else is saved and SymbolLimitError names the symbols that got none. An empty list is an
        ExchangeError, and changes nothing.
        """
        ...

    def symbols(self, *, active_only: bool = False) -> list[Symbol]:
        """All symbols in the order of their stream ids."""
        ...

    def symbol(self, name: str) -> Symbol | None:
        """One symbol by its exact name, active or not."""
        ...

    def close(self) -> None:
        """Close the connections; the catalog cannot be used afterwards."""
        ...
