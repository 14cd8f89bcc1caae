"""Parameters of a query and fields of a body, read strictly: what is wrong is answered 400 with its name."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any
from urllib.parse import parse_qsl

import orjson
from falcon import Request

from tradeback.api.answers import JSON, Refused
from tradeback.model import RESOLUTIONS

MAX_FIELDS = 20
MAX_TEXT = 50  # what of a value is repeated in a message
MAX_SECONDS = 9_000_000_000  # as ns it still is an int64
SECOND_NS = 1_000_000_000


def bad(name: str, message: str) -> Refused:
    """The refusal of one parameter."""
    return Refused(400, "bad_parameter", f"{name}: {message}", parameter=name)


def query(request: Request, known: Collection[str], *, strict: bool = True) -> dict[str, str]:
    """The parameters of a request by name. Refused where one is unknown (with `strict`), twice there, or no UTF-8."""
    if not request.query_string:
        return {}
    try:
        pairs = parse_qsl(
            request.query_string, keep_blank_values=True, errors="strict", max_num_fields=MAX_FIELDS
        )
    except ValueError as error:
        raise bad("query", f"it is no list of name=value in UTF-8, at most {MAX_FIELDS} of them") from error
    found: dict[str, str] = {}
    for name, value in pairs:
        if name not in known:
            if strict:
                shown = name[:MAX_TEXT]
                raise bad(shown, f"there is no such parameter here, only {', '.join(known) or 'none'}")
            continue
        if name in found:
            raise bad(name, "it may be given once")
        if "\0" in value:
            raise bad(name, "it may not hold a NUL")
        found[name] = value
    return found


def json_object(request: Request, fields: Mapping[str, type]) -> dict[str, Any]:
    """The JSON object of a body: exactly these fields, of these types."""
    kind, _, charset = (request.content_type or "").lower().partition(";")
    if kind.strip() != JSON or charset.strip() not in ("", "charset=utf-8"):
        raise Refused(415, "bad_media_type", f"Content-Type: send {JSON}", parameter="Content-Type")
    try:
        content = orjson.loads(request.bounded_stream.read())
    except orjson.JSONDecodeError:
        raise bad("body", "it is no JSON in UTF-8") from None
    if not isinstance(content, dict):
        raise bad("body", f"give an object with {', '.join(fields)}")
    for name in content:
        if name not in fields:
            raise bad(name[:MAX_TEXT], f"there is no such field here, only {', '.join(fields)}")
    for name, type_ in fields.items():
        if not isinstance(content.get(name), type_):
            raise bad(name, f"give {_TYPES[type_]}")
    return content


_TYPES: dict[type, str] = {str: "a text", list: "a list"}


def integer(given: dict[str, str], name: str, low: int, high: int) -> int | None:
    """An integer from `low` to `high`; None where it is not given."""
    text = given.get(name)
    if text is None:
        return None
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 20) or not low <= int(text) <= high:
        raise bad(name, f"give an integer from {low} to {high}, not {text[:MAX_TEXT]!r}")
    return int(text)


def seconds(given: dict[str, str], name: str) -> int | None:
    """A time in unix seconds, as ns; None where it is not given."""
    value = integer(given, name, 0, MAX_SECONDS)
    return None if value is None else value * SECOND_NS


def resolution(given: dict[str, str], default: str = "1m") -> str:
    """One of RESOLUTIONS."""
    text = given.get("resolution", default)
    if text not in RESOLUTIONS:
        raise bad("resolution", f"give one of {', '.join(RESOLUTIONS)}, not {text[:MAX_TEXT]!r}")
    return text
