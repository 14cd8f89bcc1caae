from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from typing import Literal

import orjson
import pytest
import structlog

from tradeback.config import LogConfig
from tradeback.log import REMEMBERED_EVENTS, REPEATS, WINDOW_S, RepeatLimit, set_up_logging


@pytest.fixture(autouse=True)
def _leave_logging_as_it_was() -> Iterator[None]:
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
