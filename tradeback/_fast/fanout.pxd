"""Who is subscribed to what, and what each client has not been sent yet.

    on a trade:              fanout.mark_dirty(slot)
    after the reads:         left = fanout.flush(monotonic_ns(), budget_ns)     # > 0: call again, feeds first

What is waiting costs one bit a subscription, however long a client lags: a record is made when it is sent, out of
the table's latest state. Its volume is what the symbol traded since the client's last record of it.
"""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from tradeback._fast.arbitrate cimport Slot
from tradeback._fast.stats cimport Stats
from tradeback._fast.table cimport SymbolTable

cdef enum:
    BITS_INLINE = 2             # words of pending bits in the client itself: 128 subscriptions
    WRITE_BYTES = 65536         # of one write; what does not fit waits for the next round


cdef enum ClientFlag:
    CLIENT_QUEUED = 1           # in the queue of those to be sent to
    CLIENT_BLOCKED = 2          # takes no data: only gathers pending bits
    CLIENT_FAILED = 4           # its write raised: gets nothing any more
    CLIENT_GONE = 8             # removed while queued; its place is free once it is popped


# One subscription of a client: 16 bytes here, 8 in the slot's list, one pending bit.
cdef struct Subscription:
    int64_t sent_units          # the slot's cum_units up to which this client knows
    uint32_t slot
    uint32_t place              # where it stands in the slot's list


cdef struct Watcher:
    uint32_t client
    uint32_t subscription       # index among the client's


cdef struct Watchers:
    Watcher* list
    uint32_t count
    uint32_t capacity
    uint32_t dirty              # 1: in the list of dirty slots


# One cache line: what marking touches for each watcher.
cdef struct Client:
    void* sink                  # owned reference to a FrameSink; NULL: a free place
    Subscription* subscriptions
    uint64_t* many_bits         # NULL while `bits` suffices
    uint64_t bits[BITS_INLINE]
    int64_t blocked_ns          # monotonic time since which it takes no data; 0: it does
    uint32_t count
    uint32_t capacity
    uint32_t next               # in the queue, or in the list of free places
    uint32_t flags              # ClientFlag


cdef class FrameSink:
    # `data` is valid only during the call and holds whole WebSocket frames, headers included.
    # Must not raise for a peer that is gone; what it does raise is kept for take_failed().
    cdef int write(self, char* data, Py_ssize_t size) except -1


cdef class FanOut:
    cdef readonly SymbolTable table
    cdef readonly Stats stats
    cdef readonly uint32_t client_count
    cdef uint32_t queued
    cdef uint64_t* _counters            # those of stats
    cdef Slot* _slots
    cdef Watchers* _watchers            # by slot
    cdef uint32_t _slot_capacity
    cdef uint32_t* _dirty
    cdef uint32_t _dirty_count
    cdef Client* _clients               # by handle; moves when it grows
    cdef uint32_t _client_capacity
    cdef uint32_t _client_high          # places ever used
    cdef uint32_t _free
    cdef uint32_t _head
    cdef uint32_t _tail
    cdef uint32_t _records_per_write
    cdef char* _buffer
    cdef int64_t _oldest_recv_ns        # of the write being filled, unix; 0: it holds no trade
    cdef int64_t _oldest_sent_ns        # by the exchange: E
    cdef list _failed

    # The slot has traded. A quote alone is no reason to call it (decision 4).
    cdef void mark_dirty(self, uint32_t slot) noexcept nogil
    cdef bint has_work(self) noexcept nogil
    cdef bint has_failed(self) noexcept
    cpdef int flush(self, int64_t now_ns, int64_t budget_ns) except -1

    cdef Client* _client(self, uint32_t handle) except NULL
    cdef void _walk_dirty(self) noexcept nogil
    cdef void _enqueue(self, uint32_t handle) noexcept nogil
    cdef int64_t _find(self, const Client* client, uint32_t handle, uint32_t slot) noexcept nogil
    cdef void _drop(self, uint32_t handle, uint32_t index) noexcept nogil
    cdef int _reserve_slot(self, uint32_t slot) except -1
    cdef int _reserve_watcher(self, uint32_t slot) except -1
    cdef int _reserve_subscription(self, Client* client) except -1
    cdef Py_ssize_t _fill(self, Client* client) noexcept nogil
    cdef bint _send(self, uint32_t handle) except -1
    cdef inline void _age(self, const Slot* slot) noexcept nogil
