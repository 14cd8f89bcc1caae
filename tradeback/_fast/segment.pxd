"""One segment file of the journal: a header page, then records; and what makes a record whole."""

cimport cython
from libc.stdint cimport int64_t, uint32_t, uint64_t

from tradeback._fast.record cimport JournalRecord

cdef enum:
    SEGMENT_VERSION = 1
    SEGMENT_HEADER_BYTES = 4096
    NAME_BYTES = 64


# The start of the header page. All but the last two fields are written once, before the file gets its name.
cdef struct SegmentHeader:
    char magic[8]
    uint32_t version
    uint32_t header_bytes       # where the records start
    char name[NAME_BYTES]       # whose journal: exchange/name, zero-padded
    uint64_t first_seq          # sequence number of the record at place 0; the file's name says the same
    uint64_t capacity           # records it has room for
    uint64_t previous_end       # the number after the last one of the segment before; below first_seq where
                                # numbers were skipped because a machine crash may have taken their records
    int64_t created_ns          # unix time
    uint32_t crc                # CRC-32C of what is above
    char reserved[12]
    uint64_t committed          # records that readers may see; stored with release, loaded with acquire
    uint64_t sealed             # 1: no record will follow, though there is room


cdef extern from *:
    """
    #define tb_load_acquire(p) __atomic_load_n((p), __ATOMIC_ACQUIRE)
    #define tb_store_release(p, v) __atomic_store_n((p), (v), __ATOMIC_RELEASE)
    """
    uint64_t load_acquire "tb_load_acquire"(const uint64_t* place) noexcept nogil
    void store_release "tb_store_release"(uint64_t* place, uint64_t value) noexcept nogil


cdef uint32_t record_crc(const JournalRecord* record, uint64_t seq) noexcept nogil
cdef bint record_is_whole(const JournalRecord* record, uint64_t seq) noexcept nogil
cdef uint32_t bytes_crc(const void* data, size_t size) noexcept nogil


@cython.final
cdef class Segment:
    cdef SegmentHeader* header
    cdef JournalRecord* records     # NULL once closed
    cdef size_t map_bytes
    cdef int fd                     # kept by a writer, for syncing; else -1
    cdef readonly str path
    cdef readonly str name
    cdef readonly uint64_t first_seq
    cdef readonly uint64_t capacity
    cdef readonly uint64_t previous_end
    cdef readonly uint64_t end          # first_seq + capacity

    @staticmethod
    cdef Segment _map(str path, int fd, bint writable)
    cdef uint64_t committed(self) noexcept
    cdef void touch(self, uint64_t first, uint64_t end) noexcept nogil
    cdef int sync(self) except -1
    cdef uint64_t whole_end(self) noexcept nogil
    cdef uint64_t count_damaged(self, uint64_t end) noexcept nogil
    cdef void clear_from(self, uint64_t place) noexcept nogil
    cdef int reserve(self) except -1
