"""CPython's own asyncio test cases on EpollLoop: `python -m tests.stdlib.run MODULE`, e.g. `test_events`.

A process of its own for each module: asyncio's default loop is replaced for all of it, and these cases expect
Python's default warning filters. Many of them measure time, and fail where the machine is busy: one that failed is run
again, by itself, and fails where it never passes. The last line of its output is JSON: what was run, on how many of our
loops.
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

TRIES = 3  # of a case
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


def failures_of(result: unittest.TestResult) -> set[str]:
    """The cases that failed, by their ids; a part of a case stands for it."""
    return {getattr(case, "test_case", case).id() for case, _ in result.failures + result.errors}


def passes(case: str) -> bool:
    """Whether the case of this id passes when it is run again. What is no case, as a class that cannot be set up, does
    not."""
    for _ in range(TRIES - 1):
        try:
            suite = unittest.defaultTestLoader.loadTestsFromName(case)
        except (AttributeError, ImportError, TypeError, ValueError):
            return False
        result = unittest.TextTestRunner(verbosity=1).run(suite)
        if result.testsRun and result.wasSuccessful():
            return True
    return False


def main(module: str) -> int:
    # The cases name the loop class, or ask for the default one.
    asyncio.SelectorEventLoop = CountedLoop  # type: ignore[misc]
    unix_events._UnixDefaultEventLoopPolicy._loop_factory = CountedLoop
    cases = cases_of(unittest.defaultTestLoader.loadTestsFromName(f"test.test_asyncio.{module}"))
    excluded = {case.id(): reason for case in cases if (reason := reason_to_exclude(case.id()))}
    suite = unittest.TestSuite(case for case in cases if case.id() not in excluded)
    result = unittest.TextTestRunner(verbosity=1).run(suite)
    failed = failures_of(result)
    passed_later = sorted(case for case in failed if passes(case))
    report = {
        "run": result.testsRun,
        "skipped": len(result.skipped),
        "excluded": len(excluded),
        "failed": sorted(failed - set(passed_later)) + [case.id() for case in result.unexpectedSuccesses],
        "passed_later": passed_later,
        "loops": loops_made,
    }
    print(json.dumps(report))
    return 1 if report["failed"] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
