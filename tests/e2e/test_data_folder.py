"""A real server on a data folder in which something is torn, foreign or of another version: one sentence that names
the file and the remedy, exit code 1, and the folder as it was."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.running import ServerProcess, SimProcess

SEGMENTS = {"JOURNAL_SEGMENT_BYTES": "1MiB", "JOURNAL_RETENTION_BYTES": "8MiB"}


@pytest.fixture(scope="module")
def left(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, SimProcess]]:
    """A data folder as a server left it, and the exchange."""
    folder = tmp_path_factory.mktemp("whole")
    with SimProcess("--symbols", "2", "--rate", "200") as sim:
        with ServerProcess(folder, sim, EXCHANGE_SYMBOLS="BTCUSDT", **SEGMENTS) as server:
            server.await_subscribed(1)
            assert server.stop() == 0
        yield folder / "sim", sim


def first_segment(folder: Path) -> Path:
    return min((folder / "journal").glob("*.segment"))


def overwrite(path: Path, at: int, content: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(content)


def remove(folder: Path) -> None:
    (folder / "catalog.sqlite").unlink()


BROKEN: dict[str, tuple[Callable[[Path], None], str]] = {
    "torn journal": (
        lambda folder: os.truncate(first_segment(folder), first_segment(folder).stat().st_size // 2),
        r"\.segment was cut to \d+ bytes .*: move it out of the folder, or restore it from a copy",
    ),
    "foreign journal": (
        lambda folder: overwrite(first_segment(folder), 0, b"x" * 4096),
        r"\.segment is no segment of a journal: move it out of the folder",
    ),
    "newer journal": (
        lambda folder: overwrite(first_segment(folder), 8, (99).to_bytes(4, "little")),
        r"\.segment has version 99 of the journal's format, .*: run the program that wrote it",
    ),
    "torn table": (
        lambda folder: os.truncate(folder / "table", 1000),
        r"sim/table is no table of Trade-Back; move it away: the server makes a new one",
    ),
    "newer table": (
        lambda folder: overwrite(folder / "table", 8, (99).to_bytes(4, "little")),
        r"sim/table is a table of version 99, .*; move it away: the server makes a new one",
    ),
    "foreign catalog": (
        lambda folder: overwrite(folder / "catalog.sqlite", 0, b"x" * 4096),
        r"catalog\.sqlite cannot be used: it is no SQLite database: move it away",
    ),
    "torn catalog": (
        lambda folder: os.truncate(folder / "catalog.sqlite", 8192),
        r"catalog\.sqlite cannot be used: it is torn: restore it from a backup",
    ),
    "lost catalog": (remove, r"catalog\.sqlite is gone, .*: restore it from a copy"),
}


def contents(folder: Path) -> dict[str, bytes]:
    """What lies in the folder, but for the files that are made anew at each start."""
    return {
        str(path.relative_to(folder)): path.read_bytes()[: 1 << 20]
        for path in folder.rglob("*")
        if path.is_file() and path.parent.name != "stats" and path.name != "lock"
    }


@pytest.mark.embedded("the folder is copied, and a database of its own is not")
@pytest.mark.parametrize("case", BROKEN)
def test_what_is_broken_is_named_and_the_rest_is_kept(
    tmp_path: Path, left: tuple[Path, SimProcess], case: str
) -> None:
    whole, sim = left
    break_it, sentence = BROKEN[case]
    folder = tmp_path / "sim"
    shutil.copytree(whole, folder)
    break_it(folder)
    before = contents(folder)
    with pytest.raises(AssertionError, match="tradeback server ended with 1:"):
        ServerProcess(tmp_path, sim, **SEGMENTS)
    log = (tmp_path / "server.log").read_text()
    (told,) = [line for line in log.splitlines() if line.startswith("Error: ")]
    assert re.search(sentence, told)
    assert "Traceback" not in log
    after = contents(folder)
    changed = {name for name in before if after.get(name) != before[name]}
    # A whole table is opened, and marked as in use, before a broken journal is found, or the reverse.
    assert changed <= ({"table"} if "journal" in case else set())
