"""TableRows: the rows of the server's table, for a recorder that may have been started before the server."""

from __future__ import annotations

from pathlib import Path

from tradeback._fast.tablefile import TableReader, TableRow
from tradeback.errors import StaleRowError


class TableRows:
    """Opens the table of a data folder once it is there, and again where another file took its place. For one thread
    at a time; `read` may raise DataFolderError."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "table"
        self._table: TableReader | None = None

    def open(self) -> bool:
        """Whether there is a table to read. Ask before each series of reads."""
        if self._table is not None and self._table.replaced:
            self.close()
        if self._table is None and self._path.exists():
            self._table = TableReader.open(str(self._path))
        return self._table is not None

    def read(self, stream_id: int) -> TableRow | None:
        """The row of a symbol that was traded; None where there is none, or its writer died in the middle of it,
        which the server's next start mends."""
        if self._table is None:
            return None
        try:
            row = self._table.read(stream_id)
        except StaleRowError:
            return None
        return row if row is not None and row.last_id is not None else None

    def close(self) -> None:
        """Unmap the table; `open` maps it again."""
        if self._table is not None:
            self._table.close()
            self._table = None
