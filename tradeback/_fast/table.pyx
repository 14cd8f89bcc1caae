"""The symbol table of the server: names to slots, slots to rows, and what waits for time to pass.

    SymbolTable     owns the slots, the mapped file and the records of the last call; server process, its one thread

What one symbol's two lines bring is decided in `arbitrate`; how rows lie in the file, and who reads them, in
`tablefile`. Only `apply`, `expire` and `publish` are on the way of a market event: they allocate nothing, raise
nothing and hold no lock. Everything with a Python face is for start-up, for new symbols, and for tests and tools.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memcpy, memset
from posix.mman cimport MAP_ANONYMOUS, MAP_FAILED, MAP_NORESERVE, MAP_PRIVATE, PROT_READ, PROT_WRITE, mmap, munmap

from tradeback._fast.arbitrate cimport (
    CARRYING, CARRYING_ANEW, DROPPED, NEVER_NS, OPEN_MAX, PRECISION_MAX, RESTART_DEADLINE_NS, SINGLES, Lines, OpenRange,
    deadline, give_up, replay_record, take_quote, take_trade,
)
from tradeback._fast.clock cimport monotonic_ns, now_ns as unix_now_ns
from tradeback._fast.names cimport file_hash, index_hash, name_keys
from tradeback._fast.record cimport (
    EVENT_AGG_TRADE, EVENT_QUOTE, EVENT_TRADE, RECORD_BEGIN, RECORD_GAP, RECORD_TRADE, STREAM_ID_MAX, SYMBOL_MAX,
)
from tradeback._fast.status cimport APPLIED_FRESH, APPLIED_REFUSED, APPLIED_UNKNOWN
from tradeback._fast.tablefile cimport (
    ROW_COUNT, ROW_DROPPED, ROW_OPEN_COUNT, MappedRanges, Row, seq_begin, seq_end, store_u64,
)

cdef enum:
    FIRST_PLACES = 256          # of the name index; it is kept at most a quarter full


@cython.final
@cython.auto_pickle(False)
cdef class SymbolTable:
    """Opened with `SymbolTable.open(path, exchange)`; close it. Not to be shared between threads."""

    def __init__(self) -> None:
        raise TypeError("open a table with SymbolTable.open(path, exchange)")

    @staticmethod
    def open(path: str, exchange: str) -> SymbolTable:
        """Opens or makes the mapped file and locks it. Then: `add` the symbols, `replay` the journal, and run.

        DataFolderError where the file is foreign, cut, of another version or exchange, locked by another server, or
        cannot be written.
        """
        cdef SymbolTable self = SymbolTable.__new__(SymbolTable)
        cdef void* slots
        self._file = TableFile(path, exchange)
        self._names = []
        slots = mmap(NULL, ROW_COUNT * sizeof(Slot), PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)
        if slots == MAP_FAILED:
            raise MemoryError
        self.slots = <Slot*>slots
        self._place_mask = FIRST_PLACES - 1
        self._places = <Name*>calloc(FIRST_PLACES, sizeof(Name))
        self._long_names = <const char**>calloc(ROW_COUNT, sizeof(char*))
        self._slot_of = <uint32_t*>calloc(ROW_COUNT, sizeof(uint32_t))
        self._waiting = <uint32_t*>calloc(ROW_COUNT, sizeof(uint32_t))
        if not (self._places and self._long_names and self._slot_of and self._waiting):
            raise MemoryError
        self._unix_offset_ns = unix_now_ns() - monotonic_ns()
        return self

    def __dealloc__(self):
        cdef uint32_t i
        if self.slots != NULL:
            for i in range(self.slot_count):
                free(self.slots[i].lines)
            munmap(self.slots, ROW_COUNT * sizeof(Slot))
        free(self._places)
        free(self._long_names)
        free(self._slot_of)
        free(self._waiting)

    def close(self) -> None:
        """Writes the file to the disk and marks it as closed; the journal is closed before. Twice is no error.

        From then on no name is found and nothing waits, so no event can change a row.
        """
        memset(self._places, 0, (self._place_mask + 1) * sizeof(Name))
        self._next_deadline_ns = 0
        self._file.close()

    # --- symbols

    def add(self, symbol: str, stream_id: int, quantity_precision: int) -> int:
        """Carries a symbol from now on and returns its slot; can be called at any time, again too.

        What is known of it comes from its row: last id, volumes, quote. Ranges that were open when the writer ended
        are given up by the next `expire`. A row that another symbol left under this stream id is emptied. A changed
        quantity precision takes effect where the symbol is not carried yet. DataFolderError where the disk is full.
        """
        cdef bytes name = symbol.encode()
        cdef uint32_t index
        if not 1 <= len(name) <= SYMBOL_MAX:
            raise ValueError(f"the symbol {symbol!r} has {len(name)} bytes; give it 1 to {SYMBOL_MAX}")
        if not 1 <= stream_id <= STREAM_ID_MAX:
            raise ValueError(f"the stream id {stream_id} of {symbol} is none; give it one of 1 to {STREAM_ID_MAX}")
        if not 0 <= quantity_precision <= PRECISION_MAX:
            raise ValueError(
                f"the quantity precision {quantity_precision} of {symbol} is not one of 0 to {PRECISION_MAX}"
            )
        found = self.find(symbol)
        if found >= 0:
            if self.slots[<uint32_t>found].stream_id != stream_id:
                raise ValueError(
                    f"{symbol} has the stream id {self.slots[<uint32_t>found].stream_id}, which never changes; "
                    f"{stream_id} was given"
                )
            return found
        index = self._slot_of[<uint32_t>stream_id]
        if index and self._names[index - 1] is not None:
            raise ValueError(f"the stream id {stream_id} of {symbol} is that of {self._names[index - 1].decode()}")
        self._file.reserve(stream_id)
        self._claim_row(name, stream_id, quantity_precision)
        if index:
            # The replay already needed this stream id and made a slot without a name.
            index -= 1
        else:
            index = self._fill_slot(stream_id, quantity_precision)
        self._names[index] = name
        self._long_names[index] = PyBytes_AS_STRING(name)
        self._index_name(index)
        return index

    def _claim_row(self, name: bytes, stream_id: int, precision: int) -> None:
        cdef Row* row = &self._file.rows[<uint32_t>stream_id]
        cdef uint32_t name_hash = file_hash(name)
        if row.stream_id and row.name_hash != name_hash:
            self._file.reset_row(stream_id)
            row.next_seq = self._file.header.applied_seq
        if row.stream_id == 0 or row.name_hash != name_hash:
            seq_begin(&row.seq)
            row.stream_id = stream_id
            row.quantity_precision = precision
            row.name_hash = name_hash
            seq_end(&row.seq)

    cdef int _fill_slot(self, uint32_t stream_id, uint32_t precision) except -1:
        """A new slot out of the row of a stream id."""
        cdef Row* row = &self._file.rows[stream_id]
        cdef MappedRanges* ranges = &self._file.ranges[stream_id]
        cdef uint32_t index = self.slot_count
        cdef Slot* slot = &self.slots[index]
        cdef int i
        slot.lines = <Lines*>calloc(1, sizeof(Lines))
        if slot.lines == NULL:
            raise MemoryError
        slot.stream_id = <uint16_t>stream_id
        slot.quantity_precision = <uint8_t>precision
        slot.scale = <double>(10**precision)
        slot.price = row.price
        slot.qty = row.qty
        slot.next_id = row.next_id
        slot.ts_event = row.ts_event
        slot.ts_recv = row.ts_recv
        slot.bid = row.bid
        slot.bid_qty = row.bid_qty
        slot.ask = row.ask
        slot.ask_qty = row.ask_qty
        slot.quote_id = row.quote_id
        slot.quote_recv = row.quote_recv
        slot.next_seq = row.next_seq
        slot.day = row.day
        slot.name_hash = row.name_hash
        if row.quantity_precision == precision:
            slot.cum_units = row.cum_units
            slot.day_units = row.day_units
        elif row.quantity_precision < precision:
            slot.day_units = min(row.day_units * 10**(precision - row.quantity_precision), 2**63 - 1)
        else:
            slot.day_units = row.day_units // 10**(row.quantity_precision - precision)
        slot.carrying = DROPPED if row.state & ROW_DROPPED else CARRYING
        for i in range(row.state & ROW_OPEN_COUNT):
            slot.lines.open[i].first = ranges.ranges[i].first
            slot.lines.open[i].last = ranges.ranges[i].last
            slot.lines.open[i].deadline_ns = RESTART_DEADLINE_NS
        slot.lines.open_count = row.state & ROW_OPEN_COUNT
        slot.lines.trade_line_ns = NEVER_NS
        slot.lines.quote_ns = NEVER_NS
        self.slot_count += 1
        self._slot_of[stream_id] = index + 1
        self._names.append(None)
        self._watch(index)
        return index

    cdef void _place(self, uint32_t index, const char* name, uint32_t size) noexcept:
        cdef char padded[SYMBOL_MAX + 16]
        cdef uint64_t low, high
        cdef uint32_t place
        memset(padded, 0, sizeof(padded))
        memcpy(padded, name, size)
        name_keys(padded, size, &low, &high)
        place = index_hash(low, high, size) & self._place_mask
        while self._places[place].size:
            place = (place + 1) & self._place_mask
        self._places[place].low = low
        self._places[place].high = high
        self._places[place].slot = index
        self._places[place].size = size

    def _index_name(self, index: int) -> None:
        cdef uint32_t i
        cdef Name* places
        if self.slot_count * 4 > self._place_mask + 1:
            places = <Name*>calloc((self._place_mask + 1) * 2, sizeof(Name))
            if places == NULL:
                raise MemoryError
            free(self._places)
            self._places = places
            self._place_mask = self._place_mask * 2 + 1
            for i in range(self.slot_count):
                if self._names[i] is not None:
                    self._place(i, self._long_names[i], len(self._names[i]))
        else:
            self._place(index, self._long_names[<uint32_t>index], len(self._names[index]))

    cdef int64_t find_c(self, const char* symbol, uint32_t size) noexcept nogil:
        """The slot of a name, or -1. Reads 16 bytes, however short the name."""
        cdef uint64_t low, high
        cdef uint32_t place
        cdef const Name* name
        name_keys(symbol, size, &low, &high)
        place = index_hash(low, high, size) & self._place_mask
        while True:
            name = &self._places[place]
            if name.low == low and name.high == high and name.size == size and (
                    size <= 16 or memcmp(self._long_names[name.slot] + 16, symbol + 16, size - 16) == 0):
                return name.slot if size else -1
            if name.size == 0:
                return -1
            place = (place + 1) & self._place_mask

    def find(self, symbol: str) -> int:
        """The slot of a symbol, or -1 where it was not added."""
        cdef bytes name = symbol.encode()
        cdef bytes padded = name + bytes(16)
        if len(name) > SYMBOL_MAX:
            return -1
        return self.find_c(PyBytes_AS_STRING(padded), <uint32_t>len(name))

    def carry(self, slot: int) -> None:
        """The feeds carry this symbol from now on.

        Where it had been dropped, what was missed is no gap: the next event above the last id begins anew there.
        Ranges that are open stay so.
        """
        cdef Slot* own = &self.slots[self._checked(slot)]
        if own.carrying == DROPPED:
            own.carrying = CARRYING_ANEW

    def drop(self, stream_id: int) -> None:
        """The feeds carry this symbol no more, as nobody wants it. That survives a restart.

        Also of a symbol that this process never carried. Without a row, which has nothing to miss, nothing happens.
        """
        cdef Row* row
        if not 1 <= stream_id <= STREAM_ID_MAX:
            raise ValueError(f"the stream id {stream_id} is none; give one of 1 to {STREAM_ID_MAX}")
        if self._slot_of[<uint32_t>stream_id]:
            self.slots[self._slot_of[<uint32_t>stream_id] - 1].carrying = DROPPED
        row = &self._file.rows[<uint32_t>stream_id]
        if row.stream_id and not row.state & ROW_DROPPED:
            seq_begin(&row.seq)
            row.state |= ROW_DROPPED
            seq_end(&row.seq)

    def seed_day_volume(self, slot: int, day: int, units: int, cum_units: int, quantity_precision: int) -> bool:
        """Sets and publishes the volume of a UTC day (days since 1970) from what the exchange says was traded.

        `units`, of 10**-quantity_precision, are those of the day when the slot's `cum_units` was `cum_units`, all
        lower ids being decided by then. What was counted since is added, so the same can be said twice. False where
        the slot is at another day by now or has another precision: nothing is changed then. Not while the journal
        lacks records of the slot.
        """
        cdef Slot* own = &self.slots[self._checked(slot)]
        if not 0 <= units < 2**63:
            raise ValueError(f"the day volume {units} of stream id {own.stream_id} is none; give 0 to 2**63 - 1 units")
        since = (own.cum_units - cum_units) % 2**64
        if day != own.day or quantity_precision != own.quantity_precision or units + since >= 2**63:
            return False
        own.day_units = units + since
        self.publish(slot, own.next_seq)
        return True

    def _checked(self, slot: int) -> int:
        if not 0 <= slot < self.slot_count:
            raise IndexError(f"there is no slot {slot}; the table has {self.slot_count}")
        return slot

    # --- events

    cdef int apply(self, const Event* event, int64_t recv_ns, int64_t now_ns) noexcept nogil:
        cdef int64_t index
        cdef Slot* slot
        cdef int status
        self.record_count = 0
        self.changed = False
        index = self.find_c(event.symbol, event.symbol_len)
        if index < 0:
            return APPLIED_UNKNOWN
        self.slot = <uint32_t>index
        slot = &self.slots[index]
        if event.kind == EVENT_QUOTE:
            status = take_quote(slot, event, recv_ns, now_ns)
            self.changed = status == APPLIED_FRESH
            return status
        if event.kind != EVENT_TRADE and event.kind != EVENT_AGG_TRADE:
            return APPLIED_REFUSED
        self._unix_offset_ns = recv_ns - now_ns
        status = take_trade(slot, event, recv_ns, now_ns, self.records, &self.record_count, &self.tally)
        self.changed = self.record_count > 0
        if slot.lines.open_count | slot.lines.held_count | slot.waiting_at:
            self._watch(<uint32_t>index)
        return status

    cdef void _watch(self, uint32_t index) noexcept nogil:
        """Keeps the list of waiting slots, after what waits in one of them has changed."""
        cdef Slot* slot = &self.slots[index]
        cdef uint32_t moved
        slot.deadline_ns = deadline(slot)
        if slot.deadline_ns:
            if slot.waiting_at == 0:
                self._waiting[self._waiting_count] = index
                self._waiting_count += 1
                slot.waiting_at = self._waiting_count
            # Too early costs one look in vain; it must never be too late.
            if self._next_deadline_ns == 0 or slot.deadline_ns < self._next_deadline_ns:
                self._next_deadline_ns = slot.deadline_ns
        elif slot.waiting_at:
            self._waiting_count -= 1
            moved = self._waiting[self._waiting_count]
            self._waiting[slot.waiting_at - 1] = moved
            self.slots[moved].waiting_at = slot.waiting_at
            slot.waiting_at = 0

    cdef int expire(self, int64_t now_ns) noexcept nogil:
        cdef uint32_t index, i
        cdef int64_t soonest
        self.record_count = 0
        self.changed = False
        while self._next_deadline_ns and self._next_deadline_ns <= now_ns:
            while self._cursor < self._waiting_count:
                index = self._waiting[self._cursor]
                if self.slots[index].deadline_ns > now_ns:
                    self._cursor += 1
                    continue
                # The slot leaves the list, or stays at the cursor with a later deadline, or with more to take.
                self.record_count = give_up(&self.slots[index], now_ns, now_ns + self._unix_offset_ns, self.records,
                                            &self.tally)
                self._watch(index)
                if self.record_count:
                    self.slot = index
                    self.changed = True
                    return self.record_count
            self._cursor = 0
            soonest = 0
            for i in range(self._waiting_count):
                if soonest == 0 or self.slots[self._waiting[i]].deadline_ns < soonest:
                    soonest = self.slots[self._waiting[i]].deadline_ns
            self._next_deadline_ns = soonest
        return 0

    cdef int64_t next_deadline_ns(self) noexcept nogil:
        return self._next_deadline_ns

    cdef void publish(self, uint32_t slot, uint64_t next_seq) noexcept nogil:
        cdef Slot* own = &self.slots[slot]
        cdef Row* row = &self._file.rows[own.stream_id]
        cdef uint32_t i
        own.next_seq = next_seq
        seq_begin(&row.seq)
        row.price = own.price
        row.qty = own.qty
        row.next_id = own.next_id
        row.cum_units = own.cum_units
        row.day_units = own.day_units
        row.ts_event = own.ts_event
        row.ts_recv = own.ts_recv
        row.bid = own.bid
        row.bid_qty = own.bid_qty
        row.ask = own.ask
        row.ask_qty = own.ask_qty
        row.quote_id = own.quote_id
        row.quote_recv = own.quote_recv
        row.next_seq = next_seq
        row.day = own.day
        row.quantity_precision = own.quantity_precision
        row.state = <uint8_t>(own.lines.open_count | (ROW_DROPPED if own.carrying else 0))
        if own.open_changed:
            own.open_changed = 0
            for i in range(own.lines.open_count):
                self._file.ranges[own.stream_id].ranges[i].first = own.lines.open[i].first
                self._file.ranges[own.stream_id].ranges[i].last = own.lines.open[i].last
        seq_end(&row.seq)
        if next_seq > self._file.header.applied_seq:
            store_u64(&self._file.header.applied_seq, next_seq)

    cdef int unpublished(self, uint32_t slot, uint64_t first, OpenRange* ranges) noexcept nogil:
        cdef Slot* own = &self.slots[slot]
        cdef Row* row = &self._file.rows[own.stream_id]
        cdef MappedRanges* mapped = &self._file.ranges[own.stream_id]
        cdef uint64_t low, last
        cdef uint32_t open_count = row.state & ROW_OPEN_COUNT
        cdef uint32_t i, k
        cdef int count = 0
        for i in range(open_count + 1):
            if i < open_count:
                low, last = mapped.ranges[i].first, mapped.ranges[i].last
            else:
                low, last = max(row.next_id, first), own.next_id - 1
            for k in range(own.lines.open_count):
                if own.lines.open[k].last < low or own.lines.open[k].first > last:
                    continue
                if own.lines.open[k].first > low:
                    ranges[count].first, ranges[count].last = low, own.lines.open[k].first - 1
                    count += 1
                low = own.lines.open[k].last + 1
            if low <= last:
                ranges[count].first, ranges[count].last = low, last
                count += 1
        return count

    # --- replay

    def replay_from(self, first_seq: int, next_seq: int) -> int:
        """The sequence number at which a replay must begin, for a journal that holds first_seq..next_seq - 1.

        Its begin where rows were emptied at open. Where the table is ahead of the journal, that is not the journal it
        was written with: the rows hold, and the next record is the first that counts.
        """
        cdef uint32_t i
        if self._file.header.applied_seq > next_seq:
            for i in range(1, <uint32_t>ROW_COUNT):
                if self._slot_of[i]:
                    self.slots[self._slot_of[i] - 1].next_seq = next_seq
            self._file.header.applied_seq = next_seq
            return next_seq
        if self._file.rebuild or self._file.torn_stream_ids:
            return first_seq
        return max(first_seq, self._file.header.applied_seq)

    cdef bint replay_c(self, const JournalRecord* record, uint64_t seq) noexcept nogil:
        """Replays one record of the journal; False where it changed nothing. Publishes the row."""
        cdef uint32_t index
        if record.kind != RECORD_TRADE and record.kind != RECORD_GAP and record.kind != RECORD_BEGIN:
            return False
        index = self._slot_of[record.stream_id]
        if index == 0:
            if self._file.rows[record.stream_id].stream_id == 0:
                self.unreplayed += 1
                return False
            with gil:
                self._file.reserve(record.stream_id)
                index = self._fill_slot(record.stream_id, self._file.rows[record.stream_id].quantity_precision) + 1
        index -= 1
        if seq < self.slots[index].next_seq:
            return False
        if replay_record(&self.slots[index], record) < 0:
            self.unreplayed += 1
            return False
        self.publish(index, seq + 1)
        self._watch(index)
        return True

    def replay(self, records: bytes, seq: int) -> int:
        """Replays journal records that lie one behind the other, the first of which has the number `seq`.

        After `add`, before the feeds start. A record that its row already holds is passed over. `unreplayed` counts
        those of stream ids that nobody added and whose rows are empty, and those that cannot be. Returns how many
        changed a row.
        """
        cdef const char* data = PyBytes_AS_STRING(records)
        cdef Py_ssize_t count = len(records) // <Py_ssize_t>sizeof(JournalRecord)
        cdef Py_ssize_t i
        cdef JournalRecord record
        cdef uint64_t first = seq
        cdef int changed = 0
        for i in range(count):
            memcpy(&record, data + i * <Py_ssize_t>sizeof(JournalRecord), sizeof(JournalRecord))
            changed += self.replay_c(&record, first + <uint64_t>i)
        return changed

    @property
    def applied_seq(self) -> int:
        """Journal records below this number are in the rows."""
        return self._file.header.applied_seq

    @property
    def torn_stream_ids(self) -> list[int]:
        """Rows that were found half-written, or that cannot be, and were emptied at open."""
        return list(self._file.torn_stream_ids)

    @property
    def rebuild(self) -> bool:
        """Whether the machine went down while the file was open, so that every row was emptied at open."""
        return self._file.rebuild

    @property
    def counts(self) -> dict[str, int]:
        """What the arbitration had to decide, since open: `Tally` of arbitrate.pxd."""
        return self.tally

    # --- a face for tests and tools; the server uses the cdef methods

    def take(self, kind: int, symbol: str, first_id: int, last_id: int, *, price: float = 1.0, mantissa: int = 1,
             scale: int = 0, ts_event: int = 1, ts_sent: int = 0, recv_ns: int = 1, now_ns: int = 1,
             flags: int = 0, quote: object = (0.0, 0.0, 0.0, 0.0)) -> tuple[int, list[bytes]]:
        """`apply` of an event made of these fields; returns (Applied, records). The quantity is mantissa / 10**scale.

        A quote's update id is `last_id`, and `quote` its bid, bid size, ask, ask size.
        """
        cdef bytes name = symbol.encode() + bytes(64)
        cdef Event event
        memset(&event, 0, sizeof(Event))
        event.kind = kind
        event.flags = flags
        event.symbol = PyBytes_AS_STRING(name)
        event.symbol_len = len(name) - 64
        event.id = last_id
        event.first_id = first_id
        event.last_id = last_id
        event.price = price
        event.qty = mantissa / 10**scale
        event.qty_mantissa = mantissa
        event.qty_scale = scale
        event.ts_event = ts_event
        event.ts_sent = ts_sent
        event.bid, event.bid_qty, event.ask, event.ask_qty = quote
        status = self.apply(&event, recv_ns, now_ns)
        return status, self._taken()

    def expired(self, now_ns: int) -> list[bytes]:
        """One call of `expire`: the records of one slot, none where nothing more is due."""
        self.expire(now_ns)
        return self._taken()

    def _taken(self) -> list[bytes]:
        cdef int i
        return [PyBytes_FromStringAndSize(<char*>&self.records[i], sizeof(JournalRecord))
                for i in range(self.record_count)]

    def publish_slot(self, slot: int, next_seq: int) -> None:
        """`publish`."""
        self.publish(self._checked(slot), next_seq)

    @property
    def touched(self) -> int:
        """The slot that the last `take` or `expired` touched."""
        return self.slot

    @property
    def deadline_ns(self) -> int:
        """`next_deadline_ns`."""
        return self._next_deadline_ns

    def state(self, slot: int) -> dict[str, object]:
        """A copy of a slot's private state."""
        cdef Slot* own = &self.slots[self._checked(slot)]
        cdef uint32_t i
        return {
            "stream_id": own.stream_id,
            "price": own.price,
            "cum_units": own.cum_units,
            "day": own.day,
            "day_units": own.day_units,
            "next_id": own.next_id,
            "quote_id": own.quote_id,
            "bid": own.bid,
            "ask": own.ask,
            "next_seq": own.next_seq,
            "dropped": own.carrying != CARRYING,
            "open": [(own.lines.open[i].first, own.lines.open[i].last) for i in range(own.lines.open_count)],
            "held": [(own.lines.held[i].first, own.lines.held[i].last) for i in range(own.lines.held_count)],
        }
