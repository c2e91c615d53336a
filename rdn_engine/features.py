"""The arrays that stages hand to each other. R rows, K support rows, D feature width, P = N_b + 1 cached modules."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float32]
Index = NDArray[np.int64]


@dataclass(frozen=True)
class EncodedFrame:
    """What the encoder makes of one frame; the support proposals are the first rows of the reference proposals."""

    boxes: Float
    """[n, 4] xyxy, network-input pixels, best objectness first; n <= N"""
    objectness: Float
    """[n] in 0..1"""
    features: Float
    """[n, D] after the RoI FC and its ReLU"""
    query: Float
    """[n, D] query of the first relation module applied to the reference; [n, 0] where there is none"""
    keys: Float
    """[P, k, D] of the first k = min(n, K) proposals, modules rel_0..rel_{P-1}"""
    values: Float
    """[P, k, D] values, projected, without their bias"""
    refine_query: Float
    """[k, D] query of the refinement; [k, 0] without the advanced stage"""


@dataclass(frozen=True)
class SupportPool:
    """The window of one reference frame, in place in the stream's ring.

    `rows` indexes the first axis of the storage arrays (second of keys and values). A frame that an edge rule
    repeats appears once, with its `multiplicity`.
    """

    boxes: Float
    """[R, 4] network-input pixels, R = ring slots x K"""
    features: Float
    """[R, D]"""
    keys: Float
    """[P, R, D]"""
    values: Float
    """[P, R, D]"""
    refine_query: Float
    """[R, D]"""
    rows: Index
    """[S] support proposals of the window, oldest frame first"""
    multiplicity: Float
    """[S] how often each counts, 1 or more"""
    advanced_rows: Index
    """[A] support proposals that the refinement takes, a subset of `rows`"""
    advanced_multiplicity: Float
    """[A]"""


@dataclass(frozen=True)
class RelationOutput:
    logits: Float
    """[n, C + 1] background first"""
    deltas: Float
    """[n, 4 (C + 1)]"""
    omega: Float | None
    """[n, W] weights of the last basic module, averaged over heads, for the rows asked for; None when not asked"""
