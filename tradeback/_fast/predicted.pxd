"""The fast half of the decoder: messages laid out exactly as the exchange lays them out.

The exchange writes its keys in one order, without spaces. Each step compares the text that must come and
reads the value behind it; where anything differs, the general scanner starts anew. A message is taken only if
its last byte is matched too, so this path accepts nothing that the other would not.

Reads stay within DECODE_PADDING: a message has at least PREDICTED_MIN bytes, which covers its envelope; from
there each value is read at most 47 bytes behind the last place that was seen to lie before the end.

Pure functions, inlined into the one who cimports them: the decoder. `event` may be half filled where a message
turns out not to be laid out so.
"""

from libc.stdint cimport INT64_MAX, int64_t, uint8_t, uint64_t

from tradeback._fast.record cimport EVENT_AGG_TRADE, EVENT_QUOTE, EVENT_TRADE, FLAG_BUYER_MAKER, Event
from tradeback._fast.status cimport DECODED_EVENT, DECODED_MALFORMED

cdef extern from "decode.h" nogil:
    bint tb_literal(const char* p, const char* text, size_t size) noexcept
    ctypedef struct tb_start:
        uint64_t values
        uint64_t number
    const char* tb_integer(const char* p, uint64_t* out, tb_start* start) noexcept
    const char* tb_decimal(const char* p, double* out, uint64_t* mantissa, uint8_t* scale) noexcept
    int tb_find16(const char* p, char wanted) noexcept
    bint tb_same_symbol(const char* lower, const char* upper, int size) noexcept
    int tb_symbol16(const char* p) noexcept


cdef enum:
    PREDICTED_MIN = 64
    NOT_PREDICTED = -1


cdef inline int to_ns(uint64_t time, int64_t* out) noexcept nogil:
    """Below 10**14 it is in ms, below 10**17 in us, else in ns; malformed where int64 ns do not reach (2262)."""
    cdef uint64_t unit
    if time < <uint64_t>100_000_000_000_000:
        unit = 1_000_000
    elif time < <uint64_t>100_000_000_000_000_000:
        unit = 1_000
    else:
        unit = 1
    if time > <uint64_t>INT64_MAX // unit:
        return DECODED_MALFORMED
    out[0] = <int64_t>(time * unit)
    return DECODED_EVENT


cdef inline const char* predicted_symbol(
    const char* p, const char* end, const char* stream, int name_size, Event* event
) noexcept nogil:
    """From before the symbol's key to its closing quote."""
    cdef int size
    if p >= end or not tb_literal(p, b',"s":"', 6):
        return NULL
    p += 6
    if stream == NULL:
        size = tb_symbol16(p)
        if size == 0:
            return NULL
    else:
        size = name_size
        if not tb_same_symbol(stream, p, size):
            return NULL
    event.symbol = p
    event.symbol_len = <uint8_t>size
    return p + size


cdef inline const char* predicted_trade(
    const char* p, const char* end, const char* stream, int name_size, int kind, Event* event
) noexcept nogil:
    """From the value of E to behind the payload."""
    cdef uint64_t time, order, price_mantissa
    cdef uint8_t price_scale
    # What was read "before" is 10000000: any start that is true will do.
    cdef tb_start times = tb_start(1, 10_000_000), ids = tb_start(1, 10_000_000)
    p = tb_integer(p, &time, &times)
    if p == NULL or to_ns(time, &event.ts_sent) != DECODED_EVENT:
        return NULL
    p = predicted_symbol(p, end, stream, name_size, event)
    if p == NULL or p >= end:
        return NULL
    if not tb_literal(p, b'","a":' if kind == EVENT_AGG_TRADE else b'","t":', 6):
        return NULL
    p = tb_integer(p + 6, &event.id, &ids)
    if p == NULL or p >= end or not tb_literal(p, b',"p":"', 6):
        return NULL
    p = tb_decimal(p + 6, &event.price, &price_mantissa, &price_scale)
    if p == NULL or p >= end or not tb_literal(p, b'","q":"', 7):
        return NULL
    p = tb_decimal(p + 7, &event.qty, &event.qty_mantissa, &event.qty_scale)
    if p == NULL or p >= end:
        return NULL
    if kind == EVENT_AGG_TRADE:
        if not tb_literal(p, b'","f":', 6):
            return NULL
        p = tb_integer(p + 6, &event.first_id, &ids)
        if p == NULL or p >= end or not tb_literal(p, b',"l":', 5):
            return NULL
        p = tb_integer(p + 5, &event.last_id, &ids)
        if p == NULL or p >= end or not tb_literal(p, b',"T":', 5):
            return NULL
        p += 5
    else:
        event.first_id = event.id
        event.last_id = event.id
        if tb_literal(p, b'","T":', 6):
            p += 6
        else:
            # Captures before June 2024 have the ids of both orders here.
            if not tb_literal(p, b'","b":', 6):
                return NULL
            p = tb_integer(p + 6, &order, &ids)
            if p == NULL or p >= end or not tb_literal(p, b',"a":', 5):
                return NULL
            p = tb_integer(p + 5, &order, &ids)
            if p == NULL or p >= end or not tb_literal(p, b',"T":', 5):
                return NULL
            p += 5
    p = tb_integer(p, &time, &times)
    if p == NULL or p >= end or to_ns(time, &event.ts_event) != DECODED_EVENT:
        return NULL
    event.bid = event.bid_qty = event.ask = event.ask_qty = 0
    if tb_literal(p, b',"m":true,"M":true}', 19):
        event.flags = FLAG_BUYER_MAKER
        return p + 19
    if tb_literal(p, b',"m":false,"M":true}', 20):
        event.flags = 0
        return p + 20
    return NULL


