"""Freed memory of a CPU run stays with the process: training asks for the same sizes again in every update.

Whenever much is free at the end of its heap, glibc gives it back to the system, which fills every page with zeros when
it is asked for it again: more than 100 thousand pages in a bfloat16 step of a base model (docs/performance.md).
"""

import ctypes
import sys

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # parameters of mallopt(3)
NEVER, LARGEST = 2**31 - 1, 32 * 2**20  # bytes; larger blocks than glibc's own limit still go back when they are free


def keep_freed_memory() -> bool:
    """Let the heap of this process never shrink, and tell whether its C library can; the peak stays the same."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    return mallopt is not None and bool(mallopt(MMAP_THRESHOLD, LARGEST) and mallopt(TRIM_THRESHOLD, NEVER))
