"""Ingest: what a message does between a feed and the clients.

One object in the server's process, used on its one thread. It owns nothing of what it drives but the list of id
ranges that found no room in the journal; table, journal, fan-out and counters belong to the composition root.

The order is the promise: a record is in the journal before the mapped table shows it, so that whoever is killed
between the two finds the table behind the journal, never ahead of it.
"""

from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memset

from tradeback._fast.clock cimport monotonic_ns
from tradeback._fast.clock cimport now_ns as unix_ns
from tradeback._fast.decode cimport decode_event
from tradeback._fast.record cimport (
    EVENT_AGG_TRADE,
    EVENT_TRADE,
    FLAG_LATE,
    GAP_UNWRITTEN,
    RECORD_GAP,
    RECORD_TRADE,
    GapRecord,
    JournalRecord,
)
from tradeback._fast.stats cimport (
    C_DUPLICATES,
    C_GAP_TRADES,
    C_GAPS,
    C_HELD,
    C_JOURNAL_RECORDS,
    C_JOURNAL_UNWRITTEN,
    C_LATE_TRADES,
    C_MALFORMED,
    C_MESSAGES_AGG_TRADE,
    C_MESSAGES_OTHER,
    C_MESSAGES_QUOTE,
    C_MESSAGES_TRADE,
    C_REFUSED,
    C_STALE_QUOTES,
    C_UNKNOWN_SYMBOL,
    C_UNUSUAL,
)
from tradeback._fast.status cimport (
    APPLIED_DUPLICATE,
    APPLIED_HELD,
    APPLIED_REFUSED,
    APPLIED_STALE,
    APPLIED_UNKNOWN,
    DECODED_EVENT,
    DECODED_MALFORMED,
    DECODED_UNUSUAL,
)

cdef enum:
    READABLE_BEHIND = 64        # bytes that decode_event may read behind a message


