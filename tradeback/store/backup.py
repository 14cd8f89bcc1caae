"""A copy of one exchange's data folder, made while processes write into it."""

from __future__ import annotations

import os
import secrets
import shutil
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from pathlib import Path

from tradeback.errors import DataFolderError
from tradeback.store.catalog import CATALOG_FILE
from tradeback.store.history_sqlite import HISTORY_FILE
from tradeback.store.identity import IDENTITY_FILE
from tradeback.store.symbols_copy import COPY_FILE

# Before the journals: what is stored must not be ahead of them.
STORED = HISTORY_FILE
JOURNALS = ("journal", "repairs")
# After them: it must know every symbol that they name.
NAMED = CATALOG_FILE
# Small, and written once.
KEPT = (IDENTITY_FILE, COPY_FILE, "session.secret", "demo.password")


def copy_folder(
    source: Path, target: Path, watch: Callable[[Iterable[Path]], Iterable[Path]] = lambda files: files
) -> int:
    """Copy what `source` keeps to `target`, which is made; return the bytes of the copy, which is on the disk then.
    `watch` may end it between two files, by raising.

    It is made beside `target`, as `.NAME.*.part`, and has its name once it is whole: one that was killed is never taken
    for a backup.

    Errors: DataFolderError where there is nothing to copy, `target` is there already, or something cannot be copied:
    nothing is left then.
    """
    if not source.is_dir():
        raise DataFolderError(
            f"There is nothing at {source} to back up: name the data folder with --data-dir, and the exchange with "
            "--exchange"
        )
    if os.path.lexists(target):
        raise DataFolderError(f"{target} is there already: name a folder that is to be made")
    part = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
    try:
        part.mkdir(mode=0o700, parents=True)
        size = sum(path.stat().st_size for path in watch(_copied(source, part)))
        part.rename(target)
        _flush(target.parent)
        return size
    except BaseException as error:
        shutil.rmtree(part, ignore_errors=True)
        if not isinstance(error, (OSError, sqlite3.Error)):
            raise
        raise DataFolderError(
            f"{source} could not be copied to {target}, of which nothing is left: {error}"
        ) from error


def _copied(source: Path, target: Path) -> Iterator[Path]:
    """Each file of the copy, once it is whole and on the disk."""
    yield from _database(source / STORED, target / STORED)
    for journal in JOURNALS:
        yield from _journal(source / journal, target / journal)
    yield from _database(source / NAMED, target / NAMED)
    for name in KEPT:
        if (source / name).exists():
            yield _file(source / name, target / name)


def _database(source: Path, target: Path) -> Iterator[Path]:
    """One moment of it, though others write; SQLite's own way."""
    if not source.exists():
        return
    target.touch(mode=0o600)
    with (
        closing(sqlite3.connect(f"file:{source}?mode=ro", uri=True)) as reader,
        closing(sqlite3.connect(target)) as writer,
    ):
        reader.backup(writer)
    _flush(target)
    yield target


def _journal(source: Path, target: Path) -> Iterator[Path]:
    """The newest segment first: so whatever the copy of a segment begins with, the copy of the one before it leads up
    to. The other way round records could be missing between two. A segment that is deleted meanwhile, the oldest, is
    left out."""
    for folder, suffix in ((source, ".segment"), (source / "cursors", "")):
        for path in sorted(folder.glob(f"*{suffix}"), reverse=True):
            if path.is_dir() or path.suffix != suffix:
                continue
            copy = target / path.relative_to(source)
            copy.parent.mkdir(mode=0o700, exist_ok=True)
            try:
                yield _file(path, copy)
            except FileNotFoundError:
                copy.unlink(missing_ok=True)


def _file(source: Path, target: Path) -> Path:
    shutil.copy2(source, target)
    _flush(target)
    return target


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
