"""From pixels to proposals and from scores to boxes: the kernels of csrc/bindings/boxes.cpp."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rdn_engine.config import DetectionConfig, RoIConfig, RPNConfig
from rdn_engine.input_config import InputConfig
from rdn_engine.kernels import _C
from rdn_engine.kernels.arithmetic import ceil_div
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
    image: NDArray[np.uint8], size: tuple[int, int], config: InputConfig, *, threads: int = 1
) -> Float:
    """Resize as PIL's bilinear on uint8 (antialiased, to the bit), then (pixel - mean) / std; DESIGN section 2, Input.

    Args:
        image: [H, W, 3] RGB.
        size: (height, width) of the result, pixels, 1 or more; the sides in `config` are not looked at.
        config: mean, std and the order of the channels.
        threads: of this call, 1 or more.

    Returns:
        [3, height, width] in the configuration's channel order.

    Raises:
        ValueError: an argument does not fit.
    """
    bgr = config.channel_order == "bgr"
    return _C.resize_normalize(np.ascontiguousarray(image), size, list(config.mean), list(config.std), bgr, threads)


def block_means(image: NDArray[np.uint8], side: tuple[int, int], *, most_rows: int) -> Float:
    """The mean of each colour over each block of an image.

    Args:
        image: [H, W, 3].
        side: (height, width) of a block in pixels, at most those of the image. The last row and the last column of
            blocks end with the image, and lie over those before them where it is no multiple of a block.
        most_rows: of a block that are read, evenly spread, 1..257.

    Returns:
        [rows, columns, 3] grey levels.

    Raises:
        ValueError: an argument does not fit.
    """
    return _C.block_means(np.ascontiguousarray(image), side, most_rows)


def propose(
    objectness: Float,
    deltas: Float,
    *,
    grid: tuple[int, int],
    network_size: tuple[int, int],
    cell_anchors: Float,
    config: RPNConfig,
    max_proposals: int,
    threads: int = 1,
) -> Proposals:
    """Region proposals: the best by objectness, decoded, clipped, suppressed; DESIGN section 2, RPN.

    Args:
        objectness: [B, H*W*A] in (H, W, anchor) order; equal scores are ordered by index, NaNs are left out.
        deltas: [B, H*W*A, 4] in the same order.
        grid: (H, W) cells of the map.
        network_size: (height, width) that boxes are clipped to, pixels.
        cell_anchors: [A, 4] around the first cell: `config.cell_anchors()`, found once.
        config: stride, how many enter suppression, and the IoU above which the worse of two leaves.
        max_proposals: n, most proposals of an image, 0 or more.
        threads: of this call, 1 or more.

    Returns:
        At most n proposals of each image.

    Raises:
        ValueError: an argument does not fit.
    """
    return Proposals(
        *_C.propose(
            np.ascontiguousarray(objectness),
            np.ascontiguousarray(deltas),
            grid,
            np.ascontiguousarray(cell_anchors),
            config.stride,
            network_size,
            config.pre_nms_top_n,
            config.nms_threshold,
            max_proposals,
            threads,
        )
    )


def pooled_width(size: int, channels: int) -> int:
    """Floats of a row of `roi_pool`: size * size * channels, up to an odd number of 64.

    The FC reads a dozen rows at once. 4096 bytes apart, or a multiple, as those of 7 x 7 x 2048, they would share a few
    lines of the first-level cache and put each other out.
    """
    return (ceil_div(size * size * channels, 64) | 1) * 64


def roi_pool(
    feature_map: Float, boxes: Float, image_index: Index, *, config: RoIConfig, scale: float, threads: int = 1
) -> Float:
    """RoIAlign (aligned=False, adaptive sampling) or RoI max pooling; DESIGN section 2, RoI feature.

    Cell for cell what torchvision's roi_align(sampling_ratio=-1) and roi_pool compute.

    Args:
        feature_map: [B, H, W, C], channels last.
        boxes: [R, 4] finite.
        image_index: [R] in 0..B-1.
        config: which pooling, and cells on a side.
        scale: cells of the map for one pixel: 1 / stride.
        threads: of this call, 1 or more.

    Returns:
        [R, pooled_width]: cells [size, size, C], then zeros.

    Raises:
        ValueError: an argument does not fit.
    """
    return _C.roi_pool(
        np.ascontiguousarray(feature_map),
        np.ascontiguousarray(boxes),
        np.ascontiguousarray(image_index),
        scale,
        config.size,
        config.pooling == "max",
        pooled_width(config.size, feature_map.shape[-1]),
        threads,
    )


def detect(
    logits: Float,
    deltas: Float,
    boxes: Float,
    *,
    network_size: tuple[int, int],
    config: DetectionConfig,
    score_threshold: float,
    threads: int = 1,
) -> Boxes:
    """Detections of one image: softmax, decode, clip, suppress per class; DESIGN section 2, Output.

    Args:
        logits: [n, C + 1] background first.
        deltas: [n, 4 (C + 1)].
        boxes: [n, 4] proposals.
        network_size: (height, width) that boxes are clipped to, pixels.
        config: box weights, the IoU above which the worse of two leaves, and how many detections there are at most.
        score_threshold: in 0..1; a detection's confidence is above it.
        threads: of this call, 1 or more.

    Returns:
        At most `config.max_detections`, best first; equal confidences are ordered by class, then by proposal.

    Raises:
        ValueError: an argument does not fit.
    """
    return Boxes(
        *_C.detect(
            np.ascontiguousarray(logits),
            np.ascontiguousarray(deltas),
            np.ascontiguousarray(boxes),
            network_size,
            list(config.box_weights),
            score_threshold,
            config.nms_threshold,
            config.max_detections,
            threads,
        )
    )


def suppress(
    boxes: Float,
    scores: Float,
    labels: Index,
    *,
    num_classes: int,
    top_n: int,
    nms_threshold: float,
    most: int,
    threads: int = 1,
) -> Index:
    """Greedy non-maximum suppression of given boxes, each class by itself.

    Args:
        boxes: [n, 4]; those with a NaN are left out.
        scores: [n] equal ones are ordered by row; NaN is left out.
        labels: [n] class of each box, in 0..num_classes-1; with equal ones every box meets every other.
        num_classes: 1 or more.
        top_n: how many of the best enter suppression, 1 or more.
        nms_threshold: IoU in 0..1 above which the worse of two boxes of one class leaves.
        most: rows of the result at most, 1 or more.
        threads: of this call, 1 or more.

    Returns:
        [k] rows that stay, best first.

    Raises:
        ValueError: an argument does not fit.
    """
    return _C.suppress(
        np.ascontiguousarray(boxes),
        np.ascontiguousarray(scores),
        np.ascontiguousarray(labels),
        num_classes,
        top_n,
        nms_threshold,
        most,
        threads,
    )
