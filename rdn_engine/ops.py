"""Typed faces of the compiled kernels (`rdn_engine._C`).

Boxes are xyxy float32 in pixels of the network input. A side is x2 - x1 + 1, in areas and IoU too. `threads` bounds
the threads of one call, the caller's included. Arrays need not be contiguous; they are copied where they are not.
Every function raises `ValueError` that quotes the shape or type it got where an argument does not fit.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

from rdn_engine import _C

Float = NDArray[np.float32]
Precision = Literal["float32", "bfloat16"]
Packed = NDArray[np.float32 | np.uint16]
"""float32, or pairs of bfloat16 as uint16: the last axis is 2."""
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


PANEL = 16
"""Columns of a panel of packed weights or keys."""


class SupportBank(NamedTuple):
    """Support proposals, packed for the kernels: a frame a slot, with room for C proposals, a multiple of PANEL.

    In bfloat16, keys and values are pairs of it: of a key two channels that follow each other, of values a channel of
    two supports. Past an odd count, the other support of the pair must be finite.
    """

    keys: Packed
    """[slots, M, C / 16, d, 16], or bfloat16 [slots, M, C / 16, d / 2, 16, 2]"""
    values: Packed
    """[slots, M, C, d], or bfloat16 [slots, M, C / 2, d, 2]"""
    key_length: Float
    """[slots, M] at least the Euclidean length of every key of the slot"""
    boxes: Float
    """[slots, C, 4]"""


def empty_supports(
    shape: tuple[int, ...], room: int, heads: int, head_dim: int, precision: Precision
) -> tuple[Packed, Packed]:
    """Keys and values of a SupportBank, all zero, with `shape` in place of its slots and C = room."""
    if precision == "float32":
        return (
            _aligned_zeros((*shape, heads, room // PANEL, head_dim, PANEL), np.float32),
            _aligned_zeros((*shape, heads, room, head_dim), np.float32),
        )
    return (
        _aligned_zeros((*shape, heads, room // PANEL, head_dim // 2, PANEL, 2), np.uint16),
        _aligned_zeros((*shape, heads, room // 2, head_dim, 2), np.uint16),
    )


def _aligned_zeros(shape: tuple[int, ...], dtype: DTypeLike) -> Packed:
    """From a cache line's boundary on: a vector that lies across two is loaded twice."""
    line, size = 64, math.prod(shape) * np.dtype(dtype).itemsize
    memory = np.zeros(size + line, np.uint8)
    start = -memory.ctypes.data % line
    return memory[start : start + size].view(dtype).reshape(shape)


def _aligned(array: Packed) -> Packed:
    copy = _aligned_zeros(array.shape, array.dtype)
    copy[...] = array
    return copy


class RunningSums(NamedTuple):
    """What refined rows have summed over their windows, R = slots x C rows; `relation_refine` writes to them."""

    values: NDArray[np.float64]
    """[R, D] weight times value"""
    normaliser: NDArray[np.float64]
    """[R, M] weights"""
    peak: NDArray[np.float64]
    """[R, M] largest normaliser since the row's sums began"""
    shift: Float
    """[R, M] what is subtracted from its scores since then: logits times log2(e)"""


class Attention(NamedTuple):
    out: Float
    """[n, D] residual + relation"""
    omega: Float | None
    """[n, W] softmax weights averaged over heads"""


RIGHT, CANCELLED = range(2)
"""Status of a refined row: see `relation_refine`."""


class Refined(NamedTuple):
    out: Float
    """[A, D] residual + relation, of no meaning where the status is not RIGHT"""
    status: NDArray[np.uint8]
    """[A]"""


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


