"""The C face of the loop: what another compiled module derives from to work at the end of each iteration."""

from libc.stdint cimport int64_t


cdef class IterationHook:
    cdef int64_t woke_ns        # monotonic, when this iteration's waiting ended; 0 in debug mode, which does not tell

    cdef int run(self) except -1
