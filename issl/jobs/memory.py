"""Memory that a job on the CPU frees in one step and needs again in the next.

glibc returns freed blocks above 32 MiB to the system at once. The next step gets them anew, page by page, and the
system clears each page first, which takes a fifth of the step of a ResNet-18 in float32 (docs/performance.md).
"""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

import torch

# Parameters in glibc's malloc.h. The usual values adapt to what a program frees, up to these.
TRIM_THRESHOLD, MMAP_THRESHOLD, MMAP_MAX = -1, -3, -4
USUAL = {MMAP_THRESHOLD: 32 * 2**20, TRIM_THRESHOLD: 64 * 2**20, MMAP_MAX: 65_536}
REUSE = {MMAP_MAX: 0, TRIM_THRESHOLD: -1}  # large blocks are parts of the heap, and the heap never shrinks


@contextmanager
def reused(device: torch.device) -> Iterator[None]:
    """Meanwhile, if the device is the CPU, this process keeps the memory that it frees. It returns it at the end.

    The process grows larger than otherwise, because new blocks do not always fit where old ones were. Does nothing for
    other devices, or if the C library is not glibc.
    """
    library = _glibc() if device.type == "cpu" else None
    if library is None:
        yield
        return
    _set(library, REUSE)
    try:
        yield
    finally:
        _set(library, USUAL)
        library.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    try:
        library = ctypes.CDLL(None)
        return library if library.mallopt and library.malloc_trim and library.gnu_get_libc_version else None
    except (AttributeError, OSError, TypeError):  # other C libraries
        return None


def _set(library: ctypes.CDLL, values: dict[int, int]) -> None:
    for parameter, value in values.items():
        library.mallopt(parameter, value)
