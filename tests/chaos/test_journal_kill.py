"""A writer and a reader, killed at random moments: what was journaled is read whole, in order, and once."""

from __future__ import annotations

import os
import random
import select
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.chaos.rounds import ROUNDS
from tests.conftest import CHECKOUT
from tests.reference.journal import read_journal
from tradeback._fast.journal import durable_places

SAFETY_SECONDS = 300.0


class Told:
    """A process that tells numbers through a pipe."""

    def __init__(self, module: str, *arguments: str) -> None:
        self.fd, theirs = os.pipe()
        command = [sys.executable, "-m", f"tests.chaos.{module}", *arguments, str(theirs)]
        self.process = subprocess.Popen(command, pass_fds=[theirs], cwd=CHECKOUT, stderr=subprocess.PIPE)
        os.close(theirs)
        self.last = 0

    def hear(self, at_least: int) -> None:
        """Take what was told, until a number is `at_least`."""
        deadline = time.monotonic() + SAFETY_SECONDS
        while self.last < at_least:
            assert select.select([self.fd], [], [], deadline - time.monotonic())[0], f"still at {self.last}"
            data = os.read(self.fd, 1 << 16)
            assert data, self.ended()
            self.last = max(self.last, *(number for (number,) in struct.iter_unpack("<Q", data)))

    def kill(self) -> None:
        """Kill it, and take what it still had told."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        assert self.process.returncode == -signal.SIGKILL, self.ended()
        while data := os.read(self.fd, 1 << 16):
            self.last = max(self.last, *(number for (number,) in struct.iter_unpack("<Q", data)))

    def ended(self) -> str:
        self.process.wait()
        assert self.process.stderr is not None
        return self.process.stderr.read().decode()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stderr is not None
        self.process.stderr.close()
        os.close(self.fd)


def test_nothing_that_was_journaled_is_lost_torn_or_out_of_order(tmp_path: Path) -> None:
    chance = random.Random(20261122)
    folder, store = tmp_path / "journal", tmp_path / "store"
    written = stored = 0
    for _ in range(ROUNDS):
        with (
            Told("journal_writer", str(folder)) as writer,
            Told("journal_reader", str(folder), str(store)) as reader,
        ):
            writer.hear(written + 1 + chance.randrange(5000))
            reader.hear(stored + 1)
            # A moment that nothing chose: anywhere in a record, a roll-over, a reservation, a saved place.
            time.sleep(chance.random() * 0.02)
            for told in chance.sample([writer, reader], 2):
                told.kill()
            written, stored = max(written, writer.last), max(stored, reader.last)
    # What both left behind: the writer opens once more and cuts the tail, the reader goes on to the end.
    with Told("journal_writer", str(folder)) as writer:
        writer.hear(written + 1)
        writer.kill()
    with Told("journal_reader", str(folder), str(store)) as reader:
        reader.hear(writer.last + 1)
        reader.kill()
    whole = read_journal(folder)
    assert len(whole) >= writer.last
    assert list(whole) == list(range(1, len(whole) + 1))
    ids = struct.unpack_from(f"<{writer.last}Q", store.read_bytes(), 8)
    assert ids == tuple(range(3, writer.last * 3 + 1, 3))
    assert writer.last < durable_places(folder)["sink"] <= len(whole) + 1