def pooled_width(size: int, channels: int) -> int:
    """Floats of a row of `roi_pool`: size * size * channels, up to an odd number of 64.

    The FC reads a dozen rows at once. 4096 bytes apart, or a multiple, as those of 7 x 7 x 2048, they would share a few
    lines of the first-level cache and put each other out.
    """
    return (-(-size * size * channels // 64) | 1) * 64


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

    feature_map [B, H, W, C], boxes [R, 4], image_index [R] in 0..B-1, scale of the map (1/16) -> [R, pooled_width]:
    cells [size, size, C], then zeros. Cell for cell what torchvision's roi_align(sampling_ratio=-1) and roi_pool
    compute.
    """
    return _C.roi_pool(
        np.ascontiguousarray(feature_map),
        np.ascontiguousarray(boxes),
        np.ascontiguousarray(image_index),
        scale,
        size,
        pooling == "max",
        pooled_width(size, feature_map.shape[-1]),
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


PackedWeight = Packed
"""float32 [ceil(columns / 16), K, 16], or bfloat16 [ceil(columns / 16), K / 2, 16, 2]; zeros past the last column."""


def pack_weight(weight: Float, precision: Precision = "float32") -> PackedWeight:
    """Rows of a weight [columns, K] as `linear` wants them. K is even for bfloat16, to which weights are rounded."""
    columns, depth = weight.shape
    padded = np.zeros((-(-columns // PANEL) * PANEL, depth), np.float32)
    padded[:columns] = weight
    panels = np.ascontiguousarray(padded.reshape(-1, PANEL, depth).swapaxes(1, 2))
    if precision == "float32":
        return _aligned(panels)
    bits = panels.view(np.uint32)
    nearest = np.where(np.isnan(panels), bits | 0x400000, bits + 0x7FFF + (bits >> 16 & 1)) >> 16
    pairs = nearest.astype(np.uint16).reshape(-1, depth // 2, 2, PANEL)
    return _aligned(pairs.swapaxes(2, 3))


def linear(x: Float, weight: PackedWeight, bias: Float, relu: bool = False, threads: int = 1) -> Float:
    """x W^T + bias, with `relu` no less than 0: x [n, K], weight of `pack_weight`, bias [columns] -> [n, columns].

    With a bfloat16 weight x is rounded to bfloat16 too; sums are float32. Fast where `isa` is avx512_bf16.
    """
    return _C.linear(np.ascontiguousarray(x), weight, np.ascontiguousarray(bias), relu, threads)


def prepare_geometry(weight: Float, bias: Float, precision: Precision = "float32") -> Packed:
    """Wg [M, 64] and b [M] of a relation module as the kernels read them beside a bank of `precision`.

    Wg.E becomes cubic splines in the logarithms of E, for sides and distances within a factor of 2^20 of each other.
    """
    return _aligned(
        _C.prepare_geometry(np.ascontiguousarray(weight), np.ascontiguousarray(bias), precision == "bfloat16")
    )


def pack_supports(keys: Float, values: Float, bank: SupportBank, slot: int) -> None:
    """keys, values [n, D], n <= C, into a slot of the bank, zeros past them. Boxes are the caller's to write."""
    _C.pack_supports(
        np.ascontiguousarray(keys),
        np.ascontiguousarray(values),
        bank.keys[slot],
        bank.values[slot],
        bank.key_length[slot],
    )


def relation_attention(
    query: Float,
    boxes: Float,
    residual: Float,
    value_bias: Float,
    bank: SupportBank,
    slots: Index,
    counts: Index,
    multiplicity: Float,
    geometry: Packed,
    omega_range: tuple[int, int] | None = None,
    threads: int = 1,
) -> Attention:
    """x + rel(x, s) (paper, eq. 1 to 4): softmax_j(q.k / sqrt(d) + log(relu(Wg.E + b) + 1e-6)) . v + bias, all heads.

    query [n, D] unscaled, boxes [n, 4], residual x [n, D], value_bias [D]. Supports are the first counts [F] of slots
    [F] of the bank (a slot may occur again), S in all; number j counts multiplicity[j] > 0 times; geometry is of
    `prepare_geometry`. With `omega_range` (a, b) also the head-averaged weights of supports a..b-1. No support at all
    gives the residual.
    """
    out, omega = _C.relation_attention(
        np.ascontiguousarray(query),
        np.ascontiguousarray(boxes),
        np.ascontiguousarray(residual),
        np.ascontiguousarray(value_bias),
        tuple(np.ascontiguousarray(a) for a in bank),
        np.ascontiguousarray(slots),
        np.ascontiguousarray(counts),
        np.ascontiguousarray(multiplicity),
        np.ascontiguousarray(geometry),
        omega_range if omega_range is not None else (0, 0),
        threads,
    )
    return Attention(out, omega if omega_range is not None else None)


def relation_refine(
    query: Float,
    residual: Float,
    value_bias: Float,
    rows: Index,
    bank: SupportBank,
    slots: Index,
    counts: Index,
    change: Float,
    restart: NDArray[np.bool_],
    geometry: Packed,
    sums: RunningSums,
    threads: int = 1,
) -> Refined:
    """`relation_attention` of some of the bank's own rows, by what changed since their sums were left.

    query, residual [R, D] of every row, R = slots x C; rows [A] distinct, those wanted. change [A, F]: how many times
    more than before the first counts[f] of slots[f] count for a row; restart [A]: sums begin at zero. `sums` are
    updated in place. Status of a row: RIGHT; CANCELLED where no more than 1e-6 of the largest normaliser is left, a
    logit is far above those that the sums began with, or something is not finite: restart it.
    """
    out, status = _C.relation_refine(
        np.ascontiguousarray(query),
        np.ascontiguousarray(residual),
        np.ascontiguousarray(value_bias),
        np.ascontiguousarray(rows),
        tuple(np.ascontiguousarray(a) for a in bank),
        np.ascontiguousarray(slots),
        np.ascontiguousarray(counts),
        np.ascontiguousarray(change),
        np.ascontiguousarray(restart, np.uint8),
        np.ascontiguousarray(geometry),
        *sums,
        threads,
    )
    return Refined(out, status)


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
    """The paths through linked boxes, each the best of those that better ones left (paper, equation 9).

    Boxes are numbered frame by frame. value [n]: what a path gains by each; the links into box b are
    link_start[b]..link_start[b + 1] (link_start [n + 1]): source [links] is their other end, ascending and smaller
    than b, score [links] what a path gains by it. When a path takes box b, the boxes
    rival[rival_start[b]..rival_start[b + 1]] leave with it. A path starts and ends anywhere and may be a single box;
    of equally good ones that is taken whose last box comes first, then its last but one, and so on.
    -> number of each box's path [n], from 0, -1 for rivals that left; and how many paths there are. Of boxes that links
    or rivals join, directly or not, the better path has the smaller number.
    """
    return _C.link_paths(
        np.ascontiguousarray(value),
        np.ascontiguousarray(link_start),
        np.ascontiguousarray(source),
        np.ascontiguousarray(score),
        np.ascontiguousarray(rival_start),
        np.ascontiguousarray(rival),
    )
