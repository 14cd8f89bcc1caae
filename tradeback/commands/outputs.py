"""Where a command writes what it makes: standard output, or a file that is there when all of it is."""

from __future__ import annotations

import os
import secrets
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from tradeback.errors import TradebackError


@contextmanager
def open_output(path: Path | None) -> Iterator[IO[bytes]]:
    """A binary file to write to, standard output where `path` is None.

    A file is written beside its place and moved there when the block ends well, so that nobody ever sees a part of
    it; whatever ends the block otherwise leaves what was there before. What is no regular file (a pipe, a device) is
    written to as it is. TradebackError where that fails; a reader of a pipe who has seen enough is no error.
    """
    try:
        if path is None or _is_special(path):
            with _as_it_is(path) as file:
                yield file
                file.flush()
        else:
            with _beside(path.resolve()) as file:
                yield file
    except BrokenPipeError:
        if path is None:
            drop_standard_output()
    except OSError as error:
        what = "standard output" if path is None else str(path)
        raise TradebackError(
            f"{what} cannot be written: {error.strerror or error}; see to it, or choose another place with --output"
        ) from error


def drop_standard_output() -> None:
    """The reader of the pipe has seen enough. What Python still flushes at its end must not fail either."""
    with suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _is_special(path: Path) -> bool:
    try:
        return not stat.S_ISREG(path.stat().st_mode)
    except FileNotFoundError:
        return False


@contextmanager
def _as_it_is(path: Path | None) -> Iterator[IO[bytes]]:
    if path is None:
        yield sys.stdout.buffer
    else:
        with path.open("wb") as file:
            yield file


@contextmanager
def _beside(path: Path) -> Iterator[IO[bytes]]:
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        with part.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        with suppress(FileNotFoundError):
            part.unlink()
        raise
