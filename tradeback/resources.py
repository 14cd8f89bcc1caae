"""Descriptors, memory and disk of a process, watched while it runs: told before they are used up, and counted.

One line when a resource gets low, one when it is used up, one when there is enough again: in between health and
metrics tell (`resource_level`).
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Mapping
from enum import IntEnum
from pathlib import Path

import structlog

from tradeback.ceilings import Use, descriptors, disk_free, memory
from tradeback.config import Config
from tradeback.errors import TradebackError

LOOK_EVERY = 2.0  # seconds
LOW, FULL = 0.85, 0.97  # of a limit
# Of what makes it low, and used up: one that goes to and fro is not told each time.
ENOUGH_AGAIN, NOT_FULL_AGAIN = 0.9, 0.98
RESOURCES = ("descriptors", "memory", "disk")
# A client that is connected weighs at most so much (bench/crowd.py, `an idle client`), with some room.
CLIENT_BYTES = 16 * 1024

REMEDIES = {
    "descriptors": "raise the limit of open files (LimitNOFILE= of a systemd unit, ulimit -n)",
    "memory": "raise the limit that is named, or lower WS_MAX_CLIENTS",
    "disk": "make room, or lower JOURNAL_RETENTION_BYTES or HISTORY_KEEP_TICKS",
}

log = structlog.get_logger(__name__)


class Level(IntEnum):
    """How a resource stands; these numbers are told as gauges."""

    ENOUGH = 1
    LOW = 2
    USED_UP = 3


LEVELS = {Level.ENOUGH.value: "ok", Level.LOW.value: "low", Level.USED_UP.value: "used up"}

# What a process counts of them, by name, kind and meaning.
RESOURCE_VALUES = (
    ("descriptors_open", "gauge", "descriptors that this process has open"),
    ("descriptors_limit", "gauge", "descriptors that it may have open, 0: any number"),
    ("memory_used_bytes", "gauge", "memory used of the nearest ceiling, without pages of files"),
    ("memory_ceiling_bytes", "gauge", "the nearest ceiling of memory: its own, or its container's; 0: none"),
    ("disk_free_bytes", "gauge", "room on the disk of the data folder"),
    *(
        (
            f'resource_level{{resource="{name}"}}',
            "gauge",
            "1 enough, 2 low, 3 used up; 0 before the first look",
        )
        for name in RESOURCES
    ),
)


class Resources:
    """Those of this process. `folder` is its data folder, which exists.

    `put` takes gauges by their name; `on_memory` is told whether memory is used up, at each look.
    """

    def __init__(
        self,
        config: Config,
        folder: Path,
        put: Callable[[str, int], None],
        on_memory: Callable[[bool], None] | None = None,
    ) -> None:
        self._config = config
        self._folder = folder
        self._put = put
        self._on_memory = on_memory
        self._levels = dict.fromkeys(RESOURCES, Level.ENOUGH)
        self._blind = False  # what could not be asked was told

    def tell_at_start(self, clients: int = 0, journal: Path | None = None) -> None:
        """Say what will not do if all comes that may: `clients`, and what a journal may still grow by."""
        use = memory(self._config.resources.memory)
        expected = clients * CLIENT_BYTES
        if use.limit and use.used + expected > use.limit * FULL:
            log.warning(
                "the memory may not do: raise the limit, or lower WS_MAX_CLIENTS",
                limit=use.limit,
                by=use.by,
                used=use.used,
                clients=clients,
                clients_need=expected,
            )
        if journal is not None:
            retention = self._config.journal.retention_bytes
            there = _size_of(journal)
            free = disk_free(self._folder)
            if free < retention - there:
                log.warning(
                    "the disk has less room than the journal may take: make room, or lower JOURNAL_RETENTION_BYTES",
                    folder=str(self._folder),
                    free=free,
                    journal=there,
                    retention=retention,
                )

    def look(self) -> dict[str, int]:
        """Look at all, say what changed. Returns the gauges; of what cannot be asked there are none. May wait for the
        disk; for any one thread."""
        files = descriptors()
        self._note_use("descriptors", files)
        gauges = {"descriptors_open": files.used, "descriptors_limit": files.limit}
        try:
            # Where no descriptor is left its files cannot be opened.
            used = memory(self._config.resources.memory)
            free = disk_free(self._folder)
        except (OSError, TradebackError) as error:
            if not self._blind:
                log.error("memory and disk cannot be watched at the moment", reason=str(error))
            self._blind = True
        else:
            self._blind = False
            self._note_use("memory", used)
            self._note("disk", self._level_of_disk(free), free=free, folder=str(self._folder))
            gauges |= {"memory_used_bytes": used.used, "memory_ceiling_bytes": used.limit}
            gauges["disk_free_bytes"] = free
        return gauges | {
            f'resource_level{{resource="{name}"}}': level.value for name, level in self._levels.items()
        }

    async def watch(self) -> None:
        """Look now and then, until cancelled."""
        while True:
            # In a thread: a disk that hangs must not hold up the loop.
            self._tell(await asyncio.to_thread(self.look))
            if self._on_memory is not None:
                self._on_memory(self._levels["memory"] is Level.USED_UP)
            await asyncio.sleep(LOOK_EVERY)

    def watch_in_a_thread(self) -> None:
        """The same for a process without a loop, for as long as it lives; `on_memory` is not told."""
        threading.Thread(target=self._keep_looking, name="resources", daemon=True).start()

    def _keep_looking(self) -> None:
        while True:
            self._tell(self.look())
            time.sleep(LOOK_EVERY)

    def _tell(self, gauges: Mapping[str, int]) -> None:
        for name, value in gauges.items():
            self._put(name, value)

    def _level_of_disk(self, free: int) -> Level:
        # Used up: the journal's next segment finds no room.
        full = self._config.journal.segment_bytes
        if self._levels["disk"] is Level.USED_UP:
            full = round(full / NOT_FULL_AGAIN)
        if free < full:
            return Level.USED_UP
        low = self._config.resources.disk_free
        if self._levels["disk"] is not Level.ENOUGH:
            low = round(low / ENOUGH_AGAIN)
        return Level.LOW if free < low else Level.ENOUGH

    def _note_use(self, name: str, use: Use) -> None:
        self._note(name, _level(use, self._levels[name]), used=use.used, limit=use.limit, by=use.by)

    def _note(self, name: str, level: Level, **figures: object) -> None:
        before, self._levels[name] = self._levels[name], level
        if level is before:
            return
        if level is Level.ENOUGH:
            log.info("there is enough of a resource again", resource=name, **figures)
        elif level is Level.LOW:
            log.warning("a resource gets low", resource=name, remedy=REMEDIES[name], **figures)
        else:
            log.error("a resource is used up", resource=name, remedy=REMEDIES[name], **figures)


def _level(use: Use, before: Level) -> Level:
    if use.share >= (FULL if before is not Level.USED_UP else FULL * NOT_FULL_AGAIN):
        return Level.USED_UP
    low = LOW if before is Level.ENOUGH else LOW * ENOUGH_AGAIN
    return Level.LOW if use.share >= low else Level.ENOUGH


def _size_of(folder: Path) -> int:
    """Bytes of the files in a folder; 0 where there is none yet."""
    if not folder.is_dir():
        return 0
    sizes = []
    for path in folder.iterdir():
        try:
            sizes.append(path.stat().st_blocks * 512)
        except FileNotFoundError:
            continue  # retention took it meanwhile
    return sum(sizes)
