"""How symbols' names are found again: the hashes of the table's index and of its file.

Pure functions, inlined into the one who cimports them: the table.
"""

from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memcpy


cdef inline void name_keys(const char* symbol, uint32_t size, uint64_t* low, uint64_t* high) noexcept nogil:
    """The first 16 bytes of a name, zeros behind it. Reads all 16, so they must be readable."""
    memcpy(low, symbol, 8)
    memcpy(high, symbol + 8, 8)
    if size < 8:
        low[0] &= (<uint64_t>1 << (8 * size)) - 1
        high[0] = 0
    elif size < 16:
        high[0] &= (<uint64_t>1 << (8 * (size - 8))) - 1


cdef inline uint32_t index_hash(uint64_t low, uint64_t high, uint32_t size) noexcept nogil:
    cdef uint64_t mixed = (low ^ (high * <uint64_t>0x9E3779B97F4A7C15) ^ size) * <uint64_t>0xD6E8FEB86659FD93
    # The top bits depend on every byte of the keys; 20 are enough for four places a slot.
    return <uint32_t>(mixed >> 44)


cdef inline uint32_t file_hash(bytes name) except? 0:
    """FNV-1a, of the name in a row: not the index's hash, for it lives as long as the file."""
    cdef uint32_t value = 2166136261
    for byte in name:
        value = ((value ^ <uint32_t>byte) * <uint64_t>16777619) & 0xFFFFFFFF
    return value
