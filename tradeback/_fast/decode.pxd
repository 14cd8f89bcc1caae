"""Exchange bytes -> `Event`. Free functions without state: any thread, without the interpreter lock."""

from tradeback._fast.record cimport Event


cdef enum:
    DECODE_PADDING = 64         # bytes that must be readable behind a message; their content does not matter


# Decodes one message of the exchange: `data` holds `size` bytes and DECODE_PADDING readable ones behind.
# Returns a `Decoded` (status.pxd). Only with DECODED_EVENT is `event` filled, and then wholly: fields that
# its kind does not have are zero. `event.symbol` points into `data`.
cdef int decode_event(const char* data, Py_ssize_t size, Event* event) noexcept nogil
