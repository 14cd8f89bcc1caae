"""Reads the mapped counters of another process, with `struct` only. Their layout stands in `_fast/stats.pyx`.

A reading is a copy: each value is exact for some moment during it, but values are not of one moment.

A name may end with labels, as Prometheus writes them: `problems{component="control",level="error"}`. A gauge whose name
ends with AT before that is a moment of this machine's monotonic clock, 0 where there was none yet: its age is told.
"""

from __future__ import annotations

import fcntl
import json
import struct
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import ceil
from pathlib import Path
from typing import Any

from tradeback.errors import DataFolderError

_MAGIC = b"TBSTATS1"
_VERSION = 1
AT = "_at_ns"
_PREFIX = struct.Struct("<8sII")

PROBLEMS = "warnings and errors that were logged, and those that were too many to be written"


@dataclass(frozen=True, slots=True)
class Value:
    """A counter, which only grows while its process lives, or a gauge, which is a level."""

    name: str
    kind: str
    meaning: str
    value: int


@dataclass(frozen=True, slots=True)
class Histogram:
    """Durations in ns. `buckets[i]` counts those in `bucket_start(i)` to below `bucket_start(i + 1)`."""

    name: str
    meaning: str
    sum_ns: int
    buckets: Sequence[int]

    @property
    def count(self) -> int:
        return sum(self.buckets)

    def quantile(self, share: float) -> int | None:
        """The duration in ns that `share` (0 to 1) of all stay at or below, at most 12.5% too high.

        None where the histogram is empty.
        """
        total = self.count
        if total == 0:
            return None
        wanted = max(1, ceil(share * total))
        place = next(place for place, seen in enumerate(accumulate(self.buckets)) if seen >= wanted)
        return bucket_start(place + 1) - 1

    @property
    def p50(self) -> int | None:
        return self.quantile(0.5)

    @property
    def p95(self) -> int | None:
        return self.quantile(0.95)

    @property
    def p99(self) -> int | None:
        return self.quantile(0.99)


@dataclass(frozen=True, slots=True)
class Reading:
    """What a process has counted. `running` is false once it has ended; its last numbers stay readable."""

    process: str
    pid: int
    started_ns: int
    running: bool
    values: Mapping[str, Value]
    histograms: Mapping[str, Histogram]


def problems(components: Collection[str]) -> tuple[tuple[str, str, str], ...]:
    """Name, kind and meaning of a counter of each component's warnings, and one of its errors. `other` must be among
    the components."""
    return tuple(
        (f'problems{{component="{component}",level="{level}"}}', "counter", PROBLEMS)
        for component in components
        for level in ("warning", "error")
    )


def problem(components: Collection[str], component: str, level: str) -> str:
    """The name of a counter of `problems`."""
    return f'problems{{component="{component if component in components else "other"}",level="{level}"}}'


def bucket_start(place: int) -> int:
    """The smallest number of ns in a bucket: 8 buckets for each power of two."""
    return place if place < 8 else (8 + place % 8) << (place // 8 - 1)


def read_stats(path: Path) -> Reading:
    """The counters in the file at `path`. FileNotFoundError where its process never ran.

    DataFolderError where the file is foreign, of another version, damaged, or may not be read.
    """
    try:
        with path.open("rb") as file:
            running = not _can_lock(file.fileno())
            data = file.read()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise DataFolderError(f"{path}: {error.strerror}; run this as a user who may read it") from error
    if len(data) < _PREFIX.size or not data.startswith(_MAGIC):
        raise DataFolderError(
            f"{path} is no file of counters: delete it, and restart the process that writes it"
        )
    _, version, size = _PREFIX.unpack_from(data)
    if version != _VERSION:
        raise DataFolderError(
            f"{path} has version {version} of the counters' format, and this program knows {_VERSION}: "
            "run the same version of every process"
        )
    try:
        return _reading(data, json.loads(data[_PREFIX.size : _PREFIX.size + size]), running)
    except (ValueError, KeyError, TypeError, struct.error) as error:
        raise DataFolderError(
            f"{path} is damaged ({error}): delete it, and restart the process that writes it"
        ) from error


def read_all(folder: Path) -> dict[str, Reading]:
    """Every process's counters in the folder `stats`, by process; empty where none ever ran."""
    found = [read_stats(path) for path in sorted(folder.glob("*")) if path.suffix != ".new"]
    return {reading.process: reading for reading in found}


def _can_lock(fd: int) -> bool:
    """The writer holds an exclusive lock for as long as it lives."""
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _reading(data: bytes, layout: dict[str, Any], running: bool) -> Reading:
    values = {
        one["name"]: Value(one["name"], one["kind"], one["meaning"], *_cells(data, one["offset"], 1))
        for one in layout["values"]
    }
    histograms = {}
    for one in layout["histograms"]:
        sum_ns, *buckets = _cells(data, one["offset"], 1 + one["buckets"])
        histograms[one["name"]] = Histogram(one["name"], one["meaning"], sum_ns, tuple(buckets))
    return Reading(layout["process"], layout["pid"], layout["started_ns"], running, values, histograms)


def _cells(data: bytes, offset: int, count: int) -> tuple[int, ...]:
    return struct.unpack_from(f"<{count}Q", data, offset)
