"""The log: what is written of which component, at what rate, and that nobody's text forges a line or holds one up."""

from __future__ import annotations

import contextlib
import fcntl
import io
import logging
import os
import socket
from collections.abc import Iterator
from typing import Literal

import orjson
import pytest
import structlog

from tradeback.config import LogConfig
from tradeback.errors import ProtocolError
from tradeback.log import CLIPPED, change_level, set_up_logging
from tradeback.log.repeats import REMEMBERED_EVENTS, REPEATS, WINDOW_S, LeftOut, RepeatLimit
from tradeback.log.writer import LogWriter


@pytest.fixture(autouse=True)
def _leave_logging_as_it_was(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr("tradeback.log._limit", RepeatLimit())
    handlers, level = logging.root.handlers, logging.root.level
    yield
    logging.root.handlers, logging.root.level = handlers, level
    structlog.reset_defaults()


def lines(stream: io.StringIO) -> list[dict[str, object]]:
    return [orjson.loads(line) for line in stream.getvalue().splitlines()]


def test_json_where_there_is_no_terminal() -> None:
    stream = io.StringIO()
    set_up_logging(LogConfig(), stream)
    structlog.get_logger().info("feed connected", feed=1)
    structlog.get_logger().debug("not asked for")
    (line,) = lines(stream)
    assert line.pop("timestamp")
    assert line == {"event": "feed connected", "feed": 1, "level": "info"}


def test_readable_lines_where_asked_for() -> None:
    stream = io.StringIO()
    set_up_logging(LogConfig(format="console"), stream)
    structlog.get_logger().info("feed connected", feed=1)
    assert "feed connected" in stream.getvalue()
    assert "feed=1" in stream.getvalue()


def test_an_exception_comes_with_its_traceback() -> None:
    stream = io.StringIO()
    set_up_logging(LogConfig(), stream)
    try:
        raise ValueError("odd")
    except ValueError:
        structlog.get_logger().exception("flush failed")
    (line,) = lines(stream)
    assert line["exception"][0]["exc_value"] == "odd"  # type: ignore[index]


@pytest.mark.parametrize("form", ["json", "console"])
def test_a_traceback_has_no_values_of_variables(form: Literal["json", "console"]) -> None:
    stream = io.StringIO()
    set_up_logging(LogConfig(format=form), stream)

    def look_at(password: str) -> None:
        raise ValueError("odd")

    try:
        look_at("".join(["correct", "horse"]))
    except ValueError:
        structlog.get_logger().exception("a request failed")
    assert "look_at" in stream.getvalue()
    assert "correcthorse" not in stream.getvalue()


def test_libraries_come_out_the_same_way() -> None:
    stream = io.StringIO()
    set_up_logging(LogConfig(), stream)
    logging.getLogger("asyncio").warning("slow %s", "callback")
    logging.getLogger("asyncio").info("chatter")
    (line,) = lines(stream)
    assert (line["event"], line["level"], line["logger"]) == ("slow callback", "warning", "asyncio")


def test_a_librarys_repeats_are_told_by_the_message_before_what_varies_is_put_in() -> None:
    stream = io.StringIO()
    set_up_logging(LogConfig(), stream)
    for number in range(REPEATS * 3):
        logging.getLogger("picows").error("WS parser error: %s", number)
        logging.getLogger("picows").warning("another")
    assert len(lines(stream)) == REPEATS * 2
    assert all("same_as" not in line for line in lines(stream))


def test_repeated_errors_are_counted_instead_of_written() -> None:
    now = 0.0
    limit = RepeatLimit(lambda: now)

    def written(method: str, name: str) -> dict[str, object] | None:
        try:
            return dict(limit(None, method, {"event": name}))
        except structlog.DropEvent:
            return None

    assert [written("error", "full")] * REPEATS == [{"event": "full"}] * REPEATS
    for _ in range(REPEATS - 1):
        written("error", "full")
    assert [written("error", "full") for _ in range(3)] == [None] * 3
    assert written("warning", "other") == {"event": "other"}
    assert [written("info", "chatter") for _ in range(REPEATS * 2)] == [{"event": "chatter"}] * REPEATS * 2
    now = WINDOW_S
    assert written("error", "full") == {"event": "full", "suppressed": 3}
    assert written("error", "full") == {"event": "full"}


def test_the_limit_remembers_a_bounded_number_of_events() -> None:
    limit = RepeatLimit(lambda: 0.0)
    for n in range(REMEMBERED_EVENTS * 3):
        limit(None, "error", {"event": f"e{n}"})
    assert len(limit._seen) == REMEMBERED_EVENTS


def test_what_was_left_out_of_an_event_that_ended_is_told_once() -> None:
    now = 0.0
    limit = RepeatLimit(lambda: now)
    for _ in range(REPEATS + 57):
        with contextlib.suppress(structlog.DropEvent):
            limit(None, "error", {"event": "full"})
    assert limit.take_due() == []
    now = WINDOW_S
    assert limit.take_due() == [LeftOut("", "error", "full", 57)]
    assert limit.take_due(all_of_them=True) == []


def test_the_next_line_brings_what_was_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("tradeback.log._limit", RepeatLimit(lambda: now))
    stream = io.StringIO()
    set_up_logging(LogConfig(), stream)
    for _ in range(REPEATS + 3):
        structlog.get_logger("tradeback.store").error("full")
    now = WINDOW_S
    structlog.get_logger("tradeback.server").info("another")
    told = lines(stream)[REPEATS:]
    assert [(line["event"], line.get("suppressed"), line["logger"]) for line in told] == [
        ("full", 3, "store"),
        ("another", None, "server"),
    ]


def logged(stream: io.StringIO) -> list[tuple[object, object]]:
    """Logger and level of what was written since the last time."""
    told = [(line["logger"], line["level"]) for line in lines(stream)]
    stream.seek(0)
    stream.truncate()
    return told


def say_everything() -> None:
    for component in ("server.feed", "server.hub", "store.mysql"):
        logger = structlog.get_logger(f"tradeback.{component}")
        logger.debug("odd")
        logger.info("well")


def test_levels_are_those_of_the_longest_name_that_fits_and_can_be_changed_at_any_time() -> None:
    stream = io.StringIO()
    set_up_logging(LogConfig(levels=("server=warning", "server.feed=debug")), stream)
    say_everything()
    assert logged(stream) == [("server.feed", "debug"), ("server.feed", "info"), ("store.mysql", "info")]
    assert change_level({"level": "debug", "component": "store"})["levels"] == {
        "all": "info",
        "server": "warning",
        "server.feed": "debug",
        "store": "debug",
    }
    say_everything()
    assert logged(stream)[2:] == [("store.mysql", "debug"), ("store.mysql", "info")]
    change_level({"level": "error", "component": ""})
    say_everything()
    logging.getLogger("asyncio").warning("slow")
    assert logged(stream) == []
    change_level({"level": "info", "component": "asyncio"})
    logging.getLogger("asyncio").info("slow")
    assert logged(stream) == [("asyncio", "info")]


@pytest.mark.parametrize(
    "message",
    [{"level": "loud"}, {"level": 10}, {"level": "info", "component": 1}, {"component": "x" * 10_000}],
)
def test_a_level_that_cannot_be_is_refused(message: dict[str, object]) -> None:
    with pytest.raises(ProtocolError):
        change_level(message)


HOSTILE = [
    '\n{"event":"logged in","user":"root"}',
    "\r\x1b[2J\x1b]0;title\x07",
    "\u2028\u202e\x85\x9b31m",
    "\udc80\ud800",
    "\x00" * 10,
    "x" * 1_000_000,
    '"},{"',
]


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("form", ["json", "console"])
def test_nobodys_text_forges_a_line_or_steers_a_terminal(form: Literal["json", "console"], text: str) -> None:
    stream = io.StringIO()
    set_up_logging(LogConfig(format=form), stream)
    structlog.get_logger("tradeback.api").info("refused", path=text, **{"header": [text, {"deep": text}]})
    logging.getLogger("gunicorn").warning("odd request: %s", text)
    try:
        raise ValueError(text)
    except ValueError:
        structlog.get_logger("tradeback.api").exception("a request failed")
    written = stream.getvalue()
    assert len(written) < 20 * CLIPPED
    written.encode()
    assert not [one for one in written if one != "\n" and not one.isprintable()]
    if form == "json":
        assert [line["event"] for line in lines(stream)][0::2] == ["refused", "a request failed"]
        assert len(lines(stream)) == 3
    else:
        assert not any("refused" not in line and "logged in" in line for line in written.splitlines()[:1])


def writer_of(descriptor: int) -> LogWriter:
    return LogWriter(open(descriptor, "w", closefd=False), lambda lost: f"{lost} lost")


def test_a_pipe_that_nobody_reads_holds_nobody_up() -> None:
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    writer = writer_of(writing)
    for number in range(1_000):
        writer.write(f"line {number} {'x' * 90}")
    first = os.read(reading, 1 << 16).decode()
    writer.write("line last")
    rest = os.read(reading, 1 << 16).decode()
    whole = (first + rest).splitlines()
    kept = [line for line in whole if line.startswith("line")]
    assert whole[-1] == "line last"
    assert whole[-2] == f"{1_000 - (len(kept) - 1)} lost"
    assert kept[:-1] == [f"line {number} {'x' * 90}" for number in range(len(kept) - 1)]
    # Those who share the pipe still wait for it.
    assert not fcntl.fcntl(writing, fcntl.F_GETFL) & os.O_NONBLOCK
    writer.close()
    os.close(reading)
    writer = writer_of(writing)
    writer.write("to nobody")
    writer.close()
    os.close(writing)


def test_a_socket_that_nobody_reads_holds_nobody_up() -> None:
    ours, theirs = socket.socketpair()
    writer = writer_of(ours.fileno())
    for number in range(10_000):
        writer.write(f"line {number} {'x' * 90}")
    received = b""
    theirs.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            received += theirs.recv(1 << 16)
    writer.write("line last")
    received += theirs.recv(1 << 16)
    whole = received.decode().splitlines()
    assert whole[-1] == "line last"
    assert whole[-2].endswith(" lost")
    assert all(line.startswith("line ") for line in whole[:-2])
    writer.close()
    ours.close()
    theirs.close()
