"""Ticks to InfluxDB's line protocol: one line a tick, in one pass, into one buffer.

Source of the format: InfluxDB 2.7 documentation, "Line protocol".
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.mem cimport PyMem_Free
from libc.math cimport INFINITY, llrint
from libc.stdint cimport int64_t, uint64_t
from libc.string cimport memcpy, strlen

cdef extern from "Python.h":
    char *PyOS_double_to_string(double value, char format_code, int precision, int flags, int *kind) except NULL

cdef enum:
    NAMES_AND_NUMBERS = 288     # bytes: the longest line without what stands before its fields
    POINTS_A_MILLISECOND = 1_000_000

cdef double SCALE = 1e8         # exact, and finer than what exchanges trade in
cdef double LARGEST_SCALED = 9007199254740992.0 / 1e8     # 2**53: above it not every integer is a double


def encode_ticks(list ticks not None, dict prefixes not None):
    """The lines of `ticks`, tuples in the order of `model.Tick`; b"" for none.

    `prefixes` has by stream id what stands before the fields, with the blank behind it, as bytes:
    measurement and tags. A point's time is the tick's `ts_event` plus its id modulo 10**6, in ns: so two trades of
    one millisecond are two points, and the same trade written twice is one (decision 24). A
    double is written so that it is read back as the same.

    KeyError where a stream id has no prefix; ValueError where a number cannot be, OverflowError where an id or a
    time is none of 64 bits.
    """
    cdef:
        Py_ssize_t longest = 0
        Py_ssize_t size
        bytes prefix
        char *out
        int64_t trade_id
        double price, volume, bid, ask
    if not ticks:
        return b""
    for prefix in prefixes.values():
        longest = max(longest, PyBytes_GET_SIZE(prefix))
    buffer = PyBytes_FromStringAndSize(NULL, len(ticks) * (longest + NAMES_AND_NUMBERS))
    out = PyBytes_AS_STRING(buffer)
    for item in ticks:
        if not isinstance(item, tuple):
            raise TypeError(f"a tick is a tuple, not {item!r}")
        stream_id, sequence, count, price, volume, bid, ask, ts_event, flags = <tuple>item
        trade_id = sequence
        if not (0.0 <= price < INFINITY and 0.0 <= volume < INFINITY and 0.0 <= bid < INFINITY
                and 0.0 <= ask < INFINITY and trade_id >= 0):
            raise ValueError(
                f"The history takes no such tick ({item}): prices and volumes must be finite and not negative, ids "
                "integers below 2**63"
            )
        prefix = prefixes[stream_id]
        size = PyBytes_GET_SIZE(prefix)
        memcpy(out, PyBytes_AS_STRING(prefix), size)
        out += size
        out = put_double(put_text(out, b"price="), price)
        out = put_double(put_text(out, b",volume="), volume)
        out = put_double(put_text(out, b",bid="), bid)
        out = put_double(put_text(out, b",ask="), ask)
        out = put_integer(put_text(out, b",sequence="), trade_id)
        out = put_integer(put_text(out, b"i,trade_count="), count)
        out = put_integer(put_text(out, b"i,flags="), flags)
        out = put_text(out, b"i ")
        out = put_integer(out, <int64_t>ts_event + trade_id % POINTS_A_MILLISECOND)
        out[0] = c"\n"
        out += 1
    return buffer[: out - PyBytes_AS_STRING(buffer)]


cdef inline char *put_text(char *out, const char *text) noexcept:
    cdef size_t size = strlen(text)
    memcpy(out, text, size)
    return out + size


cdef char *put_integer(char *out, int64_t value) noexcept:
    cdef char digits[20]
    cdef int count = 0
    cdef uint64_t rest = <uint64_t>value
    if value < 0:
        out[0] = c"-"
        out += 1
        rest = 0 - rest
    while True:
        digits[count] = c"0" + <char>(rest % 10)
        rest //= 10
        count += 1
        if rest == 0:
            break
    while count:
        count -= 1
        out[0] = digits[count]
        out += 1
    return out


cdef char *put_double(char *out, double value) except NULL:
    """Decimal digits that are read back as the same double.

    Where an integer divided by 10**8 is this double, that decimal is one that rounds to it: both operands are exact
    and IEEE 754 rounds a quotient to the nearest. All else goes through Python's `repr`.
    """
    cdef int64_t scaled, whole, rest
    cdef char *text
    cdef size_t size
    cdef int places = 8
    cdef int place
    if -LARGEST_SCALED < value < LARGEST_SCALED:
        scaled = llrint(value * SCALE)
        if <double>scaled / SCALE == value:
            if scaled < 0:
                out[0] = c"-"
                out += 1
                scaled = -scaled
            whole = scaled // 100_000_000
            rest = scaled % 100_000_000
            out = put_integer(out, whole)
            if rest:
                while rest % 10 == 0:
                    rest //= 10
                    places -= 1
                out[0] = c"."
                for place in range(places, 0, -1):
                    out[place] = c"0" + <char>(rest % 10)
                    rest //= 10
                out += places + 1
            return out
    text = PyOS_double_to_string(value, c"r", 0, 0, NULL)
    size = strlen(text)
    memcpy(out, text, size)
    PyMem_Free(text)
    return out + size
