"""What picows calls: `ClientListener` is the end of one client's connection, `FeedListener` that of one of ours."""

from libc.stdint cimport int64_t, uint32_t

from picows.picows cimport WSFrame, WSListener, WSTransport

from tradeback._fast.epoll cimport IterationHook
from tradeback._fast.fanout cimport FanOut, FrameSink
from tradeback._fast.ingest cimport Ingest

# ---------------------------------------------------------------- clients

cdef enum:
    CLOSED_FRAMES_MAX = 1000    # frames still read, and ignored, after our CLOSE; beyond, the connection is aborted


cdef class ClientLimits:
    cdef readonly double messages_per_second
    cdef readonly double message_burst
    cdef readonly Py_ssize_t max_message_bytes
    cdef readonly Py_ssize_t high_water
    cdef readonly int64_t ping_interval_ns
    cdef readonly int64_t ping_timeout_ns
    cdef readonly int64_t blocked_limit_ns
    cdef readonly int64_t close_limit_ns


# Apart from the listener, because both need a base class with a layout of its own.
cdef class ClientSink(FrameSink):
    cdef WSTransport transport          # None once disconnected


cdef class TextSink(ClientSink):
    cdef dict names
    cdef object encode


cdef class ClientListener(WSListener):
    cdef readonly FanOut fanout
    cdef readonly ClientLimits limits
    cdef readonly int64_t handle        # in the fan-out; -1 before the connection stands and once it is closing
    cdef object client                  # the protocol's side; None once disconnected
    cdef ClientSink sink
    cdef WSTransport transport
    cdef bytearray fragments            # of an unfinished message; None: there is none
    cdef double tokens
    cdef int64_t tokens_ns
    cdef int64_t heard_ns
    cdef int64_t pinged_ns              # of the last ping since it was heard; 0: none
    cdef int64_t closing_ns             # when our CLOSE was sent; 0: it was not
    cdef uint32_t ignored

    cdef bint take_token(self, int64_t now_ns) noexcept
    cdef int take_data(self, WSFrame frame) except -1
    cdef int leave(self) except -1


cdef class FlushHook(IterationHook):
    cdef FanOut fanout
    cdef int64_t budget_ns
    cdef object on_failed


# ---------------------------------------------------------------- feeds

cdef class FeedListener(WSListener):
    cdef Ingest _ingest
    cdef object _on_other
    cdef object _on_unusual
    cdef object _on_malformed
    cdef object _after_reads
    cdef object _on_waiting
    cdef WSTransport _transport         # None before it is connected and once it is lost
    cdef object _waiting                # deque of (Decoded, message)
    cdef int64_t _spent_ns              # on the slow path, of the messages of this read
    cdef bytearray _parts               # of a message in several frames; None: there is none
    cdef public bint abandoned
    cdef readonly int64_t last_frame_ns
    cdef readonly int64_t last_market_ns

    cdef int _take_slowly(self, int decoded, bytes message) except -1

