"""Arrays as the CPU kernels want them."""

from __future__ import annotations

import math
import mmap
from contextlib import suppress
from typing import Any, Literal

import numpy as np
from numpy.typing import DTypeLike, NDArray

from rdn_engine.kernels.arithmetic import round_up

Float = NDArray[np.float32]
Half = NDArray[np.float16]
Double = NDArray[np.float64]
Index = NDArray[np.int64]


Precision = Literal["float32", "bfloat16"]
"""Of the operands of products."""
RingPrecision = Literal["float32", "float16"]
"""Of what a stream keeps."""
StoredPrecision = Literal["float32", "bfloat16", "float16"]
"""Of kept keys and values: bfloat16 where products are of it."""

Packed = NDArray[np.float32 | np.float16 | np.uint16]
"""float32, float16, or pairs of bfloat16 as uint16: the last axis is 2."""


PANEL = 16
"""Columns of a panel of packed weights or keys."""


def aligned_zeros(shape: tuple[int, ...], dtype: DTypeLike) -> Packed:
    """From a cache line's boundary on: a vector that lies across two is loaded twice."""
    line, size = 64, math.prod(shape) * np.dtype(dtype).itemsize
    memory = np.zeros(size + line, np.uint8)
    start = -memory.ctypes.data % line
    return memory[start : start + size].view(dtype).reshape(shape)


def zeros_together(*wanted: tuple[tuple[int, ...], DTypeLike]) -> list[NDArray[Any]]:
    """Arrays in one piece of memory, each from a cache line's boundary on; in huge pages, but for the rest of one.

    Of small pages, what other work has displaced from the caches is slow to read: their addresses have to be looked up
    anew too. The rest stays in small ones, so that no more is taken than is asked for.

    Args:
        wanted: shape and type of each.

    Returns:
        The arrays, all zero.

    Raises:
        MemoryError: they do not fit.
    """
    line, huge = 64, 1 << 21
    sizes = [math.prod(shape) * np.dtype(dtype).itemsize for shape, dtype in wanted]
    total = sum(round_up(size, line) for size in sizes)
    try:
        pages = mmap.mmap(-1, total + huge, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except (OSError, OverflowError) as error:
        raise MemoryError(f"{total} bytes: {error}") from error
    memory = np.frombuffer(pages, np.uint8)
    start = -memory.ctypes.data % huge
    if total >= huge:
        with suppress(OSError, AttributeError):  # a system that has none
            pages.madvise(mmap.MADV_HUGEPAGE, start, total // huge * huge)
    arrays = []
    for size, (shape, dtype) in zip(sizes, wanted, strict=True):
        arrays.append(memory[start : start + size].view(dtype).reshape(shape))
        start += round_up(size, line)
    return arrays


def aligned(array: Packed) -> Packed:
    copy = aligned_zeros(array.shape, array.dtype)
    copy[...] = array
    return copy
