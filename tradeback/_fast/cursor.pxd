"""A reader's place in the journal. Python imports it from `journal`, compiled readers cimport it here."""

cimport cython
from libc.stdint cimport int64_t, uint32_t, uint64_t

from tradeback._fast.record cimport JournalRecord
from tradeback._fast.segment cimport Segment


# A place is saved in the older of two slots, so that one of them is always whole.
cdef struct PlaceSlot:
    uint64_t generation
    uint64_t seq                # the next record to read; 0: the oldest there is
    int64_t saved_ns            # unix time
    uint32_t crc                # CRC-32C of what is above
    uint32_t reserved


@cython.final
cdef class PlaceFile:
    cdef void* map
    cdef int fd
    cdef readonly str path
    cdef uint64_t load(self) except? 0
    cdef void store(self, uint64_t seq, int64_t now_ns) noexcept


@cython.final
cdef class JournalCursor:
    cdef readonly uint64_t seq          # the next record to read; 0: not known before the journal exists
    cdef readonly uint64_t damaged      # records passed over because their checksum was wrong
    cdef readonly uint64_t skipped      # numbers passed over that the writer gave up after a machine crash
    cdef readonly str folder
    cdef readonly object name           # of a durable cursor, or None
    cdef uint64_t checked_to            # records below it were found whole
    cdef Segment segment                # the one that holds `seq`, or the one before
    cdef PlaceFile place

    # A run of whole records from `seq` on, in the mapped file: valid until the next call on this cursor.
    # NULL with count 0 where there is nothing new. Raises PlaceLostError and DataFolderError.
    cdef const JournalRecord* peek(self, Py_ssize_t* count) except? NULL
    # Go past `n` of the records that `peek` showed.
    cdef void advance(self, Py_ssize_t n) noexcept nogil
    cdef bint _move(self) except -1
