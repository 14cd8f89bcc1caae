"""Loops in C around the steps of the hot path, so that no Python stands between two calls.

`Arena` owns copies of messages as the sockets' buffers hold them: one behind the other, each with the padding that
the decoder may read. `Trades` owns messages that it makes anew before each pass, since a trade counts only once.
Everything runs on the calling thread and is timed by that thread's CPU time: what others do meanwhile on a busy
machine does not count.
"""

from libc.stdint cimport int64_t, uint16_t, uint32_t, uint64_t
from libc.stdio cimport snprintf
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset
from posix.time cimport clock_gettime, timespec

from tradeback._fast.batch cimport FRAME_MAX, close_frame, open_frame, record_at
from tradeback._fast.clock cimport monotonic_ns, now_ns
from tradeback._fast.decode cimport DECODE_PADDING, decode_event
from tradeback._fast.ingest cimport Ingest
from tradeback._fast.journal cimport JournalWriter
from tradeback._fast.record cimport (
    EVENT_TRADE, RECORD_TRADE, RECORDS_PER_FRAME, Event, JournalRecord, WireRecord,
)
from tradeback._fast.status cimport APPLIED_FRESH, DECODED_EVENT
from tradeback._fast.table cimport SymbolTable

cdef enum:
    TRADES = 4096               # of a pass: their messages stay in the processor's second cache
    TRADE_BYTES = 256           # room of one message, padding included


cdef extern from "<time.h>" nogil:
    int CLOCK_THREAD_CPUTIME_ID


cdef int64_t thread_ns() noexcept nogil:
    cdef timespec t
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t)
    return <int64_t>t.tv_sec * 1_000_000_000 + t.tv_nsec


cdef struct Message:
    Py_ssize_t start
    Py_ssize_t size


cdef class Arena:
    """Messages in memory of their own, freed with the object."""

    cdef char* bytes
    cdef Message* messages
    cdef readonly int count

    def __cinit__(self, list messages not None):
        cdef Py_ssize_t total = sum(len(message) for message in messages) + DECODE_PADDING * len(messages)
        cdef Py_ssize_t at = 0
        cdef bytes message
        self.count = <int>len(messages)
        self.bytes = <char*>malloc(<size_t>total + 1)
        self.messages = <Message*>malloc(<size_t>(self.count + 1) * sizeof(Message))
        if self.bytes == NULL or self.messages == NULL:
            raise MemoryError(f"no memory for {total} bytes of messages")
        memset(self.bytes, 0, <size_t>total + 1)
        for index, message in enumerate(messages):
            self.messages[index] = Message(at, len(message))
            memcpy(self.bytes + at, <char*>message, <size_t>len(message))
            at += len(message) + DECODE_PADDING

    def __dealloc__(self):
        free(self.bytes)
        free(self.messages)


def decode_ns(Arena arena not None, int passes) -> float:
    """Nanoseconds a message of `decode_event`, over all messages `passes` times.

    Raises:
        ValueError: one of them is no event that the decoder takes by itself.
    """
    cdef Event event
    cdef Message* message
    cdef int turn, index, wrong = 0
    cdef double sink = 0
    cdef int64_t start, end
    with nogil:
        start = thread_ns()
        for turn in range(passes):
            for index in range(arena.count):
                message = &arena.messages[index]
                wrong += decode_event(arena.bytes + message.start, message.size, &event) != DECODED_EVENT
                sink += event.price + event.bid
        end = thread_ns()
    if wrong or sink == 0:
        raise ValueError(f"{wrong} of {passes * arena.count} messages were not decoded")
    return (end - start) / <double>(passes * arena.count)


def frame_ns(int passes) -> float:
    """Nanoseconds a frame of 50 records, header and CRC included, `passes` times over values that change."""
    cdef char frame[FRAME_MAX]
    cdef double prices[RECORDS_PER_FRAME]
    cdef WireRecord* record
    cdef char* payload
    cdef int turn
    cdef uint32_t index, sink = 0
    cdef int64_t start, end
    for index in range(RECORDS_PER_FRAME):
        prices[index] = 100.25 + index
    with nogil:
        start = thread_ns()
        for turn in range(passes):
            prices[turn % RECORDS_PER_FRAME] += 0.5
            payload = open_frame(frame, RECORDS_PER_FRAME)
            for index in range(RECORDS_PER_FRAME):
                record = record_at(payload, index)
                record.symbol_id = <uint16_t>(index + 1)
                record.price = prices[index]
                record.volume = 0.125
            sink += <uint32_t>(close_frame(payload, RECORDS_PER_FRAME) - frame) + <unsigned char>payload[0]
        end = thread_ns()
    if sink == 0:
        raise ValueError("no frame was made")
    return (end - start) / <double>passes


