"""Arrays on a device, seen as an address, a shape and a type; and the compiled CUDA kernels, where there are any.

Anything with `__cuda_array_interface__` (cupy, torch, numba, pycuda, decoders) or `__dlpack__` enters without a copy.
No array interface has a name for bfloat16, so uint16 stands for it (torch: `x.view(torch.uint16)`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike

FLOATS = {np.dtype(np.float32): 0, np.dtype(np.float16): 1, np.dtype(np.uint16): 2}
"""Type codes of the kernels for the numbers of feature maps, scores and features."""


class View(NamedTuple):
    pointer: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def __str__(self) -> str:
        return f"{self.dtype} {list(self.shape)}"


Viewer = Callable[[Any], View]


def view_of(array: Any) -> View:
    """The device array in place. `ValueError` where it is none, or not C-contiguous."""
    interface = getattr(array, "__cuda_array_interface__", None)
    if interface is None and hasattr(array, "__dlpack__"):
        import cupy

        interface = cupy.from_dlpack(array).__cuda_array_interface__
    if interface is None:
        raise ValueError(f"wanted an array on a CUDA device, got {type(array).__name__}")
    return view_of_interface(interface)


def view_of_interface(interface: dict[str, Any]) -> View:
    view, step = rows_of_interface(interface)
    if step != _step(view):
        raise ValueError(f"wanted a C-contiguous array, got {view} with {step} bytes from row to row")
    return view


def rows_of_interface(interface: dict[str, Any]) -> tuple[View, int]:
    """An array whose rows (all but the first axis) are dense, and the bytes from one row to the next."""
    dtype, shape = np.dtype(interface["typestr"]), tuple(interface["shape"])
    view, strides = View(int(interface["data"][0]), shape, dtype), interface.get("strides")
    if strides is None or not math.prod(shape):
        return view, _step(view)
    if tuple(strides[1:]) != _dense_strides(shape, dtype.itemsize)[1:] or (strides and strides[0] < _step(view)):
        raise ValueError(f"wanted a C-contiguous array, got {view} with strides {list(strides)}")
    return view, int(strides[0]) if strides else _step(view)


def _step(view: View) -> int:
    return view.dtype.itemsize * math.prod(view.shape[1:])


def _dense_strides(shape: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
    return tuple(itemsize * math.prod(shape[axis + 1 :]) for axis in range(len(shape)))


class Arrays:
    """Checks of one call's arguments: every method returns a view, or raises `ValueError` that quotes what it got."""

    def __init__(self, viewer: Viewer) -> None:
        self._viewer = viewer

    def _view(self, array: Any) -> View:
        return array if isinstance(array, View) else self._viewer(array)

    def all(self, arrays: Mapping[str, Any]) -> dict[str, View]:
        """Whatever they are, by the same names."""
        return {name: self._view(array) for name, array in arrays.items()}

    def any(self, array: Any, dtypes: Sequence[DTypeLike], shape: Sequence[int | None], wanted: str) -> View:
        """One of these types and this shape; None for an axis of any length."""
        view = self._view(array)
        fits = any(view.dtype == np.dtype(dtype) for dtype in dtypes) and len(view.shape) == len(shape)
        if not fits or any(length not in (None, got) for length, got in zip(shape, view.shape, strict=True)):
            names = " or ".join("bfloat16 (uint16)" if d is np.uint16 else np.dtype(d).name for d in dtypes)
            raise ValueError(f"wanted {names} {wanted}, got {view}")
        return view

    def float32(self, array: Any, shape: Sequence[int | None], wanted: str) -> View:
        return self.any(array, (np.float32,), shape, wanted)

    def int32(self, array: Any, shape: Sequence[int | None], wanted: str) -> View:
        return self.any(array, (np.int32,), shape, wanted)

    def floats(self, array: Any, shape: Sequence[int | None], wanted: str) -> View:
        """float32, float16 or bfloat16."""
        return self.any(array, (np.float32, np.float16, np.uint16), shape, wanted)

    def pointer(self, array: Any, dtype: DTypeLike, shape: Sequence[int | None], wanted: str) -> int | None:
        """Address of an optional array."""
        return None if array is None else self.any(array, (dtype,), shape, wanted).pointer

    def workspace(self, array: Any, nbytes: int) -> int:
        """Address of scratch memory of at least `nbytes`."""
        view = self._view(array)
        if math.prod(view.shape) * view.dtype.itemsize < nbytes:
            raise ValueError(f"wanted a workspace of {nbytes} bytes, got {view}")
        return view.pointer
