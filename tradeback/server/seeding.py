"""What the recorder found out about the day's volumes, for the table: the control message `seed`."""

from __future__ import annotations

from typing import Any

from tradeback._fast.ingest import Ingest
from tradeback._fast.table import SymbolTable
from tradeback.errors import ProtocolError

INTEGERS = ("day", "units", "cum_units", "quantity_precision")


def seed(table: SymbolTable, ingest: Ingest, message: dict[str, Any]) -> dict[str, Any]:
    """Take volumes of the day, see `SymbolTable.seed_day_volume`; answers how many. The others came too late, or the
    journal lacks room at the moment: who asks looks again."""
    volumes = message.get("volumes")
    if not isinstance(volumes, list) or not all(_is_volume(each) for each in volumes):
        raise ProtocolError(
            "bad_field",
            f"seed takes volumes: a list of objects with symbol, a name, and {', '.join(INTEGERS)}",
        )
    taken = 0
    # Without its records in the journal a row must not be published: the ids would count as journaled.
    if not ingest.unwritten_symbols:
        for each in volumes:
            slot = table.find(each["symbol"])
            taken += slot >= 0 and table.seed_day_volume(slot, *(each[name] for name in INTEGERS))
    return {"type": "seeded", "taken": taken}


def _is_volume(each: object) -> bool:
    return (
        isinstance(each, dict)
        and isinstance(each.get("symbol"), str)
        and all(type(each.get(name)) is int for name in INTEGERS)
        and 0 <= each["units"] < 2**63
    )
