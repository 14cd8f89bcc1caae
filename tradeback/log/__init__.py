"""Logging: readable lines on a terminal, one JSON object a line elsewhere, always to standard error.

Our own code logs through `structlog.get_logger(__name__)`: the event is a constant, what varies are its fields, and the
module is its component. Libraries log through `logging`, and come out the same way.

    level of the component -> counted -> repeats left out -> the time -> written, or lost (`writer.py`)

Warnings and errors of one event are written at a bounded rate (`repeats.py`): whatever fails a thousand times a second
must not fill the disk. What a stranger sent cannot end a line, steer a terminal or be longer than CLIPPED.
"""

from __future__ import annotations

import atexit
import logging
import os
import re
import sys
import traceback
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, TextIO

import orjson
import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from tradeback.config import LogConfig
from tradeback.errors import ProtocolError
from tradeback.log.asking import add_asking
from tradeback.log.repeats import LIMITED, RepeatLimit
from tradeback.log.writer import LogWriter

LIBRARIES = (
    "libraries"  # the component of lines that are not of our own code; each library's name counts as well
)
LEVELS = ("debug", "info", "warning", "error")
CLIPPED = 2_000  # characters of one value
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
_CONTROL_OF_TEXT = re.compile(_CONTROL.pattern.replace("\x00-\x1f", "\x00-\x09\x0b-\x1f"))
_LEFT_OUT = "_left_out"  # marks a line that tells of repeats: it is neither counted nor left out itself

Counted = Callable[[str, str], None]

_counted: list[Counted] = []


def count_problems(counted: Counted) -> None:
    """From now on give component and level (`warning` or `error`) of each warning and error to `counted`, those that
    are not written for their number included, and to nobody else. It is called from whatever thread logs."""
    _counted[:] = [counted]


def keep_problems() -> None:
    """Count them for nobody any more."""
    _counted.clear()


class Levels:
    """The least level that is logged of each component: of the longest name that stands in front of its own.

    Libraries say no more than warnings, whatever the level of all is, unless `libraries` or their own names are named.
    """

    def __init__(self, level: str, by_component: Mapping[str, str]) -> None:
        self._level = level
        self._named = dict(by_component)

    def of(self, component: str, *, library: bool = False) -> int:
        """As `logging` counts levels."""
        name = component
        while name:
            if name in self._named:
                return _number(self._named[name])
            name = name.rpartition(".")[0]
        if not library:
            return _number(self._level)
        return _number(
            self._named[LIBRARIES] if LIBRARIES in self._named else max("warning", self._level, key=_number)
        )

    def change(self, level: str, component: str) -> None:
        """Of this component from now on, or of all, those that were named included, where it is empty."""
        if component:
            self._named[component] = level
        else:
            self._level = level
            self._named.clear()

    @property
    def least(self) -> int:
        """What no component's level is below."""
        return min(map(_number, (self._level, *self._named.values())))

    def told(self) -> dict[str, str]:
        """The level of each component that is named; of all others under `all`."""
        return {"all": self._level, **self._named}


_levels = Levels("info", {})
_limit = RepeatLimit()
_writer: LogWriter | None = None


class _ComponentLogger:
    """Where lines of one component go: its module's name without `tradeback.`, or that of a library."""

    def __init__(self, writer: LogWriter, component: str) -> None:
        self.component = component
        self._writer = writer

    def msg(self, line: str) -> None:
        """Write a line, which says its level itself."""
        self._writer.write(line)

    debug = info = warning = error = critical = msg


class _FromLibraries(logging.Handler):
    """Hands what libraries log over to structlog."""

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno < _levels.of(record.name, library=True):
            return
        # What varies stands in a library's message itself; before it is put in, repeats look alike.
        structlog.get_logger(LIBRARIES).log(
            record.levelno,
            record.getMessage(),
            logger=record.name,
            exc_info=record.exc_info,
            same_as=f"{record.name}: {record.msg}",
        )


