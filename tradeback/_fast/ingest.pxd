"""What a message does between a feed and the clients: decode, arbitrate, journal, publish, mark dirty."""

from libc.stdint cimport int64_t, uint16_t, uint32_t, uint64_t

from tradeback._fast.fanout cimport FanOut
from tradeback._fast.journal cimport JournalWriter
from tradeback._fast.record cimport Event, JournalRecord
from tradeback._fast.stats cimport Stats
from tradeback._fast.table cimport SymbolTable

cdef enum:
    UNWRITTEN_MAX = 65536       # id ranges that are remembered while the journal has no room


# Ids that were delivered but found no room in the journal: they are journaled as a gap once there is room.
cdef struct Unwritten:
    uint64_t first
    uint64_t last
    uint32_t slot
    uint16_t stream_id


cdef class Ingest:
    cdef readonly SymbolTable table
    cdef readonly JournalWriter journal
    cdef readonly FanOut fanout
    cdef readonly Stats stats
    cdef Event event
    cdef Unwritten* unwritten
    cdef uint32_t unwritten_count
    cdef uint32_t unwritten_done    # of them journaled already

    cdef int on_message(self, const char* data, Py_ssize_t size, int64_t recv_ns, int64_t now_ns) noexcept nogil
    cdef void commit(self) noexcept nogil
    cdef void put_aside(self, const JournalRecord* record, uint32_t slot) noexcept nogil
    cdef bint write_put_aside(self) noexcept nogil
