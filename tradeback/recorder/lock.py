"""RecorderLock: one process at a time writes the history and the repairs of a data folder."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from types import TracebackType
from typing import Self

from tradeback.errors import DataFolderError

LOCK_NAME = "recorder.lock"


class RecorderLock:
    """Held from entering to leaving; the kernel gives it up for a process that is killed. `folder` is the data
    folder of one exchange, and is made where it is missing."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / LOCK_NAME
        self._fd = -1

    def __enter__(self) -> Self:
        """Raises DataFolderError where another process holds it, naming that one."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise DataFolderError(
                f"{self.path} cannot be made: {error.strerror}; see to what lies there, or choose another data "
                "folder with DATA_DIR"
            ) from error
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = os.pread(fd, 20, 0).decode(errors="replace").strip() or "unknown"
            os.close(fd)
            raise DataFolderError(
                f"the history of {self.path.parent} is being written by process {pid}: stop that one, or choose "
                "another data folder"
            ) from None
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        self._fd = fd
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._fd)
