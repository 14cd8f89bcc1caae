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

cdef const char *PAIRS = (
    b"0001020304050607080910111213141516171819202122232425262728293031323334353637383940414243444546474849"
    b"5051525354555657585960616263646566676869707172737475767778798081828384858687888990919293949596979899"
)
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
    cdef int begin = 20
    cdef uint64_t rest = <uint64_t>value
    if value < 0:
        out[0] = c"-"
        out += 1
        rest = 0 - rest
    while rest >= 100:
        begin -= 2
        put_pair(digits + begin, rest % 100)
        rest //= 100
    if rest >= 10:
        begin -= 2
        put_pair(digits + begin, rest)
    else:
        begin -= 1
        digits[begin] = c"0" + <char>rest
    memcpy(out, digits + begin, 20 - begin)
    return out + 20 - begin


cdef inline void put_pair(char *out, uint64_t value) noexcept:
    """The two digits of 0 to 99."""
    memcpy(out, PAIRS + 2 * value, 2)


cdef char *put_double(char *out, double value) except NULL:
    """Decimal digits that are read back as the same double.

    Where an integer divided by 10**8 is this double, that decimal is one that rounds to it: both operands are exact
    and IEEE 754 rounds a quotient to the nearest. All else goes through Python's `repr`.
    """
    cdef int64_t scaled
    cdef uint64_t rest, last
    cdef char *text
    cdef size_t size
    if -LARGEST_SCALED < value < LARGEST_SCALED:
        scaled = llrint(value * SCALE)
        if <double>scaled / SCALE == value:
            if scaled < 0:
                out[0] = c"-"
                out += 1
                scaled = -scaled
            out = put_integer(out, scaled // 100_000_000)
            rest = scaled % 100_000_000
            if rest:
                out[0] = c"."
                last = rest % 10_000
                rest //= 10_000
                put_pair(out + 1, rest // 100)
                put_pair(out + 3, rest % 100)
                out += 5
                if last:
                    put_pair(out, last // 100)
                    put_pair(out + 2, last % 100)
                    out += 4
                while (out - 1)[0] == c"0":
                    out -= 1
            return out
    text = PyOS_double_to_string(value, c"r", 0, 0, NULL)
    size = strlen(text)
    memcpy(out, text, size)
    PyMem_Free(text)
    return out + size
