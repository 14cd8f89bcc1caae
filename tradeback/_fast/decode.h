/* What the decoder needs below Cython: text compared and digits read eight bytes at a time, names sixteen.
 *
 * Who calls these has checked that at least 32 bytes behind `p` may be read. None of them needs more than the
 * baseline of its machine: SSE2 on x86-64, plain words elsewhere. Little-endian.
 */
#pragma once
#include <locale.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#if defined(__SSE2__)
#include <emmintrin.h>
#endif

#define TB_INLINE static inline __attribute__((always_inline))

/* The powers of ten that a double holds exactly. */
static const double TB_POWERS[23] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8,  1e9,  1e10, 1e11,
                                     1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};
static const uint32_t TB_TENS[9] = {1, 10, 100, 1000, 10000, 100000, 1000000, 10000000, 100000000};

#define TB_EXACT_MAX ((uint64_t)1 << 53) /* up to here every integer is a double */

/* The "C" locale, for the decimal point: a host program may have chosen another one. Made once, kept for ever. */
static locale_t tb_c_locale = (locale_t)0;

static int tb_open_locale(void) {
    if (tb_c_locale == (locale_t)0) tb_c_locale = newlocale(LC_ALL_MASK, "C", (locale_t)0);
    return tb_c_locale != (locale_t)0;
}

/* Correctly rounded, as float() is. `text` ends with NUL. */
static double tb_strtod(const char *text) {
    return strtod_l(text, NULL, tb_c_locale);
}

TB_INLINE uint64_t tb_load8(const char *p) {
    uint64_t word;
    memcpy(&word, p, 8);
    return word;
}

TB_INLINE uint32_t tb_load4(const char *p) {
    uint32_t word;
    memcpy(&word, p, 4);
    return word;
}

/* Does `p` start with these bytes? With `size` and `text` known to the compiler, its words are constants. */
TB_INLINE int tb_literal(const char *p, const char *text, size_t size) {
    uint64_t differing = 0;
    size_t at = 0;
    if (size < 4) {
        for (; at < size; at++) differing |= (uint64_t)(p[at] ^ text[at]);
        return differing == 0;
    }
    if (size < 8)
        return ((tb_load4(p) ^ tb_load4(text)) | (tb_load4(p + size - 4) ^ tb_load4(text + size - 4))) == 0;
    for (; at + 8 <= size; at += 8) differing |= tb_load8(p + at) ^ tb_load8(text + at);
    if (at < size) differing |= tb_load8(p + size - 8) ^ tb_load8(text + size - 8);
    return differing == 0;
}

/* Eight bytes as digits: those that are digits become 0 to 9, all others become more. */
TB_INLINE uint64_t tb_values(const char *p) {
    return tb_load8(p) ^ 0x3030303030303030u;
}

/* The highest bit of each byte that is no digit; of those above the first such byte, by a carry, perhaps a wrong one. */
TB_INLINE uint64_t tb_others(uint64_t values) {
    return ((values + 0x7676767676767676u) | values) & 0x8080808080808080u;
}

/* The number that eight digits spell. */
TB_INLINE uint32_t tb_eight(uint64_t values) {
    values = values * 10 + (values >> 8);
    return (uint32_t)(((values & 0x000000FF000000FFu) * 0x000F424000000064u +
                       ((values >> 16) & 0x000000FF000000FFu) * 0x0000271000000001u) >> 32);
}

/* The number that the digits before bit `other`, the lowest of tb_others, spell: shifted up by 64 minus 8 a digit, with
 * zeros in front. Two shifts, since none by 64 is defined. */
TB_INLINE uint32_t tb_some(uint64_t values, int other) {
    return tb_eight((values << (other ^ 56)) << 1);
}

/* The first eight digits of an integer that was read: another that begins alike (times, ids) need not be read anew. */
typedef struct {
    uint64_t values;
    uint64_t number;
} tb_start;

/* An integer of 1 to 16 digits, as JSON writes it. Returns the byte behind it; NULL: leave it to the slower one. */
TB_INLINE const char *tb_integer(const char *p, uint64_t *out, tb_start *start) {
    uint64_t values = tb_values(p), others;
    int other, count;
    if (values != start->values) {
        others = tb_others(values);
        if (others) {
            other = __builtin_ctzll(others);
            count = other >> 3;
            if (count == 0 || (*p == '0' && count > 1)) return NULL;
            *out = tb_some(values, other);
            return p + count;
        }
        if (*p == '0') return NULL;
        start->values = values;
        start->number = tb_eight(values);
    }
    values = tb_values(p + 8);
    others = tb_others(values);
    if (others) {
        other = __builtin_ctzll(others);
        count = other >> 3;
        *out = start->number * TB_TENS[count] + tb_some(values, other);
        return p + 8 + count;
    }
    *out = start->number * 100000000 + tb_eight(values);
    return (unsigned)(p[16] - '0') < 10 ? NULL : p + 16;
}

