"""Other processes, as the kernel tells of them."""

from __future__ import annotations

import os
import select
from pathlib import Path


def children_of(pid: int) -> list[int]:
    """The ids of its child processes, zombies left out."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(parent) == pid and state != "Z":
            found.append(int(entry.name))
    return found


class Watched:
    """A process that is not our child, followed by a descriptor: its id may be given to another meanwhile."""

    def __init__(self, pid: int) -> None:
        self._descriptor = os.pidfd_open(pid)

    def ended(self, seconds: float) -> bool:
        """Whether it has ended, waiting for that if need be."""
        poll = select.poll()
        poll.register(self._descriptor, select.POLLIN)
        return bool(poll.poll(seconds * 1000))

    def __enter__(self) -> Watched:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)
