"""Settings of the C library's allocator and of Linux's memory pages that make training faster."""

import ctypes
import os
import platform
from pathlib import Path

__all__ = ["keep_freed_memory"]

#: Parameters of glibc's `mallopt` (malloc.h) and their values: all threads share one heap; no allocation is mapped
#: separately; the heap is never trimmed; it grows by 256 MiB at a time.
_ARENA_MAX, _MMAP_MAX, _TRIM_THRESHOLD, _TOP_PAD = (-8, 1), (-4, 0), (-1, -1), (-2, 2**28)
#: The file that states which processes get pages of 2 MiB: `[always]` all, `[madvise]` those that request them,
#: `[never]` none.
_HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")
_HUGE_PAGE, _MADV_HUGEPAGE = 2**21, 14


def keep_freed_memory() -> bool:
    """Makes the process keep the memory that a training step frees, so that the next step can reuse it. On Linux, this
    memory is in huge pages.

    XLA's CPU client allocates new arrays in every step. By default, glibc returns such large blocks to the system after
    the step, and the system fills hundreds of megabytes with zeros for the next step. Larger pages (2 MiB instead of 4
    KiB) reduce the number of address lookups.

    Call this function before JAX computes anything, since existing threads keep their own heaps. The change lasts until
    the process ends: memory that was used once is not returned to the system. Set the environment variable
    `EQXCNN_KEEP_MEMORY=0` to leave the allocator alone.

    **Returns:** whether the allocator was changed; `False` without glibc or if the environment variable forbids it.
    """
    if os.environ.get("EQXCNN_KEEP_MEMORY", "1") == "0" or platform.libc_ver()[0] != "glibc":
        return False
    library = ctypes.CDLL(None)
    is_set = all(library.mallopt(*setting) for setting in (_ARENA_MAX, _MMAP_MAX, _TRIM_THRESHOLD, _TOP_PAD))
    if is_set and _HUGE_PAGES.exists() and "[madvise]" in _HUGE_PAGES.read_text():
        _request_huge_pages(library)
    return is_set


def _request_huge_pages(library: ctypes.CDLL) -> None:
    """Reserves addresses for the heap, and requests huge pages for them; unused addresses take no memory."""
    library.malloc.restype, library.malloc.argtypes = ctypes.c_void_p, (ctypes.c_size_t,)
    library.free.argtypes = (ctypes.c_void_p,)
    library.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    size = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    # The block is larger than any gap in the heap, so it lies at the heap's end. `malloc` fails where address space is
    # limited.
    if start := library.malloc(size):
        first = -(-start // _HUGE_PAGE) * _HUGE_PAGE
        library.madvise(first, size - (first - start), _MADV_HUGEPAGE)
        # The heap keeps these addresses, so later arrays use huge pages.
        library.free(start)
