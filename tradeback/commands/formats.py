"""Rows as files: CSV, JSON lines and Parquet, written as they come, so that a long range takes little memory.

A number is written as `repr` of the double: the decimal number that the exchange told. A value that is not known is
nothing between two commas in CSV, and null elsewhere.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from itertools import islice
from typing import IO, Any, Literal, NamedTuple, Protocol

import orjson

from tradeback.commands.times import format_time
from tradeback.errors import ConfigError

ROWS_AT_ONCE = 2_000
ROWS_OF_A_GROUP = 100_000  # of Parquet: what a reader of the file has to take at once

Format = Literal["csv", "jsonl", "parquet"]
Row = tuple[Any, ...]


class Column(NamedTuple):
    """`kind`: time (unix ns here; ISO 8601 in UTC in text), integer, number or text. `says` is for `--help`."""

    name: str
    kind: Literal["time", "integer", "number", "text"]
    says: str


class Writer(Protocol):
    """Writes rows to a binary file that it does not close."""

    def write(self, rows: Sequence[Row]) -> None: ...

    def close(self) -> None:
        """Write what is left."""
        ...


def write_rows(
    file: IO[bytes], form: Format, columns: Sequence[Column], rows: Iterable[Row], about: dict[str, str]
) -> int:
    """Write all rows; returns how many. `about` is kept in formats that have a place for it.

    Raises OSError as the file does, and ConfigError where Parquet cannot be written here.
    """
    written = 0
    with closing(WRITERS[form](file, columns, about)) as writer:
        for batch in _batches(rows):
            writer.write(batch)
            written += len(batch)
    return written


def _batches(rows: Iterable[Row]) -> Iterator[list[Row]]:
    iterator = iter(rows)
    while batch := list(islice(iterator, ROWS_AT_ONCE)):
        yield batch


class _Times:
    """Makes text of the times of rows. Most times share their second with the one before."""

    def __init__(self, columns: Sequence[Column]) -> None:
        self._places = [place for place, column in enumerate(columns) if column.kind == "time"]
        self._second = -1
        self._text = ""

    def as_text(self, row: Row) -> list[Any]:
        values = list(row)
        for place in self._places:
            second, fraction = divmod(values[place], 1_000_000_000)
            if second != self._second:
                self._second, self._text = second, format_time(second * 1_000_000_000)[:-1]
            values[place] = f"{self._text}.{fraction:09d}".rstrip("0") + "Z" if fraction else f"{self._text}Z"
        return values


class CsvWriter:
    """A header, then one line a row; lines end in a newline, as Unix tools expect."""

    def __init__(self, file: IO[bytes], columns: Sequence[Column], about: dict[str, str]) -> None:
        self._file = file
        self._times = _Times(columns)
        self._write([[column.name for column in columns]])

    def write(self, rows: Sequence[Row]) -> None:
        self._write(map(self._times.as_text, rows))

    def _write(self, rows: Iterable[Sequence[Any]]) -> None:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(rows)
        self._file.write(text.getvalue().encode())

    def close(self) -> None:
        self._file.flush()


class JsonLinesWriter:
    """One JSON object a line, its keys the columns."""

    def __init__(self, file: IO[bytes], columns: Sequence[Column], about: dict[str, str]) -> None:
        self._file = file
        self._names = [column.name for column in columns]
        self._times = _Times(columns)

    def write(self, rows: Sequence[Row]) -> None:
        self._file.write(
            b"".join(
                orjson.dumps(
                    dict(zip(self._names, self._times.as_text(row), strict=True)),
                    option=orjson.OPT_APPEND_NEWLINE,
                )
                for row in rows
            )
        )

    def close(self) -> None:
        self._file.flush()


class ParquetWriter:
    """Through pyarrow: times are timestamps in ns and UTC, integers int64, numbers doubles, text strings."""

    def __init__(self, file: IO[bytes], columns: Sequence[Column], about: dict[str, str]) -> None:
        try:
            import pyarrow
            import pyarrow.parquet
        except ImportError as error:
            raise ConfigError(
                "Parquet is written by pyarrow, which is not installed: run pip install 'tradeback[parquet]', or "
                "choose --format csv or jsonl"
            ) from error
        types = {
            "time": pyarrow.timestamp("ns", tz="UTC"),
            "integer": pyarrow.int64(),
            "number": pyarrow.float64(),
            "text": pyarrow.string(),
        }
        fields = [(column.name, types[column.kind]) for column in columns]
        self._arrow = pyarrow
        self._schema = pyarrow.schema(fields, metadata=about)
        self._writer = pyarrow.parquet.ParquetWriter(file, self._schema, compression="zstd")
        self._rows: list[Row] = []

    def write(self, rows: Sequence[Row]) -> None:
        self._rows += rows
        if len(self._rows) >= ROWS_OF_A_GROUP:
            self._flush()

    def _flush(self) -> None:
        if self._rows:
            arrays = [
                self._arrow.array(values, field.type)
                for values, field in zip(zip(*self._rows, strict=True), self._schema, strict=True)
            ]
            self._writer.write_table(self._arrow.table(arrays, schema=self._schema))
            self._rows = []

    def close(self) -> None:
        self._flush()
        self._writer.close()


WRITERS: dict[Format, Callable[[IO[bytes], Sequence[Column], dict[str, str]], Writer]] = {
    "csv": CsvWriter,
    "jsonl": JsonLinesWriter,
    "parquet": ParquetWriter,
}
