"""What training asks of the C library's allocator."""

import ctypes
import platform

import jax

#: Of `mallopt` (glibc's malloc.h): all threads share one heap; no allocation has pages of its own; the heap is never
#: given back, up to 2 GiB at its end; and it grows by 256 MiB.
_ARENA_MAX, _MMAP_MAX, _TRIM_THRESHOLD, _TOP_PAD = (-8, 1), (-4, 0), (-1, 2**31 - 1), (-2, 2**28)


def keep_freed_memory() -> bool:
    """Lets the process keep the memory that a step frees for the next step, where arrays lie in glibc's heap.

    XLA's CPU client allocates a step's arrays anew each time, and by default glibc gives such large ones back to the
    system at once, which then fills hundreds of megabytes with zeros for every step.

    **Returns:** whether it could be set: on Linux with glibc, when JAX computes on the CPU.
    """
    if jax.default_backend() != "cpu" or platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return all(mallopt(*setting) for setting in (_ARENA_MAX, _MMAP_MAX, _TRIM_THRESHOLD, _TOP_PAD))
