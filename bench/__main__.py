"""`python -m bench [NAME...] [--quick] [--json FILE]`: runs the measurements and prints the table."""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import asdict
from importlib import import_module
from pathlib import Path

from bench.build import BenchError
from bench.table import FULL, QUICK, Effort, Figure, Row, Skipped, render

# In the order of the table: a module of this package each, with `measure(effort) -> rows`.
MEASUREMENTS = [
    "decode",
    "encode",
    "arbitration",
    "trade",
    "journal",
    "recorder",
    "loop",
    "fanout",
    "updates",
    "latency",
    "crowd",
    "stalled",
    "history",
    "page",
    "influx",
    "cache",
    "api",
    "login",
    "sessions",
]


def run(name: str, effort: Effort) -> list[Row]:
    """The rows of one measurement."""
    rows: list[Row] = import_module(f"bench.{name}").measure(effort)
    return rows


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit code: 1 where a measurement failed. A goal that is not met is no failure."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"of {', '.join(MEASUREMENTS)}; all by default"
    )
    parser.add_argument(
        "--quick", action="store_true", help="prove that everything works; the figures say little"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there as well")
    given = parser.parse_args(arguments)
    unknown = set(given.names) - set(MEASUREMENTS)
    if unknown:
        parser.error(f"{', '.join(sorted(unknown))} is no measurement: choose of {', '.join(MEASUREMENTS)}")
    rows: list[Row] = []
    failed = False
    for name in given.names or MEASUREMENTS:
        print(f"measuring {name} ...", file=sys.stderr, flush=True)
        try:
            rows += run(name, QUICK if given.quick else FULL)
        except BenchError as error:
            failed = True
            rows.append(Skipped(name, f"FAILED: {error}"))
    print(f"{len(os.sched_getaffinity(0))} cores, load average {os.getloadavg()[0]:.1f} at the end\n")
    print(render(rows))
    if given.json:
        figures = [asdict(row) for row in rows if isinstance(row, Figure)]
        given.json.write_text(json.dumps(figures, indent=1) + "\n")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
