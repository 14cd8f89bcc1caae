"""Recordings of the exchange's streams: one JSON line a message, `{"t": unix seconds, "m": "payload text"}`.

`t` is when the message was received, `m` the payload exactly as it came. A file that ends in `.gz` is
compressed. The same format is written by `tradeback record` and played by the simulated exchange.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import orjson

from tradeback.errors import ExchangeError

LINE_MAX = (
    16 << 20
)  # bytes; no message of the exchange comes near, and a file of another kind may have no line ends
RECEIVED_END = 9_214_646_400  # 2262, the year in which int64 ns end
QUOTE_ASSETS = (
    "USDT",
    "USDC",
    "FDUSD",
    "TUSD",
    "BUSD",
    "BTC",
    "ETH",
    "BNB",
    "EUR",
    "TRY",
    "GBP",
    "AUD",
    "BRL",
    "USD",
)


def split_pair(symbol: str) -> tuple[str, str]:
    """Base and quote asset, as far as a symbol's name tells them."""
    quote = next((quote for quote in QUOTE_ASSETS if symbol.endswith(quote) and symbol != quote), symbol[-3:])
    return symbol[: -len(quote)], quote


def read_recording(path: Path) -> Iterator[tuple[float, str]]:
    """Messages in the order of the file: receive time in unix seconds, payload text.

    ExchangeError where the file cannot be read or a line is no recorded message.
    """

    def refuse(number: int, reason: str) -> None:
        raise ExchangeError(f"line {number} of {path} is no recorded message: {reason}")

    for _, received, text in recorded_lines(path, refuse):
        yield received, text


def recorded_lines(path: Path, on_broken: Callable[[int, str], None]) -> Iterator[tuple[int, float, str]]:
    """The same with the number of each line, from 1. `on_broken` is told the number of a line that is no recorded
    message, and why; what follows it is read all the same.

    ExchangeError where the file cannot be read, or not to its end: a compressed one may be cut short.
    """
    number, is_whole = 0, True
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else open(path, "rb") as file:
            while line := file.readline(LINE_MAX):
                number += is_whole
                is_whole = line.endswith(b"\n")
                try:
                    message = _parse(line)
                except ValueError as error:
                    on_broken(number, str(error))
                else:
                    yield number, *message
    except (OSError, EOFError, zlib.error) as error:
        beyond = f" beyond line {number}" if number else ""
        raise ExchangeError(f"the recording {path} cannot be read{beyond}: {error}") from error


def _parse(line: bytes) -> tuple[float, str]:
    if len(line) == LINE_MAX and not line.endswith(b"\n"):
        raise ValueError(f"it is longer than {LINE_MAX:,} bytes")
    try:
        row = orjson.loads(line)
        received, payload = row["t"], row["m"]
    except (orjson.JSONDecodeError, TypeError, KeyError) as error:
        raise ValueError(f'it must be {{"t":..,"m":..}} ({error!r})') from error
    if not isinstance(received, int | float) or isinstance(received, bool) or not isinstance(payload, str):
        raise ValueError("t must be unix seconds and m the payload's text")
    if not 0 <= received < RECEIVED_END:
        raise ValueError(f"its t, {received}, is no unix time in seconds of 1970 to 2261")
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
