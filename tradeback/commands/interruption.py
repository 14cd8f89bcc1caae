"""Ctrl-C and SIGTERM for commands that run long in plain Python, and have to clear away what they began."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterable, Iterator
from types import FrameType, TracebackType
from typing import Any, Self, TypeVar

Item = TypeVar("Item")


class Interruption:
    """While entered, both signals are noted, and `watch` and `check` raise: KeyboardInterrupt, or SystemExit with 143.

    A handler that raises by itself would not do: where the signal strikes during a callback of the garbage collector,
    Python drops what it raises. Only a second signal is not waited with. For the main thread.
    """

    def __init__(self) -> None:
        self._signum = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        for signum in (signal.SIGINT, signal.SIGTERM):
            self._before[signum] = signal.signal(signum, self._strike)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for signum, handler in self._before.items():
            signal.signal(signum, handler)

    def _strike(self, signum: int, _frame: FrameType | None) -> None:
        self.check()
        self._signum = signum

    def check(self) -> None:
        """Raise where a signal came."""
        if self._signum == signal.SIGINT:
            raise KeyboardInterrupt
        if self._signum:
            sys.exit(128 + self._signum)

    def watch(self, items: Iterable[Item]) -> Iterator[Item]:
        """The items, until a signal comes."""
        for item in items:
            if self._signum:
                self.check()
            yield item
        self.check()
