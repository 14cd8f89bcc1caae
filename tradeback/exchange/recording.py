"""Recordings of the exchange's streams: one JSON line a message, `{"t": unix seconds, "m": "payload text"}`.

`t` is when the message was received, `m` the payload exactly as it came. A file that ends in `.gz` is
compressed. The same format is written by `tradeback record` and played by the simulated exchange.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import orjson

from tradeback.errors import ExchangeError


def read_recording(path: Path) -> Iterator[tuple[float, str]]:
    """Messages in the order of the file: receive time in unix seconds, payload text.

    ExchangeError where the file cannot be read or a line is no recorded message.
    """
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else open(path, "rb") as lines:
            for number, line in enumerate(lines, 1):
                yield _parse(path, number, line)
    except (OSError, EOFError) as error:
        raise ExchangeError(f"the recording {path} cannot be read: {error}") from error


def _parse(path: Path, number: int, line: bytes) -> tuple[float, str]:
    try:
        row = orjson.loads(line)
        received, payload = row["t"], row["m"]
    except (orjson.JSONDecodeError, TypeError, KeyError) as error:
        raise ExchangeError(
            f'line {number} of {path} is no recorded message {{"t":..,"m":..}}: {error!r}'
        ) from error
    if not isinstance(received, int | float) or isinstance(received, bool) or not isinstance(payload, str):
        raise ExchangeError(f"line {number} of {path}: t must be unix seconds and m the payload's text")
    return float(received), payload


class RecordingWriter:
    """Appends messages to a recording; a context manager. What a compressed file held stays readable."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.messages = 0
        self._file: IO[bytes] | gzip.GzipFile
        try:
            # Held open for the writer's life, which is a context of its own.
            self._file = gzip.open(path, "ab", 6) if path.suffix == ".gz" else open(path, "ab")  # noqa: SIM115
        except OSError as error:
            raise ExchangeError(f"the recording {path} cannot be written: {error}") from error

    def write(self, received: float, payload: bytes | str) -> None:
        """Append one message. Bytes that are no UTF-8 are kept as far as text can hold them."""
        text = payload if isinstance(payload, str) else payload.decode("utf-8", "replace")
        try:
            self._file.write(orjson.dumps({"t": received, "m": text}) + b"\n")
        except OSError as error:
            raise ExchangeError(f"the recording {self.path} cannot be written: {error}") from error
        self.messages += 1

    def close(self) -> None:
        try:
            self._file.close()
        except OSError as error:
            raise ExchangeError(f"the recording {self.path} cannot be written: {error}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
