"""Durations such as `250ms` and sizes such as `64MiB`, as people write them; inside: seconds and bytes."""

from __future__ import annotations

import re
from decimal import Decimal

DURATION_WORDS = "a duration such as 250ms, 15s, 5m or 24h"
SIZE_WORDS = "a size such as 16384, 64KiB or 2GiB"

# Seconds; from the largest to the smallest, for printing takes the first that leaves a whole number.
_SECONDS = {
    "d": Decimal(86_400),
    "h": Decimal(3_600),
    "m": Decimal(60),
    "s": Decimal(1),
    "ms": Decimal("1e-3"),
    "us": Decimal("1e-6"),
    "ns": Decimal("1e-9"),
}
_BYTES = {
    "TiB": 1 << 40,
    "GiB": 1 << 30,
    "MiB": 1 << 20,
    "KiB": 1 << 10,
    "TB": 10**12,
    "GB": 10**9,
    "MB": 10**6,
    "kB": 10**3,
    "B": 1,
}
_DURATION_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ns|us|µs|ms|s|m|h|d)", re.ASCII)
_NUMBER = re.compile(r"[0-9]+(?:\.[0-9]+)?", re.ASCII)
_SIZE = re.compile(r"([0-9]+) ?(TiB|GiB|MiB|KiB|TB|GB|MB|kB|KB|B)?", re.ASCII)


def parse_duration(text: str) -> float:
    """Seconds of `1h30m`, `250ms` and the like; a bare number is seconds. ValueError where it is neither."""
    text = text.strip()
    if _NUMBER.fullmatch(text):
        return float(text)
    parts = list(_DURATION_PART.finditer(text))
    if not parts or "".join(part.group() for part in parts) != text:
        raise ValueError(f"{text!r} is not {DURATION_WORDS}")
    seconds = (Decimal(part[1]) * _SECONDS[part[2].replace("µ", "u")] for part in parts)
    return float(sum(seconds, Decimal(0)))


def format_duration(seconds: float) -> str:
    """The shortest text that `parse_duration` reads as exactly these seconds; `seconds` is not negative."""
    if seconds == 0:
        return "0s"
    exact = Decimal(repr(seconds))
    for unit, size in _SECONDS.items():
        count = exact / size
        if count == count.to_integral_value() and count * size == exact:
            return f"{int(count)}{unit}"
    return f"{exact:f}s"


def parse_size(text: str) -> int:
    """Bytes of `64MiB` (powers of 1024), `64MB` (powers of 1000) and the like; a bare number is bytes."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is not {SIZE_WORDS}")
    unit = (match[2] or "B").replace("KB", "kB")
    return int(match[1]) * _BYTES[unit]


def format_size(size: int) -> str:
    """The text with the largest binary unit that leaves a whole number; bytes without a unit."""
    for unit, scale in _BYTES.items():
        if unit.endswith("iB") and size and size % scale == 0:
            return f"{size // scale}{unit}"
    return str(size)