cdef class Ingest:
    """Drives `table`, `journal`, `fanout` and `stats`, which it keeps alive."""

    def __cinit__(self, SymbolTable table not None, JournalWriter journal not None, FanOut fanout not None,
                  Stats stats not None):
        self.table = table
        self.journal = journal
        self.fanout = fanout
        self.stats = stats
        self.unwritten = <Unwritten*>malloc(UNWRITTEN_MAX * sizeof(Unwritten))
        if self.unwritten == NULL:
            raise MemoryError("no memory for the list of trades that the journal has no room for")

    def __dealloc__(self):
        free(self.unwritten)

    cdef int on_message(self, const char* data, Py_ssize_t size, int64_t recv_ns, int64_t now_ns) noexcept nogil:
        """Take one message; 64 bytes behind it must be readable. Returns a Decoded: the caller sees to the rest."""
        cdef int decoded = decode_event(data, size, &self.event)
        cdef int applied
        if decoded != DECODED_EVENT:
            if decoded == DECODED_MALFORMED:
                self.stats.count(C_MALFORMED)
            elif decoded == DECODED_UNUSUAL:
                self.stats.count(C_UNUSUAL)
            else:
                self.stats.count(C_MESSAGES_OTHER)
            return decoded
        if self.event.kind == EVENT_TRADE:
            self.stats.count(C_MESSAGES_TRADE)
        elif self.event.kind == EVENT_AGG_TRADE:
            self.stats.count(C_MESSAGES_AGG_TRADE)
        else:
            self.stats.count(C_MESSAGES_QUOTE)
        applied = self.table.apply(&self.event, recv_ns, now_ns)
        if applied == APPLIED_DUPLICATE:
            self.stats.count(C_DUPLICATES)
        elif applied == APPLIED_STALE:
            self.stats.count(C_STALE_QUOTES)
        elif applied == APPLIED_HELD:
            self.stats.count(C_HELD)
        elif applied == APPLIED_UNKNOWN:
            self.stats.count(C_UNKNOWN_SYMBOL)
        elif applied == APPLIED_REFUSED:
            self.stats.count(C_REFUSED)
        self.commit()
        return decoded

    cdef void commit(self) noexcept nogil:
        """Journal what the table's last step made, then show it to the other processes and to the clients."""
        cdef uint32_t slot = self.table.slot
        cdef JournalRecord* record
        cdef int i
        cdef bint room = self.unwritten_count == 0 or self.write_put_aside()
        for i in range(self.table.record_count):
            record = &self.table.records[i]
            if room and self.journal.append(record) == 0:
                self.stats.count(C_JOURNAL_RECORDS)
            else:
                room = False
                self.put_aside(record, slot)
            if record.kind == RECORD_TRADE:
                if record.flags & FLAG_LATE:
                    self.stats.count(C_LATE_TRADES)
                self.fanout.mark_dirty(slot)
            elif record.kind == RECORD_GAP:
                self.stats.count(C_GAPS)
                self.stats.add(C_GAP_TRADES, record.trade_count)
        if self.table.changed and room:
            self.table.publish(slot, self.journal.next_seq)

    cdef void put_aside(self, const JournalRecord* record, uint32_t slot) noexcept nogil:
        """Remember the ids of a record that found no room. With the list full, a symbol's newest range is widened."""
        cdef uint64_t last = record.trade_id
        cdef uint64_t first = last - record.trade_count + 1
        cdef Unwritten* aside
        cdef uint32_t i = self.unwritten_count
        self.stats.count(C_JOURNAL_UNWRITTEN)
        if record.kind == RECORD_GAP:
            first = (<const GapRecord*>record).first_id
        elif record.kind != RECORD_TRADE:
            return
        while i > self.unwritten_done:
            i -= 1
            aside = &self.unwritten[i]
            if aside.slot == slot:
                if aside.last + 1 == first or self.unwritten_count == UNWRITTEN_MAX:
                    aside.first = min(aside.first, first)
                    aside.last = max(aside.last, last)
                    return
                break
        if self.unwritten_count == UNWRITTEN_MAX:
            return              # more symbols than can be: the table itself is behind, and a restart finds the gap
        aside = &self.unwritten[self.unwritten_count]
        aside.first = first
        aside.last = last
        aside.slot = slot
        aside.stream_id = record.stream_id
        self.unwritten_count += 1

    cdef bint write_put_aside(self) noexcept nogil:
        """Journal as gaps what found no room before. Returns whether all of it is written now."""
        cdef GapRecord gap
        cdef Unwritten* aside
        cdef uint64_t length
        while self.unwritten_done < self.unwritten_count:
            aside = &self.unwritten[self.unwritten_done]
            length = aside.last - aside.first + 1
            memset(&gap, 0, sizeof(gap))
            gap.first_id = aside.first
            gap.last_id = aside.last
            gap.ts_event = unix_ns()
            gap.reason = GAP_UNWRITTEN
            gap.trade_count = <uint32_t>min(length, <uint64_t>0xffffffff)
            gap.stream_id = aside.stream_id
            gap.kind = RECORD_GAP
            if self.journal.append(<JournalRecord*>&gap) != 0:
                return False
            self.stats.count(C_JOURNAL_RECORDS)
            self.stats.count(C_GAPS)
            self.stats.add(C_GAP_TRADES, gap.trade_count)
            self.unwritten_done += 1
        # Only now: a slot can have several ranges, and its row must not get ahead of any of them.
        while self.unwritten_count:
            self.unwritten_count -= 1
            self.table.publish(self.unwritten[self.unwritten_count].slot, self.journal.next_seq)
        self.unwritten_done = 0
        return True

    def take(self, bytes message not None, recv_ns=None, now_ns=None):
        """Take one message from Python, as the slow path and tests do. Returns its status, a `Decoded`.

        `recv_ns` is its arrival in unix ns, `now_ns` the monotonic time that deadlines count in; each is now where
        it is not given.
        """
        cdef bytes padded = message + bytes(READABLE_BEHIND)
        return self.on_message(
            <const char*>padded,
            len(message),
            unix_ns() if recv_ns is None else recv_ns,
            monotonic_ns() if now_ns is None else now_ns,
        )

    def tick(self, now_ns=None):
        """Give up what waited long enough, and retry what found no room. Call it every few ten milliseconds."""
        cdef int64_t now = monotonic_ns() if now_ns is None else now_ns
        if self.unwritten_count:
            self.write_put_aside()
        if self.table.next_deadline_ns() == 0 or self.table.next_deadline_ns() > now:
            return
        while self.table.expire(now):
            self.commit()

    @property
    def unwritten_ranges(self):
        """How many ranges of ids wait for room in the journal; 0 where all is well."""
        return self.unwritten_count
