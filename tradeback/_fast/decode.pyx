"""The decoder: one WebSocket message of the exchange -> `Event`, without objects and without the GIL.

`decode_event` is a pure function of the bytes: no state, no owner, any thread.

The JSON is checked as strictly as RFC 8259 asks, to its last byte: a message that is cut short or mended by
chance is never an event. Keys may come in any order, further keys are skipped, times may be in ms, us or ns.

What it leaves to `canonical_message` (exchange/binance.py), as DECODED_UNUSUAL: a backslash or a byte above
ASCII in any string, nesting beyond 64 levels, a symbol that Trade-Back cannot carry, decimals that are signed,
have an exponent or more digits than fit. What it refuses, as DECODED_MALFORMED: text that is no JSON, a needed
key that is missing, doubled or of another type, a stream name that contradicts its payload.

Decimals become the double that float() gives. A trade's quantity is also kept exactly, as it was written:
`qty_mantissa` / 10**`qty_scale`, trailing zeros included ("0.10" is 10 and 2).
"""

from libc.stdint cimport INT64_MAX, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcmp, memcpy, memset

from tradeback._fast.json cimport (
    VALUE_ABSENT,
    VALUE_FALSE,
    VALUE_INTEGER,
    VALUE_OBJECT,
    VALUE_STRING,
    VALUE_TRUE,
    Value,
    is_digit,
    scan_key,
    scan_value,
    skip_space,
)
from tradeback._fast.predicted cimport NOT_PREDICTED, decode_predicted, to_ns
from tradeback._fast.record cimport (
    EVENT_AGG_TRADE,
    EVENT_QUOTE,
    EVENT_TRADE,
    FLAG_BUYER_MAKER,
    SYMBOL_MAX,
    Event,
)
from tradeback._fast.status cimport (
    DECODED_EVENT as STATUS_EVENT,
    DECODED_MALFORMED as STATUS_MALFORMED,
    DECODED_OTHER as STATUS_OTHER,
    DECODED_SHUTDOWN as STATUS_SHUTDOWN,
    DECODED_UNUSUAL as STATUS_UNUSUAL,
)

cdef extern from "decode.h" nogil:
    const double TB_POWERS[23]
    int tb_open_locale() noexcept
    double tb_strtod(const char* text) noexcept

if not tb_open_locale():
    raise MemoryError("no memory for the C locale")

DECODED_EVENT = STATUS_EVENT
DECODED_OTHER = STATUS_OTHER
DECODED_UNUSUAL = STATUS_UNUSUAL
DECODED_MALFORMED = STATUS_MALFORMED
DECODED_SHUTDOWN = STATUS_SHUTDOWN


cdef enum:
    DECIMAL_MAX = 64            # characters of a decimal; longer is left to the slow path
    SCALE_MAX = 18              # fraction digits of a quantity
    EXACT_SCALE_MAX = 22        # 10**22 is the largest power of ten that a double holds exactly


# The keys that are looked at. A single letter means different things in different events.
cdef enum:
    KEY_KIND                    # e
    KEY_SENT                    # E
    KEY_SYMBOL                  # s
    KEY_TRADE_ID                # t
    KEY_a                       # aggTrade: its id; bookTicker: ask; old trades: an order's id
    KEY_PRICE                   # p
    KEY_QUANTITY                # q
    KEY_FIRST                   # f
    KEY_LAST                    # l
    KEY_TIME                    # T
    KEY_MAKER                   # m
    KEY_UPDATE                  # u
    KEY_b                       # bookTicker: bid
    KEY_BID_QUANTITY            # B
    KEY_ASK_QUANTITY            # A
    KEY_STREAM
    KEY_DATA
    KEY_COUNT
    KEY_NONE = KEY_COUNT


cdef struct Members:
    Value values[KEY_COUNT]     # absent ones have VALUE_ABSENT
    uint32_t doubled            # bit set of keys that came more than once


cdef enum:
    ENVELOPE_KEYS = (1 << KEY_STREAM) | (1 << KEY_DATA)
    TRADE_KEYS = (1 << KEY_SENT) | (1 << KEY_SYMBOL) | (1 << KEY_TRADE_ID) | (1 << KEY_PRICE) | (1 << KEY_QUANTITY) | (1 << KEY_TIME) | (1 << KEY_MAKER)
    AGG_TRADE_KEYS = (1 << KEY_SENT) | (1 << KEY_SYMBOL) | (1 << KEY_a) | (1 << KEY_PRICE) | (1 << KEY_QUANTITY) | (1 << KEY_FIRST) | (1 << KEY_LAST) | (1 << KEY_TIME) | (1 << KEY_MAKER)
    QUOTE_KEYS = (1 << KEY_UPDATE) | (1 << KEY_SYMBOL) | (1 << KEY_b) | (1 << KEY_BID_QUANTITY) | (1 << KEY_a) | (1 << KEY_ASK_QUANTITY)


