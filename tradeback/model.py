"""The types of the cold path: what stores, commands and answers speak in."""

from __future__ import annotations

from dataclasses import dataclass, fields
from decimal import Decimal
from typing import Any


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

    @classmethod
    def from_row(cls, row: Any) -> Symbol:
        """A symbol of a catalog row as JSON has it: the fields of SymbolInfo and `stream_id`.

        Raises ValueError where the row is no such object.
        """
        if not isinstance(row, dict):
            raise ValueError(f"a symbol is an object with its catalog's fields, not {row!r}")
        names = {field.name for field in fields(SymbolInfo)}
        stream_id = row.get("stream_id")
        missing = sorted({"symbol", "base_currency", "quote_currency", "is_active"} - row.keys())
        if missing or type(stream_id) is not int or not 1 <= stream_id <= 65535:
            raise ValueError(f"the symbol {row!r} lacks {', '.join(missing) or 'a stream_id of 1 to 65535'}")
        if not isinstance(row["symbol"], str) or not 1 <= len(row["symbol"].encode()) <= 50:
            raise ValueError(f"{row['symbol']!r} is no name of a symbol: give 1 to 50 bytes of text")
        precisions = [row.get(name) for name in ("price_precision", "quantity_precision")]
        if not all(type(value) is int and 0 <= value <= 18 for value in precisions):
            raise ValueError(f"the symbol {row['symbol']!r} has no precisions of 0 to 18")
        amounts = {
            name: Decimal(str(row[name]))
            for name in ("min_quantity", "max_quantity", "step_size", "min_notional")
            if row.get(name) is not None
        }
        known = {name: value for name, value in row.items() if name in names}
        return cls(SymbolInfo(**{**known, **amounts}), stream_id)
