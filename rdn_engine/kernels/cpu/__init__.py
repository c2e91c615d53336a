"""Typed faces of the compiled kernels of the CPU (`rdn_engine.kernels._C`), a file for each of csrc/bindings/.

Boxes are xyxy float32 in pixels of the network input. A side is x2 - x1 + 1, in areas and IoU too. `threads` bounds
the threads of one call, the caller's included. Arrays need not be contiguous; they are copied where they are not.
Every function raises `ValueError` that quotes the shape or type it got where an argument does not fit.
"""

from rdn_engine.kernels.cpu.arrays import PANEL, Double, Float, Index, Packed, Precision
from rdn_engine.kernels.cpu.boxes import (
    Boxes,
    Proposals,
    detect,
    pooled_width,
    propose,
    resize_normalize,
    roi_pool,
    suppress,
)
from rdn_engine.kernels.cpu.linking import assign, group_means, link_paths, overlaps
from rdn_engine.kernels.cpu.relation import (
    CANCELLED,
    RIGHT,
    Attention,
    PackedWeight,
    QueryRows,
    Refined,
    RunningSums,
    SupportBank,
    empty_supports,
    linear,
    pack_supports,
    pack_weight,
    prepare_geometry,
    relation_attention,
    relation_refine,
    sample_advanced,
)

__all__ = [
    "CANCELLED",
    "PANEL",
    "RIGHT",
    "Attention",
    "Boxes",
    "Double",
    "Float",
    "Index",
    "Packed",
    "PackedWeight",
    "Precision",
    "Proposals",
    "QueryRows",
    "Refined",
    "RunningSums",
    "SupportBank",
    "assign",
    "detect",
    "empty_supports",
    "group_means",
    "linear",
    "link_paths",
    "overlaps",
    "pack_supports",
    "pack_weight",
    "pooled_width",
    "prepare_geometry",
    "propose",
    "relation_attention",
    "relation_refine",
    "resize_normalize",
    "roi_pool",
    "sample_advanced",
    "suppress",
]
