"""Ingest: what a message does between a feed and the clients.

One object in the server's process, used on its one thread. It owns nothing of what it drives but the list of
symbols of which records found no room in the journal; table, journal, fan-out and counters belong to the composition
root.

The order is the promise: a record is in the journal before the mapped table shows it, so that whoever is killed
between the two finds the table behind the journal, never ahead of it.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset

from tradeback._fast.arbitrate cimport Lines, OpenRange
from tradeback._fast.clock cimport monotonic_ns
from tradeback._fast.clock cimport now_ns as unix_ns
from tradeback._fast.decode cimport decode_event
from tradeback._fast.record cimport (
    EVENT_AGG_TRADE,
    EVENT_TRADE,
    FLAG_LATE,
    GAP_UNWRITTEN,
    RECORD_BEGIN,
    RECORD_GAP,
    RECORD_TRADE,
    BeginRecord,
    GapRecord,
    JournalRecord,
)
from tradeback._fast.stats cimport (
    C_DUPLICATES,
    C_GAP_TRADES,
    C_GAPS,
    C_HELD,
    C_HELD_OVERFLOWS,
    C_JOURNAL_RECORDS,
    C_JOURNAL_UNWRITTEN,
    C_LATE_TRADES,
    C_MALFORMED,
    C_MESSAGES_AGG_TRADE,
    C_MESSAGES_OTHER,
    C_MESSAGES_QUOTE,
    C_MESSAGES_TRADE,
    C_OPEN_OVERFLOWS,
    C_REFUSED,
    C_ROUNDED,
    C_STALE_QUOTES,
    C_UNKNOWN_QUANTITIES,
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
from tradeback._fast.table cimport UNPUBLISHED_MAX

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
        self.behind = <Behind*>calloc(SLOTS_MAX, sizeof(Behind))
        self.is_behind = <uint8_t*>calloc(SLOTS_MAX, 1)
        if self.behind == NULL or self.is_behind == NULL:
            raise MemoryError("no memory for the list of symbols that the journal has no room for")

    def __dealloc__(self):
        free(self.behind)
        free(self.is_behind)

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
        if self.behind_count:
            # Before the table takes more: what it covers and the row lacks is what found no room.
            self.catch_up()
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
        cdef int count = self.table.record_count
        cdef JournalRecord* record
        cdef int i
        # All of a step or nothing, and nothing while older records wait: or it would be journaled twice.
        if count and (self.behind_count or not self.journal.has_room(count)):
            self.fall_behind(slot)
        for i in range(count):
            record = &self.table.records[i]
            if self.is_behind[slot]:
                self.stats.count(C_JOURNAL_UNWRITTEN)
            elif self.journal.append(record) == 0:
                self.stats.count(C_JOURNAL_RECORDS)
            if record.kind == RECORD_TRADE:
                if record.flags & FLAG_LATE:
                    self.stats.count(C_LATE_TRADES)
                self.fanout.mark_dirty(slot)
            elif record.kind == RECORD_GAP and not self.is_behind[slot]:
                self.stats.count(C_GAPS)
                self.stats.add(C_GAP_TRADES, record.trade_count)
        if self.table.changed and not self.is_behind[slot]:
            self.table.publish(slot, self.journal.next_seq)

    cdef void fall_behind(self, uint32_t slot) noexcept nogil:
        """The records of the table's last step find no room: leave the slot's row as it is until there is some."""
        cdef Behind* behind = &self.behind[self.behind_count]
        if self.is_behind[slot]:
            return
        behind.slot = slot
        behind.begin.kind = 0
        if self.table.records[0].kind == RECORD_BEGIN:
            behind.begin = (<BeginRecord*>&self.table.records[0])[0]
        self.behind_count += 1
        self.is_behind[slot] = 1

    cdef bint catch_up(self) noexcept nogil:
        """Journal as gaps what found no room, symbol by symbol. Returns whether all of it is written now."""
        cdef OpenRange ranges[UNPUBLISHED_MAX]
        cdef GapRecord gap
        cdef BeginRecord* begin
        cdef Lines* lines
        cdef uint64_t first, length
        cdef uint32_t slot
        cdef int count, i
        while self.behind_count:
            slot = self.behind[self.behind_count - 1].slot
            begin = &self.behind[self.behind_count - 1].begin
            first = 0
            if begin.kind:
                # Trades just below the beginning may have come since.
                lines = self.table.slots[slot].lines
                if begin.floor_id <= lines.floor_id < begin.first_id:
                    begin.first_id = lines.floor_id
                first = begin.first_id
            count = self.table.unpublished(slot, first, ranges)
            if not self.journal.has_room(count + (1 if begin.kind else 0)):
                return False
            if begin.kind:
                self.journal.append(<JournalRecord*>begin)
                self.stats.count(C_JOURNAL_RECORDS)
            for i in range(count):
                length = ranges[i].last - ranges[i].first + 1
                memset(&gap, 0, sizeof(gap))
                gap.first_id = ranges[i].first
                gap.last_id = ranges[i].last
                gap.ts_event = unix_ns()
                gap.reason = GAP_UNWRITTEN
                gap.trade_count = <uint32_t>min(length, <uint64_t>0xffffffff)
                gap.stream_id = self.table.slots[slot].stream_id
                gap.kind = RECORD_GAP
                self.journal.append(<JournalRecord*>&gap)
                self.stats.count(C_JOURNAL_RECORDS)
                self.stats.count(C_GAPS)
                self.stats.add(C_GAP_TRADES, gap.trade_count)
            self.table.publish(slot, self.journal.next_seq)
            self.is_behind[slot] = 0
            self.behind_count -= 1
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
        """Give up what waited long enough, retry what found no room, and show what the arbitration counted.

        Call it when the table's next deadline is over, and four times a second for the rest.
        """
        cdef int64_t now = monotonic_ns() if now_ns is None else now_ns
        if self.behind_count:
            self.catch_up()
        if 0 < self.table.next_deadline_ns() <= now:
            while self.table.expire(now):
                self.commit()
        self.stats.set(C_ROUNDED, self.table.tally.rounded)
        self.stats.set(C_HELD_OVERFLOWS, self.table.tally.held_overflows)
        self.stats.set(C_OPEN_OVERFLOWS, self.table.tally.open_overflows)
        self.stats.set(C_UNKNOWN_QUANTITIES, self.table.tally.unknown_quantities)

    @property
    def unwritten_symbols(self):
        """Of how many symbols records found no room in the journal and wait for it; 0 where all is well."""
        return self.behind_count
