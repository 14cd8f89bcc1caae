"""Time as int64 nanoseconds. The core takes `now_ns` as an argument; only its edges call these."""

from libc.stdint cimport int64_t
from posix.time cimport CLOCK_MONOTONIC, CLOCK_REALTIME, clock_gettime, timespec


cdef inline int64_t now_ns() noexcept nogil:
    """Unix time in ns: comparable with the exchange's times, and it can jump."""
    cdef timespec t
    clock_gettime(CLOCK_REALTIME, &t)
    return <int64_t>t.tv_sec * 1_000_000_000 + t.tv_nsec


cdef inline int64_t monotonic_ns() noexcept nogil:
    """Time that never jumps: every deadline and every duration uses this one."""
    cdef timespec t
    clock_gettime(CLOCK_MONOTONIC, &t)
    return <int64_t>t.tv_sec * 1_000_000_000 + t.tv_nsec
