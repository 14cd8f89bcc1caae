"""The Enigma level in fractions, and what the levels of a history of trades must be: the oracle of
`recorder/levels.py`."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from typing import NamedTuple

SHARES = ("0", "23.6", "38.2", "50", "61.8", "78.6", "100")


class Traded(NamedTuple):
    """One trade: its price as the exchange printed it; `late`: it came after younger ones."""

    price: Decimal
    ts_event: int
    late: bool


class Expected(NamedTuple):
    price: float
    ts_event: int
    level: float | None
    ath: float
    atl: float


def level(price: Decimal, ath: Decimal, atl: Decimal) -> float | None:
    if ath == atl:
        return None
    exact = 100 * (Fraction(price) - Fraction(atl)) / (Fraction(ath) - Fraction(atl))
    return float(min(max(exact, Fraction(0)), Fraction(100)))


def fibonacci(ath: Decimal, atl: Decimal) -> dict[str, float]:
    low, high = Fraction(atl), Fraction(ath)
    return {share: float(low + (high - low) * Fraction(share) / 100) for share in SHARES}


def after(trades: list[Traded], stored: tuple[Decimal, Decimal] | None) -> Expected:
    """What holds after all of them; `stored` are the highest and the lowest price of the store."""
    prices = [trade.price for trade in trades] + list(stored or ())
    ath, atl = max(prices), min(prices)
    latest = trades[0]
    for trade in trades[1:]:
        if not trade.late or trade.ts_event > latest.ts_event:
            latest = trade
    return Expected(
        float(latest.price), latest.ts_event, level(latest.price, ath, atl), float(ath), float(atl)
    )
