"""Prints docs/protocol-vectors.json: `python -m tests.documents.vectors > docs/protocol-vectors.json`.

Frames as hex with what they say, made by the compiled encoder, and bytes that must be refused, with the reason.
"""

from __future__ import annotations

import json
import struct
import zlib
from typing import Any

from tests.reference.batch import Record, split_ws_frames
from tradeback._fast.batch import encode_frames

VALID: dict[str, list[Record]] = {
    "one record": [(1, 50000.5, 0.25)],
    "two records, the highest id, a volume of 0": [(1, 50000.5, 0.25), (65535, 1e-08, 0.0)],
    "decimals that no double holds exactly": [(7, 0.1, 0.3), (8, 96543.21, 0.00001)],
    "the largest and the smallest doubles": [(1, 1.7976931348623157e308, 5e-324)],
    "an integer that a float of 32 bits does not hold": [(2, 16777217.0, 9007199254740991.0)],
    "the same symbol twice": [(3, 1.0, 2.0), (3, 1.5, 0.5)],
    "fifty records, the most": [(100 + i, 1000.0 + i / 8, i / 4) for i in range(50)],
}


def summed(rest: bytes) -> bytes:
    return struct.pack("<I", zlib.crc32(rest)) + rest


def document() -> dict[str, Any]:
    """The whole file."""
    valid = []
    for name, records in VALID.items():
        ((_, payload),), left = split_ws_frames(encode_frames(records))
        if left:
            raise ValueError(f"{name} is more than one frame")
        valid.append(
            {"name": name, "payload": payload.hex(), "records": [list(record) for record in records]}
        )
    one = bytes.fromhex(valid[0]["payload"])
    record = one[6:]
    short, crc = "shorter than the six bytes before the records", "the CRC is not that of the bytes after it"
    count, length = "a frame has 1 to 50 records", "the length is not 6 + 18 times the count"
    flipped = one[:-9] + bytes([one[-9] ^ 64]) + one[-8:]
    invalid = {
        "no bytes": (b"", short),
        "five bytes": (one[:5], short),
        "a wrong CRC": (bytes([one[0] ^ 1]) + one[1:], crc),
        "a bit flipped in a price": (flipped, crc),
        "no records": (summed(b"\0\0"), count),
        "51 records": (summed(struct.pack("<H", 51) + record * 51), count),
        "a byte too few": (summed(one[4:-1]), length),
        "a byte too many": (summed(one[4:] + b"\0"), length),
        "fewer records than it says": (summed(struct.pack("<H", 2) + record), length),
        "more records than it says": (summed(struct.pack("<H", 1) + record * 2), length),
    }
    return {
        "subprotocol": "tradeback.v1",
        "layout": "little-endian: crc32 u32 over all bytes after it, count u16, then count times "
        "id u16, price f64, volume f64",
        "valid": valid,
        "invalid": [
            {"name": name, "payload": payload.hex(), "why": why} for name, (payload, why) in invalid.items()
        ],
    }


if __name__ == "__main__":
    print(json.dumps(document(), indent=1))
