"""FanOut: subscriptions, pending bits and the queue of clients that have something to be sent.

FanOut is owned by the hub and lives on the loop's thread, as all of this does. It owns a reference to each client's
FrameSink until `remove`; the garbage collector does not see these, so whoever adds a client removes it. The core
knows no loop and no socket: bytes leave through `FrameSink.write`, one call a client a round.

A client is known by its handle: an index, valid from `add` to `remove`, then given to another.
"""

from cpython.ref cimport Py_DECREF, Py_INCREF, PyObject
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcpy, memset

from tradeback._fast.arbitrate cimport Slot
from tradeback._fast.batch cimport (
    FRAME_MAX, RECORDS_PER_FRAME, WireRecord, close_frame, open_frame, record_at,
)
from tradeback._fast.clock cimport monotonic_ns, now_ns as unix_ns
from tradeback._fast.stats cimport (
    C_BYTES_SENT, C_CLIENTS_BLOCKED, C_CONFLATED, C_FLUSHES, C_FRAMES_SENT, C_RECORDS_SENT, H_EVENT_TO_SEND, H_FLUSH,
    H_RECV_TO_SEND, Stats,
)
from tradeback._fast.table cimport SymbolTable


cdef extern from *:
    """
    #define TB_NONE 0xffffffffu
    #define TB_EXACT ((int64_t)1 << 53)
    #if defined(__GNUC__)
    #define tb_prefetch(address) __builtin_prefetch(address, 1)
    #else
    #define tb_prefetch(address) ((void)(address))
    #endif
    static inline double tb_long_quotient(int64_t units, double scale) {
        return (double)((long double)units / (long double)scale);
    }
    """
    const uint32_t NONE "TB_NONE"
    const int64_t EXACT "TB_EXACT"
    void tb_prefetch(const void* address) noexcept nogil
    double tb_long_quotient(int64_t units, double scale) noexcept nogil
    int __builtin_ctzll(unsigned long long) noexcept nogil
    int __builtin_popcountll(unsigned long long) noexcept nogil


cdef enum:
    PREFETCH_AHEAD = 8


cdef inline uint64_t* bits_of(Client* client) noexcept nogil:
    return client.many_bits if client.many_bits != NULL else client.bits


cdef inline uint32_t words_of(const Client* client) noexcept nogil:
    return (client.count + 63) >> 6


cdef inline double volume_of(int64_t units, double scale) noexcept nogil:
    """`units / scale`: the double nearest to the decimal, where units are below 2**53 (scale is exact, so one
    division rounds once); beyond, it is rounded twice where `long double` has 64 bits."""
    if -EXACT <= units <= EXACT:
        return <double>units / scale
    return tb_long_quotient(units, scale)


cdef inline int64_t units_since(const Slot* slot, const Subscription* subscription) noexcept nogil:
    """What was traded since the last record: cum_units wraps, differences do not mind."""
    return <int64_t>(<uint64_t>slot.cum_units - <uint64_t>subscription.sent_units)


cdef class FrameSink:
    """Where a client's frames go. A subclass in Cython overrides `write`; one in Python, `write_bytes`."""

    cdef int write(self, char* data, Py_ssize_t size) except -1:
        self.write_bytes(data[:size])
        return 0

    def write_bytes(self, data):
        raise NotImplementedError("a FrameSink overrides write or write_bytes")