/* Digits, and perhaps a point and 1 to 8 digits more: the double, and the same as mantissa and scale.
 * Returns the byte behind it; NULL: leave it to the slower one. Both operands of the division are exact, so it
 * rounds once, as float() does. */
TB_INLINE const char *tb_decimal(const char *p, double *out, uint64_t *mantissa, uint8_t *scale) {
    uint64_t values = tb_values(p), others = tb_others(values), whole, fraction;
    int other, count;
    if (__builtin_expect(others == 0, 0)) {
        whole = tb_eight(values);
        values = tb_values(p + 8);
        others = tb_others(values);
        other = others ? __builtin_ctzll(others) : 63;
        count = other >> 3;
        if (count > 3) return NULL; /* beyond 11 digits the mantissa may not fit */
        whole = whole * TB_TENS[count] + tb_some(values, other);
        p += 8 + count;
    } else {
        other = __builtin_ctzll(others);
        count = other >> 3;
        if (count == 0) return NULL;
        whole = tb_some(values, other);
        p += count;
    }
    if (*p != '.') {
        *mantissa = whole;
        *scale = 0;
        *out = (double)whole;
        return p;
    }
    values = tb_values(++p);
    others = tb_others(values);
    if (others == 0) {
        count = 8;
        fraction = tb_eight(values);
    } else {
        other = __builtin_ctzll(others);
        count = other >> 3;
        if (count == 0) return NULL;
        fraction = tb_some(values, other);
    }
    *mantissa = whole * TB_TENS[count] + fraction;
    *scale = (uint8_t)count;
    if (*mantissa <= TB_EXACT_MAX)
        *out = (double)*mantissa / TB_POWERS[count];
    else if (fraction == 0)
        *out = (double)whole;
    else
        return NULL;
    return p + count;
}

/* Where `wanted` first lies in sixteen bytes; 16 where it does not. */
TB_INLINE int tb_find16(const char *p, char wanted) {
#if defined(__SSE2__)
    __m128i found = _mm_cmpeq_epi8(_mm_loadu_si128((const __m128i *)p), _mm_set1_epi8(wanted));
    return __builtin_ctz((unsigned)_mm_movemask_epi8(found) | 0x10000u);
#else
    int at = 0;
    while (at < 16 && p[at] != wanted) at++;
    return at;
#endif
}

/* Are the `size` (at most 16) bytes at `upper` of A-Z and 0-9 only, and those at `lower` the same in lower case? */
TB_INLINE int tb_same_symbol(const char *lower, const char *upper, int size) {
#if defined(__SSE2__)
    const __m128i l = _mm_loadu_si128((const __m128i *)lower), u = _mm_loadu_si128((const __m128i *)upper);
    const __m128i letter = _mm_and_si128(_mm_cmpgt_epi8(l, _mm_set1_epi8('a' - 1)),
                                         _mm_cmplt_epi8(l, _mm_set1_epi8('z' + 1)));
    const __m128i digit = _mm_and_si128(_mm_cmpgt_epi8(l, _mm_set1_epi8('0' - 1)),
                                        _mm_cmplt_epi8(l, _mm_set1_epi8('9' + 1)));
    const __m128i raised = _mm_xor_si128(l, _mm_and_si128(letter, _mm_set1_epi8(0x20)));
    const __m128i same = _mm_and_si128(_mm_or_si128(letter, digit), _mm_cmpeq_epi8(raised, u));
    const unsigned wanted = (1u << size) - 1;
    return ((unsigned)_mm_movemask_epi8(same) & wanted) == wanted;
#else
    for (int at = 0; at < size; at++) {
        const char l = lower[at];
        const int letter = l >= 'a' && l <= 'z';
        if (!(letter || (l >= '0' && l <= '9')) || upper[at] != (letter ? l - 32 : l)) return 0;
    }
    return 1;
#endif
}

/* How many of sixteen bytes are A-Z or 0-9 before the first that is none. */
TB_INLINE int tb_symbol16(const char *p) {
#if defined(__SSE2__)
    const __m128i u = _mm_loadu_si128((const __m128i *)p);
    const __m128i letter = _mm_and_si128(_mm_cmpgt_epi8(u, _mm_set1_epi8('A' - 1)),
                                         _mm_cmplt_epi8(u, _mm_set1_epi8('Z' + 1)));
    const __m128i digit = _mm_and_si128(_mm_cmpgt_epi8(u, _mm_set1_epi8('0' - 1)),
                                        _mm_cmplt_epi8(u, _mm_set1_epi8('9' + 1)));
    return __builtin_ctz(~(unsigned)_mm_movemask_epi8(_mm_or_si128(letter, digit)));
#else
    int at = 0;
    while (at < 16 && ((p[at] >= 'A' && p[at] <= 'Z') || (p[at] >= '0' && p[at] <= '9'))) at++;
    return at;
#endif
}
