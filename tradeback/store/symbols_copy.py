"""A copy of the catalog's symbols in the data folder, for a server that starts while the catalog's machine is away, and
for a catalog that was restored from a copy older than the journal.

Stream ids never change, so that an old copy is short of symbols at worst.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable
from pathlib import Path

import orjson

from tradeback.errors import DataFolderError
from tradeback.model import Symbol

COPY_FILE = "symbols.json"


def keep_symbols(folder: Path, symbols: Iterable[Symbol]) -> None:
    """Replace the copy. DataFolderError where it cannot be written."""
    content = orjson.dumps([symbol.to_row() for symbol in symbols])
    part = folder / f".{COPY_FILE}.{secrets.token_hex(8)}.part"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        part.write_bytes(content)
        os.replace(part, folder / COPY_FILE)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise DataFolderError(
            f"{folder / COPY_FILE} cannot be written ({error.strerror}): give this user the right to write in the "
            "folder, and make room on its disk"
        ) from error


def kept_symbols(folder: Path) -> list[Symbol]:
    """Those of the copy; none where there is no copy that can be read."""
    try:
        rows = orjson.loads((folder / COPY_FILE).read_bytes())
        return [Symbol.from_row(row) for row in rows]
    except (OSError, ValueError, ArithmeticError, TypeError):
        return []
