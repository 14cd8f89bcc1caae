"""`make soak`: an hour, or as long as SOAK_SECONDS says, at SOAK_MESSAGES a second and SOAK_CLIENTS clients.

Prints what was measured as Markdown, which is also left in build/soak.md; ends with 1 where something grew.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from tests.conftest import CHECKOUT
from tests.soak.run import Load, soak

REPORT = CHECKOUT / "build" / "soak.md"


def main() -> int:
    seconds = float(os.environ.get("SOAK_SECONDS", "3600"))
    load = Load(
        seconds=seconds,
        messages=float(os.environ.get("SOAK_MESSAGES", "5000")),
        clients=int(os.environ.get("SOAK_CLIENTS", "1000")),
        warm_up=min(300.0, seconds / 3),
        every=min(10.0, seconds / 100),
        stay=100.0,
    )
    with tempfile.TemporaryDirectory(prefix="tradeback-soak-") as folder:
        measured = soak(Path(folder), load)
    REPORT.parent.mkdir(exist_ok=True)
    REPORT.write_text(measured.report())
    print(measured.report())
    growing = [series.name for series in measured.series() if series.grows]
    if growing:
        print(f"It grew: {', '.join(growing)}.", file=sys.stderr)
    return 1 if growing else 0


if __name__ == "__main__":
    sys.exit(main())
