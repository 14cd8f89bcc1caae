"""CPython's own asyncio test cases on EpollLoop: `python -m tests.stdlib.run MODULE`, e.g. `test_events`.

A process of its own for each module: asyncio's default loop is replaced for all of it, and these cases expect
Python's default warning filters. The last line of its output is JSON: what was run, on how many of our loops.
"""

from __future__ import annotations

import asyncio
import json
import selectors
import sys
import unittest
from asyncio import unix_events

from tests.stdlib.excluded import reason_to_exclude
from tradeback._fast.epoll import EpollLoop

loops_made = 0


class CountedLoop(EpollLoop):
    """So that the report can say how many of the cases really had our loop."""

    def __init__(self, selector: selectors.BaseSelector | None = None) -> None:
        global loops_made
        loops_made += 1
        if selector is not None:
            selector.close()  # the cases that run once with each selector; see excluded.py
        super().__init__()


def cases_of(suite: unittest.TestSuite) -> list[unittest.TestCase]:
    found: list[unittest.TestCase] = []
    for item in suite:
        found.extend(cases_of(item) if isinstance(item, unittest.TestSuite) else [item])
    return found


def main(module: str) -> int:
    # The cases name the loop class, or ask for the default one.
    asyncio.SelectorEventLoop = CountedLoop  # type: ignore[misc]
    unix_events._UnixDefaultEventLoopPolicy._loop_factory = CountedLoop
    cases = cases_of(unittest.defaultTestLoader.loadTestsFromName(f"test.test_asyncio.{module}"))
    excluded = {case.id(): reason for case in cases if (reason := reason_to_exclude(case.id()))}
    suite = unittest.TestSuite(case for case in cases if case.id() not in excluded)
    result = unittest.TextTestRunner(verbosity=1).run(suite)
    report = {
        "run": result.testsRun,
        "skipped": len(result.skipped),
        "excluded": len(excluded),
        "failed": [case.id() for case, _ in result.failures + result.errors],
        "loops": loops_made,
    }
    print(json.dumps(report))
    return 0 if result.wasSuccessful() else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
