"""The symbol table: every carried symbol's state, and the mapped file that other processes read.

    status = table.apply(&event, recv_ns, now_ns)
    for i in range(table.record_count): journal.append(&table.records[i])      # whatever the status
    if table.changed: table.publish(table.slot, journal.next_seq)

and after the reads of a loop iteration, where `next_deadline_ns()` has passed:

    while table.expire(now_ns): append the records, publish table.slot, mark it dirty

So the mapped file is never ahead of the journal, and what is behind is replayed at open.
"""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from tradeback._fast.arbitrate cimport RECORDS_MAX, OpenRange, Slot, Tally
from tradeback._fast.record cimport Event, JournalRecord
from tradeback._fast.tablefile cimport TableFile


cdef enum:
    UNPUBLISHED_MAX = 129       # ranges: of OPEN_MAX + 1 in the row, cut by OPEN_MAX that are still open


# A name of at most 16 bytes is the two keys; of a longer one the rest is in `names`.
cdef struct Name:
    uint64_t low
    uint64_t high
    uint32_t slot
    uint32_t size               # 0: an empty place


cdef class SymbolTable:
    cdef Slot* slots                    # at the slot; the address never changes. `slots[i].price`, `.cum_units`,
                                        # `.scale` (a double, 10**quantity_precision), `.stream_id`
    cdef uint32_t slot_count
    cdef uint32_t slot                  # the one that the last apply() or expire() touched
    cdef int record_count
    cdef bint changed                   # the last apply() or expire() changed that slot: publish it
    cdef JournalRecord records[RECORDS_MAX]
    cdef Tally tally
    cdef TableFile _file
    cdef Name* _places
    cdef uint32_t _place_mask
    cdef list _names                    # slot -> bytes | None
    cdef const char** _long_names       # slot -> the bytes of _names[slot]
    cdef uint32_t* _slot_of             # stream id -> slot + 1
    cdef uint32_t* _waiting
    cdef uint32_t _waiting_count
    cdef uint32_t _cursor
    cdef int64_t _next_deadline_ns
    cdef int64_t _unix_offset_ns        # unix minus monotonic time, of the last event
    cdef readonly uint64_t unreplayed

    # Records of the event are in `records[:record_count]`. Reads 16 bytes from event.symbol, however short it is.
    cdef int apply(self, const Event* event, int64_t recv_ns, int64_t now_ns) noexcept nogil
    # Returns the number of records of one slot whose waiting is over; 0: nothing more is due.
    cdef int expire(self, int64_t now_ns) noexcept nogil
    cdef int64_t next_deadline_ns(self) noexcept nogil
    # Copies the slot into its mapped row. `next_seq`: every journal record of this slot is below it.
    cdef void publish(self, uint32_t slot, uint64_t next_seq) noexcept nogil
    # The ids that the slot covers and its mapped row does not, as ascending ranges; returns how many. `first`: where
    # they begin, if above what the row holds, as where a symbol began meanwhile.
    cdef int unpublished(self, uint32_t slot, uint64_t first, OpenRange* ranges) noexcept nogil
    cdef int64_t find_c(self, const char* symbol, uint32_t size) noexcept nogil
    cdef bint replay_c(self, const JournalRecord* record, uint64_t seq) noexcept nogil
    cdef void _watch(self, uint32_t index) noexcept nogil
    cdef void _place(self, uint32_t index, const char* name, uint32_t size) noexcept
    cdef int _fill_slot(self, uint32_t stream_id, uint32_t precision) except -1
