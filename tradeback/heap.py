"""What glibc's malloc keeps for itself, told by mallopt(3). A C library without it has no such heaps."""

from __future__ import annotations

import ctypes

_MMAP_THRESHOLD = -3  # M_MMAP_THRESHOLD
_OF_ITS_OWN = 4 << 20  # bytes


def give_back_large_blocks() -> None:
    """Have this process give each block of some megabytes back to the system when it is freed, such as the 19 MiB that
    checking a password takes.

    glibc takes the first such block from the kernel, and then, having seen that they come and go, the next ones from a
    heap that it keeps: as much for each thread that ever needed one. A threshold that was set stays as it is.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, _OF_ITS_OWN)
