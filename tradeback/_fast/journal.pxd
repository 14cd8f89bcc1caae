"""The journal's writer. Its reader: `cursor.pxd`. File layout: `segment.pxd`."""

cimport cython
from libc.stdint cimport int64_t, uint64_t

from tradeback._fast.record cimport JournalRecord
from tradeback._fast.segment cimport Segment


@cython.final
cdef class JournalWriter:
    cdef readonly uint64_t next_seq     # what the next record will be numbered; numbers start at 1
    cdef uint64_t index                 # its place in the active segment
    cdef uint64_t watch                 # the place at which `append` must look up: see `_turn`
    cdef JournalRecord* records         # of the active segment
    cdef uint64_t* committed
    cdef uint64_t capacity
    # The next segment, valid while next_ready is 1: `prepare` sets it, `append` takes it.
    cdef uint64_t next_ready
    cdef JournalRecord* next_records
    cdef uint64_t* next_committed
    cdef uint64_t next_capacity
    cdef uint64_t wants_prepare         # set by `append`, cleared by `prepare`

    cdef readonly str folder
    cdef readonly str name
    cdef readonly uint64_t cut          # records behind the tail that `open` cut off
    cdef readonly uint64_t damaged      # records before the tail that are not whole; readers pass them over
    cdef readonly uint64_t skipped      # numbers that `open` left out
    cdef uint64_t segment_records
    cdef uint64_t retention_bytes
    cdef uint64_t touched               # pages below this place of the active segment are faulted in
    cdef Segment active
    cdef Segment next
    cdef list retired                   # full segments that are still to be synced and unmapped
    cdef list deleted, overrun          # what `prepare` has done and not yet told
    cdef object busy                    # threading.Lock of `prepare` and `close`
    cdef int lock_fd

    # Number the record, fill its crc and publish it. 0, or -1 where there is no room: count it and go on.
    # Only the hot thread calls it; `prepare` may run meanwhile.
    cdef int append(self, JournalRecord* record) noexcept nogil
    # Whether `append` will take that many records; what a segment holds is the most that can be asked for.
    cdef bint has_room(self, uint64_t records) noexcept nogil
    # True when `prepare` should be called soon, off the hot thread.
    cdef bint needs_prepare_c(self) noexcept nogil
    cdef int _turn(self) noexcept nogil
    cdef int _recover(self) except -1
    cdef int _use(self, Segment segment, uint64_t index) except -1
    cdef int _reserve_next(self) except -1
    cdef object _appended(self, JournalRecord* record)
