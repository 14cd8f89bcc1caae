"""Frames of records, and CRC-32.

A v1 frame as it leaves, at most `RECORDS_PER_FRAME` records in each:

    [WebSocket header: 2 or 4 bytes][CRC-32 u32][count u16][count x (id u16, price f64, volume f64)]

Several frames stand one behind the other in one buffer. For each: `open_frame`, fill the records, `close_frame`.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t
from libc.string cimport memcpy

from tradeback._fast.record cimport FRAME_HEADER_BYTES, RECORDS_PER_FRAME, WIRE_RECORD_BYTES, WireRecord

cdef enum:
    WS_HEADER_MAX = 4           # of a server's frame below 64 KiB
    WS_SHORT_MAX = 125          # payloads up to here have a header of 2 bytes
    WS_BINARY = 2
    # One full frame with its header.
    FRAME_MAX = WS_HEADER_MAX + FRAME_HEADER_BYTES + RECORDS_PER_FRAME * WIRE_RECORD_BYTES


# zlib's CRC-32. `crc` is 0, or the CRC of what came before `data`.
cdef uint32_t crc32(uint32_t crc, const void* data, size_t size) noexcept nogil


cdef inline char* put_ws_header(char* at, int opcode, uint32_t payload) noexcept nogil:
    """Write a server's frame header (FIN, unmasked) for `payload` bytes, fewer than 65,536; its end is returned."""
    at[0] = <char>(0x80 | opcode)
    if payload <= WS_SHORT_MAX:
        at[1] = <char>payload
        return at + 2
    at[1] = 126
    at[2] = <char>(payload >> 8)
    at[3] = <char>(payload & 255)
    return at + 4


cdef inline char* open_frame(char* at, uint32_t count) noexcept nogil:
    """Start a frame of `count` records (1 to 50) at `at`; the payload's first byte is returned."""
    return put_ws_header(at, WS_BINARY, FRAME_HEADER_BYTES + count * WIRE_RECORD_BYTES)


cdef inline WireRecord* record_at(char* payload, uint32_t index) noexcept nogil:
    return <WireRecord*>(payload + FRAME_HEADER_BYTES + index * WIRE_RECORD_BYTES)


cdef inline char* close_frame(char* payload, uint32_t count) noexcept nogil:
    """Write count and CRC before the `count` records that were filled in; the frame's end is returned."""
    cdef uint16_t records = <uint16_t>count
    cdef uint32_t size = FRAME_HEADER_BYTES + count * WIRE_RECORD_BYTES
    cdef uint32_t crc
    memcpy(payload + 4, &records, 2)
    crc = crc32(0, payload + 4, size - 4)
    memcpy(payload, &crc, 4)
    return payload + size


cdef inline uint32_t ws_header_bytes(const char* frame) noexcept nogil:
    """Of a frame that `open_frame` began."""
    return 4 if (<uint8_t*>frame)[1] > WS_SHORT_MAX else 2


cdef inline uint32_t records_in(const char* payload) noexcept nogil:
    """How many records a closed frame has."""
    cdef uint16_t records
    memcpy(&records, payload + 4, 2)
    return records
