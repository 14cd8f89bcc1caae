"""CRC-32 and the Python face of frames; what the fan-out calls for each client stands inline in `batch.pxd`.

Owns nothing: buffers belong to the caller. Any thread. The CRC's tables are made at import.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport uint16_t, uint32_t
from libc.string cimport memcpy

from tradeback._fast.record cimport FRAME_HEADER_BYTES, RECORDS_PER_FRAME, WIRE_RECORD_BYTES, WireRecord

from tradeback.errors import ProtocolError


cdef extern from "crc32.h" nogil:
    int crc32_use_clmul
    void crc32_prepare()
    uint32_t crc32_portable(uint32_t crc, const void* data, size_t size)
    uint32_t crc32_fastest(uint32_t crc, const void* data, size_t size)


crc32_prepare()

CRC32_METHOD = "pclmulqdq" if crc32_use_clmul else "slicing-by-8"


cdef uint32_t crc32(uint32_t crc, const void* data, size_t size) noexcept nogil:
    return crc32_fastest(crc, data, size)


def crc32_of(data, uint32_t crc=0) -> int:
    """zlib's CRC-32 of `data`, by the fastest method this processor has; `crc` is that of what came before."""
    cdef Py_buffer view
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    crc = crc32_fastest(crc, view.buf, <size_t>view.len)
    PyBuffer_Release(&view)
    return crc


def crc32_portable_of(data, uint32_t crc=0) -> int:
    """The same by tables alone, as on processors without carry-less multiplication."""
    cdef Py_buffer view
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    crc = crc32_portable(crc, view.buf, <size_t>view.len)
    PyBuffer_Release(&view)
    return crc


def encode_frames(list records not None) -> bytes:
    """WebSocket frames (headers included, at most 50 records in each) of `(id, price, volume)` tuples."""
    cdef Py_ssize_t total = len(records), done = 0
    cdef Py_ssize_t frames = (total + RECORDS_PER_FRAME - 1) // RECORDS_PER_FRAME
    cdef bytes room = PyBytes_FromStringAndSize(NULL, frames * FRAME_MAX)
    cdef char* start = PyBytes_AS_STRING(room)
    cdef char* at = start
    cdef char* payload
    cdef WireRecord* record
    cdef uint32_t count, index
    while done < total:
        count = <uint32_t>min(RECORDS_PER_FRAME, total - done)
        payload = open_frame(at, count)
        for index in range(count):
            record = record_at(payload, index)
            symbol_id, price, volume = records[done + index]
            record.symbol_id = <uint16_t>symbol_id
            record.price = price
            record.volume = volume
        at = close_frame(payload, count)
        done += count
    return room[:at - start]


def decode_frame(bytes payload not None) -> list:
    """The `(id, price, volume)` tuples of a frame without its WebSocket header.

    ProtocolError where it is shorter than its header (`short_frame`), has no records or more than 50, or a
    length that is not that of its records (`bad_length`), or the CRC is wrong (`bad_crc`).
    """
    cdef Py_ssize_t size = len(payload)
    cdef char* data = PyBytes_AS_STRING(payload)
    cdef uint32_t told, count, index
    cdef WireRecord* record
    cdef list records = []
    if size < FRAME_HEADER_BYTES:
        raise ProtocolError("short_frame", f"A frame of {size} bytes is shorter than its header")
    count = records_in(data)
    if not 1 <= count <= RECORDS_PER_FRAME:
        raise ProtocolError("bad_length", f"A frame has 1 to {RECORDS_PER_FRAME} records, and this one says {count}")
    if size != FRAME_HEADER_BYTES + <Py_ssize_t>count * WIRE_RECORD_BYTES:
        raise ProtocolError("bad_length", f"A frame of {size} bytes cannot hold {count} records")
    memcpy(&told, data, 4)
    if crc32(0, data + 4, size - 4) != told:
        raise ProtocolError("bad_crc", f"A frame of {count} records came with a wrong CRC")
    for index in range(count):
        record = record_at(data, index)
        records.append((record.symbol_id, record.price, record.volume))
    return records
