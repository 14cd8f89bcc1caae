"""What can be asked of a backfill: by the command line in its own process, or through the recorder's control socket.

| type       | fields                                          | answer                                         |
|------------|-------------------------------------------------|------------------------------------------------|
| `backfill` | `symbols`, `resolutions`, `days`, `again`        | `{"type":"backfill","jobs":[...]}`             |
| `progress` |                                                 | `{"type":"progress", ...}`: `Backfill.progress` |

A job is an object with `symbol`, `resolution` and `start`.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from typing import Any

from tradeback.errors import ConfigError, UnknownSymbolError
from tradeback.model import RESOLUTIONS, Symbol
from tradeback.recorder.backfill import Backfill

DAYS_MAX = 3650

Named = Callable[[str], Symbol | None]


def find_symbols(names: Iterable[str], known: Iterable[str], exchange: str) -> list[str]:
    """The names as the catalog has them, each once. Raises UnknownSymbolError for those that it does not have."""
    known = sorted(known)
    wanted = list(dict.fromkeys(name.upper() for name in names))
    unknown = [name for name in wanted if name not in known]
    if unknown:
        near = difflib.get_close_matches(unknown[0], known, 3)
        raise UnknownSymbolError(
            f"{', '.join(unknown)}: no such symbol in the catalog of {exchange}"
            + (f"; did you mean {' or '.join(near)}?" if near else "; see `tradeback symbols list`")
        )
    return wanted


def asked_backfill(backfill: Backfill, named: Named, message: dict[str, Any]) -> dict[str, Any]:
    """Answer a `backfill`: make its jobs. Raises a TradebackError where it asks for what there is not."""
    names, resolutions = message.get("symbols"), message.get("resolutions")
    days, again = message.get("days"), message.get("again", False)
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise UnknownSymbolError(f"symbols are a list of names, not {names!r}")
    if not isinstance(resolutions, list) or not resolutions or not set(resolutions) <= RESOLUTIONS.keys():
        raise ConfigError(f"resolutions are a list out of {', '.join(RESOLUTIONS)}, not {resolutions!r}")
    if type(days) is not int or not 0 <= days <= DAYS_MAX or not isinstance(again, bool):
        raise ConfigError(f"days are a number of 0 to {DAYS_MAX}, not {days!r}; again is true or false")
    symbols = []
    for name in names:
        symbol = named(name)
        if symbol is None:
            raise UnknownSymbolError(f"{name}: no such symbol in the catalog; see `tradeback symbols list`")
        symbols.append(symbol)
    by_id = {symbol.stream_id: symbol.name for symbol in symbols}
    jobs = backfill.ask(list(by_id), resolutions, days, again=again)
    return {
        "type": "backfill",
        "jobs": [
            {"symbol": by_id[job.stream_id], "resolution": job.resolution, "start": job.start} for job in jobs
        ],
    }


def asked_progress(backfill: Backfill) -> dict[str, Any]:
    """Answer a `progress`."""
    return {"type": "progress", **backfill.progress()}
