"""Loops in C around the steps of the hot path, so that no Python stands between two calls.

`Arena` owns copies of messages as the sockets' buffers hold them: one behind the other, each with the padding that
the decoder may read. Everything runs on the calling thread and takes its time with CLOCK_MONOTONIC.
"""

from libc.stdint cimport int64_t, uint16_t, uint32_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

from tradeback._fast.batch cimport FRAME_MAX, close_frame, open_frame, record_at
from tradeback._fast.clock cimport monotonic_ns
from tradeback._fast.decode cimport DECODE_PADDING, decode_event
from tradeback._fast.record cimport RECORDS_PER_FRAME, Event, WireRecord
from tradeback._fast.status cimport DECODED_EVENT


cdef struct Message:
    Py_ssize_t start
    Py_ssize_t size


cdef class Arena:
    """Messages in memory of their own, freed with the object."""

    cdef char* bytes
    cdef Message* messages
    cdef readonly int count

    def __cinit__(self, list messages not None):
        cdef Py_ssize_t total = sum(len(message) for message in messages) + DECODE_PADDING * len(messages)
        cdef Py_ssize_t at = 0
        cdef bytes message
        self.count = <int>len(messages)
        self.bytes = <char*>malloc(<size_t>total + 1)
        self.messages = <Message*>malloc(<size_t>(self.count + 1) * sizeof(Message))
        if self.bytes == NULL or self.messages == NULL:
            raise MemoryError(f"no memory for {total} bytes of messages")
        memset(self.bytes, 0, <size_t>total + 1)
        for index, message in enumerate(messages):
            self.messages[index] = Message(at, len(message))
            memcpy(self.bytes + at, <char*>message, <size_t>len(message))
            at += len(message) + DECODE_PADDING

    def __dealloc__(self):
        free(self.bytes)
        free(self.messages)


def decode_ns(Arena arena not None, int passes) -> float:
    """Nanoseconds a message of `decode_event`, over all messages `passes` times.

    Raises:
        ValueError: one of them is no event that the decoder takes by itself.
    """
    cdef Event event
    cdef Message* message
    cdef int turn, index, wrong = 0
    cdef double sink = 0
    cdef int64_t start, end
    with nogil:
        start = monotonic_ns()
        for turn in range(passes):
            for index in range(arena.count):
                message = &arena.messages[index]
                wrong += decode_event(arena.bytes + message.start, message.size, &event) != DECODED_EVENT
                sink += event.price + event.bid
        end = monotonic_ns()
    if wrong or sink == 0:
        raise ValueError(f"{wrong} of {passes * arena.count} messages were not decoded")
    return (end - start) / <double>(passes * arena.count)


def frame_ns(int passes) -> float:
    """Nanoseconds a frame of 50 records, header and CRC included, `passes` times over values that change."""
    cdef char frame[FRAME_MAX]
    cdef double prices[RECORDS_PER_FRAME]
    cdef WireRecord* record
    cdef char* payload
    cdef int turn
    cdef uint32_t index, sink = 0
    cdef int64_t start, end
    for index in range(RECORDS_PER_FRAME):
        prices[index] = 100.25 + index
    with nogil:
        start = monotonic_ns()
        for turn in range(passes):
            prices[turn % RECORDS_PER_FRAME] += 0.5
            payload = open_frame(frame, RECORDS_PER_FRAME)
            for index in range(RECORDS_PER_FRAME):
                record = record_at(payload, index)
                record.symbol_id = <uint16_t>(index + 1)
                record.price = prices[index]
                record.volume = 0.125
            sink += <uint32_t>(close_frame(payload, RECORDS_PER_FRAME) - frame) + <unsigned char>payload[0]
        end = monotonic_ns()
    if sink == 0:
        raise ValueError("no frame was made")
    return (end - start) / <double>passes
