"""docs/protocol.md says what the code does: its tables and test vectors are read and compared."""

from __future__ import annotations

import re

import pytest

from tests.conftest import CHECKOUT
from tests.reference.batch import decode_payload
from tradeback._fast.batch import encode_frames
from tradeback._fast.listener import check_picows
from tradeback.errors import CLOSE_REASONS, CloseCode
from tradeback.server.protocol import ERROR_CODES
from tradeback.server.settling import WAIT_LIMIT

TEXT = (CHECKOUT / "docs" / "protocol.md").read_text()


def rows(heading: str) -> list[tuple[str, ...]]:
    """The cells of the table that has this heading row."""
    lines = TEXT.split(f"\n{heading}\n", 1)[1].splitlines()[1:]
    table = lines[: next((i for i, line in enumerate(lines) if not line.startswith("|")), len(lines))]
    return [tuple(cell.strip() for cell in line.strip("|").split("|")) for line in table]


def test_close_codes_are_those_of_the_code() -> None:
    expected = [(str(int(code)), reason.when, reason.reconnect) for code, reason in CLOSE_REASONS.items()]
    assert rows("| code | when | connect again |") == expected
    assert set(CLOSE_REASONS) == set(CloseCode)


def test_how_long_a_login_is_waited_for_is_that_of_the_code() -> None:
    (seconds,) = re.findall(r"since the recorder is away, with 1012 after (\w+)\.", TEXT)
    assert seconds == f"{WAIT_LIMIT:g}"


def test_error_codes_are_those_of_the_code() -> None:
    assert rows("| code | when |") == [(f"`{code}`", when) for code, when in ERROR_CODES.items()]


@pytest.mark.parametrize(
    ("index", "records"),
    [(0, [(1, 50000.5, 0.25)]), (1, [(1, 50000.5, 0.25), (65535, 0.00000001, 0.0)])],
)
def test_vectors_are_what_is_sent(index: int, records: list[tuple[int, float, float]]) -> None:
    vectors = [bytes.fromhex(line) for line in re.findall(r"^    ([0-9a-f]{40,})$", TEXT, re.MULTILINE)]
    assert len(vectors) == 2
    assert decode_payload(vectors[index]) == records
    assert encode_frames(records)[2:] == vectors[index]


def test_a_picows_other_than_the_one_compiled_against_is_refused() -> None:
    with pytest.raises(ImportError, match=r"and picows 2\.3\.0 is installed"):
        check_picows("2.3.0")
