"""The journal's files read again in plain Python: what any reader may at most see."""

from __future__ import annotations

import struct
from pathlib import Path

HEADER = struct.Struct("<8sII64sQQQqI12xQQ")
RECORD_BYTES = 64


def _after_eight_bits(crc: int) -> int:
    for _ in range(8):
        crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc


_TABLE = [_after_eight_bits(byte) for byte in range(256)]


def crc32c(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


def is_whole(record: bytes, seq: int) -> bool:
    return record[58] != 0 and crc32c(record[:60] + seq.to_bytes(8, "little")) == int.from_bytes(
        record[60:], "little"
    )


def read_journal(folder: Path) -> dict[int, bytes]:
    """Every committed, whole record by its sequence number."""
    found = {}
    for path in sorted(folder.glob("*.segment")):
        data = path.read_bytes()
        magic, version, start, _, first_seq, capacity, _, _, _, committed, _ = HEADER.unpack_from(data)
        assert (magic, version) == (b"TBJOURNL", 1)
        assert len(data) == start + capacity * RECORD_BYTES
        for place in range(min(committed, capacity)):
            record = data[start + place * RECORD_BYTES :][:RECORD_BYTES]
            if is_whole(record, first_seq + place):
                found[first_seq + place] = record
    return found
