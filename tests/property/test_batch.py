from __future__ import annotations

import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.reference import batch as oracle
from tradeback._fast.batch import CRC32_METHOD, crc32_of, crc32_portable_of, encode_frames
from tradeback._fast.record import LAYOUT

doubles = st.floats(allow_nan=False, allow_infinity=False)
records = st.lists(st.tuples(st.integers(1, 65535), doubles, doubles), max_size=180)


@pytest.mark.parametrize("crc32", [crc32_of, crc32_portable_of])
def test_crc_is_that_of_zlib_at_every_length_and_alignment(crc32) -> None:  # type: ignore[no-untyped-def]
    data = bytes(i * 7 + (i >> 3) & 255 for i in range(2200))
    for start in range(17):
        for size in (*range(300), 902, 1024, 2100):
            piece = memoryview(data)[start : start + size]
            assert crc32(piece) == zlib.crc32(piece), (start, size)


@pytest.mark.parametrize("crc32", [crc32_of, crc32_portable_of])
@given(first=st.binary(max_size=300), second=st.binary(max_size=300))
def test_crc_goes_on_where_it_ended(crc32, first: bytes, second: bytes) -> None:  # type: ignore[no-untyped-def]
    assert crc32(second, crc32(first)) == zlib.crc32(first + second)


def test_the_method_is_one_of_the_two_written() -> None:
    assert CRC32_METHOD in {"pclmulqdq", "slicing-by-8"}


@given(records)
def test_frames_are_those_of_the_reference(content: list[oracle.Record]) -> None:
    assert encode_frames(content) == oracle.encode_frames(content)


@given(records)
def test_frames_read_back_as_what_was_put_in(content: list[oracle.Record]) -> None:
    assert oracle.decode_stream(encode_frames(content)) == content


def test_the_references_numbers_are_those_of_the_compiled_layout() -> None:
    assert LAYOUT["records_per_frame"] == oracle.RECORDS_PER_FRAME
    assert (
        len(oracle.encode_payload([(1, 2.0, 3.0)]))
        == LAYOUT["frame_header_bytes"] + LAYOUT["wire_record_bytes"]
    )


def test_a_frame_of_one_and_of_fifty_records_to_the_byte() -> None:
    one = encode_frames([(1, 50000.5, 0.25)])
    assert one.hex() == "8218" + "ca937af6" + "0100" + "0100" + "00000000106ae840" + "000000000000d03f"
    fifty = encode_frames([(i, 1.0, 2.0) for i in range(1, 51)])
    assert fifty[:4].hex() == "827e038a"
    assert len(fifty) == 4 + 906
