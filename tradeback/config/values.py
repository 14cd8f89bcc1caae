"""The types of settings: how text of a file or a variable becomes a value, and what it may be, in words."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin
from urllib.parse import urlsplit

from annotated_types import Ge, Le
from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer, SecretStr
from pydantic.fields import FieldInfo

from tradeback.config.units import (
    DURATION_WORDS,
    SIZE_WORDS,
    format_duration,
    format_size,
    parse_duration,
    parse_size,
)

SYMBOL_MAX_BYTES = 50  # symbolsmap.symbol is VARCHAR(50), and the decoder reads no longer name
SPIN_FULL = -1.0


@dataclass(frozen=True, slots=True)
class Words:
    """What a type allows, in words; stands in its Annotated, for messages and the reference page."""

    text: str


def allowed_values(field: FieldInfo) -> str:
    """The values that a setting may have, in words."""
    words = next((extra.text for extra in field.metadata if isinstance(extra, Words)), None)
    # A type's own limit stands before that of the setting, which is the narrower one.
    least = max((extra.ge for extra in field.metadata if isinstance(extra, Ge)), default=None)  # type: ignore[type-var]
    most = min((extra.le for extra in field.metadata if isinstance(extra, Le)), default=None)  # type: ignore[type-var]
    if words == SIZE_WORDS and isinstance(least, int) and least > 0:
        return f"{words}, at least {format_size(least)}"
    if words is not None:
        return words
    if get_origin(field.annotation) is Literal:
        *others, last = get_args(field.annotation)
        return f"{', '.join(others)} or {last}"
    if field.annotation is bool:
        return "true or false"
    if field.annotation is int:
        return f"a whole number from {least} to {most}" if most else f"a whole number, at least {least}"
    return "a path" if field.annotation is Path else "text"


def setting(default: object, doc: str, *, env: str | None = None) -> Any:
    """A field with its doc line; `env` where the variable is not the prefix of the section and the name."""
    return Field(default, description=doc, json_schema_extra={"env": env} if env else None)


def _duration(value: object) -> object:
    return parse_duration(value) if isinstance(value, str) else value


def _spin(value: object) -> object:
    return SPIN_FULL if value == "full" else _duration(value)


def _spin_range(seconds: float) -> float:
    if seconds != SPIN_FULL and not 0 <= seconds <= 1:
        raise ValueError("out of range")
    return seconds


def _format_spin(seconds: float) -> str:
    return "full" if seconds == SPIN_FULL else format_duration(seconds)


def _size(value: object) -> object:
    return parse_size(value) if isinstance(value, str) else value


def _list(value: object) -> object:
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def _component_level(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][\w.]*=(debug|info|warning|error)", text):
        raise ValueError("not a component and its level")
    return text


def _symbol(name: str) -> str:
    if not name.isprintable() or " " in name or not 0 < len(name.encode()) <= SYMBOL_MAX_BYTES:
        raise ValueError("not a symbol")
    return name.upper()


def _origin(origin: str) -> str:
    scheme, _, host = origin.partition("://")
    if origin != "*" and (not scheme or not host or "/" in host):
        raise ValueError("not an origin")
    return origin


def _rate(text: str) -> str:
    if not _RATE.fullmatch(text):
        raise ValueError("not a rate")
    return text


_RATE = re.compile(r"off|[1-9][0-9]{0,11}/(second|minute|hour|day)")


def _one_line(text: str) -> str:
    # In a header, a handshake or a DSN, what stands after a line break would be something else.
    if any(unicodedata.category(character) == "Cc" for character in text):
        raise ValueError("control characters")
    return text


def _one_line_secret(secret: SecretStr) -> SecretStr:
    _one_line(secret.get_secret_value())
    return secret


def _header_secret(secret: SecretStr) -> SecretStr:
    if not secret.get_secret_value().isascii():
        raise ValueError("not for a header")
    return secret


def _url(*schemes: str, cluster: bool = False) -> tuple[AfterValidator, Words]:
    """With a host, a port that can be, and no query. Of a `cluster` there may be several, and each may name a user,
    with that percent-encoded."""

    def check(url: str) -> str:
        parts = urlsplit(url)
        plain = not any(character.isspace() for character in url) and "@" not in parts.path
        whole = (
            parts.hostname
            and "," not in parts.hostname
            and parts.port != 0
            and not parts.query
            and not parts.fragment
        )
        if not url.startswith(schemes) or not (plain and whole) or parts.netloc.count("@") > cluster:
            raise ValueError("not such a URL")
        return _one_line(url).rstrip("/")

    def check_all(text: str) -> str:
        urls = [check(url) for url in (servers_of(text) if cluster else [text]) if url]
        if len({urlsplit(url).scheme for url in urls}) > 1:
            raise ValueError("a cluster of which TLS would verify some")
        return ",".join(urls)

    words = f"a URL that begins with {' or '.join(schemes)}"
    if cluster:
        words += (
            ", or several with the same beginning, separated by commas; within user and password, signs such as "
            "@ / : % are written %40 %2F %3A %25"
        )
    return AfterValidator(check_all), Words(words)


def servers_of(text: str) -> list[str]:
    """The addresses of a cluster. A comma that no address follows is part of a password."""
    return re.split(rf",{_NEXT_SERVER}", text)


_NEXT_SERVER = r"\s*(?=(?:nats|tls)://)"


_seconds = (BeforeValidator(_duration), PlainSerializer(format_duration))
Duration = Annotated[float, *_seconds, Field(ge=0, allow_inf_nan=False), Words(DURATION_WORDS)]
Span = Annotated[float, *_seconds, Field(gt=0, allow_inf_nan=False), Words(f"{DURATION_WORDS}, above 0")]
Spin = Annotated[
    float,
    BeforeValidator(_spin),
    AfterValidator(_spin_range),
    PlainSerializer(_format_spin),
    Words("a duration from 0s to 1s such as 50us, or full"),
]
Size = Annotated[int, BeforeValidator(_size), PlainSerializer(format_size), Field(ge=0), Words(SIZE_WORDS)]
Port = Annotated[int, Field(ge=0, le=65535)]
Count = Annotated[int, Field(ge=1)]
WsUrl = Annotated[str, *_url("ws://", "wss://")]
HttpUrl = Annotated[str, *_url("http://", "https://")]
NatsUrl = Annotated[str, *_url("nats://", "tls://", cluster=True)]
Text = Annotated[str, AfterValidator(_one_line), Words("text of one line")]
CaFile = Annotated[str, AfterValidator(_one_line), Words("a path")]
Secret = Annotated[SecretStr, AfterValidator(_one_line_secret), Words("text of one line")]
HeaderSecret = Annotated[
    SecretStr,
    AfterValidator(_one_line_secret),
    AfterValidator(_header_secret),
    Words("text of one line in ASCII"),
]
Texts = Annotated[
    tuple[str, ...], BeforeValidator(_list), Words("a list, in the environment separated by commas")
]
Origins = Annotated[
    tuple[Annotated[str, AfterValidator(_origin)], ...],
    BeforeValidator(_list),
    Words("a list of origins such as https://example.org, or *"),
]
Networks = Annotated[
    tuple[IPv4Network | IPv6Network, ...],
    BeforeValidator(_list),
    Words("a list of addresses and networks such as 127.0.0.1,10.0.0.0/8"),
]
Rate = Annotated[
    str,
    AfterValidator(_rate),
    Words("a number of requests a time such as 600/minute (or second, hour, day), or off"),
]
ComponentLevels = Annotated[
    tuple[Annotated[str, AfterValidator(_component_level)], ...],
    BeforeValidator(_list),
    Words("a list of component=level, where a level is debug, info, warning or error"),
]
Symbols = Annotated[
    tuple[Annotated[str, AfterValidator(_symbol)], ...],
    BeforeValidator(_list),
    Words("a list of symbols such as BTCUSDT,ETHUSDT"),
]


# Up to the last @ of the line, or before the next server of a cluster: a password that was not encoded may hold others.
# A name alone is a token.
_LOGIN = re.compile(rf"://(?:(?P<user>[^/@:]*):)?(?:(?!,{_NEXT_SERVER})[^\n])*@")


def without_passwords(text: str) -> str:
    """The same with *** in place of the password, or the token, of the address in each line of it."""
    return _LOGIN.sub(lambda found: f"://{found['user']}:***@" if found["user"] else "://***@", text)
