"""Keep freed memory for the next step when training on a CPU.

A step allocates and frees the same large tensors as the step before. The C library's allocator
gives such blocks back to the kernel at once and gets them again page by page, zeroed; measured on
two cores that takes longer than the arithmetic (benchmarks/README.md).
"""

import ctypes
import platform

# Parameters of mallopt(3).
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -2, -4, -8
_NEVER = 2**31 - 1
_GROWTH_BYTES = 256 * 2**20


def keep_freed_memory() -> bool:
    """Tell glibc to keep freed memory in the process: one heap, no separate mappings, no trimming.

    The process holds on to its peak memory until it ends. To be called before the first threads
    allocate.

    Returns:
        Whether it was done; other C libraries are left alone.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    settings = (
        (_M_MMAP_MAX, 0),
        (_M_TRIM_THRESHOLD, _NEVER),
        (_M_TOP_PAD, _GROWTH_BYTES),
        (_M_ARENA_MAX, 1),
    )
    return all(mallopt(parameter, value) == 1 for parameter, value in settings)