cdef inline const char* predicted_quote(
    const char* p, const char* end, const char* stream, int name_size, Event* event
) noexcept nogil:
    """From the value of u to behind the payload."""
    cdef uint64_t mantissa
    cdef uint8_t scale
    cdef tb_start ids = tb_start(1, 10_000_000)
    p = tb_integer(p, &event.id, &ids)
    if p == NULL:
        return NULL
    p = predicted_symbol(p, end, stream, name_size, event)
    if p == NULL or p >= end or not tb_literal(p, b'","b":"', 7):
        return NULL
    p = tb_decimal(p + 7, &event.bid, &mantissa, &scale)
    if p == NULL or p >= end or not tb_literal(p, b'","B":"', 7):
        return NULL
    p = tb_decimal(p + 7, &event.bid_qty, &mantissa, &scale)
    if p == NULL or p >= end or not tb_literal(p, b'","a":"', 7):
        return NULL
    p = tb_decimal(p + 7, &event.ask, &mantissa, &scale)
    if p == NULL or p >= end or not tb_literal(p, b'","A":"', 7):
        return NULL
    p = tb_decimal(p + 7, &event.ask_qty, &mantissa, &scale)
    if p == NULL or p >= end or not tb_literal(p, b'"}', 2):
        return NULL
    event.flags = event.qty_scale = 0
    event.first_id = event.last_id = event.qty_mantissa = 0
    event.ts_event = event.ts_sent = 0
    event.price = event.qty = 0
    return p + 2


cdef inline int decode_predicted(const char* data, Py_ssize_t size, Event* event) noexcept nogil:
    cdef const char* end = data + size
    cdef const char* p = data
    cdef const char* stream = NULL
    cdef int kind, name_size = 0
    if size < PREDICTED_MIN:
        return NOT_PREDICTED
    if tb_literal(p, b'{"stream":"', 11):
        stream = p + 11
        name_size = tb_find16(stream, c"@")
        p = stream + name_size
        if name_size == 16 or name_size == 0:
            return NOT_PREDICTED
        if tb_literal(p, b'@bookTicker","data":{"u":', 25):
            kind = EVENT_QUOTE
            p += 25
        elif tb_literal(p, b'@aggTrade","data":{"e":"aggTrade","E":', 38):
            kind = EVENT_AGG_TRADE
            p += 38
        elif tb_literal(p, b'@trade","data":{"e":"trade","E":', 32):
            kind = EVENT_TRADE
            p += 32
        else:
            return NOT_PREDICTED
    elif tb_literal(p, b'{"u":', 5):
        kind = EVENT_QUOTE
        p += 5
    elif tb_literal(p, b'{"e":"aggTrade","E":', 20):
        kind = EVENT_AGG_TRADE
        p += 20
    elif tb_literal(p, b'{"e":"trade","E":', 17):
        kind = EVENT_TRADE
        p += 17
    else:
        return NOT_PREDICTED
    event.kind = <uint8_t>kind
    if kind == EVENT_QUOTE:
        p = predicted_quote(p, end, stream, name_size, event)
    else:
        p = predicted_trade(p, end, stream, name_size, kind, event)
    if p == NULL or (stream != NULL and p[0] != c"}"):
        return NOT_PREDICTED
    return DECODED_EVENT if p + (stream != NULL) == end else NOT_PREDICTED
