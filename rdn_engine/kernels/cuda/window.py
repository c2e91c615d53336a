"""The window of a stream on the device: which rows of the ring a frame looks at, as lists for the relation kernels.

Lists have the same length whether frames and proposals are there or not; what is not there counts 0. The numbers that
move from frame to frame are read from device memory, so that one CUDA graph serves every step.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from rdn_engine.config import Dials
from rdn_engine.kernels.cuda.boxes import Kernels


@dataclass(frozen=True)
class Ring:
    """A ring of encoded frames, frame n in slot n % slots, and the window t - T .. t + L."""

    frame: Any
    """int64 [1] reference frame t, counted from 0"""
    newest: Any
    """int64 [1] number of the last frame in the ring"""
    counts: Any
    """int32 [slots] proposals of each"""
    stride: int
    """proposal k of a slot is row slot * stride + k of the storage"""
    dials: Dials
    """T, L, K, r and the rule at the edges; T + L + 1 is at most slots"""


def list_window(kernels: Kernels, ring: Ring, *, rows: Any, multiplicity: Any, stream: int = 0) -> None:
    """Support proposals of the window, oldest frame first; DESIGN section 2, Window of frame t.

    Args:
        kernels: of this build.
        ring: and where in it the stream is.
        rows: int32 [T + L + 1, stride], stride at least K: is filled with rows of the storage.
        multiplicity: float32 [T + L + 1, stride]: is filled with how often each counts, 0 where there is none.
        stream: of CUDA.

    Raises:
        ValueError: an argument does not fit.
        RuntimeError: CUDA refused.
    """
    a = kernels.arrays
    frames = ring.dials.window + ring.dials.frames_ahead + 1
    row = a.int32(rows, (frames, None), f"rows [T + L + 1 = {frames}, stride]")
    kernels.module.Window(
        ring=_ring(kernels, ring),
        frame_stride=row.shape[1],
        rows=row.pointer,
        multiplicity=a.float32(multiplicity, row.shape, f"multiplicity {list(row.shape)}").pointer,
    ).run(stream)


@dataclass(frozen=True)
class SlideLists:
    """What `list_slide` fills: lists in the order of the ring's slots, and those of the newest frame."""

    rows: Any
    """int32 [slots, stride >= K] of the storage"""
    multiplicity: Any
    """float32 [slots, stride] 1, or 0 where there is no proposal"""
    slot_repeats: Any
    """float32 [slots] how often the window of t counts each frame"""
    advanced_rows: Any
    """int32 [slots, room >= int(K r)]"""
    advanced_multiplicity: Any
    """float32 [slots, room] how often the window of t counts each"""
    new_slot: Any
    """int32 [1] of the newest frame, as the next four"""
    new_rows: Any
    """int32 [stride]"""
    new_multiplicity: Any
    """float32 [stride]"""
    new_advanced_rows: Any
    """int32 [room]"""
    new_places: Any
    """int32 [room] slot * room + k"""


def list_slide(kernels: Kernels, ring: Ring, lists: SlideLists, *, stream: int = 0) -> None:
    """The lists of the sliding refinement, which takes int(K r) support proposals of a frame (docs/gpu.md).

    Args:
        kernels: of this build.
        ring: and where in it the stream is.
        lists: are filled.
        stream: of CUDA.

    Raises:
        ValueError: an argument does not fit.
        RuntimeError: CUDA refused.
    """
    a = kernels.arrays
    slots = a.int32(ring.counts, (None,), "counts [slots]").shape[0]
    stride = a.int32(lists.rows, (slots, None), f"rows [slots = {slots}, stride]").shape[1]
    room = a.int32(lists.advanced_rows, (slots, None), f"advanced_rows [slots = {slots}, room]").shape[1]
    shapes = {"rows": (slots, stride), "multiplicity": (slots, stride), "slot_repeats": (slots,),
              "advanced_rows": (slots, room), "advanced_multiplicity": (slots, room), "new_slot": (1,),
              "new_rows": (stride,), "new_multiplicity": (stride,), "new_advanced_rows": (room,),
              "new_places": (room,)}  # fmt: skip
    floats = ("multiplicity", "slot_repeats", "advanced_multiplicity", "new_multiplicity")
    pointers = {
        name: a.any(getattr(lists, name), (np.float32 if name in floats else np.int32,), shape, f"{name} {list(shape)}")
        for name, shape in shapes.items()
    }
    kernels.module.Slide(
        ring=_ring(kernels, ring),
        frame_stride=stride,
        advanced=ring.dials.num_advanced,
        advanced_stride=room,
        **{name: view.pointer for name, view in pointers.items()},
    ).run(stream)


def advanced_capacity(kernels: Kernels, frames: int, dials: Dials) -> int:
    """Room that `sample_advanced` wants for a window of `frames` frames, a multiple of 16."""
    return int(kernels.module.advanced_capacity(frames, dials.num_support, dials.advanced_ratio))


def sample_advanced(
    kernels: Kernels,
    objectness: Any,
    *,
    rows: Any,
    multiplicity: Any,
    dials: Dials,
    positions: Any,
    taken_rows: Any,
    counted: Any,
    stream: int = 0,
) -> None:
    """`cpu.sample_advanced` of a window by the rule `global`; DESIGN section 2, Top-r%. (`per_frame` is `list_slide`.)

    Args:
        kernels: of this build.
        objectness: float32 [R] of the storage.
        rows: int32 [frames, stride] of `list_window`.
        multiplicity: float32 [frames, stride] likewise.
        dials: K and r.
        positions: int32 [advanced_capacity]: is filled with positions into the window, ascending. What is not taken
            stands behind, here and in the next two, counting 0.
        taken_rows: int32 [advanced_capacity]: is filled with rows of the storage.
        counted: float32 [advanced_capacity]: is filled with how often each counts.
        stream: of CUDA.

    Raises:
        ValueError: an argument does not fit.
        RuntimeError: CUDA refused.
    """
    a = kernels.arrays
    row = a.int32(rows, (None, None), "rows [frames, stride]")
    frames, stride = row.shape
    capacity = advanced_capacity(kernels, frames, dials)
    wanted = f"[{capacity}]"
    kernels.module.SampleAdvanced(
        objectness=a.float32(objectness, (None,), "objectness [R]").pointer,
        rows=row.pointer,
        multiplicity=a.float32(multiplicity, (frames, stride), f"multiplicity [{frames}, {stride}]").pointer,
        frames=frames,
        frame_stride=stride,
        num_support=dials.num_support,
        ratio=dials.advanced_ratio,
        capacity=capacity,
        positions=a.int32(positions, (capacity,), f"positions {wanted}").pointer,
        taken_rows=a.int32(taken_rows, (capacity,), f"taken_rows {wanted}").pointer,
        counted=a.float32(counted, (capacity,), f"counted {wanted}").pointer,
    ).run(stream)


def _ring(kernels: Kernels, ring: Ring) -> Any:
    a, dials = kernels.arrays, ring.dials
    counts = a.int32(ring.counts, (None,), "counts [slots]")
    return kernels.module.Ring(
        frame=a.any(ring.frame, (np.int64,), (1,), "frame [1]").pointer,
        newest=a.any(ring.newest, (np.int64,), (1,), "newest [1]").pointer,
        counts=counts.pointer,
        slots=counts.shape[0],
        stride=ring.stride,
        frames_before=dials.window,
        frames_ahead=dials.frames_ahead,
        num_support=dials.num_support,
        replicate=dials.edges == "replicate",
    )
