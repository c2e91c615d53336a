"""Between the encoder's output and a stream's memory on the device, and the small steps around its products.

As in `rdn_engine.kernels.cuda.boxes`: nothing is allocated, copied to the host or waited for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rdn_engine.kernels.cuda.boxes import Kernels
from rdn_engine.kernels.cuda.view import FLOATS


def set_numbers(kernels: Kernels, numbers: Any, *, frame: int, newest: int, stream: int = 0) -> None:
    """Writes two numbers that the launch itself carries, so the host need not wait for it.

    Args:
        kernels: of this build.
        numbers: int64 [2]: is filled.
        frame: the first.
        newest: the second.
        stream: of CUDA.

    Raises:
        ValueError: an argument does not fit.
        RuntimeError: CUDA refused.
    """
    address = kernels.arrays.any(numbers, (np.int64,), (2,), "numbers [2]").pointer
    kernels.module.SetNumbers(frame=frame, newest=newest, numbers=address).run(stream)


@dataclass(frozen=True)
class RingRows:
    """Rows of one frame, by themselves and in a ring; float32 or float16 on either side."""

    dense: Any
    """[planes, rows, width]"""
    ring: Any
    """[planes, slots * stride, width]"""
    stride: int
    """Rows of a slot, at least those of `dense`"""


def copy_ring(
    kernels: Kernels,
    items: Sequence[RingRows],
    *,
    number: Any,
    count: Any,
    ring_counts: Any,
    store: bool,
    most: int = 0,
    stream: int = 0,
) -> None:
    """Copies a frame's rows into slot number % slots of the ring, or out of it.

    Args:
        kernels: of this build.
        items: at most 8. What has the planes of several frames may be `dense` too: any strides between planes will do.
        number: int64 [1] of the frame, on the device.
        count: int32 [1] rows that the frame has, on the device: is read where `store`, else filled.
        ring_counts: int32 [slots] the same for each slot: is filled where `store`, else read.
        store: into the ring.
        most: copied out, the count is at most this.
        stream: of CUDA.

    Raises:
        ValueError: an argument does not fit.
        RuntimeError: CUDA refused.
    """
    a = kernels.arrays
    counts = a.int32(ring_counts, (None,), "ring_counts [slots]")
    slots = counts.shape[0]
    kernels.module.RingCopy(
        number=a.any(number, (np.int64,), (1,), "number [1]").pointer,
        slots=slots,
        store=store,
        dense_count=a.int32(count, (1,), "count [1]").pointer,
        ring_counts=counts.pointer,
        most=most,
        count=len(items),
        items=[_item(kernels, item, slots) for item in items],
    ).run(stream)


def _item(kernels: Kernels, item: RingRows, slots: int) -> Any:
    a = kernels.arrays
    kinds = (np.float32, np.float16)
    planes, rows, width = item.dense.shape
    ring = a.any(item.ring, kinds, (planes, slots * item.stride, width), f"ring [{planes}, slots * stride, {width}]")
    # A plane is dense; planes may lie apart, so each is looked at by itself.
    first = a.any(item.dense[0], kinds, (rows, width), f"dense [{planes}, {rows}, {width}]")
    apart = (a.any(item.dense[1], kinds, (rows, width), "dense").pointer - first.pointer) if planes > 1 else 0
    return kernels.module.RingItem(
        dense=first.pointer,
        ring=ring.pointer,
        dense_type=FLOATS[first.dtype],
        ring_type=FLOATS[ring.dtype],
        planes=planes,
        dense_plane=apart // first.dtype.itemsize,
        rows=rows,
        stride=item.stride,
        width=width,
    )


def take_rows(kernels: Kernels, source: Any, rows: Any, *, out: Any, stream: int = 0) -> None:
    """out = source[rows].

    Args:
        kernels: of this build.
        source: float32 [., width].
        rows: int32 [n].
        out: float32 [n, width]: is filled.
        stream: of CUDA.

    Raises:
        ValueError: an argument does not fit.
        RuntimeError: CUDA refused.
    """
    a = kernels.arrays
    taken = a.float32(out, (None, None), "out [n, width]")
    count, width = taken.shape
    kernels.module.TakeRows(
        source=a.float32(source, (None, width), f"source [., {width}]").pointer,
        rows=a.int32(rows, (count,), f"rows [n = {count}]").pointer,
        count=count,
        width=width,
        out=taken.pointer,
    ).run(stream)


def add_bias(kernels: Kernels, x: Any, bias: Any, *, relu: bool = False, stream: int = 0) -> None:
    """x + bias, in place.

    Args:
        kernels: of this build.
        x: [n, width]: is changed.
        bias: float32 [width].
        relu: what is below 0 becomes 0.
        stream: of CUDA.

    Raises:
        ValueError: an argument does not fit.
        RuntimeError: CUDA refused.
    """
    a = kernels.arrays
    view = a.floats(x, (None, None), "x [n, width]")
    rows, width = view.shape
    address = a.float32(bias, (width,), f"bias [{width}]").pointer
    kernels.module.AddBias(
        x=view.pointer, type=FLOATS[view.dtype], bias=address, relu=relu, rows=rows, width=width
    ).run(stream)