def applied_ns(SymbolTable table not None, int symbols, int rounds, uint64_t first_id) -> float:
    """Nanoseconds a trade of `apply` and `publish`: ids from `first_id`, `rounds` of them, each symbol in turn.

    The table carries S0000USDT, S0001USDT, ...: so many `symbols`.

    Raises:
        ValueError: a trade did not count.
    """
    cdef char* names = <char*>malloc(<size_t>symbols * 32)
    cdef Event event
    cdef int turn, index, fresh = 0
    cdef uint64_t seq = 0
    cdef int64_t start, end, now = 1_000_000_000
    if names == NULL:
        raise MemoryError(f"no memory for {symbols} names")
    memset(&event, 0, sizeof(event))
    for index in range(symbols):
        snprintf(names + index * 32, 32, b"S%04dUSDT", index)
    event.kind = EVENT_TRADE
    event.symbol_len = 9
    event.price, event.qty = 100.25, 0.5
    event.qty_mantissa, event.qty_scale = 50_000_000, 8
    event.ts_event = now_ns()
    with nogil:
        start = thread_ns()
        for turn in range(rounds):
            event.id = event.first_id = event.last_id = first_id + <uint64_t>turn
            for index in range(symbols):
                event.symbol = names + index * 32
                now += 1000
                fresh += table.apply(&event, event.ts_event, now) == APPLIED_FRESH
                seq += 1
                table.publish(table.slot, seq)
        end = thread_ns()
    free(names)
    if fresh != rounds * symbols:
        raise ValueError(f"{rounds * symbols - fresh} of {rounds * symbols} trades did not count")
    return (end - start) / <double>fresh


cdef class Trades:
    """Trades of many symbols on their way through `ingest`, as the feeds bring them."""

    cdef Ingest ingest
    cdef int symbols
    cdef uint64_t made
    cdef char* bytes
    cdef int* sizes

    def __cinit__(self, Ingest ingest not None, int symbols):
        """The table of `ingest` carries S0000USDT, S0001USDT, ...: so many `symbols`."""
        self.ingest, self.symbols = ingest, symbols
        self.bytes = <char*>malloc(TRADES * TRADE_BYTES)
        self.sizes = <int*>malloc(TRADES * sizeof(int))
        if self.bytes == NULL or self.sizes == NULL:
            raise MemoryError("no memory for messages")
        memset(self.bytes, 0, TRADES * TRADE_BYTES)

    def __dealloc__(self):
        free(self.bytes)
        free(self.sizes)

    def pass_ns(self) -> float:
        """Nanoseconds a trade, over one pass of new trades, each symbol in turn. The messages are made untimed.

        Raises:
            ValueError: one was not decoded, or not journaled.
        """
        cdef int64_t start, end, unix = now_ns(), time = unix // 1_000_000
        cdef uint64_t journaled = self.ingest.journal.next_seq
        cdef int index, wrong = 0
        # Before a symbol's first trade the journal says that it begins there.
        cdef int begun = self.symbols if self.made == 0 else 0
        for index in range(TRADES):
            self.sizes[index] = snprintf(
                self.bytes + index * TRADE_BYTES, TRADE_BYTES,
                b'{"stream":"s%04dusdt@trade","data":{"e":"trade","E":%lld,"s":"S%04dUSDT","t":%lld,'
                b'"p":"%lld.%08lld","q":"0.%08lld","T":%lld,"m":true,"M":true}}',
                <int>(self.made % self.symbols), <long long>time, <int>(self.made % self.symbols),
                <long long>(4_000_000_000 + self.made // self.symbols), <long long>(60_000 + index),
                <long long>(self.made * 7919 % 100_000_000), <long long>(1 + self.made * 104_729 % 99_999_999),
                <long long>time,
            )
            self.made += 1
        with nogil:
            start = thread_ns()
            for index in range(TRADES):
                wrong += self.ingest.on_message(
                    self.bytes + index * TRADE_BYTES, self.sizes[index], unix, start) != DECODED_EVENT
            end = thread_ns()
        journaled = self.ingest.journal.next_seq - journaled - begun
        if wrong or journaled != TRADES:
            raise ValueError(f"of {TRADES} trades {wrong} were not decoded and {journaled} were journaled")
        return (end - start) / <double>TRADES


def append_ns(JournalWriter journal not None, int count) -> float:
    """Nanoseconds a record of `JournalWriter.append`, its checksum included, page faults too.

    Raises:
        ValueError: the journal had no room.
    """
    cdef JournalRecord record
    cdef int i, refused = 0
    cdef int64_t start, end
    memset(&record, 0, sizeof(record))
    record.kind = RECORD_TRADE
    with nogil:
        start = thread_ns()
        for i in range(count):
            record.trade_id = <uint64_t>i
            refused += journal.append(&record)
        end = thread_ns()
    if refused:
        raise ValueError(f"{-refused} of {count} records found no room")
    return <double>(end - start) / count


def append_times(JournalWriter journal not None, int count, int64_t pause_ns) -> list:
    """What each of `count` appends took by the clock, in ns, one every `pause_ns` with the processor kept busy.

    Raises:
        ValueError: the journal had no room.
    """
    cdef JournalRecord record
    cdef int i, refused = 0
    cdef int64_t start, next_ns
    cdef int64_t* times = <int64_t*>malloc(<size_t>count * sizeof(int64_t))
    if times == NULL:
        raise MemoryError(f"no memory for {count} times")
    memset(&record, 0, sizeof(record))
    record.kind = RECORD_TRADE
    with nogil:
        next_ns = monotonic_ns()
        for i in range(count):
            while monotonic_ns() < next_ns:
                pass
            next_ns += pause_ns
            start = monotonic_ns()
            refused += journal.append(&record)
            times[i] = monotonic_ns() - start
    found = [times[i] for i in range(count)]
    free(times)
    if refused:
        raise ValueError(f"{-refused} of {count} records found no room")
    return found
