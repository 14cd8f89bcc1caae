"""A wall clock that a test sets, for processes that it starts: a library loaded before libc adds an offset."""

from __future__ import annotations

import mmap
import os
import struct
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Self

SOURCE = Path(__file__).with_suffix(".c")


class FakeClock:
    """`environment` goes to the processes; `jump` moves their wall clock, at once and while they run."""

    def __init__(self, folder: Path) -> None:
        library, offset = folder / "fake_clock.so", folder / "fake_clock.offset"
        subprocess.run(
            [
                "gcc",
                "-O2",
                "-Wall",
                "-Wextra",
                "-Werror",
                "-shared",
                "-fPIC",
                str(SOURCE),
                "-o",
                str(library),
                "-ldl",
            ],
            check=True,
        )
        offset.write_bytes(bytes(8))
        file = os.open(offset, os.O_RDWR)
        self._offset = mmap.mmap(file, 8)
        os.close(file)
        # Behind what is loaded already: a sanitizer's library must come first.
        before = os.environ.get("LD_PRELOAD", "")
        self.environment = {"LD_PRELOAD": f"{before} {library}".strip(), "FAKE_CLOCK": str(offset)}

    def jump(self, seconds: float) -> None:
        """Set how far the wall clock is ahead of the real one; negative: behind."""
        self._offset[:] = struct.pack("<q", int(seconds * 1e9))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._offset.close()
