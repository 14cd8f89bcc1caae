"""Logging: readable lines on a terminal, one JSON object a line elsewhere, always to standard error.

Our own code logs through `structlog.get_logger()`: the event is a constant, what varies are its fields.
Libraries log through `logging`, and come out the same way. Warnings and errors of one event are written at a
bounded rate: whatever fails a thousand times a second must not fill the disk.
"""

from __future__ import annotations

import logging
import sys
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from tradeback.config import LogConfig

REPEATS = 5  # of one event, that are written in each window
WINDOW_S = 10.0
REMEMBERED_EVENTS = 1000
_LIMITED = ("warning", "error", "critical")


class RepeatLimit:
    """A structlog processor that drops a warning or an error after its first REPEATS in a window.

    Two are the same where their events are, or what `same_as` gives in place of them, which is not written.
    The first one written afterwards carries `suppressed`, the number of those dropped since.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        # event -> [start of its window, how many in it, how many dropped since one was written]
        self._seen: OrderedDict[str, list[float]] = OrderedDict()

    def __call__(self, logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
        name = str(event.pop("same_as", event["event"]))
        if method not in _LIMITED:
            return event
        now = self._clock()
        state = self._seen.setdefault(name, [now, 0, 0])
        self._seen.move_to_end(name)
        if len(self._seen) > REMEMBERED_EVENTS:
            self._seen.popitem(last=False)
        if now - state[0] >= WINDOW_S:
            state[:2] = now, 0
        state[1] += 1
        if state[1] > REPEATS:
            state[2] += 1
            raise structlog.DropEvent
        if state[2]:
            event["suppressed"] = int(state[2])
            state[2] = 0
        return event


class _FromLibraries(logging.Handler):
    """Hands what libraries log over to structlog."""

    def emit(self, record: logging.LogRecord) -> None:
        # What varies stands in a library's message itself; before it is put in, repeats look alike.
        structlog.get_logger().log(
            record.levelno,
            record.getMessage(),
            logger=record.name,
            exc_info=record.exc_info,
            same_as=f"{record.name}: {record.msg}",
        )


def set_up_logging(config: LogConfig, stream: TextIO | None = None) -> None:
    """Once a process, at its start. `stream` is standard error by default."""
    stream = stream or sys.stderr
    level = getattr(logging, config.level.upper())
    pretty = config.format == "console" or (config.format == "auto" and stream.isatty())
    written: list[Processor]
    if pretty:
        # Values of variables are not written with a traceback: a password may be among them.
        tracebacks = structlog.dev.RichTracebackFormatter(show_locals=False)
        written = [structlog.dev.ConsoleRenderer(colors=stream.isatty(), exception_formatter=tracebacks)]
    else:
        told = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
        written = [
            structlog.processors.ExceptionRenderer(told),
            structlog.processors.JSONRenderer(default=str),
        ]
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        RepeatLimit(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=shared + written,
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(stream),
        cache_logger_on_first_use=False,
    )
    logging.root.handlers = [_FromLibraries()]
    logging.root.setLevel(max(level, logging.WARNING) if config.level != "debug" else logging.DEBUG)
