"""One carried symbol's private state, and the arbitration by trade id between its two lines.

The rule (docs/architecture.md, "Two lines"): `trade` and `aggTrade` tell the same facts. An event counts for exactly
those of its ids that are not yet covered; skipped ids become an open range, which is given up as a gap when
`WAIT_NS` have passed and no waiting aggTrade overlaps it. Everything here is bounded and allocates nothing.

Ids are 0 to `ID_MAX`. Instead of the highest covered id a slot keeps the one after it, `next_id`: a new listing
begins with id 0, and 0 can so mean that nothing was covered yet.
"""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from tradeback._fast.record cimport Event, JournalRecord

cdef enum:
    OPEN_MAX = 64               # open ranges a symbol; beyond, the lowest is given up with GAP_OVERFLOW. Each held
                                # aggTrade may leave one below it, so it is well above HELD_MAX
    HELD_MAX = 32               # waiting aggTrades a symbol; beyond, the oldest counts now
    SINGLES = 1024              # single quantities a symbol that are known, a power of two
    RECORDS_MAX = 160           # what one call can fill
    RECORDS_AN_AGG = 66         # what one aggTrade can at most become: gaps of all open ranges and of its tail
    WAIT_NS = 250_000_000       # what both lines have to bring a skipped id
    RESTART_DEADLINE_NS = 1     # of a range that was open when the writer ended: due at once
    PRECISION_MAX = 18          # 10**18 units still fit an int64

cdef extern from *:
    """
    #define TB_ID_MAX 0x7fffffffffffffffULL
    #define TB_SPAN_MAX 0xffffffffULL
    #define TB_NEVER_NS (-((int64_t)1 << 62))
    #define TB_QUOTE_PATIENCE_NS ((int64_t)10000000000)
    """
    const uint64_t ID_MAX "TB_ID_MAX"
    const uint64_t SPAN_MAX "TB_SPAN_MAX"       # ids an event may jump ahead or stand for: a count is a u32
    const int64_t NEVER_NS "TB_NEVER_NS"
    const int64_t QUOTE_PATIENCE_NS "TB_QUOTE_PATIENCE_NS"  # without a newer quote for so long, a lower id is believed


# Whether the feeds bring a symbol, and whether what they missed of it is a gap. Only CARRYING survives a restart as
# such; of the others the mapped row says that it was dropped.
cdef enum Carrying:
    CARRYING = 0
    CARRYING_ANEW = 1           # carried again after it was dropped: the next event above next_id begins anew
    DROPPED = 2                 # nobody wants it; what is still under way counts


cdef struct OpenRange:
    uint64_t first
    uint64_t last               # inclusive
    int64_t deadline_ns         # monotonic, or RESTART_DEADLINE_NS


# An aggTrade that waits for its single trades, with what was known when it arrived.
cdef struct Held:
    uint64_t first
    uint64_t last
    int64_t units
    int64_t deadline_ns
    int64_t ts_event
    int64_t ts_sent
    int64_t recv_ns
    double price
    double qty
    double bid
    double ask
    uint8_t flags


cdef struct Single:
    uint64_t next_id            # id + 1; 0: empty
    int64_t units


# What is seldom touched. Allocated when the symbol is added, freed with the table.
cdef struct Lines:
    int64_t trade_line_ns       # monotonic time at which the trade line last brought this symbol
    int64_t quote_ns            # monotonic time of the quote in force
    uint64_t floor_id           # the lowest id that counted since the symbol began; the trade just below it
    uint64_t floor_least        # lowers it, if it is not below this one
    int64_t floor_deadline_ns   # and comes before this monotonic time
    uint32_t open_count
    uint32_t held_count
    OpenRange open[OPEN_MAX + 1]        # by id; the last place is used only within a call
    Held held[HELD_MAX]                 # by arrival
    Single singles[SINGLES]             # at id % SINGLES


# Private to the writer's process. Its address stays the same as long as the table lives, so others may keep it.
cdef struct Slot:
    double price                # of the highest trade id; 0: no trade so far
    int64_t cum_units           # base asset traded, in 10**-quantity_precision. Only differences mean something:
                                # it wraps modulo 2**64, and starts anew when the precision changes
    double scale                # 10**quantity_precision: quantity = units / scale
    uint16_t stream_id
    uint8_t quantity_precision
    uint8_t carrying            # Carrying
    uint8_t open_changed        # the mapped ranges are to be written
    double qty                  # of the record that set `price`
    uint64_t next_id            # highest covered id + 1; 0: none yet
    int64_t day_units           # traded in the UTC day `day`; stays at the highest int64 where it would pass it
    int64_t ts_event            # T of the record that set `price`, unix ns
    int64_t ts_sent             # E of it; 0 where it came from the mapped file or the journal, which keep none
    int64_t ts_recv
    double bid
    double bid_qty
    double ask
    double ask_qty
    uint64_t quote_id           # update id of the quote in force
    int64_t quote_recv          # unix ns; 0: no quote so far
    uint64_t next_seq           # journal records below it are in this state
    int32_t day                 # days since 1970
    uint32_t name_hash
    int64_t deadline_ns         # the next thing to expire; 0: none
    uint32_t waiting_at         # place in the table's list of waiting slots + 1; 0: not in it
    Lines* lines


# Counts of what is decided here; the caller carries them to the statistics.
cdef struct Tally:
    uint64_t rounded            # quantities finer than the symbol's precision, rounded half to even
    uint64_t held_overflows     # aggTrades that had to count before their time, HELD_MAX were waiting
    uint64_t open_overflows     # open ranges given up before their time, OPEN_MAX were open
    uint64_t unknown_quantities # aggTrades whose remaining quantity could not be known


cdef int take_trade(Slot* slot, const Event* event, int64_t recv_ns, int64_t now_ns, JournalRecord* records,
                    int* record_count, Tally* tally) noexcept nogil
cdef int take_quote(Slot* slot, const Event* event, int64_t recv_ns, int64_t now_ns) noexcept nogil
cdef int give_up(Slot* slot, int64_t now_ns, int64_t unix_ns, JournalRecord* records, Tally* tally) noexcept nogil
cdef int64_t deadline(const Slot* slot) noexcept nogil
cdef int replay_record(Slot* slot, const JournalRecord* record) noexcept nogil
