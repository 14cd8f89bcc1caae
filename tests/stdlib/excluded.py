"""Which of CPython's asyncio cases are not run on EpollLoop, and why."""

from __future__ import annotations

import re

EXCLUDED = {
    r"\.(PollEventLoopTests|SelectEventLoopTests)\.": "EPollEventLoopTests for another selector",
}


def reason_to_exclude(case: str) -> str | None:
    """The reason why the case of this id is not run; None: it is."""
    return next((reason for pattern, reason in EXCLUDED.items() if re.search(pattern, case)), None)
