"""A strict JSON scanner: says where values lie, makes nothing of them, reads no byte beyond `end`.

Pure functions, inlined into the one who cimports them: the decoder.
"""

from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memcmp

from tradeback._fast.status cimport DECODED_MALFORMED, DECODED_UNUSUAL


cdef enum:
    NESTING_MAX = 64            # levels that a value may have; deeper is left to the slow path


cdef enum ValueType:
    VALUE_ABSENT = 0
    VALUE_STRING
    VALUE_INTEGER               # a JSON number without sign, fraction and exponent
    VALUE_NUMBER                # any other
    VALUE_TRUE
    VALUE_FALSE
    VALUE_NULL
    VALUE_OBJECT
    VALUE_ARRAY


# Where a value lies; of a string, what is between its quotes.
cdef struct Value:
    const char* at
    Py_ssize_t size
    uint8_t type


# Each scanner takes the first byte of what it scans and returns the byte behind it, never beyond `end`, or
# NULL with `fault` set to DECODED_MALFORMED or DECODED_UNUSUAL.

cdef inline const char* skip_space(const char* p, const char* end) noexcept nogil:
    while p < end and (p[0] == c" " or p[0] == c"\n" or p[0] == c"\r" or p[0] == c"\t"):
        p += 1
    return p


cdef inline bint is_digit(char c) noexcept nogil:
    return <uint8_t>(c - c"0") < 10


cdef inline const char* scan_string(const char* p, const char* end, int* fault) noexcept nogil:
    cdef uint8_t c
    p += 1
    while p < end:
        c = <uint8_t>p[0]
        if c == c'"':
            return p + 1
        if c < 0x20:
            fault[0] = DECODED_MALFORMED
            return NULL
        if c == c"\\" or c >= 0x80:
            fault[0] = DECODED_UNUSUAL
            return NULL
        p += 1
    fault[0] = DECODED_MALFORMED
    return NULL


cdef inline const char* scan_number(const char* p, const char* end, uint8_t* type, int* fault) noexcept nogil:
    cdef const char* digits
    type[0] = VALUE_INTEGER
    fault[0] = DECODED_MALFORMED
    if p < end and p[0] == c"-":
        type[0] = VALUE_NUMBER
        p += 1
    digits = p
    while p < end and is_digit(p[0]):
        p += 1
    if p == digits or (digits[0] == c"0" and p - digits > 1):
        return NULL
    if p < end and p[0] == c".":
        type[0] = VALUE_NUMBER
        p += 1
        digits = p
        while p < end and is_digit(p[0]):
            p += 1
        if p == digits:
            return NULL
    if p < end and (p[0] == c"e" or p[0] == c"E"):
        type[0] = VALUE_NUMBER
        p += 1
        if p < end and (p[0] == c"+" or p[0] == c"-"):
            p += 1
        digits = p
        while p < end and is_digit(p[0]):
            p += 1
        if p == digits:
            return NULL
    return p


cdef inline const char* scan_scalar(const char* p, const char* end, Value* value, int* fault) noexcept nogil:
    cdef const char* start = p
    fault[0] = DECODED_MALFORMED
    if p >= end:
        return NULL
    if p[0] == c'"':
        p = scan_string(p, end, fault)
        if p == NULL:
            return NULL
        value.type = VALUE_STRING
        value.at = start + 1
        value.size = p - start - 2
        return p
    if p[0] == c"t" and end - p >= 4 and memcmp(p, b"true", 4) == 0:
        value.type = VALUE_TRUE
        p += 4
    elif p[0] == c"f" and end - p >= 5 and memcmp(p, b"false", 5) == 0:
        value.type = VALUE_FALSE
        p += 5
    elif p[0] == c"n" and end - p >= 4 and memcmp(p, b"null", 4) == 0:
        value.type = VALUE_NULL
        p += 4
    else:
        p = scan_number(p, end, &value.type, fault)
        if p == NULL:
            return NULL
    value.at = start
    value.size = p - start
    return p


cdef inline const char* scan_key(const char* p, const char* end, Value* key, int* fault) noexcept nogil:
    """From before a key to its value: the key, the colon and the space around them."""
    p = skip_space(p, end)
    fault[0] = DECODED_MALFORMED
    if p >= end or p[0] != c'"':
        return NULL
    key.at = p + 1
    p = scan_string(p, end, fault)
    if p == NULL:
        return NULL
    key.size = p - key.at - 1
    p = skip_space(p, end)
    if p >= end or p[0] != c":":
        fault[0] = DECODED_MALFORMED
        return NULL
    return skip_space(p + 1, end)


cdef inline const char* scan_nested(const char* p, const char* end, int* fault) noexcept nogil:
    """An object or an array, with all that is in it; the levels are bits, so nothing recurses."""
    cdef uint64_t objects = 0   # bit 0: the innermost level is an object
    cdef int depth = 0
    cdef Value ignored
    while True:
        # a value
        if p < end and (p[0] == c"{" or p[0] == c"["):
            if depth == NESTING_MAX:
                fault[0] = DECODED_UNUSUAL
                return NULL
            depth += 1
            objects = (objects << 1) | (p[0] == c"{")
            p = skip_space(p + 1, end)
            if p < end and p[0] == (c"}" if objects & 1 else c"]"):
                p += 1
                depth -= 1
                objects >>= 1
            else:
                if objects & 1:
                    p = scan_key(p, end, &ignored, fault)
                    if p == NULL:
                        return NULL
                continue
        else:
            p = scan_scalar(p, end, &ignored, fault)
            if p == NULL:
                return NULL
        # behind a value
        while True:
            if depth == 0:
                return p
            p = skip_space(p, end)
            if p < end and p[0] == c",":
                if objects & 1:
                    p = scan_key(p + 1, end, &ignored, fault)
                    if p == NULL:
                        return NULL
                else:
                    p = skip_space(p + 1, end)
                break
            if p < end and p[0] == (c"}" if objects & 1 else c"]"):
                p += 1
                depth -= 1
                objects >>= 1
                continue
            fault[0] = DECODED_MALFORMED
            return NULL


cdef inline const char* scan_value(const char* p, const char* end, Value* value, int* fault) noexcept nogil:
    if p < end and (p[0] == c"{" or p[0] == c"["):
        value.type = VALUE_OBJECT if p[0] == c"{" else VALUE_ARRAY
        value.at = p
        p = scan_nested(p, end, fault)
        if p != NULL:
            value.size = p - value.at
        return p
    return scan_scalar(p, end, value, fault)