# ---- members -------------------------------------------------------------------------------------------

cdef inline int key_of(const char* at, Py_ssize_t size) noexcept nogil:
    if size == 1:
        if at[0] == c"e": return KEY_KIND
        if at[0] == c"E": return KEY_SENT
        if at[0] == c"s": return KEY_SYMBOL
        if at[0] == c"t": return KEY_TRADE_ID
        if at[0] == c"a": return KEY_a
        if at[0] == c"p": return KEY_PRICE
        if at[0] == c"q": return KEY_QUANTITY
        if at[0] == c"f": return KEY_FIRST
        if at[0] == c"l": return KEY_LAST
        if at[0] == c"T": return KEY_TIME
        if at[0] == c"m": return KEY_MAKER
        if at[0] == c"u": return KEY_UPDATE
        if at[0] == c"b": return KEY_b
        if at[0] == c"B": return KEY_BID_QUANTITY
        if at[0] == c"A": return KEY_ASK_QUANTITY
    elif size == 4 and memcmp(at, b"data", 4) == 0:
        return KEY_DATA
    elif size == 6 and memcmp(at, b"stream", 6) == 0:
        return KEY_STREAM
    return KEY_NONE


cdef const char* scan_members(const char* p, const char* end, Members* members, int* fault) noexcept nogil:
    """One object: where the members lie that anything is made of."""
    cdef Value key, value
    cdef int which
    memset(members, 0, sizeof(Members))
    p = skip_space(p + 1, end)
    if p < end and p[0] == c"}":
        return p + 1
    while True:
        p = scan_key(p, end, &key, fault)
        if p == NULL:
            return NULL
        p = scan_value(p, end, &value, fault)
        if p == NULL:
            return NULL
        which = key_of(key.at, key.size)
        if which != KEY_NONE:
            if members.values[which].type != VALUE_ABSENT:
                members.doubled |= <uint32_t>1 << which
            members.values[which] = value
        p = skip_space(p, end)
        if p < end and p[0] == c",":
            p += 1
            continue
        if p < end and p[0] == c"}":
            return p + 1
        fault[0] = STATUS_MALFORMED
        return NULL


# ---- values ----------------------------------------------------------------------------------------------

cdef inline bint is_text(const Value* value, const char* text, Py_ssize_t size) noexcept nogil:
    return value.type == VALUE_STRING and value.size == size and memcmp(value.at, text, size) == 0


cdef inline int read_id(const Value* value, uint64_t* out) noexcept nogil:
    """An integer below 2**63: databases have no larger ones, and no exchange has."""
    cdef uint64_t total = 0, digit
    cdef Py_ssize_t i
    if value.type != VALUE_INTEGER or value.size > 19:
        return STATUS_MALFORMED
    for i in range(value.size):
        digit = <uint64_t>(value.at[i] - c"0")
        if total > (<uint64_t>INT64_MAX - digit) // 10:
            return STATUS_MALFORMED
        total = total * 10 + digit
    out[0] = total
    return STATUS_EVENT


cdef int read_time(const Value* value, int64_t* out) noexcept nogil:
    cdef uint64_t time
    if read_id(value, &time) != STATUS_EVENT:
        return STATUS_MALFORMED
    return to_ns(time, out)


cdef int read_decimal(const Value* value, double* out, uint64_t* mantissa, uint8_t* scale) noexcept nogil:
    """A decimal of digits and at most one point between them; `mantissa` is NULL where only the double counts."""
    cdef char text[DECIMAL_MAX + 1]
    cdef uint64_t total = 0, digit
    cdef Py_ssize_t i, point = -1
    cdef bint fits = True, plain = True
    cdef char c
    cdef int fraction = 0
    if value.type != VALUE_STRING or value.size == 0:
        return STATUS_MALFORMED
    for i in range(value.size):
        c = value.at[i]
        if is_digit(c):
            digit = <uint64_t>(c - c"0")
            if total > (<uint64_t>0xFFFFFFFFFFFFFFFF - digit) // 10:
                fits = False
            total = total * 10 + digit
        elif c == c"." and point < 0:
            point = i
        elif c == c"." or c == c"-" or c == c"+" or c == c"e" or c == c"E":
            plain = False
        else:
            return STATUS_MALFORMED
    if not plain or point == 0 or point == value.size - 1 or value.size > DECIMAL_MAX:
        return STATUS_UNUSUAL
    if point > 0:
        fraction = <int>(value.size - 1 - point)
    if mantissa != NULL:
        if not fits or fraction > SCALE_MAX:
            return STATUS_UNUSUAL
        mantissa[0] = total
        scale[0] = <uint8_t>fraction
    if fits and total <= (<uint64_t>1 << 53) and fraction <= EXACT_SCALE_MAX:
        # Both are exact doubles, so one division rounds once, as float() does.
        out[0] = <double>total / TB_POWERS[fraction]
        return STATUS_EVENT
    memcpy(text, value.at, value.size)
    text[value.size] = 0
    out[0] = tb_strtod(text)
    return STATUS_EVENT


