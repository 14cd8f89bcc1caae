"""Which symbols the clients watch: the feeds carry a symbol from its first watcher to its last."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from tradeback.server.protocol import CarriedSymbol


class Symbols(Protocol):
    """Decides what the feeds carry. Called on the loop's thread; `release` once for each `acquire`."""

    def knows(self, symbol: str) -> bool:
        """Whether there is a symbol of this name, active or not."""

    def acquire(self, symbol: str) -> CarriedSymbol | None:
        """Carry a symbol; None where there is none of this name. DataFolderError: it cannot be carried now."""

    def release(self, slot: int) -> None:
        """Nobody here needs the symbol any more."""


class Interest:
    """The symbols that clients watch at the moment, each acquired once, however many watch it."""

    def __init__(self, symbols: Symbols) -> None:
        self._symbols = symbols
        self._by_name: dict[str, CarriedSymbol] = {}
        self._by_slot: dict[int, CarriedSymbol] = {}
        self.names: dict[int, str] = {}  # by stream id

    def __len__(self) -> int:
        return len(self._by_name)

    def knows(self, symbol: str) -> bool:
        """Whether there is a symbol of this name, watched or not, active or not."""
        return symbol in self._by_name or self._symbols.knows(symbol)

    def at(self, slot: int) -> CarriedSymbol:
        """The symbol of a slot that somebody watches."""
        return self._by_slot[slot]

    def find(self, symbol: str) -> CarriedSymbol | None:
        """The symbol, where somebody watches it."""
        return self._by_name.get(symbol)

    def acquire(self, symbol: str) -> CarriedSymbol | None:
        """The symbol, carried from now on; None where there is none of this name.

        DataFolderError: it cannot be carried now, and may be later.
        """
        carried = self._by_name.get(symbol)
        if carried is None:
            carried = self._symbols.acquire(symbol)
            if carried is not None:
                self._by_name[carried.symbol] = carried
                self._by_slot[carried.slot] = carried
                self.names[carried.stream_id] = carried.symbol
        return carried

    def release(self, slots: Iterable[int]) -> None:
        """These slots lost their last watcher."""
        for slot in slots:
            carried = self._by_slot.pop(slot)
            del self._by_name[carried.symbol]
            del self.names[carried.stream_id]
            self._symbols.release(slot)