cdef class FanOut:
    """Conflating fan-out from the slots of `table` to clients.

    `write_bytes` bounds one write: at least one full frame of 910 bytes, at most 64 KiB. The table outlives this.
    """

    def __cinit__(self, SymbolTable table not None, Stats stats=None, *, Py_ssize_t write_bytes=WRITE_BYTES):
        if not FRAME_MAX <= write_bytes <= WRITE_BYTES:
            raise ValueError(f"write_bytes is {write_bytes}: it must be {FRAME_MAX} to {WRITE_BYTES}")
        self.table = table
        self.stats = Stats.in_memory() if stats is None else stats
        self._counters = self.stats.c
        self._slots = table.slots
        self._free = self._head = self._tail = NONE
        self._failed = []
        self._records_per_write = <uint32_t>(write_bytes // FRAME_MAX * RECORDS_PER_FRAME)
        self._buffer = <char*>malloc(<size_t>write_bytes)
        if self._buffer == NULL:
            raise MemoryError()

    def __dealloc__(self):
        cdef uint32_t index
        for index in range(self._client_high):
            if self._clients[index].sink != NULL:
                Py_DECREF(<object>self._clients[index].sink)
            free(self._clients[index].subscriptions)
            free(self._clients[index].many_bits)
        for index in range(self._slot_capacity):
            free(self._watchers[index].list)
        free(self._clients)
        free(self._watchers)
        free(self._dirty)
        free(self._buffer)

    # ---------------------------------------------------------------- clients

    def add(self, FrameSink sink not None) -> int:
        """Take a client in; the handle by which it is known until `remove`."""
        cdef uint32_t handle = self._free, capacity
        cdef Client* grown
        cdef Client* client
        if handle == NONE:
            if self._client_high == self._client_capacity:
                capacity = max(64, self._client_capacity * 2)
                grown = <Client*>realloc(self._clients, capacity * sizeof(Client))
                if grown == NULL:
                    raise MemoryError()
                self._clients = grown
                self._client_capacity = capacity
            handle = self._client_high
            self._client_high += 1
        else:
            self._free = self._clients[handle].next
        client = &self._clients[handle]
        memset(client, 0, sizeof(Client))
        client.next = NONE
        Py_INCREF(sink)
        client.sink = <void*>sink
        self.client_count += 1
        return handle

    def remove(self, uint32_t handle) -> list[int]:
        """Forget a client; the slots that nobody is subscribed to any more. Safe in the middle of a flush."""
        cdef Client* client = self._client(handle)
        cdef uint32_t slot
        cdef list idle = []
        while client.count:
            slot = client.subscriptions[client.count - 1].slot
            self._drop(handle, client.count - 1)
            if self._watchers[slot].count == 0:
                idle.append(slot)
        free(client.subscriptions)
        free(client.many_bits)
        client.subscriptions = NULL
        client.many_bits = NULL
        client.capacity = 0
        if client.flags & CLIENT_BLOCKED:
            self._counters[C_CLIENTS_BLOCKED] -= 1
        sink = <object>client.sink
        client.sink = NULL
        if client.flags & CLIENT_QUEUED:
            client.flags = CLIENT_QUEUED | CLIENT_GONE
        else:
            client.flags = 0
            client.next = self._free
            self._free = handle
        self.client_count -= 1
        Py_DECREF(sink)
        return idle

    def set_blocked(self, uint32_t handle, int64_t now_ns):
        """The client takes no data since `now_ns` (monotonic): from now on only its pending bits grow."""
        cdef Client* client = self._client(handle)
        if not client.flags & CLIENT_BLOCKED:
            client.flags |= CLIENT_BLOCKED
            client.blocked_ns = now_ns
            self._counters[C_CLIENTS_BLOCKED] += 1

    def set_unblocked(self, uint32_t handle) -> bool:
        """It takes data again. True where something is pending, so that a flush is due."""
        cdef Client* client = self._client(handle)
        cdef uint64_t* bits = bits_of(client)
        cdef uint32_t word
        if client.flags & CLIENT_BLOCKED:
            client.flags &= ~<uint32_t>CLIENT_BLOCKED
            client.blocked_ns = 0
            self._counters[C_CLIENTS_BLOCKED] -= 1
        for word in range(words_of(client)):
            if bits[word]:
                if client.flags == 0:
                    self._enqueue(handle)
                return True
        return False

    def blocked_ns(self, uint32_t handle) -> int:
        """Monotonic time since which it takes no data; 0: it does."""
        return self._client(handle).blocked_ns

    def take_failed(self) -> list[tuple[int, FrameSink, Exception]]:
        """`(handle, sink, error)` of each client whose write raised since the last call. Each gets nothing more
        and stays until it is removed."""
        failed, self._failed = self._failed, []
        return failed

    # ---------------------------------------------------------------- subscriptions

    def subscribe(self, uint32_t handle, uint32_t slot) -> bool:
        """Subscribe to a slot; False where it was already. Its current price, if it has one, is pending at once,
        with volume 0."""
        cdef Client* client = self._client(handle)
        cdef Watchers* watchers
        cdef Subscription* subscription
        cdef uint32_t index
        if slot >= self.table.slot_count:
            raise ValueError(f"slot {slot} is not in the table, which has {self.table.slot_count}")
        if self._find(client, handle, slot) >= 0:
            return False
        self._reserve_slot(slot)
        self._reserve_watcher(slot)
        self._reserve_subscription(client)
        watchers = &self._watchers[slot]
        index = client.count
        subscription = &client.subscriptions[index]
        subscription.slot = slot
        subscription.place = watchers.count
        subscription.sent_units = self._slots[slot].cum_units
        watchers.list[watchers.count].client = handle
        watchers.list[watchers.count].subscription = index
        watchers.count += 1
        client.count += 1
        if self._slots[slot].price > 0:
            bits_of(client)[index >> 6] |= <uint64_t>1 << (index & 63)
            if client.flags == 0:
                self._enqueue(handle)
        return True

    def unsubscribe(self, uint32_t handle, uint32_t slot) -> bool:
        """End a subscription; False where there was none. What is pending for it is lost: `drain` before."""
        cdef int64_t index = self._find(self._client(handle), handle, slot)
        if index < 0:
            return False
        self._drop(handle, <uint32_t>index)
        return True

    def drain(self, uint32_t handle):
        """Send all that is pending for one client now, blocked or not: what was traded up to here arrives before
        the answer to its unsubscribing."""
        self._client(handle)
        self._walk_dirty()
        while not self._clients[handle].flags & (CLIENT_FAILED | CLIENT_GONE) and self._send(handle):
            pass

    def subscription_count(self, uint32_t handle) -> int:
        return self._client(handle).count

    def slots_of(self, uint32_t handle) -> list[int]:
        """The slots it is subscribed to, in no order."""
        cdef Client* client = self._client(handle)
        return [client.subscriptions[i].slot for i in range(client.count)]

    def is_subscribed(self, uint32_t handle, uint32_t slot) -> bool:
        return self._find(self._client(handle), handle, slot) >= 0

    def watcher_count(self, uint32_t slot) -> int:
        """How many clients are subscribed to a slot."""
        return self._watchers[slot].count if slot < self._slot_capacity else 0

    # ---------------------------------------------------------------- delivery

    cdef void mark_dirty(self, uint32_t slot) noexcept nogil:
        cdef Watchers* watchers
        if slot >= self._slot_capacity:
            return
        watchers = &self._watchers[slot]
        if watchers.count == 0:
            return
        if watchers.dirty:
            self._counters[C_CONFLATED] += watchers.count
            return
        watchers.dirty = 1
        self._dirty[self._dirty_count] = slot
        self._dirty_count += 1

    def mark(self, uint32_t slot):
        """`mark_dirty` for Python."""
        self.mark_dirty(slot)

    cdef bint has_work(self) noexcept nogil:
        return self._dirty_count != 0 or self._head != NONE

    @property
    def pending(self) -> bool:
        """Whether a flush has something to do."""
        return self.has_work()

    cdef bint has_failed(self) noexcept:
        """Whether take_failed() has anything to tell."""
        return len(self._failed) > 0

    cpdef int flush(self, int64_t now_ns, int64_t budget_ns) except -1:
        """Send to the clients that are due, the longest waiting first, until `budget_ns` have passed since `now_ns`
        (monotonic) or none is left; how many still wait. At least one is sent to, so repeated calls end."""
        cdef uint32_t handle
        cdef Client* client
        cdef int64_t done_ns
        if not self.has_work():
            return 0
        self._counters[C_FLUSHES] += 1
        self._walk_dirty()
        while self._head != NONE:
            handle = self._head
            client = &self._clients[handle]
            self._head = client.next
            if self._head == NONE:
                self._tail = NONE
            self.queued -= 1
            client.next = NONE
            client.flags &= ~<uint32_t>CLIENT_QUEUED
            if client.flags & CLIENT_GONE:
                client.flags = 0
                client.next = self._free
                self._free = handle
                continue
            if client.flags:
                continue
            if self._send(handle) and self._clients[handle].flags == 0:
                self._enqueue(handle)
            if monotonic_ns() - now_ns >= budget_ns:
                break
        done_ns = monotonic_ns()
        self.stats.observe(H_FLUSH, done_ns - now_ns)
        return <int>self.queued

    cdef bint _send(self, uint32_t handle) except -1:
        """One write of what is pending; whether more is. Afterwards any pointer to a client is stale, and this one
        may be gone: the sink calls back."""
        cdef Client* client = &self._clients[handle]
        cdef uint64_t* bits
        cdef uint32_t word
        cdef bint more = False
        cdef Py_ssize_t size
        cdef int64_t now
        cdef FrameSink sink
        size = self._fill(client)
        if size == 0:
            return False
        bits = bits_of(client)
        for word in range(words_of(client)):
            if bits[word]:
                more = True
                break
        sink = <FrameSink>client.sink
        try:
            sink.write(self._buffer, size)
        except Exception as error:
            self._clients[handle].flags |= CLIENT_FAILED
            self._failed.append((handle, sink, error))
            return False
        self._counters[C_BYTES_SENT] += <uint64_t>size
        if self._oldest_recv_ns:
            now = unix_ns()
            self.stats.observe(H_RECV_TO_SEND, now - self._oldest_recv_ns)
            if self._oldest_sent_ns:
                self.stats.observe(H_EVENT_TO_SEND, now - self._oldest_sent_ns)
        return more

    cdef Py_ssize_t _fill(self, Client* client) noexcept nogil:
        """Write frames of what is pending into the buffer, and count it as sent; their size."""
        cdef uint64_t* pending = bits_of(client)
        cdef uint32_t words = words_of(client), word, frame_left = 0, count = 0, left = 0, records
        cdef uint64_t bits
        cdef Subscription* subscription
        cdef Slot* slot
        cdef int64_t units
        cdef char* at = self._buffer
        cdef char* payload = NULL
        cdef WireRecord* record = NULL
        self._oldest_recv_ns = self._oldest_sent_ns = 0
        for word in range(words):
            left += __builtin_popcountll(pending[word])
        left = min(left, self._records_per_write)
        records = left
        for word in range(words):
            bits = pending[word]
            while bits:
                if frame_left == 0:
                    if payload != NULL:
                        at = close_frame(payload, count)
                        payload = NULL
                        self._counters[C_FRAMES_SENT] += 1
                    if left == 0:
                        break
                    count = frame_left = min(left, <uint32_t>RECORDS_PER_FRAME)
                    payload = open_frame(at, count)
                    record = record_at(payload, 0)
                subscription = &client.subscriptions[(word << 6) + __builtin_ctzll(bits)]
                slot = &self._slots[subscription.slot]
                units = units_since(slot, subscription)
                record.symbol_id = slot.stream_id
                record.price = slot.price
                record.volume = volume_of(units, slot.scale)
                subscription.sent_units = slot.cum_units
                if units:
                    self._age(slot)
                record += 1
                frame_left -= 1
                left -= 1
                bits &= bits - 1
            pending[word] = bits
            if bits:
                break
        if payload != NULL:
            at = close_frame(payload, count)
            self._counters[C_FRAMES_SENT] += 1
        self._counters[C_RECORDS_SENT] += records
        return at - self._buffer

    # ---------------------------------------------------------------- inside

    cdef inline void _age(self, const Slot* slot) noexcept nogil:
        if self._oldest_recv_ns == 0 or slot.ts_recv < self._oldest_recv_ns:
            self._oldest_recv_ns = slot.ts_recv
        if slot.ts_sent and (self._oldest_sent_ns == 0 or slot.ts_sent < self._oldest_sent_ns):
            self._oldest_sent_ns = slot.ts_sent

    cdef void _walk_dirty(self) noexcept nogil:
        """Set the pending bit of each watcher of each dirty slot, and queue those who can be sent to."""
        cdef uint32_t d, i, count
        cdef Watchers* watchers
        cdef Watcher* watcher
        cdef Client* client
        for d in range(self._dirty_count):
            watchers = &self._watchers[self._dirty[d]]
            watchers.dirty = 0
            count = watchers.count
            for i in range(count):
                if i + PREFETCH_AHEAD < count:
                    tb_prefetch(&self._clients[watchers.list[i + PREFETCH_AHEAD].client])
                watcher = &watchers.list[i]
                client = &self._clients[watcher.client]
                bits_of(client)[watcher.subscription >> 6] |= <uint64_t>1 << (watcher.subscription & 63)
                if client.flags == 0:
                    self._enqueue(watcher.client)
        self._dirty_count = 0

    cdef void _enqueue(self, uint32_t handle) noexcept nogil:
        cdef Client* client = &self._clients[handle]
        client.flags |= CLIENT_QUEUED
        client.next = NONE
        if self._tail == NONE:
            self._head = handle
        else:
            self._clients[self._tail].next = handle
        self._tail = handle
        self.queued += 1

    cdef Client* _client(self, uint32_t handle) except NULL:
        if handle >= self._client_high or self._clients[handle].sink == NULL:
            raise ValueError(f"no client has the handle {handle}: it was removed, or never added")
        return &self._clients[handle]

    cdef int64_t _find(self, const Client* client, uint32_t handle, uint32_t slot) noexcept nogil:
        """The index of its subscription to a slot, -1: none. Looks through the shorter of the two lists."""
        cdef Watchers* watchers
        cdef uint32_t i
        if slot >= self._slot_capacity:
            return -1
        watchers = &self._watchers[slot]
        if watchers.count < client.count:
            for i in range(watchers.count):
                if watchers.list[i].client == handle:
                    return watchers.list[i].subscription
            return -1
        for i in range(client.count):
            if client.subscriptions[i].slot == slot:
                return i
        return -1

    cdef void _drop(self, uint32_t handle, uint32_t index) noexcept nogil:
        """Take a subscription out of both lists; the last of each moves into its place."""
        cdef Client* client = &self._clients[handle]
        cdef uint64_t* bits = bits_of(client)
        cdef Subscription* subscription = &client.subscriptions[index]
        cdef Watchers* watchers = &self._watchers[subscription.slot]
        cdef Watcher moved
        cdef uint32_t last = watchers.count - 1
        if subscription.place != last:
            moved = watchers.list[last]
            watchers.list[subscription.place] = moved
            self._clients[moved.client].subscriptions[moved.subscription].place = subscription.place
        watchers.count = last
        if last == 0:
            free(watchers.list)
            watchers.list = NULL
            watchers.capacity = 0
        last = client.count - 1
        bits[index >> 6] &= ~(<uint64_t>1 << (index & 63))
        if index != last:
            subscription[0] = client.subscriptions[last]
            self._watchers[subscription.slot].list[subscription.place].subscription = index
            if bits[last >> 6] >> (last & 63) & 1:
                bits[index >> 6] |= <uint64_t>1 << (index & 63)
                bits[last >> 6] &= ~(<uint64_t>1 << (last & 63))
        client.count = last

    cdef int _reserve_slot(self, uint32_t slot) except -1:
        cdef uint32_t capacity
        cdef Watchers* watchers
        cdef uint32_t* dirty
        if slot < self._slot_capacity:
            return 0
        capacity = max(slot + 1, max(64, self._slot_capacity * 2))
        dirty = <uint32_t*>realloc(self._dirty, capacity * sizeof(uint32_t))
        if dirty == NULL:
            raise MemoryError()
        self._dirty = dirty
        watchers = <Watchers*>realloc(self._watchers, capacity * sizeof(Watchers))
        if watchers == NULL:
            raise MemoryError()
        memset(watchers + self._slot_capacity, 0, (capacity - self._slot_capacity) * sizeof(Watchers))
        self._watchers = watchers
        self._slot_capacity = capacity
        return 0

    cdef int _reserve_watcher(self, uint32_t slot) except -1:
        cdef Watchers* watchers = &self._watchers[slot]
        cdef uint32_t capacity
        cdef Watcher* grown
        if watchers.count == watchers.capacity:
            capacity = max(4, watchers.capacity + watchers.capacity // 2)
            grown = <Watcher*>realloc(watchers.list, capacity * sizeof(Watcher))
            if grown == NULL:
                raise MemoryError()
            watchers.list = grown
            watchers.capacity = capacity
        return 0

    cdef int _reserve_subscription(self, Client* client) except -1:
        cdef uint32_t capacity, words
        cdef Subscription* grown
        cdef uint64_t* bits
        if client.count < client.capacity:
            return 0
        capacity = max(4, client.capacity + client.capacity // 2)
        words = (capacity + 63) >> 6
        if words > BITS_INLINE:
            bits = <uint64_t*>calloc(words, sizeof(uint64_t))
            if bits == NULL:
                raise MemoryError()
            memcpy(bits, bits_of(client), words_of(client) * sizeof(uint64_t))
            free(client.many_bits)
            client.many_bits = bits
        grown = <Subscription*>realloc(client.subscriptions, capacity * sizeof(Subscription))
        if grown == NULL:
            raise MemoryError()
        client.subscriptions = grown
        client.capacity = capacity
        return 0
