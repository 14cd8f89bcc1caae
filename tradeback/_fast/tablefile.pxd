"""The mapped file of the table: header, one row a stream id, the open ranges of each stream id.

    offset 0            Header, one page
    offset 4096         Row[65536], at the stream id
    after it            MappedRange[65536][16], at the stream id

The file is sparse: a row's pages are reserved when its symbol is added. It is never shrunk and never replaced, so a
mapping stays valid. A row and its ranges are written under the row's sequence number: odd while being written.
"""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from tradeback._fast.arbitrate cimport OPEN_MAX

cdef enum:
    TABLE_VERSION = 1
    HEADER_BYTES = 4096
    ROW_BYTES = 128
    ROW_COUNT = 65536           # stream ids, of which 0 is never given
    READ_TRIES = 1000
    ROW_DROPPED = 128           # in `state`
    ROW_OPEN_COUNT = 127        # in `state`, the bits of the count


cdef extern from *:
    """
    /* Writer: begin, plain stores, end. Reader: begin, plain loads, unchanged? (H.-J. Boehm, "Can seqlocks get
       along with programming language memory models?", 2012, with fences.) */
    static inline void tb_seq_begin(uint32_t *seq) {
        __atomic_store_n(seq, *seq + 1, __ATOMIC_RELAXED);
        __atomic_thread_fence(__ATOMIC_RELEASE);
    }
    static inline void tb_seq_end(uint32_t *seq) { __atomic_store_n(seq, *seq + 1, __ATOMIC_RELEASE); }
    static inline uint32_t tb_seq_load(const uint32_t *seq) { return __atomic_load_n(seq, __ATOMIC_ACQUIRE); }
    static inline int tb_seq_unchanged(const uint32_t *seq, uint32_t before) {
        __atomic_thread_fence(__ATOMIC_ACQUIRE);
        return __atomic_load_n(seq, __ATOMIC_RELAXED) == before;
    }
    static inline void tb_store_u64(uint64_t *place, uint64_t value) {
        __atomic_store_n(place, value, __ATOMIC_RELEASE);
    }
    """
    void seq_begin "tb_seq_begin"(uint32_t* seq) noexcept nogil
    void seq_end "tb_seq_end"(uint32_t* seq) noexcept nogil
    uint32_t seq_load "tb_seq_load"(const uint32_t* seq) noexcept nogil
    bint seq_unchanged "tb_seq_unchanged"(const uint32_t* seq, uint32_t before) noexcept nogil
    void store_u64 "tb_store_u64"(uint64_t* place, uint64_t value) noexcept nogil


cdef struct Header:
    char magic[8]
    uint32_t version
    uint32_t row_bytes
    uint32_t row_count
    uint32_t open_max
    char exchange[64]           # zero-terminated
    char boot_id[64]            # of the machine's boot under which the file was last written
    int64_t writer_pid          # 0: closed
    uint32_t clean              # 1: closed, and on the disk
    uint32_t reserved[5]
    uint64_t applied_seq        # journal records below it are in the rows


cdef struct Row:
    uint32_t seq                # odd: being written
    uint16_t stream_id          # 0: never added. It, the precision and the hash are written once
    uint8_t quantity_precision
    uint8_t state               # how many ranges are open; ROW_DROPPED: not carried since, as nobody wanted it
    double price
    double qty
    uint64_t next_id
    int64_t cum_units
    int64_t day_units
    int64_t ts_event
    int64_t ts_recv
    double bid                  # the second cache line
    double bid_qty
    double ask
    double ask_qty
    uint64_t quote_id
    int64_t quote_recv
    uint64_t next_seq
    int32_t day
    uint32_t name_hash          # of the symbol's name: a catalog that was made anew gives ids to other symbols


cdef struct MappedRange:
    uint64_t first
    uint64_t last


cdef struct MappedRanges:
    MappedRange ranges[OPEN_MAX]


cdef class TableFile:
    cdef Header* header
    cdef Row* rows
    cdef MappedRanges* ranges
    cdef char* _base
    cdef int _fd
    cdef readonly object path
    cdef readonly list torn_stream_ids
    cdef readonly bint rebuild

    cdef void reset_row(self, uint32_t stream_id) noexcept nogil
