"""Line arbitration by trade id: functions over a `Slot` of `arbitrate.pxd`, which says the rule.

No types of its own. Called by `SymbolTable` on the server's one thread; nothing here allocates, raises or reads a
clock. Times ending in `now_ns` are monotonic and above `RESTART_DEADLINE_NS`, `unix_ns` and `recv_ns` are unix time.

Two properties are kept by every function, and relied upon: open ranges are ascending, disjoint, never adjacent, and
end below `next_id - 1`; and a record's ids are exactly those that no record before it covers.
"""

from libc.math cimport INFINITY, llrint
from libc.stdint cimport INT32_MAX, INT32_MIN, INT64_MAX
from libc.string cimport memcpy, memmove, memset

from tradeback._fast.record cimport (
    EVENT_TRADE, FLAG_AGGREGATE, FLAG_BUYER_MAKER, FLAG_LATE, FLAG_SPARSE, GAP_OVERFLOW, GAP_RESTART, GAP_TIMEOUT,
    GAP_UNKNOWN_QUANTITY, RECORD_BEGIN, RECORD_GAP, RECORD_TRADE, BeginRecord, GapRecord,
)
from tradeback._fast.status cimport (
    APPLIED_DUPLICATE, APPLIED_FRESH, APPLIED_HELD, APPLIED_REFUSED, APPLIED_STALE,
)

cdef enum:
    DAY_SECONDS = 86_400


# --- exact quantities

cdef extern from *:
    """
    static const uint64_t tb_power_of_ten[20] = {
        1ULL, 10ULL, 100ULL, 1000ULL, 10000ULL, 100000ULL, 1000000ULL, 10000000ULL, 100000000ULL, 1000000000ULL,
        10000000000ULL, 100000000000ULL, 1000000000000ULL, 10000000000000ULL, 100000000000000ULL,
        1000000000000000ULL, 10000000000000000ULL, 100000000000000000ULL, 1000000000000000000ULL,
        10000000000000000000ULL};
    """
    const uint64_t POWER_OF_TEN "tb_power_of_ten"[20]


cdef inline uint64_t _quotient(uint64_t value, int exponent) noexcept nogil:
    # Divisors that the compiler knows become multiplications; the exchange's eight decimals end here.
    if exponent == 1:
        return value // <uint64_t>10
    elif exponent == 2:
        return value // <uint64_t>100
    elif exponent == 3:
        return value // <uint64_t>1_000
    elif exponent == 4:
        return value // <uint64_t>10_000
    elif exponent == 5:
        return value // <uint64_t>100_000
    elif exponent == 6:
        return value // <uint64_t>1_000_000
    elif exponent == 7:
        return value // <uint64_t>10_000_000
    elif exponent == 8:
        return value // <uint64_t>100_000_000
    return value // POWER_OF_TEN[exponent]


cdef inline int64_t _units(uint64_t mantissa, int scale, int precision, Tally* tally) noexcept nogil:
    """mantissa / 10**scale in units of 10**-precision, half to even where finer; -1 where no int64 holds it."""
    cdef uint64_t units, power, rest, half
    cdef int finer = scale - precision
    if finer == 0:
        units = mantissa
    elif finer < 0:
        if finer < -PRECISION_MAX:
            return -1
        power = POWER_OF_TEN[-finer]
        if mantissa > <uint64_t>INT64_MAX // power:
            return -1
        units = mantissa * power
    elif finer > 19:
        # Below half a unit for every mantissa, which is below 1.85 * 10**19.
        tally.rounded += 1
        units = 0
    else:
        power = POWER_OF_TEN[finer]
        units = _quotient(mantissa, finer)
        rest = mantissa - units * power
        if rest:
            tally.rounded += 1
            half = power // 2
            if rest > half or (rest == half and units & 1):
                units += 1
    return -1 if units > <uint64_t>INT64_MAX else <int64_t>units