def set_up_logging(config: LogConfig, stream: TextIO | None = None) -> None:
    """At the start of a process, and again where the configuration changed. `stream` is standard error by default."""
    global _levels, _writer
    stream = stream or sys.stderr
    _tell_left_out(all_of_them=True)
    named = dict(entry.split("=", 1) for entry in config.levels)
    _levels = Levels(config.level, named)
    pretty = config.format == "console" or (config.format == "auto" and stream.isatty())
    written: list[Processor]
    if pretty:
        written = [
            _escape,
            structlog.dev.ConsoleRenderer(colors=stream.isatty(), exception_formatter=_traceback),
        ]
    else:
        # Values of variables are not written with a traceback: a password may be among them.
        told = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
        written = [
            structlog.processors.ExceptionRenderer(told),
            _clip,
            structlog.processors.JSONRenderer(default=str),
        ]
    shared: list[Any] = [
        add_asking,
        _of_its_level,
        structlog.processors.add_log_level,
        _count,
        _limited,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    if _writer is not None:
        _writer.close()
    writer = _writer = LogWriter(stream, _lost_as_text if pretty else _lost_as_json)
    structlog.configure(
        processors=shared + written,
        wrapper_class=structlog.make_filtering_bound_logger(_levels.least),
        logger_factory=lambda name=LIBRARIES, *_: _ComponentLogger(writer, name.removeprefix("tradeback.")),
        cache_logger_on_first_use=False,
    )
    logging.root.handlers = [_FromLibraries()]
    logging.root.setLevel(min(_levels.least, logging.WARNING))
    logging.captureWarnings(True)


def change_level(message: Mapping[str, Any]) -> dict[str, Any]:
    """What `log` on a control socket does: `level`, and the `component` whose it is from now on; without a component
    everybody's. Without a level it tells what is in force. ProtocolError where it cannot be."""
    level, component = message.get("level"), message.get("component", "")
    if not isinstance(component, str) or len(component) > CLIPPED:
        raise ProtocolError("bad_field", "log takes component: a name such as server.feed")
    if level is not None:
        if level not in LEVELS:
            raise ProtocolError("bad_field", f"log takes level: one of {', '.join(LEVELS)}")
        _levels.change(level, component)
        structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(_levels.least))
        logging.root.setLevel(min(_levels.least, logging.WARNING))
    return {"type": "log", "levels": _levels.told()}


def _number(level: str) -> int:
    return logging.getLevelNamesMapping()[level.upper()]


def _of_its_level(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    """Drop what is below its component's level, name the component as `logger`, and first tell what was left out."""
    if _LEFT_OUT not in event:
        _tell_left_out()
    component = getattr(logger, "component", LIBRARIES)
    if component == LIBRARIES:
        return event
    if _number("error" if method in ("critical", "exception") else method) < _levels.of(component):
        raise structlog.DropEvent
    event["logger"] = component
    return event


def _count(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    if method in LIMITED and _LEFT_OUT not in event:
        for counted in _counted:
            counted(getattr(logger, "component", LIBRARIES), "warning" if method == "warning" else "error")
    return event


def _limited(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    return event if event.pop(_LEFT_OUT, False) else _limit(logger, method, event)


def _tell_left_out(*, all_of_them: bool = False) -> None:
    """A line for each event of which something was left out, and which did not come again."""
    for left in _limit.take_due(all_of_them=all_of_them):
        logger = structlog.get_logger(left.component)
        getattr(logger, left.level)(left.event, suppressed=left.suppressed, **{_LEFT_OUT: True})


def _clip(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    return {name: _clipped(value) for name, value in event.items()}


def _clipped(value: Any) -> Any:
    if isinstance(value, str):
        if len(value) > CLIPPED:
            value = f"{value[:CLIPPED]}... ({len(value) - CLIPPED} characters more)"
        # What is no text, such as an unpaired surrogate, would make the line no JSON.
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {key: _clipped(one) for key, one in value.items()}
    return [_clipped(one) for one in value] if isinstance(value, list | tuple) else value


def _escape(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """For a terminal: nothing in a value may move its cursor or begin a line."""
    plain = {}
    for name, value in event.items():
        if name in ("exc_info", "timestamp", "level"):
            plain[name] = value
        else:
            text = value if isinstance(value, str) else repr(value)
            plain[name] = _CONTROL.sub(_escaped, str(_clipped(text)))
    return plain


def _escaped(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode()


def _traceback(out: TextIO, exc_info: Any) -> None:
    """Without the values of variables, and with nothing that would steer a terminal."""
    text = "".join(map(_clipped, traceback.format_exception(*exc_info)))
    out.write("\n" + _CONTROL_OF_TEXT.sub(_escaped, text.rstrip("\n")))


def _lost_as_json(lost: int) -> str:
    return orjson.dumps({**_lost(lost), "timestamp": datetime.now(UTC)}, option=orjson.OPT_UTC_Z).decode()


def _lost_as_text(lost: int) -> str:
    return " ".join(map(str, _lost(lost).values()))


def _lost(lost: int) -> dict[str, object]:
    return {
        "level": "error",
        "event": "lines of the log could not be written",
        "lost": lost,
        "component": "log",
    }


atexit.register(_tell_left_out, all_of_them=True)
os.register_at_fork(after_in_child=_limit.begin_anew)
