"""The types of the cold path: what stores, commands and answers speak in."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal


@dataclass(frozen=True, slots=True)
class SymbolInfo:
    """A symbol as the exchange describes it. A filter that it does not give is None."""

    symbol: str
    base_currency: str
    quote_currency: str
    is_active: bool
    price_precision: int
    quantity_precision: int
    min_quantity: Decimal | None = None
    max_quantity: Decimal | None = None
    step_size: Decimal | None = None
    min_notional: Decimal | None = None


@dataclass(frozen=True, slots=True)
class Symbol:
    """A symbol of the catalog. `stream_id` is its u16 on the wire: 1 to 65535, stable for ever."""

    info: SymbolInfo
    stream_id: int

    @property
    def name(self) -> str:
        return self.info.symbol
