"""Counters and latency histograms of one process, in a mapped file that other processes read.

The hot path adds to a plain integer: no lock, no system call, no object. One thread writes a cell.
"""

cimport cython
from libc.stdint cimport int64_t, uint64_t


# What the server counts. `stats.pyx` gives each its name, kind and meaning; add here and there.
cdef enum:
    C_MESSAGES_TRADE
    C_MESSAGES_AGG_TRADE
    C_MESSAGES_QUOTE
    C_MESSAGES_OTHER
    C_DUPLICATES
    C_STALE_QUOTES
    C_HELD
    C_UNKNOWN_SYMBOL
    C_REFUSED
    C_MALFORMED
    C_UNUSUAL
    C_LATE_TRADES
    C_ROUNDED
    C_HELD_OVERFLOWS
    C_OPEN_OVERFLOWS
    C_UNKNOWN_QUANTITIES
    C_GAPS
    C_GAP_TRADES
    C_JOURNAL_RECORDS
    C_JOURNAL_UNWRITTEN
    C_FRAMES_SENT
    C_RECORDS_SENT
    C_BYTES_SENT
    C_CONFLATED
    C_FLUSHES
    C_CLIENTS
    C_CLIENTS_TOTAL
    C_CLIENTS_BLOCKED
    C_CLIENTS_REFUSED
    C_SLOW_CLOSES
    C_RATE_CLOSES
    C_MALFORMED_COMMANDS
    C_FEED_CONNECTS
    C_FEED_DISCONNECTS
    C_LOOP_ITERATIONS
    C_FEED_PAUSES
    C_FEED_DROPPED
    C_SIZE                      # how many there are; always the last


cdef enum:
    H_RECV_TO_SEND
    H_EVENT_TO_SEND
    H_LOOP_ITERATION
    H_FLUSH
    H_SIZE


# A histogram is one cell for the sum in ns, then HISTOGRAM_BUCKETS cells. Bucket i < 8 holds the value i;
# above, each power of two is cut into 8 equal buckets: bucket i starts at (8 + i % 8) << (i // 8 - 1).
# So a bucket is at most 12.5% wide. 2**41 ns (37 minutes) and more lie in the last one, negatives in the first
# (they add nothing to the sum).
cdef enum:
    SUB_BUCKETS = 8
    HISTOGRAM_BUCKETS = 312
    HISTOGRAM_CELLS = 313


cdef extern from *:
    int __builtin_clzll(unsigned long long) noexcept nogil


cdef inline int bucket_of(int64_t ns) noexcept nogil:
    cdef int exponent
    if ns < SUB_BUCKETS:
        return <int>ns if ns > 0 else 0
    exponent = 63 - __builtin_clzll(<unsigned long long>ns)
    if exponent > 40:
        return HISTOGRAM_BUCKETS - 1
    return (exponent - 2) * SUB_BUCKETS + <int>((ns >> (exponent - 3)) & (SUB_BUCKETS - 1))


@cython.final
cdef class Stats:
    cdef uint64_t* c            # one cell a counter or gauge
    cdef uint64_t* histograms   # HISTOGRAM_CELLS cells a histogram
    cdef void* map              # the whole file, or anonymous memory; unmapped when the object goes
    cdef size_t map_bytes
    cdef size_t histograms_at   # their offset in the file
    cdef bytes _lay_out(self, process, values, histograms)
    cdef int _map(self, int flags) except -1
    cdef int fd                 # holds the lock that says this process lives; -1 in memory and after close
    cdef readonly dict layout   # the file's header as JSON-able values
    cdef dict value_index
    cdef dict histogram_index

    cdef inline void count(self, int which) noexcept nogil:
        self.c[which] += 1

    cdef inline void add(self, int which, uint64_t amount) noexcept nogil:
        self.c[which] += amount

    cdef inline void set(self, int which, uint64_t value) noexcept nogil:
        self.c[which] = value

    cdef inline void observe(self, int histogram, int64_t ns) noexcept nogil:
        cdef uint64_t* cells = self.histograms + histogram * HISTOGRAM_CELLS
        cells[0] += <uint64_t>ns if ns > 0 else 0
        cells[1 + bucket_of(ns)] += 1
