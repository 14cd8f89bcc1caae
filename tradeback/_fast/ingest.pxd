"""What a message does between a feed and the clients: decode, arbitrate, journal, publish, mark dirty."""

from libc.stdint cimport int64_t, uint8_t, uint32_t

from tradeback._fast.fanout cimport FanOut
from tradeback._fast.journal cimport JournalWriter
from tradeback._fast.record cimport BeginRecord, Event
from tradeback._fast.stats cimport Stats
from tradeback._fast.table cimport SymbolTable

cdef enum:
    SLOTS_MAX = 65536

# A symbol of which records found no room in the journal. Its mapped row stays as it was before them: the ids that
# the row lacks are journaled as gaps once there is room, or found to be missing by the next start.
cdef struct Behind:
    BeginRecord begin               # with which the ids that found no room begin; kind 0: with none, but go on
    uint32_t slot


cdef class Ingest:
    cdef readonly SymbolTable table
    cdef readonly JournalWriter journal
    cdef readonly FanOut fanout
    cdef readonly Stats stats
    cdef Event event
    cdef Behind* behind
    cdef uint32_t behind_count
    cdef uint8_t* is_behind         # by slot

    cdef int on_message(self, const char* data, Py_ssize_t size, int64_t recv_ns, int64_t now_ns) noexcept nogil
    cdef void commit(self) noexcept nogil
    cdef void fall_behind(self, uint32_t slot) noexcept nogil
    cdef bint catch_up(self) noexcept nogil
