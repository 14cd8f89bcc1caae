/* CRC-32 as zlib's, the polynomial 0xEDB88320 reflected: by carry-less multiplication where the processor
 * has it, which is found out at run time, else by eight tables.
 *
 * The folding follows V. Gopal et al., "Fast CRC Computation for Generic Polynomials Using PCLMULQDQ
 * Instruction", Intel, 2009; the constants are those of its reflected example for this polynomial.
 * CRC32_PORTABLE leaves the processor's part out, as on every processor that is not x86-64.
 */
#ifndef TRADEBACK_CRC32_H
#define TRADEBACK_CRC32_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__x86_64__) && !defined(CRC32_PORTABLE)
#define CRC32_HAS_CLMUL 1
#include <immintrin.h>
#else
#define CRC32_HAS_CLMUL 0
#endif

enum { CRC32_CLMUL_LEAST = 64 }; /* shorter input is faster by tables, and the folding needs four lanes */

static uint32_t crc32_tables[8][256];
static int crc32_use_clmul;

/* Below: `state` is the inverted CRC, as it is between two pieces of input. */

static uint32_t crc32_sliced(uint32_t state, const uint8_t *at, size_t size) {
    while (size >= 8) {
        uint64_t word;
        memcpy(&word, at, 8);
        word ^= state;
        state = crc32_tables[7][word & 255] ^ crc32_tables[6][word >> 8 & 255] ^
                crc32_tables[5][word >> 16 & 255] ^ crc32_tables[4][word >> 24 & 255] ^
                crc32_tables[3][word >> 32 & 255] ^ crc32_tables[2][word >> 40 & 255] ^
                crc32_tables[1][word >> 48 & 255] ^ crc32_tables[0][word >> 56];
        at += 8;
        size -= 8;
    }
    while (size--)
        state = state >> 8 ^ crc32_tables[0][(state ^ *at++) & 255];
    return state;
}

#if CRC32_HAS_CLMUL
/* `size` is at least 64 and a multiple of 16. */
__attribute__((target("pclmul,sse4.1"))) static uint32_t crc32_folded(uint32_t state, const uint8_t *at, size_t size) {
    const __m128i by64 = _mm_set_epi64x(0x1c6e41596, 0x154442bd4);
    const __m128i by16 = _mm_set_epi64x(0x0ccaa009e, 0x1751997d0);
    const __m128i by8 = _mm_set_epi64x(0, 0x163cd6124);
    const __m128i barrett = _mm_set_epi64x(0x1f7011641, 0x1db710641);
    const __m128i low = _mm_setr_epi32(~0, 0, ~0, 0);
    __m128i lane[4], folded;
    int i;

    for (i = 0; i < 4; i++)
        lane[i] = _mm_loadu_si128((const __m128i *)at + i);
    lane[0] = _mm_xor_si128(lane[0], _mm_cvtsi32_si128((int)state));
    for (at += 64, size -= 64; size >= 64; at += 64, size -= 64)
        for (i = 0; i < 4; i++) {
            folded = _mm_xor_si128(_mm_clmulepi64_si128(lane[i], by64, 0x00), _mm_clmulepi64_si128(lane[i], by64, 0x11));
            lane[i] = _mm_xor_si128(folded, _mm_loadu_si128((const __m128i *)at + i));
        }
    for (i = 1; i < 4; i++) {
        folded = _mm_xor_si128(_mm_clmulepi64_si128(lane[0], by16, 0x00), _mm_clmulepi64_si128(lane[0], by16, 0x11));
        lane[0] = _mm_xor_si128(folded, lane[i]);
    }
    for (; size >= 16; at += 16, size -= 16) {
        folded = _mm_xor_si128(_mm_clmulepi64_si128(lane[0], by16, 0x00), _mm_clmulepi64_si128(lane[0], by16, 0x11));
        lane[0] = _mm_xor_si128(folded, _mm_loadu_si128((const __m128i *)at));
    }

    /* 128 bits to 64, to 32, and Barrett's reduction to the remainder. */
    __m128i x = _mm_xor_si128(_mm_srli_si128(lane[0], 8), _mm_clmulepi64_si128(lane[0], by16, 0x10));
    x = _mm_xor_si128(_mm_srli_si128(x, 4), _mm_clmulepi64_si128(_mm_and_si128(x, low), by8, 0x00));
    __m128i quotient = _mm_and_si128(_mm_clmulepi64_si128(_mm_and_si128(x, low), barrett, 0x10), low);
    x = _mm_xor_si128(x, _mm_clmulepi64_si128(quotient, barrett, 0x00));
    return (uint32_t)_mm_extract_epi32(x, 1);
}
#endif

/* Call once, before any other function here. */
static void crc32_prepare(void) {
    for (uint32_t byte = 0; byte < 256; byte++) {
        uint32_t state = byte;
        for (int bit = 0; bit < 8; bit++)
            state = state >> 1 ^ (state & 1 ? 0xEDB88320u : 0);
        crc32_tables[0][byte] = state;
    }
    for (int table = 1; table < 8; table++)
        for (uint32_t byte = 0; byte < 256; byte++) {
            uint32_t before = crc32_tables[table - 1][byte];
            crc32_tables[table][byte] = before >> 8 ^ crc32_tables[0][before & 255];
        }
#if CRC32_HAS_CLMUL
    crc32_use_clmul = __builtin_cpu_supports("pclmul") && __builtin_cpu_supports("sse4.1");
#endif
}

/* `crc` is 0, or the CRC of the input before this one. */
static uint32_t crc32_portable(uint32_t crc, const void *data, size_t size) {
    return ~crc32_sliced(~crc, (const uint8_t *)data, size);
}

static uint32_t crc32_fastest(uint32_t crc, const void *data, size_t size) {
    const uint8_t *at = (const uint8_t *)data;
    uint32_t state = ~crc;
#if CRC32_HAS_CLMUL
    if (crc32_use_clmul && size >= CRC32_CLMUL_LEAST) {
        size_t whole = size & ~(size_t)15;
        state = crc32_folded(state, at, whole);
        at += whole;
        size -= whole;
    }
#endif
    return ~crc32_sliced(state, at, size);
}

#endif
