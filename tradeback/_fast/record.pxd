"""The packed structs of the journal and the wire, and the event between decoder and table.

This is the one place where the layouts stand. Python reads them as `LAYOUT` from `record.pyx`.
All integers and floats are little-endian, as every machine that this compiles on is.
"""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

cdef enum:
    SYMBOL_MAX = 50             # bytes; `symbolsmap.symbol` is VARCHAR(50)
    STREAM_ID_MAX = 65535
    RECORDS_PER_FRAME = 50
    FRAME_HEADER_BYTES = 6
    WIRE_RECORD_BYTES = 18
    JOURNAL_RECORD_BYTES = 64


cdef enum EventKind:
    EVENT_TRADE = 1
    EVENT_AGG_TRADE = 2
    EVENT_QUOTE = 3


cdef enum RecordKind:
    RECORD_TRADE = 1            # JournalRecord
    RECORD_GAP = 2              # GapRecord: ids that neither line brought
    RECORD_START = 3            # the writer was opened; ts_event is the time, all else is zero
    RECORD_BEGIN = 4            # BeginRecord: from here on a symbol's ids count


cdef enum RecordFlag:
    FLAG_BUYER_MAKER = 1        # the taker sold
    FLAG_AGGREGATE = 2          # from an aggTrade
    FLAG_SPARSE = 4             # its ids are not contiguous: the `trade_count` highest ids at or below
                                # `trade_id` that no earlier record of this journal covers
    FLAG_LATE = 8               # came after a higher id: it adds volume, the price stays
    FLAG_REPAIR = 16            # from REST


cdef enum GapReason:
    GAP_TIMEOUT = 1             # both lines had 250 ms and did not bring it
    GAP_UNKNOWN_QUANTITY = 2    # an aggTrade came whose singles are no longer known
    GAP_OVERFLOW = 3            # more open ranges than a symbol keeps
    GAP_RESTART = 4             # was open when the writer ended
    GAP_UNWRITTEN = 5           # came while the journal had no room
    GAP_UNFILLABLE = 6          # of the recorder's journal: they cannot be had; `flags` is the Unfillable
    GAP_BEGIN = 7               # of the recorder's journal: the trades before the first one of its first minute
    GAP_LOST = 8                # of no journal: the recorder lost records, or they were damaged


cdef enum Unfillable:
    UNFILLABLE_NOT_THERE = 1    # the exchange answers with later ids and without these
    UNFILLABLE_TOO_OLD = 2      # older than RECORDER_BACKFILL_AGE
    UNFILLABLE_QUANTITY = 3     # an aggTrade has them among others whose quantities are not known
    UNFILLABLE_BEGIN = 4        # before the minute in which the symbol begins: nobody asked for them


# One event as decoded. `symbol` points into the received bytes: valid only during the callback.
cdef struct Event:
    uint8_t kind                # EventKind
    uint8_t flags               # FLAG_BUYER_MAKER
    uint8_t symbol_len
    uint8_t qty_scale           # qty == qty_mantissa / 10**qty_scale exactly
    const char* symbol
    uint64_t id                 # trade: t; aggTrade: a; bookTicker: u
    uint64_t first_id           # trade: t; aggTrade: f
    uint64_t last_id            # trade: t; aggTrade: l
    int64_t ts_event            # T in unix ns; 0 for a quote
    int64_t ts_sent             # E in unix ns; 0 for a quote
    double price
    double qty
    uint64_t qty_mantissa
    double bid
    double bid_qty
    double ask
    double ask_qty


cdef packed struct JournalRecord:
    double price
    double qty                  # base asset, of the trades this record stands for
    double bid                  # best bid and ask known at arrival, 0 where none was
    double ask
    uint64_t trade_id           # the last id it stands for
    int64_t ts_event            # T of the trade, unix ns
    int32_t recv_offset_us      # arrival minus ts_event, clamped
    uint32_t trade_count        # how many trades it stands for
    uint16_t stream_id
    uint8_t kind                # RecordKind
    uint8_t flags               # RecordFlag
    uint32_t crc                # CRC-32C of the 60 bytes before it and of the sequence number as a u64 (crc32c.h says why)


# The same 64 bytes where kind is RECORD_GAP: the ids first_id..last_id, both inclusive.
cdef packed struct GapRecord:
    uint64_t first_id
    double reserved[3]
    uint64_t last_id
    int64_t ts_event            # when it was given up, unix ns
    int32_t reason              # GapReason
    uint32_t trade_count        # last_id - first_id + 1, at most 2**32 - 1
    uint16_t stream_id
    uint8_t kind
    uint8_t flags               # Unfillable where the reason is GAP_UNFILLABLE, else 0
    uint32_t crc


# The same 64 bytes where kind is RECORD_BEGIN: the symbol begins, or begins anew after nobody wanted it for a while.
# Every id from first_id on is in a record behind this one, as a trade or in a gap. Those from floor_id up to it were
# not asked for and are no gap; but as the lines may be behind each other, single trades just below first_id, one below
# the other, may still follow within 250 ms.
cdef packed struct BeginRecord:
    uint64_t first_id
    double reserved[3]
    uint64_t floor_id           # after the highest id that counted before; 0 where none did
    int64_t ts_event            # T of the trade that it begins with, unix ns
    int32_t reserved_i32
    uint32_t reserved_u32
    uint16_t stream_id
    uint8_t kind
    uint8_t flags
    uint32_t crc


cdef packed struct WireRecord:
    uint16_t symbol_id
    double price
    double volume
