"""Typed faces of the compiled kernels (`rdn_engine._C`).

Boxes are xyxy float32 in pixels of the network input. A side is x2 - x1 + 1, in areas and IoU too. `threads` bounds
the threads of one call, the caller's included. Arrays need not be contiguous; they are copied where they are not.
Every function raises `ValueError` that quotes the shape or type it got where an argument does not fit.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rdn_engine import _C

Float = NDArray[np.float32]
Index = NDArray[np.int64]


class Proposals(NamedTuple):
    boxes: Float
    """[B, n, 4] clipped to the image, best objectness first; rows past the count are zero"""
    objectness: Float
    """[B, n]"""
    counts: Index
    """[B] proposals of each image, at most n"""


class Boxes(NamedTuple):
    xyxy: Float
    """[k, 4]"""
    confidence: Float
    """[k] descending"""
    class_id: Index
    """[k] 0 is the first foreground class"""
    proposal: Index
    """[k] row of the proposal that it comes from"""


class Attention(NamedTuple):
    out: Float
    """[n, D] concatenated heads, without the bias of the values"""
    omega: Float | None
    """[n, W] softmax weights averaged over heads"""


def resize_normalize(
    image: NDArray[np.uint8],
    size: tuple[int, int],
    mean: tuple[float, ...],
    std: tuple[float, ...],
    channel_order: Literal["bgr", "rgb"],
    threads: int = 1,
) -> Float:
    """Resize as PIL's bilinear on uint8 (antialiased, to the bit), then (pixel - mean) / std.

    image [H, W, 3] RGB; size (height, width); mean and std in `channel_order` -> [3, height, width] in that order.
    """
    bgr = channel_order == "bgr"
    return _C.resize_normalize(np.ascontiguousarray(image), size, list(mean), list(std), bgr, threads)


def propose(
    objectness: Float,
    deltas: Float,
    grid: tuple[int, int],
    cell_anchors: Float,
    stride: int,
    image_size: tuple[int, int],
    pre_nms_top_n: int,
    nms_threshold: float,
    max_proposals: int,
    threads: int = 1,
) -> Proposals:
    """Region proposals: the top `pre_nms_top_n` by objectness, decoded, clipped, NMS at IoU > threshold.

    objectness [B, H*W*A] in (H, W, anchor) order, deltas [B, H*W*A, 4], grid (H, W), cell_anchors [A, 4],
    image_size (height, width). Equal scores are ordered by index.
    """
    return Proposals(
        *_C.propose(
            np.ascontiguousarray(objectness),
            np.ascontiguousarray(deltas),
            grid,
            np.ascontiguousarray(cell_anchors),
            stride,
            image_size,
            pre_nms_top_n,
            nms_threshold,
            max_proposals,
            threads,
        )
    )


def roi_pool(
    feature_map: Float,
    boxes: Float,
    image_index: Index,
    scale: float,
    size: int,
    pooling: Literal["align", "max"],
    threads: int = 1,
) -> Float:
    """RoIAlign (aligned=False, adaptive sampling) or RoI max pooling on a channels-last map.

    feature_map [B, H, W, C], boxes [R, 4], image_index [R] in 0..B-1, scale of the map (1/16) -> [R, size, size, C].
    Cell for cell what torchvision's roi_align(sampling_ratio=-1) and roi_pool compute.
    """
    return _C.roi_pool(
        np.ascontiguousarray(feature_map),
        np.ascontiguousarray(boxes),
        np.ascontiguousarray(image_index),
        scale,
        size,
        pooling == "max",
        threads,
    )


def sample_advanced(
    objectness: Float,
    multiplicity: Float,
    frame_start: Index,
    ratio: float,
    num_support: int,
    sampling: Literal["per_frame", "global"],
) -> tuple[Index, Float]:
    """The support proposals that the advanced stage refines: positions into the pool, and how often each counts.

    objectness [S], multiplicity [S], frame_start [F + 1] (frame j holds start[j]..start[j+1]). `per_frame`: the first
    int(K r) of each frame. `global`: the int(r * sum(multiplicity)) highest of the pool, at least one, repeats counted,
    equal objectness in pool order; the last one taken may count less often than its multiplicity. Positions ascend.
    """
    return _C.sample_advanced(
        np.ascontiguousarray(objectness),
        np.ascontiguousarray(multiplicity),
        np.ascontiguousarray(frame_start),
        ratio,
        num_support,
        sampling == "global",
    )


def relation_attention(
    query: Float,
    boxes: Float,
    keys: Float,
    values: Float,
    support_boxes: Float,
    rows: Index,
    multiplicity: Float,
    geometry_weight: Float,
    geometry_bias: Float,
    omega_range: tuple[int, int] | None = None,
    threads: int = 1,
) -> Attention:
    """One relation module (paper, eq. 1 to 4): softmax_j(q.k / sqrt(d) + log(relu(Wg.E + b) + 1e-6)) . v, all heads.

    query [n, D] unscaled, boxes [n, 4]; keys, values [R, D] and support_boxes [R, 4] are storage of which the support
    rows [S] (indices into R, repeats allowed) take part, row j counted multiplicity[j] times; geometry_weight [M, 64],
    geometry_bias [M]. With `omega_range` (a, b) also the head-averaged weights of rows[a:b]. No support at all gives
    zeros.
    """
    out, omega = _C.relation_attention(
        np.ascontiguousarray(query),
        np.ascontiguousarray(boxes),
        np.ascontiguousarray(keys),
        np.ascontiguousarray(values),
        np.ascontiguousarray(support_boxes),
        np.ascontiguousarray(rows),
        np.ascontiguousarray(multiplicity),
        np.ascontiguousarray(geometry_weight),
        np.ascontiguousarray(geometry_bias),
        omega_range if omega_range is not None else (0, 0),
        threads,
    )
    return Attention(out, omega if omega_range is not None else None)


def detect(
    logits: Float,
    deltas: Float,
    boxes: Float,
    image_size: tuple[int, int],
    box_weights: tuple[float, ...],
    score_threshold: float,
    nms_threshold: float,
    max_detections: int,
    threads: int = 1,
) -> Boxes:
    """Detections of one image: softmax, decode, clip, score > threshold, per-class NMS at IoU > threshold, best first.

    logits [n, C + 1] background first, deltas [n, 4 (C + 1)], boxes [n, 4] -> at most `max_detections`; equal
    confidences are ordered by class, then by proposal.
    """
    return Boxes(
        *_C.detect(
            np.ascontiguousarray(logits),
            np.ascontiguousarray(deltas),
            np.ascontiguousarray(boxes),
            image_size,
            list(box_weights),
            score_threshold,
            nms_threshold,
            max_detections,
            threads,
        )
    )


def overlaps(
    boxes: Float, classes: Index, other_boxes: Float, other_classes: Index, limit: float
) -> tuple[Index, Index, Float]:
    """Pairs of boxes [n, 4] and other_boxes [m, 4] of one class (classes [n], other_classes [m]) of an IoU > limit.

    -> row, row of the other, IoU of each pair, by row and then by other.
    """
    return _C.overlaps(
        np.ascontiguousarray(boxes),
        np.ascontiguousarray(classes),
        np.ascontiguousarray(other_boxes),
        np.ascontiguousarray(other_classes),
        limit,
    )


def group_means(group: Index, score: Float, groups: int, better_half: bool) -> NDArray[np.float64]:
    """Mean score [groups] of each group, or of the ceil(n / 2) highest of its n; 0 for an empty one.

    group [n] in 0..groups-1 of each score [n].
    """
    return _C.group_means(np.ascontiguousarray(group), np.ascontiguousarray(score), groups, better_half)


def link_paths(
    value: NDArray[np.float64],
    link_start: Index,
    source: Index,
    score: NDArray[np.float64],
    rival_start: Index,
    rival: Index,
) -> tuple[Index, int]:
    """The paths through linked boxes, best first, each without the boxes of those before it (paper, equation 9).

    Boxes are numbered frame by frame. value [n]: what a path gains by each; the links into box b are
    link_start[b]..link_start[b + 1] (link_start [n + 1]): source [links] is their other end, ascending and smaller
    than b, score [links] what a path gains by it. When a path takes box b, the boxes
    rival[rival_start[b]..rival_start[b + 1]] leave with it. A path starts and ends anywhere and may be a single box;
    of equally good ones that is taken whose last box comes first, then its last but one, and so on.
    -> number of each box's path [n], from 0 in the order taken, -1 for rivals that left; and how many paths there are.
    """
    return _C.link_paths(
        np.ascontiguousarray(value),
        np.ascontiguousarray(link_start),
        np.ascontiguousarray(source),
        np.ascontiguousarray(score),
        np.ascontiguousarray(rival_start),
        np.ascontiguousarray(rival),
    )
