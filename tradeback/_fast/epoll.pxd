"""The C face of the loop: what another compiled module derives from to work at the end of each iteration."""


cdef class IterationHook:
    cdef int run(self) except -1