cdef inline void _add_volume(Slot* slot, int64_t units, int64_t ts_event) noexcept nogil:
    cdef int32_t day = <int32_t>(ts_event // (<int64_t>DAY_SECONDS * 1_000_000_000))
    slot.cum_units = <int64_t>(<uint64_t>slot.cum_units + <uint64_t>units)
    if day > slot.day:
        slot.day = day
        slot.day_units = units
    elif day == slot.day:
        slot.day_units = units + slot.day_units if units <= INT64_MAX - slot.day_units else INT64_MAX


# --- records

cdef inline void _trade_record(const Slot* slot, JournalRecord* record, double price, double qty, uint64_t trade_id,
                               uint64_t count, int64_t ts_event, int64_t recv_ns, int flags) noexcept nogil:
    cdef int64_t offset = (recv_ns - ts_event) // 1000
    record.price = price
    record.qty = qty
    record.bid = slot.bid
    record.ask = slot.ask
    record.trade_id = trade_id
    record.ts_event = ts_event
    record.recv_offset_us = <int32_t>(INT32_MAX if offset > INT32_MAX else INT32_MIN if offset < INT32_MIN else offset)
    record.trade_count = <uint32_t>count
    record.stream_id = slot.stream_id
    record.kind = RECORD_TRADE
    record.flags = <uint8_t>flags
    record.crc = 0


cdef void _gap_record(const Slot* slot, JournalRecord* record, uint64_t first, uint64_t last, int64_t unix_ns,
                      int reason) noexcept nogil:
    cdef GapRecord* gap = <GapRecord*>record
    cdef uint64_t span = last - first
    memset(gap, 0, sizeof(GapRecord))
    gap.first_id = first
    gap.last_id = last
    gap.ts_event = unix_ns
    gap.reason = reason
    gap.trade_count = <uint32_t>(span + 1 if span < SPAN_MAX else SPAN_MAX)
    gap.stream_id = slot.stream_id
    gap.kind = RECORD_GAP


cdef inline void _set_price(Slot* slot, double price, double qty, int64_t ts_event, int64_t ts_sent,
                            int64_t recv_ns) noexcept nogil:
    slot.price = price
    slot.qty = qty
    slot.ts_event = ts_event
    slot.ts_sent = ts_sent
    slot.ts_recv = recv_ns


# --- what is covered

cdef inline bint _is_uncovered(const Slot* slot, uint64_t id) noexcept nogil:
    cdef const Lines* lines = slot.lines
    cdef uint32_t i
    if id >= slot.next_id:
        return True
    for i in range(lines.open_count):
        if id <= lines.open[i].last:
            return id >= lines.open[i].first
    return False


cdef int _pieces(const Slot* slot, uint64_t first, uint64_t last, OpenRange* pieces) noexcept nogil:
    """The uncovered ids of first..last as ascending ranges, at most OPEN_MAX + 1; returns how many."""
    cdef const Lines* lines = slot.lines
    cdef uint32_t i
    cdef int count = 0
    for i in range(lines.open_count):
        if lines.open[i].first <= last and lines.open[i].last >= first:
            pieces[count].first = max(first, lines.open[i].first)
            pieces[count].last = min(last, lines.open[i].last)
            count += 1
    if last >= slot.next_id:
        pieces[count].first = max(first, slot.next_id)
        pieces[count].last = last
        count += 1
    return count


cdef inline void _note_single(Lines* lines, uint64_t id, int64_t units) noexcept nogil:
    lines.singles[id & (SINGLES - 1)].next_id = id + 1
    lines.singles[id & (SINGLES - 1)].units = units


cdef int64_t _remainder(const Slot* slot, uint64_t first, uint64_t last, const OpenRange* pieces, int piece_count,
                        uint64_t uncovered, int64_t units) noexcept nogil:
    """`units` minus the single quantities of the covered ids of first..last; 0 where that cannot be known.

    It cannot where a covered id is no known single, and where nothing would be left: every trade has a quantity.
    """
    cdef const Single* single
    cdef uint64_t id = first
    cdef int piece = 0
    if last - first + 1 - uncovered > SINGLES:
        return 0
    while id <= last:
        if piece < piece_count and id >= pieces[piece].first:
            id = pieces[piece].last + 1
            piece += 1
            continue
        single = &slot.lines.singles[id & (SINGLES - 1)]
        if single.next_id != id + 1 or single.units >= units:
            return 0
        units -= single.units
        id += 1
    return units


cdef void _cover(Slot* slot, uint64_t first, uint64_t last, int64_t deadline_ns) noexcept nogil:
    """Takes first..last out of the open ranges, and opens what it skips above `next_id`: at most one range more."""
    cdef Lines* lines = slot.lines
    cdef OpenRange before[OPEN_MAX + 1]
    cdef uint32_t count = lines.open_count
    cdef uint32_t kept = 0
    cdef uint32_t i
    if count:
        memcpy(before, lines.open, count * sizeof(OpenRange))
        for i in range(count):
            if before[i].last < first or before[i].first > last:
                lines.open[kept] = before[i]
                kept += 1
                continue
            slot.open_changed = 1
            if before[i].first < first:
                lines.open[kept] = before[i]
                lines.open[kept].last = first - 1
                kept += 1
            if before[i].last > last:
                lines.open[kept] = before[i]
                lines.open[kept].first = last + 1
                kept += 1
    if last >= slot.next_id:
        if first > slot.next_id:
            lines.open[kept].first = slot.next_id
            lines.open[kept].last = first - 1
            lines.open[kept].deadline_ns = deadline_ns
            kept += 1
            slot.open_changed = 1
        slot.next_id = last + 1
    lines.open_count = kept


cdef inline void _drop_open(Slot* slot, uint32_t place) noexcept nogil:
    cdef Lines* lines = slot.lines
    lines.open_count -= 1
    memmove(&lines.open[place], &lines.open[place + 1], (lines.open_count - place) * sizeof(OpenRange))
    slot.open_changed = 1


cdef inline void _drop_held(Lines* lines, uint32_t place) noexcept nogil:
    lines.held_count -= 1
    memmove(&lines.held[place], &lines.held[place + 1], (lines.held_count - place) * sizeof(Held))


cdef void _drop_covered_held(Slot* slot) noexcept nogil:
    cdef OpenRange pieces[OPEN_MAX + 1]
    cdef Lines* lines = slot.lines
    cdef uint32_t i = 0
    while i < lines.held_count:
        if _pieces(slot, lines.held[i].first, lines.held[i].last, pieces):
            i += 1
        else:
            _drop_held(lines, i)


cdef int _cover_live(Slot* slot, uint64_t first, uint64_t last, int64_t now_ns, int64_t unix_ns,
                     JournalRecord* records, Tally* tally) noexcept nogil:
    """`_cover` in the bounds of the mapped ranges. Returns 1 where that cost a gap, put at records[0].

    The gap stands before the record of first..last: so a replay never has more open ranges than the live table.
    """
    cdef Lines* lines = slot.lines
    _cover(slot, first, last, now_ns + WAIT_NS)
    if lines.open_count <= OPEN_MAX:
        return 0
    tally.open_overflows += 1
    _gap_record(slot, records, lines.open[0].first, lines.open[0].last, unix_ns, GAP_OVERFLOW)
    _drop_open(slot, 0)
    return 1


# --- events

cdef inline int _count_single(Slot* slot, const Event* event, int64_t units, int64_t recv_ns, int64_t now_ns,
                              JournalRecord* records, Tally* tally) noexcept nogil:
    """One uncovered trade, in order or not. Returns the number of records."""
    cdef Lines* lines = slot.lines
    cdef uint64_t id = event.first_id
    cdef int flags = event.flags & FLAG_BUYER_MAKER
    cdef int count = 0
    if event.kind != EVENT_TRADE:
        flags |= FLAG_AGGREGATE
    if id >= slot.next_id:
        _set_price(slot, event.price, event.qty, event.ts_event, event.ts_sent, recv_ns)
    else:
        flags |= FLAG_LATE
    if id == slot.next_id:
        slot.next_id = id + 1
    else:
        count = _cover_live(slot, id, id, now_ns, recv_ns, records, tally)
    _note_single(lines, id, units)
    _add_volume(slot, units, event.ts_event)
    _trade_record(slot, &records[count], event.price, event.qty, id, 1, event.ts_event, recv_ns, flags)
    if lines.held_count:
        _drop_covered_held(slot)
    return count + 1


cdef void _begin(Slot* slot, uint64_t first, int64_t ts_event, int64_t now_ns, JournalRecord* record) noexcept nogil:
    """Ids count from `first` on, and from below as far as trades come within WAIT_NS that leave no hole: a hole
    below the beginning would be forgotten by a replay."""
    cdef Lines* lines = slot.lines
    cdef BeginRecord* begin = <BeginRecord*>record
    memset(begin, 0, sizeof(BeginRecord))
    begin.first_id = first
    begin.floor_id = slot.next_id
    begin.ts_event = ts_event
    begin.stream_id = slot.stream_id
    begin.kind = RECORD_BEGIN
    lines.floor_least = slot.next_id
    lines.floor_id = first
    lines.floor_deadline_ns = now_ns + WAIT_NS
    slot.next_id = first


cdef int _count_below(Slot* slot, const Event* event, int64_t units, int64_t recv_ns,
                      JournalRecord* record) noexcept nogil:
    """The trade just below the first id that counted. Returns the number of records."""
    cdef int flags = (event.flags & FLAG_BUYER_MAKER) | FLAG_LATE
    if event.kind != EVENT_TRADE:
        flags |= FLAG_AGGREGATE
    slot.lines.floor_id = event.first_id
    _note_single(slot.lines, event.first_id, units)
    _add_volume(slot, units, event.ts_event)
    _trade_record(slot, record, event.price, event.qty, event.first_id, 1, event.ts_event, recv_ns, flags)
    return 1


cdef int _count_aggregate(Slot* slot, const Held* held, int64_t now_ns, int64_t unix_ns, JournalRecord* records,
                          Tally* tally) noexcept nogil:
    """An aggTrade counts for its uncovered ids, as one trade record or as gaps. Returns the number of records."""
    cdef OpenRange pieces[OPEN_MAX + 1]
    cdef int piece_count = _pieces(slot, held.first, held.last, pieces)
    cdef uint64_t uncovered = 0
    cdef int64_t units = held.units
    cdef double qty = held.qty
    cdef int flags = held.flags | FLAG_AGGREGATE
    cdef uint64_t top
    cdef int count = 0
    cdef int i
    if piece_count == 0:
        return 0
    for i in range(piece_count):
        uncovered += pieces[i].last - pieces[i].first + 1
    if uncovered != held.last - held.first + 1:
        units = _remainder(slot, held.first, held.last, pieces, piece_count, uncovered, units)
        if units == 0:
            tally.unknown_quantities += 1
            for i in range(piece_count):
                _gap_record(slot, &records[i], pieces[i].first, pieces[i].last, unix_ns, GAP_UNKNOWN_QUANTITY)
            # It covers nothing that splits a range or skips ids, so there is no overflow to journal.
            _cover(slot, held.first, held.last, now_ns + WAIT_NS)
            return piece_count
        qty = <double>units / slot.scale
    top = pieces[piece_count - 1].last
    if piece_count > 1:
        flags |= FLAG_SPARSE
    if top >= slot.next_id:
        _set_price(slot, held.price, qty, held.ts_event, held.ts_sent, held.recv_ns)
    else:
        flags |= FLAG_LATE
    count = _cover_live(slot, held.first, held.last, now_ns, unix_ns, records, tally)
    _add_volume(slot, units, held.ts_event)
    _trade_record(slot, &records[count], held.price, qty, top, uncovered, held.ts_event, held.recv_ns, flags)
    records[count].bid = held.bid
    records[count].ask = held.ask
    return count + 1


cdef int _take_aggregate(Slot* slot, const Event* event, int64_t units, int64_t recv_ns, int64_t now_ns,
                         JournalRecord* records, int* record_count, Tally* tally) noexcept nogil:
    cdef OpenRange pieces[OPEN_MAX + 1]
    cdef Lines* lines = slot.lines
    cdef Held held
    cdef uint32_t i
    if _pieces(slot, event.first_id, event.last_id, pieces) == 0:
        return APPLIED_DUPLICATE
    held.first = event.first_id
    held.last = event.last_id
    held.units = units
    held.deadline_ns = now_ns + WAIT_NS
    held.ts_event = event.ts_event
    held.ts_sent = event.ts_sent
    held.recv_ns = recv_ns
    held.price = event.price
    held.qty = event.qty
    held.bid = slot.bid
    held.ask = slot.ask
    held.flags = event.flags & FLAG_BUYER_MAKER
    if now_ns - lines.trade_line_ns >= WAIT_NS:
        record_count[0] = _count_aggregate(slot, &held, now_ns, recv_ns, records, tally)
        if lines.held_count:
            _drop_covered_held(slot)
        return APPLIED_FRESH
    for i in range(lines.held_count):
        if lines.held[i].first == held.first and lines.held[i].last == held.last:
            return APPLIED_DUPLICATE
    if lines.held_count == HELD_MAX:
        tally.held_overflows += 1
        record_count[0] = _count_aggregate(slot, &lines.held[0], now_ns, recv_ns, records, tally)
        _drop_held(lines, 0)
        _drop_covered_held(slot)
    lines.held[lines.held_count] = held
    lines.held_count += 1
    return APPLIED_HELD


cdef int take_trade(Slot* slot, const Event* event, int64_t recv_ns, int64_t now_ns, JournalRecord* records,
                    int* record_count, Tally* tally) noexcept nogil:
    """Applies a trade or an aggTrade; returns Applied. An aggTrade that is held can still leave records of another."""
    cdef uint64_t first = event.first_id
    cdef uint64_t last = event.last_id
    cdef int64_t units
    cdef int begun = 0
    cdef int status
    record_count[0] = 0
    if (first > last or last > ID_MAX or last - first >= SPAN_MAX or not (0 < event.price < INFINITY)
            or not (0 < event.qty < INFINITY) or event.ts_event <= 0
            or (event.kind == EVENT_TRADE and first != last)):
        return APPLIED_REFUSED
    if slot.next_id and last >= slot.next_id and last - slot.next_id >= SPAN_MAX:
        return APPLIED_REFUSED
    units = _units(event.qty_mantissa, event.qty_scale, slot.quantity_precision, tally)
    if units < 0 or event.qty_mantissa == 0:
        return APPLIED_REFUSED
    if event.kind == EVENT_TRADE:
        slot.lines.trade_line_ns = now_ns
    if slot.next_id == 0:
        _begin(slot, first, event.ts_event, now_ns, records)
        begun = 1
        if slot.carrying == CARRYING_ANEW:
            # Dropped before its first trade: this is the beginning, and the next id is no second one.
            slot.carrying = CARRYING
    elif slot.carrying == CARRYING_ANEW and last >= slot.next_id:
        # What is held from before it was dropped would be below the beginning, and forgotten: then all is a gap.
        if slot.lines.held_count == 0:
            _begin(slot, max(first, slot.next_id), event.ts_event, now_ns, records)
            begun = 1
        slot.carrying = CARRYING
    if first != last:
        status = _take_aggregate(slot, event, units, recv_ns, now_ns, records + begun, record_count, tally)
        record_count[0] += begun
        return status
    if not _is_uncovered(slot, first):
        if (now_ns >= slot.lines.floor_deadline_ns or first + 1 != slot.lines.floor_id
                or first < slot.lines.floor_least):
            return APPLIED_DUPLICATE
        record_count[0] = _count_below(slot, event, units, recv_ns, records)
        return APPLIED_FRESH
    record_count[0] = begun + _count_single(slot, event, units, recv_ns, now_ns, records + begun, tally)
    return APPLIED_FRESH


cdef int take_quote(Slot* slot, const Event* event, int64_t recv_ns, int64_t now_ns) noexcept nogil:
    """Applies a bookTicker; returns Applied. An empty side of the book is 0.

    An update id not above the last is stale. But an exchange that was set up anew counts from below: where no newer
    quote came for QUOTE_PATIENCE_NS, the lower id is believed, or a price would stand still for ever.
    """
    if (not (0 <= event.bid < INFINITY) or not (0 <= event.ask < INFINITY) or not (0 <= event.bid_qty < INFINITY)
            or not (0 <= event.ask_qty < INFINITY)):
        return APPLIED_REFUSED
    if event.id <= slot.quote_id and now_ns - slot.lines.quote_ns < QUOTE_PATIENCE_NS:
        return APPLIED_STALE
    slot.lines.quote_ns = now_ns
    slot.quote_id = event.id
    slot.quote_recv = recv_ns
    slot.bid = event.bid
    slot.bid_qty = event.bid_qty
    slot.ask = event.ask
    slot.ask_qty = event.ask_qty
    return APPLIED_FRESH


# --- time

cdef bint _is_awaited(const Lines* lines, const OpenRange* open) noexcept nogil:
    cdef uint32_t i
    for i in range(lines.held_count):
        if lines.held[i].first <= open.last and lines.held[i].last >= open.first:
            return True
    return False


cdef int64_t deadline(const Slot* slot) noexcept nogil:
    """When `give_up` has something to do for this slot, monotonic; 0: nothing waits."""
    cdef const Lines* lines = slot.lines
    cdef int64_t soonest = 0
    cdef uint32_t i
    for i in range(lines.held_count):
        if soonest == 0 or lines.held[i].deadline_ns < soonest:
            soonest = lines.held[i].deadline_ns
    for i in range(lines.open_count):
        if (soonest == 0 or lines.open[i].deadline_ns < soonest) and not _is_awaited(lines, &lines.open[i]):
            soonest = lines.open[i].deadline_ns
    return soonest


cdef int give_up(Slot* slot, int64_t now_ns, int64_t unix_ns, JournalRecord* records, Tally* tally) noexcept nogil:
    """Counts the aggTrades and gives up the open ranges whose time is over. Returns the number of records.

    Stops where RECORDS_MAX might not suffice; `deadline` then still says that something is due.
    """
    cdef Lines* lines = slot.lines
    cdef int count = 0
    cdef uint32_t i = 0
    cdef int reason
    while i < lines.held_count:
        if lines.held[i].deadline_ns > now_ns:
            i += 1
            continue
        if count + RECORDS_AN_AGG > RECORDS_MAX:
            return count
        count += _count_aggregate(slot, &lines.held[i], now_ns, unix_ns, &records[count], tally)
        _drop_held(lines, i)
    _drop_covered_held(slot)
    i = 0
    while i < lines.open_count and count < RECORDS_MAX:
        if lines.open[i].deadline_ns > now_ns or _is_awaited(lines, &lines.open[i]):
            i += 1
            continue
        reason = GAP_RESTART if lines.open[i].deadline_ns == RESTART_DEADLINE_NS else GAP_TIMEOUT
        _gap_record(slot, &records[count], lines.open[i].first, lines.open[i].last, unix_ns, reason)
        _drop_open(slot, i)
        count += 1
    return count


# --- replay of the journal at start

cdef int replay_record(Slot* slot, const JournalRecord* record) noexcept nogil:
    """Puts what the record says into the slot. Returns -1 where the record cannot be of this slot's history.

    What it skips is an open range that is given up when the replay is over.
    """
    cdef const GapRecord* gap = <const GapRecord*>record
    cdef const BeginRecord* begin = <const BeginRecord*>record
    cdef OpenRange pieces[OPEN_MAX + 1]
    cdef uint64_t left, low, first
    cdef double units
    cdef int i
    if record.kind == RECORD_GAP:
        if gap.first_id > gap.last_id or gap.last_id > ID_MAX:
            return -1
        if slot.next_id == 0:
            slot.next_id = gap.first_id
        _cover(slot, gap.first_id, gap.last_id, RESTART_DEADLINE_NS)
    elif record.kind == RECORD_BEGIN:
        if begin.first_id < slot.next_id or begin.first_id > ID_MAX:
            return -1
        slot.next_id = begin.first_id
        slot.carrying = CARRYING
    else:
        if (record.trade_count == 0 or record.trade_id > ID_MAX or record.trade_id + 1 < record.trade_count
                or not (0 < record.price < INFINITY) or not (0 < record.qty < INFINITY) or record.ts_event <= 0):
            return -1
        first = record.trade_id + 1 - record.trade_count
        if slot.next_id == 0:
            slot.next_id = first
        if record.trade_id >= slot.next_id:
            _set_price(slot, record.price, record.qty, record.ts_event, 0,
                       record.ts_event + <int64_t>record.recv_offset_us * 1000)
        if record.flags & FLAG_SPARSE:
            left = record.trade_count
            i = _pieces(slot, 0, record.trade_id, pieces)
            while i > 0 and left:
                i -= 1
                low = pieces[i].first
                if pieces[i].last - low >= left:
                    low = pieces[i].last - left + 1
                left -= pieces[i].last - low + 1
                _cover(slot, low, pieces[i].last, RESTART_DEADLINE_NS)
        else:
            _cover(slot, first, record.trade_id, RESTART_DEADLINE_NS)
        units = record.qty * slot.scale
        _add_volume(slot, <int64_t>llrint(units) if units < 9.2e18 else INT64_MAX, record.ts_event)
    if slot.lines.open_count > OPEN_MAX:
        # More than the live table had: the journal begins in the middle of this slot's history.
        _drop_open(slot, 0)
    return 0
