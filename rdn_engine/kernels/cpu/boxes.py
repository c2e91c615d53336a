"""From pixels to proposals and from scores to boxes: the kernels of csrc/bindings/boxes.cpp."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rdn_engine.kernels import _C
from rdn_engine.kernels.cpu.arrays import Float, Index


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
