"""Where the aggTrade of a trade is: found by time, then by its aggregate id.

aggTrades cannot be asked for by trade id. Both ids step by one, and an aggTrade has one trade or more; so from any
row the place of another trade has a bound: the aggTrade of a trade n ids further lies at most n aggregate ids further.
"""

from __future__ import annotations

from dataclasses import dataclass

from tradeback.exchange.binance import REST_ROWS_MAX
from tradeback.exchange.rest import ExchangeRest
from tradeback.exchange.rows import AggTradeRow

PROBES = 64  # bisection needs fewer for any ids there are
GUESSES = 8  # by density, before the middle is taken
LEAD = REST_ROWS_MAX // 2  # rows before the guess, for a guess is off either way


@dataclass(frozen=True, slots=True)
class Place:
    """The next row of a walk: its aggregate id and its first trade."""

    agg_id: int
    first_id: int


def place_after(rows: list[AggTradeRow]) -> Place:
    """Where the rows go on."""
    return Place(rows[-1].agg_id + 1, rows[-1].last_id + 1)


async def find(
    rest: ExchangeRest, symbol: str, first: int, start_ms: int, known: Place | None = None
) -> list[AggTradeRow]:
    """Rows from the one on that has the trade `first`; where there is none, from the first one after it.

    `start_ms`, unix ms, is where it is looked for: before that trade, as nearly as is known. `known` is a place
    told by earlier rows. Empty where the exchange has no later trade (yet). ExchangeError as from the client.
    """
    if known is not None and known.first_id == first:
        return await rest.agg_trades(symbol, from_id=known.agg_id)
    rows = await rest.agg_trades(symbol, start_ms=start_ms)
    if not rows:
        # The guess is later than all there is.
        rows = await rest.agg_trades(symbol, limit=1)
    search = _Search(first)
    asked: int | None = None
    for probe in range(PROBES):
        found = search.take(rows, asked)
        if found is not None:
            return found
        asked = search.next(probe)
        if asked is None:
            break
        rows = await rest.agg_trades(symbol, from_id=asked)
    return search.after


class _Search:
    """The aggTrade of the trade `first` has an aggregate id of `low` to below `high`, or is not there."""

    def __init__(self, first: int) -> None:
        self.first = first
        self.after: list[AggTradeRow] = []  # the earliest rows known that begin after the trade
        self.low = 0
        self.high: int | None = None  # None: there is no later row either
        self._below: AggTradeRow | None = None
        self._density = 1.0  # aggTrades a trade

    def take(self, rows: list[AggTradeRow], asked: int | None) -> list[AggTradeRow] | None:
        """Rows that came from the aggregate id `asked` on, or for a time (None); the answer where they have it."""
        if not rows:
            self.high = asked
            return None
        self._density = len(rows) / (rows[-1].last_id - rows[0].first_id + 1)
        place = next((number for number, row in enumerate(rows) if row.last_id >= self.first), None)
        if place is None:
            self._below = rows[-1]
            self.low = max(self.low, rows[-1].agg_id + 1)
            # It is at most as many aggTrades further as it is trades further.
            bound = rows[-1].agg_id + self.first - rows[-1].last_id + 1
            self.high = bound if self.high is None else min(self.high, bound)
            return None
        if place or rows[0].first_id <= self.first:
            return rows[place:]
        if not self.after or rows[0].agg_id < self.after[0].agg_id:
            self.after = rows
        # Between what was asked for and what came there is nothing.
        self.high = rows[0].agg_id if asked is None else asked
        self.low = max(self.low, rows[0].agg_id - (rows[0].first_id - self.first))
        return None

    def next(self, probe: int) -> int | None:
        """The aggregate id to ask from; None where nothing is left to ask."""
        if self.high is None or self.low >= self.high:
            return None
        if probe >= GUESSES:
            return (self.low + self.high) // 2
        if self._below is not None:
            guess = self.low + int((self.first - self._below.last_id) * self._density)
        else:
            guess = self.high - int((self.after[0].first_id - self.first) * self._density)
        return min(max(guess - LEAD, self.low), self.high - 1)
