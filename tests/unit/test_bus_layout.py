"""The messages of the bus: the documented bytes, and what is none."""

from __future__ import annotations

import math
import re

import pytest

from tests.conftest import CHECKOUT
from tradeback.errors import BusError
from tradeback.store.bus_layout import (
    FORMATS,
    HEADER_FORMAT,
    BusLevel,
    BusPrice,
    BusRecord,
    BusTrade,
    decode_message,
    encode_message,
)

DOCUMENT = (CHECKOUT / "docs" / "bus.md").read_text()
EXAMPLES: dict[str, BusRecord] = {
    "trades": BusTrade(42000.5, 0.125, 42000.25, 42000.75, 1234567, 1_700_000_000_123_000_000, 850, 2, 0x11),
    "prices": BusPrice(42000.5, 42000.25, 42000.75, 1234567, 1_700_000_000_123_000_000),
    "enigma": BusLevel.of(25.0, 69000.0, 33000.0, 42000.0, 1_700_000_000_123_000_000),
}


@pytest.mark.parametrize("subject", EXAMPLES)
def test_the_documented_bytes(subject: str) -> None:
    found = re.search(rf"```{subject}\n([0-9a-f \n]+)```", DOCUMENT)
    assert found is not None
    record = EXAMPLES[subject]
    assert encode_message(258, [record]) == bytes.fromhex(found[1])
    assert decode_message(bytes.fromhex(found[1])) == (258, [record])


def test_the_documented_formats() -> None:
    for text in (HEADER_FORMAT, *FORMATS.values()):
        assert f"`{text}`" in DOCUMENT


def test_no_level_is_no_number() -> None:
    _, (level,) = decode_message(encode_message(1, [BusLevel.of(None, 2.0, 2.0, 2.0, 3)]))
    assert isinstance(level, BusLevel)
    assert math.isnan(level.level)


def test_what_is_no_message_is_refused() -> None:
    whole = encode_message(1, [EXAMPLES["prices"]])
    for data in (b"", whole[:7], whole[:-1], whole + b"\0", b"\x02" + whole[1:], b"\x01\x09" + whole[2:]):
        with pytest.raises(BusError):
            decode_message(data)
