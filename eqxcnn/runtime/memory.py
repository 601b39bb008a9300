"""What training asks of the C library's allocator and of Linux's pages."""

import ctypes
import os
import platform
from pathlib import Path

#: Of `mallopt` (glibc's malloc.h): all threads share one heap; no allocation has pages of its own; the heap is never
#: given back; and it grows by 256 MiB.
_ARENA_MAX, _MMAP_MAX, _TRIM_THRESHOLD, _TOP_PAD = (-8, 1), (-4, 0), (-1, -1), (-2, 2**28)
#: Whether Linux gives pages of 2 MiB to all (`[always]`), to those who ask (`[madvise]`) or to none (`[never]`).
_HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")
_HUGE_PAGE, _MADV_HUGEPAGE = 2**21, 14


def keep_freed_memory() -> bool:
    """Lets the process keep the memory that a step frees for the next step, in huge pages where Linux has them.

    To be called before JAX computes anything: threads that are there already have heaps of their own.

    XLA's CPU client allocates a step's arrays anew each time, and by default glibc gives such large ones back to the
    system at once, which then fills hundreds of megabytes with zeros for every step. In pages of 4 KiB, moreover, the
    processor looks up half a thousand addresses for each array of 2 MiB.

    **Returns:** whether it could be set: on Linux with glibc.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    library = ctypes.CDLL(None)
    kept = all(library.mallopt(*setting) for setting in (_ARENA_MAX, _MMAP_MAX, _TRIM_THRESHOLD, _TOP_PAD))
    if kept and _HUGE_PAGES.exists() and "[madvise]" in _HUGE_PAGES.read_text():
        _ask_for_huge_pages(library)
    return kept


def _ask_for_huge_pages(library: ctypes.CDLL) -> None:
    """Reserves addresses for the heap, which take no memory until they are used, and asks for huge pages there."""
    library.malloc.restype, library.malloc.argtypes = ctypes.c_void_p, (ctypes.c_size_t,)
    library.free.argtypes = (ctypes.c_void_p,)
    library.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    size = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    # More than any hole there may be, so that it lies at the heap's end; nothing where addresses are limited.
    if start := library.malloc(size):
        first = -(-start // _HUGE_PAGE) * _HUGE_PAGE
        library.madvise(first, size - (first - start), _MADV_HUGEPAGE)
        # Back to the heap, which keeps it: the pages that come to lie there are huge ones.
        library.free(start)
