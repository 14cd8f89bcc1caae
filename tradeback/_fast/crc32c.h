/* CRC-32C (Castagnoli, RFC 3720 appendix B.4): by the SSE4.2 instruction where the machine has it, else by tables.
 *
 * The journal uses it instead of zlib's CRC-32 because 68 bytes are too short for carry-less multiplication to pay,
 * while the instruction takes 8 bytes in 3 cycles. The wire keeps zlib's CRC-32, which browsers can compute.
 */
#ifndef TRADEBACK_CRC32C_H
#define TRADEBACK_CRC32C_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

static uint32_t crc32c_table[8][256];

/* Called once, when the module is imported and before any other call. */
static void crc32c_prepare(void) {
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t c = i;
        for (int k = 0; k < 8; k++) c = (c >> 1) ^ (0x82F63B78u & (0u - (c & 1u)));
        crc32c_table[0][i] = c;
    }
    for (int t = 1; t < 8; t++)
        for (int i = 0; i < 256; i++)
            crc32c_table[t][i] = (crc32c_table[t - 1][i] >> 8) ^ crc32c_table[0][crc32c_table[t - 1][i] & 0xFF];
}

/* Slicing by 8; `crc` is the running value, not yet complemented. */
static uint32_t crc32c_by_table(uint32_t crc, const void* data, size_t size) {
    const unsigned char* p = (const unsigned char*)data;
    for (; size >= 8; size -= 8, p += 8) {
        uint64_t w;
        memcpy(&w, p, 8);
        w ^= crc;
        crc = crc32c_table[7][w & 0xFF] ^ crc32c_table[6][(w >> 8) & 0xFF] ^
              crc32c_table[5][(w >> 16) & 0xFF] ^ crc32c_table[4][(w >> 24) & 0xFF] ^
              crc32c_table[3][(w >> 32) & 0xFF] ^ crc32c_table[2][(w >> 40) & 0xFF] ^
              crc32c_table[1][(w >> 48) & 0xFF] ^ crc32c_table[0][w >> 56];
    }
    for (; size; size--, p++) crc = (crc >> 8) ^ crc32c_table[0][(crc ^ *p) & 0xFF];
    return crc;
}

#if defined(__x86_64__)
__attribute__((target("sse4.2"))) static uint32_t crc32c_by_instruction(uint32_t crc, const void* data, size_t size) {
    const unsigned char* p = (const unsigned char*)data;
    uint64_t c = crc;
    for (; size >= 8; size -= 8, p += 8) {
        uint64_t w;
        memcpy(&w, p, 8);
        c = __builtin_ia32_crc32di(c, w);
    }
    crc = (uint32_t)c;
    if (size >= 4) {
        uint32_t w;
        memcpy(&w, p, 4);
        crc = __builtin_ia32_crc32si(crc, w);
        size -= 4, p += 4;
    }
    for (; size; size--, p++) crc = __builtin_ia32_crc32qi(crc, *p);
    return crc;
}

static inline int crc32c_has_instruction(void) { return __builtin_cpu_supports("sse4.2"); }
#else
static uint32_t crc32c_by_instruction(uint32_t crc, const void* data, size_t size) {
    return crc32c_by_table(crc, data, size);
}

static inline int crc32c_has_instruction(void) { return 0; }
#endif

static inline uint32_t crc32c_update(uint32_t crc, const void* data, size_t size) {
    return crc32c_has_instruction() ? crc32c_by_instruction(crc, data, size) : crc32c_by_table(crc, data, size);
}

#endif
