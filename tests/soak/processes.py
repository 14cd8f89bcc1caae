"""What the kernel tells of our processes: memory of their own, descriptors, threads, processor time."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.processes import children_of

_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Usage:
    """Of a process and all that it started. `anonymous` is memory in bytes that no file is behind, what they share
    divided among them; mapped journals and tables, and databases, are the page cache's."""

    anonymous: int
    descriptors: int
    threads: int
    cpu_s: float

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.anonymous + other.anonymous,
            self.descriptors + other.descriptors,
            self.threads + other.threads,
            self.cpu_s + other.cpu_s,
        )


def usage_of(pid: int) -> Usage:
    """Of a process that lives, with its children."""
    folder = Path(f"/proc/{pid}")
    rollup = (folder / "smaps_rollup").read_text()
    anonymous = next(line.split()[1] for line in rollup.splitlines() if line.startswith("Pss_Anon:"))
    state = (folder / "stat").read_text().rpartition(")")[2].split()
    usage = Usage(
        anonymous=int(anonymous) * 1024,
        descriptors=len(os.listdir(folder / "fd")),
        threads=int(state[17]),
        cpu_s=(int(state[11]) + int(state[12])) / _TICKS,
    )
    for child in children_of(pid):
        usage += usage_of(child)
    return usage
