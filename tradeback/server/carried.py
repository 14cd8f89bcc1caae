"""Which symbols the feeds carry: the configured ones, and whatever clients ask for, a while longer than they do."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Set
from dataclasses import dataclass

import structlog

from tradeback._fast.table import SymbolTable
from tradeback.errors import DataFolderError
from tradeback.model import Symbol

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Carried:
    """A symbol that the feeds bring. `slot` is its place in the table, `stream_id` its id on the wire."""

    slot: int
    stream_id: int
    symbol: str


@dataclass(slots=True)
class _Interest:
    carried: Carried
    clients: int = 0
    pinned: bool = False
    leaving: asyncio.TimerHandle | None = None


class CarriedSymbols:
    """Counts who wants what and tells the feeds.

    A symbol is carried while it is pinned (configured, or on a watchlist) or a client holds it, and for
    `linger` seconds after the last one let go. Its slot in the table stays for the life of the process.
    """

    def __init__(
        self,
        table: SymbolTable,
        known: Iterable[Symbol],
        *,
        linger: float,
        on_want: Callable[[str], None],
        on_drop: Callable[[str], None],
    ) -> None:
        self._table = table
        self._known = {symbol.name: symbol for symbol in known}
        self._linger = linger
        self._on_want = on_want
        self._on_drop = on_drop
        self._interests: dict[str, _Interest] = {}
        self._slots: dict[int, Carried] = {}
        self._pinned: set[str] = set()  # also those that are not known, or that there was no room for
        self._settling: asyncio.TimerHandle | None = None

    def settle(self) -> None:
        """The recorder has told what is on watchlists: what was carried when the last server ended has `linger` seconds
        from the first time on to be asked for again, then is dropped.

        So what was missed in between is a gap where clients come back after a restart, or the recorder does, however
        late; and where the next client comes days later, all those days are not.
        """
        if self._settling is None:
            self._settling = asyncio.get_running_loop().call_later(self._linger, self._settle)

    def _settle(self) -> None:
        for name, symbol in self._known.items():
            if name not in self._interests:
                self._table.drop(symbol.stream_id)

    def __len__(self) -> int:
        return len(self._interests)

    def __contains__(self, symbol: str) -> bool:
        return symbol in self._interests

    @property
    def known(self) -> dict[str, Symbol]:
        """Every symbol of the catalog by name, carried or not."""
        return self._known

    def learn(self, symbols: Iterable[Symbol]) -> None:
        """Take symbols that the catalog has gained or changed. ValueError where one contradicts what is known."""
        learned = {symbol.name: symbol for symbol in symbols}
        for symbol in learned.values():
            known = self._known.get(symbol.name)
            if known is not None and known.stream_id != symbol.stream_id:
                raise ValueError(
                    f"{symbol.name} has the stream id {known.stream_id}, which never changes; {symbol.stream_id} "
                    "was given"
                )
        both = {**self._known, **learned}
        owners: dict[int, str] = {}
        for symbol in both.values():
            owner = owners.setdefault(symbol.stream_id, symbol.name)
            if owner != symbol.name:
                raise ValueError(f"the stream id {symbol.stream_id} of {symbol.name} is that of {owner}")
        self._known = both
        for name, symbol in learned.items():
            interest = self._interests.get(name)
            if not symbol.info.is_active and interest is not None and interest.pinned:
                # Clients that have it keep it; nobody else gets it. Once it is traded again it is pinned again.
                interest.pinned = False
                self._let_go(interest)
        self._pin(self._pinned & learned.keys())

    def knows(self, symbol: str) -> bool:
        """Whether the catalog has a symbol of this name, active or not."""
        return symbol in self._known

    def acquire(self, symbol: str) -> Carried | None:
        """A client wants the symbol. None: no active symbol of that name is known. Each call needs a release.

        DataFolderError where the disk has no room for its row of the table: it is tried again when it is asked for
        again.
        """
        try:
            interest = self._interest(symbol)
        except DataFolderError as error:
            log.error("a symbol cannot be carried", symbol=symbol, reason=str(error))
            raise
        if interest is None:
            return None
        interest.clients += 1
        return interest.carried

    def release(self, slot: int) -> None:
        """A client that acquired the symbol of this slot wants it no more."""
        interest = self._interests[self._slots[slot].symbol]
        interest.clients -= 1
        self._let_go(interest)

    @property
    def pinned(self) -> Set[str]:
        """What is to be carried whether a client holds it or not, also what is not known (yet)."""
        return self._pinned

    def pin(self, symbols: Iterable[str]) -> list[str]:
        """Carry exactly these beside what clients want, in place of those pinned before; answers the unknown ones."""
        wanted = set(symbols)
        unknown = self.pin_more(wanted)
        self.unpin(self._pinned - wanted)
        return unknown

    def pin_more(self, symbols: Iterable[str]) -> list[str]:
        """Carry these too; answers the unknown ones, which are carried once they are learned."""
        wanted = set(symbols)
        self._pinned |= wanted
        return self._pin(wanted)

    def unpin(self, symbols: Iterable[str]) -> None:
        """Carry these no longer, but for clients."""
        for symbol in symbols:
            self._pinned.discard(symbol)
            interest = self._interests.get(symbol)
            if interest is not None and interest.pinned:
                interest.pinned = False
                self._let_go(interest)

    def _pin(self, symbols: Iterable[str]) -> list[str]:
        unknown = []
        for symbol in sorted(symbols):
            try:
                interest = self._interest(symbol)
            except DataFolderError as error:
                log.error("a symbol of a watchlist cannot be carried", symbol=symbol, reason=str(error))
                continue
            if interest is None:
                unknown.append(symbol)
            else:
                interest.pinned = True
        return unknown

    def close(self) -> None:
        """Cancel the timers of symbols that linger."""
        if self._settling is not None:
            self._settling.cancel()
        for interest in self._interests.values():
            if interest.leaving is not None:
                interest.leaving.cancel()

    def _interest(self, symbol: str) -> _Interest | None:
        known = self._known.get(symbol)
        if known is None or not known.info.is_active:
            return None
        interest = self._interests.get(symbol)
        if interest is None:
            interest = self._interests[symbol] = _Interest(self._carry(known))
            self._on_want(symbol)
        elif interest.leaving is not None:
            interest.leaving.cancel()
            interest.leaving = None
        return interest

    def _carry(self, symbol: Symbol) -> Carried:
        slot = self._table.add(symbol.name, symbol.stream_id, symbol.info.quantity_precision)
        self._table.carry(slot)
        carried = Carried(slot, symbol.stream_id, symbol.name)
        self._slots[slot] = carried
        return carried

    def _let_go(self, interest: _Interest) -> None:
        if interest.clients or interest.pinned or interest.leaving is not None:
            return
        loop = asyncio.get_running_loop()
        interest.leaving = loop.call_later(self._linger, self._drop, interest)

    def _drop(self, interest: _Interest) -> None:
        del self._interests[interest.carried.symbol]
        self._on_drop(interest.carried.symbol)
        # What it trades from here on is not asked for, and no gap when it is carried again.
        self._table.drop(interest.carried.stream_id)
