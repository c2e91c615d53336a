"""Typed faces of the compiled CUDA kernels (`rdn_engine.kernels._cuda`), loaded when a device is asked for."""

from rdn_engine.kernels.cuda.boxes import Kernels, Resizer
from rdn_engine.kernels.cuda.relation import (
    AttentionInputs,
    Partials,
    Queries,
    Supports,
    attend,
    average_weights,
    combine,
    find_gates,
    geometry_bytes,
)
from rdn_engine.kernels.cuda.ring import RingRows, add_bias, copy_ring, set_numbers, take_rows
from rdn_engine.kernels.cuda.window import (
    Ring,
    SlideLists,
    advanced_capacity,
    list_slide,
    list_window,
    sample_advanced,
)

__all__ = [
    "AttentionInputs",
    "Kernels",
    "Partials",
    "Queries",
    "Resizer",
    "Ring",
    "RingRows",
    "SlideLists",
    "Supports",
    "add_bias",
    "advanced_capacity",
    "attend",
    "average_weights",
    "combine",
    "copy_ring",
    "find_gates",
    "geometry_bytes",
    "list_slide",
    "list_window",
    "sample_advanced",
    "set_numbers",
    "take_rows",
]
