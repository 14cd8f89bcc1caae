"""The clock that tests set reaches Python and the compiled modules, and only the wall clock."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from tests.e2e.fake_clock import FakeClock

# An append_start record is stamped by the caller, so the compiled clock is seen in what a cursor saves.
PROGRAM = """
import sys, time
from pathlib import Path
from tradeback._fast.journal import JournalCursor, JournalWriter
folder = Path(sys.argv[1])
for line in sys.stdin:
    with JournalWriter.open(folder / line.strip(), "sim") as writer:
        writer.append_start(1)
        with JournalCursor.open(writer.folder, "reader") as cursor:
            cursor.read()
            cursor.save()
        saved = (folder / line.strip() / "cursors" / "reader").read_bytes()
    slots = [int.from_bytes(saved[at + 16 : at + 24], "little") for at in (64, 128)]
    print(time.time(), max(slots) / 1e9, time.monotonic(), flush=True)
"""


def test_a_jump_moves_the_wall_clock_of_a_running_process(tmp_path: Path) -> None:
    with FakeClock(tmp_path) as clock:
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(tmp_path)],
            env={**os.environ, **clock.environment, "PYTHONPATH": str(Path(__file__).parents[2])},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        with process, process.stdin, process.stdout:
            for number, ahead in enumerate((0.0, 86_400.0, -3_600.0)):
                clock.jump(ahead)
                process.stdin.write(f"journal{number}\n")
                process.stdin.flush()
                wall, compiled, monotonic = map(float, process.stdout.readline().split())
                assert abs(wall - time.time() - ahead) < 600
                assert abs(compiled - wall) < 600
                assert abs(monotonic - time.monotonic()) < 600