cdef inline int worse(int first, int second) noexcept nogil:
    """Malformed before unusual before an event: what the slow path would only refuse is refused here."""
    return first if first > second else second


cdef int check_symbol(const Value* symbol) noexcept nogil:
    cdef Py_ssize_t i
    cdef char c
    if symbol.type != VALUE_STRING or symbol.size == 0:
        return STATUS_MALFORMED
    if symbol.size > SYMBOL_MAX:
        return STATUS_UNUSUAL
    for i in range(symbol.size):
        c = symbol.at[i]
        if not (c"A" <= c <= c"Z" or is_digit(c) or c == c"_" or c == c"-" or c == c"."):
            return STATUS_UNUSUAL
    return STATUS_EVENT


cdef int kind_of_suffix(const char* at, Py_ssize_t size) noexcept nogil:
    """What a stream's name promises behind its @; 0 where that is no event of ours."""
    if size == 5 and memcmp(at, b"trade", 5) == 0:
        return EVENT_TRADE
    if size == 8 and memcmp(at, b"aggTrade", 8) == 0:
        return EVENT_AGG_TRADE
    if size == 10 and memcmp(at, b"bookTicker", 10) == 0:
        return EVENT_QUOTE
    return 0


cdef Py_ssize_t find_at(const Value* stream) noexcept nogil:
    """How many bytes of a stream's name come before its first @; all of them where it has none."""
    cdef Py_ssize_t i
    for i in range(stream.size):
        if stream.at[i] == c"@":
            return i
    return stream.size


cdef bint names_symbol(const Value* stream, Py_ssize_t size, const Value* symbol) noexcept nogil:
    """Is the name's part before the @ the symbol in lower case?"""
    cdef Py_ssize_t i
    cdef char c
    if size != symbol.size:
        return False
    for i in range(size):
        c = symbol.at[i]
        if c"A" <= c <= c"Z":
            c += 32
        if stream.at[i] != c:
            return False
    return True


cdef inline void set_symbol(Event* event, const Value* symbol) noexcept nogil:
    event.symbol = symbol.at
    event.symbol_len = <uint8_t>symbol.size


cdef int fill_trade(const Members* members, int kind, Event* event) noexcept nogil:
    cdef const Value* values = &members.values[0]
    cdef const Value* maker = &values[KEY_MAKER]
    cdef int status
    if members.doubled & (TRADE_KEYS if kind == EVENT_TRADE else AGG_TRADE_KEYS):
        return STATUS_MALFORMED
    if maker.type != VALUE_TRUE and maker.type != VALUE_FALSE:
        return STATUS_MALFORMED
    event.flags = FLAG_BUYER_MAKER if maker.type == VALUE_TRUE else 0
    status = worse(read_time(&values[KEY_SENT], &event.ts_sent), read_time(&values[KEY_TIME], &event.ts_event))
    if kind == EVENT_TRADE:
        status = worse(status, read_id(&values[KEY_TRADE_ID], &event.id))
        event.first_id = event.last_id = event.id
    else:
        status = worse(status, read_id(&values[KEY_a], &event.id))
        status = worse(status, read_id(&values[KEY_FIRST], &event.first_id))
        status = worse(status, read_id(&values[KEY_LAST], &event.last_id))
    status = worse(status, read_decimal(&values[KEY_PRICE], &event.price, NULL, NULL))
    return worse(
        status, read_decimal(&values[KEY_QUANTITY], &event.qty, &event.qty_mantissa, &event.qty_scale)
    )


cdef int fill_quote(const Members* members, Event* event) noexcept nogil:
    cdef const Value* values = &members.values[0]
    cdef int status
    if members.doubled & QUOTE_KEYS:
        return STATUS_MALFORMED
    status = read_id(&values[KEY_UPDATE], &event.id)
    status = worse(status, read_decimal(&values[KEY_b], &event.bid, NULL, NULL))
    status = worse(status, read_decimal(&values[KEY_BID_QUANTITY], &event.bid_qty, NULL, NULL))
    status = worse(status, read_decimal(&values[KEY_a], &event.ask, NULL, NULL))
    return worse(status, read_decimal(&values[KEY_ASK_QUANTITY], &event.ask_qty, NULL, NULL))


