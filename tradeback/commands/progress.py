"""How far a long command is, for a person at a terminal; nothing where stderr is none."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn


class Part:
    """One bar: `to` says how far it is of its total. May be called from any thread."""

    def __init__(self, progress: Progress, name: str, total: float) -> None:
        self._progress = progress
        self._task = progress.add_task(name, total=total)

    def to(self, done: float) -> None:
        self._progress.update(self._task, completed=done)


@contextmanager
def shown_progress() -> Iterator[Progress]:
    """Bars on stderr that are gone when the block ends."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        yield progress
