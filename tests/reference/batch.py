"""The oracle of frames: v1 bytes in plain Python, with `struct` and zlib."""

from __future__ import annotations

import struct
import zlib

Record = tuple[int, float, float]  # (stream id, price, volume)

RECORDS_PER_FRAME = 50
CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10


def encode_payload(records: list[Record]) -> bytes:
    """One frame's payload: [CRC32 u32][count u16] and the records."""
    if not 1 <= len(records) <= RECORDS_PER_FRAME:
        raise ValueError(f"a frame carries 1 to {RECORDS_PER_FRAME} records, not {len(records)}")
    rest = struct.pack("<H", len(records)) + b"".join(struct.pack("<Hdd", *record) for record in records)
    return struct.pack("<I", zlib.crc32(rest)) + rest


def decode_payload(payload: bytes) -> list[Record]:
    """The records of one frame; ValueError when its length, count or CRC is wrong."""
    if len(payload) < 6:
        raise ValueError(f"{len(payload)} bytes are no frame")
    crc, count = struct.unpack_from("<IH", payload)
    if zlib.crc32(payload[4:]) != crc:
        raise ValueError(f"CRC {crc:#010x} in the frame, {zlib.crc32(payload[4:]):#010x} over its bytes")
    if not 1 <= count <= RECORDS_PER_FRAME or len(payload) != 6 + 18 * count:
        raise ValueError(f"{count} records in {len(payload)} bytes")
    return list(struct.iter_unpack("<Hdd", payload[6:]))


def ws_frame(opcode: int, payload: bytes) -> bytes:
    """A WebSocket frame as a server sends it: FIN, no mask."""
    if len(payload) < 126:
        return struct.pack("!BB", 0x80 | opcode, len(payload)) + payload
    if len(payload) < 65536:
        return struct.pack("!BBH", 0x80 | opcode, 126, len(payload)) + payload
    return struct.pack("!BBQ", 0x80 | opcode, 127, len(payload)) + payload


def encode_frames(records: list[Record]) -> bytes:
    """All frames that carry `records`, in order, headers included."""
    parts = [records[i : i + RECORDS_PER_FRAME] for i in range(0, len(records), RECORDS_PER_FRAME)]
    return b"".join(ws_frame(BINARY, encode_payload(part)) for part in parts)


def split_ws_frames(data: bytes) -> tuple[list[tuple[int, bytes]], bytes]:
    """`(opcode, payload)` of each whole server frame in `data`, and what is left of an unfinished one."""
    frames = []
    while len(data) >= 2:
        first, length = data[0], data[1]
        if not first & 0x80 or first & 0x70 or length & 0x80:
            raise ValueError(f"a server's frame with FIN, no reserved bit and no mask, not {data[:2].hex()}")
        start = 2
        if length == 126:
            start, length = 4, int.from_bytes(data[2:4], "big")
        elif length == 127:
            start, length = 10, int.from_bytes(data[2:10], "big")
        if len(data) < start + length:
            break
        frames.append((first & 15, data[start : start + length]))
        data = data[start + length :]
    return frames, data


def decode_stream(data: bytes) -> list[Record]:
    """The records of whole binary frames one behind the other; ValueError when a part is left over."""
    frames, rest = split_ws_frames(data)
    if rest or any(opcode != BINARY for opcode, _ in frames):
        raise ValueError(
            f"binary frames only, not opcodes {[opcode for opcode, _ in frames]} and {len(rest)} bytes"
        )
    return [record for _, payload in frames for record in decode_payload(payload)]