# ---- any layout ------------------------------------------------------------------------------------------

cdef int decode_any(const char* data, Py_ssize_t size, Event* event) noexcept nogil:
    cdef const char* end = data + size
    cdef const char* p = skip_space(data, end)
    cdef Members outer, inner
    cdef Members* members = &outer
    cdef Value top
    cdef const Value* stream = NULL
    cdef const Value* kind_value
    cdef Py_ssize_t at = 0
    cdef int fault = STATUS_MALFORMED
    cdef int promised = 0
    cdef int kind = 0
    cdef int status

    if p < end and p[0] == c"{":
        p = scan_members(p, end, &outer, &fault)
    else:
        p = scan_value(p, end, &top, &fault)
        outer.values[KEY_STREAM].type = VALUE_ABSENT
        members = NULL
    if p == NULL:
        return fault
    if skip_space(p, end) != end:
        return STATUS_MALFORMED
    if members == NULL:
        return STATUS_OTHER

    if outer.values[KEY_STREAM].type != VALUE_ABSENT:
        stream = &outer.values[KEY_STREAM]
        if outer.doubled & ENVELOPE_KEYS or stream.type != VALUE_STRING:
            return STATUS_MALFORMED
        at = find_at(stream)
        if at < stream.size:
            promised = kind_of_suffix(stream.at + at + 1, stream.size - at - 1)
        if stream.size > 0 and stream.at[0] == c"!":
            promised = 0        # a stream of many symbols: none that we ask for
        if outer.values[KEY_DATA].type != VALUE_OBJECT:
            return STATUS_MALFORMED if promised else STATUS_OTHER
        # It was checked above as a part of the whole.
        scan_members(outer.values[KEY_DATA].at, end, &inner, &fault)
        members = &inner

    kind_value = &members.values[KEY_KIND]
    if members.doubled & (1 << KEY_KIND):
        return STATUS_MALFORMED
    if kind_value.type == VALUE_STRING:
        if is_text(kind_value, b"serverShutdown", 14):
            return STATUS_SHUTDOWN
        kind = kind_of_suffix(kind_value.at, kind_value.size)
    elif kind_value.type == VALUE_ABSENT and members.values[KEY_UPDATE].type != VALUE_ABSENT:
        kind = EVENT_QUOTE
    if stream != NULL and stream.size > 0 and stream.at[0] == c"!":
        return STATUS_OTHER
    if kind == 0:
        return STATUS_MALFORMED if promised else STATUS_OTHER
    if stream != NULL and promised != kind:
        return STATUS_MALFORMED

    status = check_symbol(&members.values[KEY_SYMBOL])
    if status != STATUS_EVENT:
        return status
    if stream != NULL and not names_symbol(stream, at, &members.values[KEY_SYMBOL]):
        return STATUS_MALFORMED
    memset(event, 0, sizeof(Event))
    event.kind = <uint8_t>kind
    set_symbol(event, &members.values[KEY_SYMBOL])
    if kind == EVENT_QUOTE:
        return fill_quote(members, event)
    return fill_trade(members, kind, event)


# ---- faces ----------------------------------------------------------------------------------------------

cdef int decode_event(const char* data, Py_ssize_t size, Event* event) noexcept nogil:
    cdef int status = decode_predicted(data, size, event)
    return status if status != NOT_PREDICTED else decode_any(data, size, event)


def decode(bytes data not None, bytes padding not None=b""):
    cdef Py_ssize_t size = len(data)
    cdef Event event
    cdef int status
    # An allocation of exactly the promised size, so that sanitizers see a read beyond it.
    cdef char* copy = <char*>malloc(size + DECODE_PADDING)
    if copy == NULL:
        raise MemoryError(f"no memory for a message of {size} bytes")
    try:
        memcpy(copy, <const char*>data, size)
        memset(copy + size, 0, DECODE_PADDING)
        memcpy(copy + size, <const char*>padding, min(len(padding), DECODE_PADDING))
        with nogil:
            status = decode_event(copy, size, &event)
        if status != STATUS_EVENT:
            return status
        return {
            "kind": event.kind,
            "flags": event.flags,
            "symbol": event.symbol[:event.symbol_len].decode("ascii"),
            "id": event.id,
            "first_id": event.first_id,
            "last_id": event.last_id,
            "ts_event": event.ts_event,
            "ts_sent": event.ts_sent,
            "price": event.price,
            "qty": event.qty,
            "qty_mantissa": event.qty_mantissa,
            "qty_scale": event.qty_scale,
            "bid": event.bid,
            "bid_qty": event.bid_qty,
            "ask": event.ask,
            "ask_qty": event.ask_qty,
        }
    finally:
        free(copy)
