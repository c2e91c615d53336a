"""A video through the torch model, straightforwardly: nothing cached, repeated frames really repeated.

This is the yardstick for the exported graphs and the runtime, not a way to run a stream.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from rdn_engine.config import Dials, RDNConfig
from rdn_engine.input_config import InputConfig
from training.model import boxes as box_ops
from training.model.attached import AttachedRDN
from training.model.fcos import FrameBoxes, SmallFCOS
from training.model.rdn import RDN


@dataclass
class FrameEncoding:
    """One frame's proposals and their features; the first K are its support proposals."""

    boxes: Tensor
    """[n, 4] network-input pixels"""
    objectness: Tensor
    """[n]"""
    features: Tensor
    """[n, D]"""
    network_size: tuple[int, int]
    """(height, width) of the image in the network input"""


@dataclass
class FrameResult:
    """Everything that was computed for one frame."""

    boxes: Tensor
    """[n, 4] reference proposals, network-input pixels"""
    objectness: Tensor
    """[n]"""
    features: Tensor
    """[n, D]"""
    support_boxes: Tensor
    """[S, 4] of the window, oldest frame first, repeated frames repeated"""
    stages: dict[str, Tensor]
    logits: Tensor
    deltas: Tensor
    input_xyxy: Tensor
    """[k, 4] detections in network-input pixels, best first"""
    xyxy: Tensor
    """[k, 4] detections in pixels of the frame"""
    confidence: Tensor
    class_id: Tensor
    """[k] 0 is the first foreground class"""


def to_input(frame: NDArray[np.uint8], config: InputConfig) -> Tensor:
    """The network input of one frame, resized by PIL itself.

    Args:
        frame: uint8 [H, W, 3] RGB.
        config: says size, order of channels, mean and deviation of the input.

    Returns:
        Float32 [3, h, w] on the CPU.
    """
    height, width = config.network_size(*frame.shape[:2])
    resized = np.array(Image.fromarray(frame).resize((width, height), Image.Resampling.BILINEAR), np.float32)
    ordered = resized[..., ::-1] if config.channel_order == "bgr" else resized
    normalised = (ordered - np.array(config.mean, np.float32)) / np.array(config.std, np.float32)
    return torch.from_numpy(np.ascontiguousarray(normalised.transpose(2, 0, 1)))


def plane(x: Tensor) -> tuple[int, int]:
    """The size of a map or an image.

    Args:
        x: [..., H, W].

    Returns:
        (H, W).
    """
    height, width = x.shape[-2:]
    return height, width


@torch.no_grad()
def encode_frame(model: RDN, frame: NDArray[np.uint8], num_reference: int) -> FrameEncoding:
    """The proposals of one frame and their features.

    Args:
        model: in evaluation mode.
        frame: uint8 [H, W, 3] RGB.
        num_reference: proposals at most (N).

    Returns:
        n <= num_reference proposals, best first, on the model's device.
    """
    if isinstance(model, AttachedRDN):
        return FrameEncoding(*model.proposals(frame, num_reference))
    image = to_input(frame, model.config.input).to(next(model.parameters()))
    objectness, deltas, feature_map = model.encode_map(image[None])
    grid, size = plane(feature_map), plane(image)
    [(boxes, scores)] = model.propose(objectness, deltas, grid, size, num_reference)
    return FrameEncoding(boxes, scores, model.roi_features(feature_map, [boxes]), size)


def window_indices(t: int, num_frames: int, dials: Dials) -> list[int]:
    """Which frames lie in the window of a frame.

    Args:
        t: the frame, 0..num_frames - 1.
        num_frames: of the video.
        dials: say how far the window reaches to either side, and the rule at the ends of the video.

    Returns:
        Positions in the video, oldest first; a frame at an end may occur more than once.
    """
    wanted = range(t - dials.window, t + dials.frames_ahead + 1)
    if dials.edges == "clip":
        return [j for j in wanted if 0 <= j < num_frames]
    return [min(max(j, 0), num_frames - 1) for j in wanted]


def advanced_rows(objectness: list[Tensor], dials: Dials) -> Tensor:
    """Which support proposals the refinement takes.

    Args:
        objectness: [k_j] of the support proposals of each frame of the window, best first.
        dials: say the rule (`sampling`) and the part (`advanced_ratio`).

    Returns:
        [A] rows of the pool, which is the concatenation of all k_j, growing.
    """
    if dials.sampling == "global":
        pool = torch.cat(objectness)
        count = max(1, int(dials.advanced_ratio * len(pool)))
        return pool.sort(descending=True, stable=True).indices[:count].sort().values
    starts = np.cumsum([0] + [len(o) for o in objectness[:-1]]).tolist()
    rows = [torch.arange(min(len(o), dials.num_advanced)) + s for o, s in zip(objectness, starts, strict=True)]
    return torch.cat(rows)


def select_detections(
    logits: Tensor, deltas: Tensor, boxes: Tensor, image_size: tuple[int, int], config: RDNConfig, threshold: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Detections of one frame: class-wise decoding and NMS.

    Args:
        logits: [n, C + 1] of the classes; 0 is the background.
        deltas: [n, 4 (C + 1)] class-specific, from `boxes`.
        boxes: [n, 4] reference proposals in network-input pixels.
        image_size: (height, width) of the network input in pixels.
        config: of the detector.
        threshold: confidence, 0..1; boxes at or below it are dropped.

    Returns:
        xyxy [k, 4] in network-input pixels, confidence [k] in 0..1 and class_id [k] from 0, best first.
    """
    probability = logits.softmax(-1)
    decoded = box_ops.decode(deltas.unflatten(1, (-1, 4)), boxes[:, None], config.detection.box_weights)
    decoded = box_ops.clip(decoded, image_size)
    found: list[tuple[Tensor, Tensor, Tensor]] = []
    for c in range(1, config.num_logits):
        above = (probability[:, c] > threshold).nonzero()[:, 0]
        keep = above[box_ops.nms(decoded[above, c], probability[above, c], config.detection.nms_threshold)]
        keep = keep.sort().values
        found.append((decoded[keep, c], probability[keep, c], torch.full_like(keep, c - 1)))
    xyxy, confidence, class_id = (torch.cat(parts) for parts in zip(*found, strict=True))
    order = confidence.sort(descending=True, stable=True).indices[: config.detection.max_detections]
    return xyxy[order], confidence[order], class_id[order]


@torch.no_grad()
def relate(
    model: RDN, encodings: Sequence[FrameEncoding], t: int, dials: Dials, frame_size: tuple[int, int]
) -> FrameResult:
    """The relation stage and the detections of one frame.

    Args:
        model: in evaluation mode.
        encodings: of every frame of the video.
        t: the frame, a position in `encodings`.
        dials: of the detector.
        frame_size: (height, width) of the original frame in pixels.

    Returns:
        All that was computed for the frame.
    """
    reference, k = encodings[t], dials.num_support
    window = [encodings[j] for j in window_indices(t, len(encodings), dials)]
    support_boxes = torch.cat([e.boxes[:k] for e in window])
    out = model.relation(
        reference.features,
        reference.boxes,
        torch.cat([e.features[:k] for e in window]),
        support_boxes,
        advanced_rows([e.objectness[:k] for e in window], dials),
    )
    size = reference.network_size
    xyxy, confidence, class_id = select_detections(
        out.logits, out.deltas, reference.boxes, size, model.config, dials.score_threshold
    )
    scale = torch.tensor([frame_size[1] / size[1], frame_size[0] / size[0]]).repeat(2).to(xyxy.device)
    # Edges, which lie a pixel behind the last one, where the input is letterboxed or stretched (InputConfig.on_frame).
    last = xyxy.new_tensor([0, 0, 0, 0] if model.config.input.size is None else [0, 0, 1, 1])
    return FrameResult(
        reference.boxes,
        reference.objectness,
        reference.features,
        support_boxes,
        out.stages,
        out.logits,
        out.deltas,
        xyxy,
        (xyxy + last) * scale - last,
        confidence,
        class_id,
    )


@torch.no_grad()
def detect_video(model: RDN, frames: Sequence[NDArray[np.uint8]], dials: Dials | None = None) -> list[FrameResult]:
    """The detections of every frame of a video.

    Args:
        model: in evaluation mode.
        frames: each uint8 [H, W, 3] RGB, all of one size.
        dials: the model's own by default.

    Returns:
        One result a frame, in order.
    """
    dials = dials or model.config.dials
    encodings = [encode_frame(model, frame, dials.num_reference) for frame in frames]
    return [relate(model, encodings, t, dials, frame.shape[:2]) for t, frame in enumerate(frames)]


def find_objects(
    model: RDN | SmallFCOS, frames: Sequence[NDArray[np.uint8]], dials: Dials | None = None
) -> Sequence[FrameResult | FrameBoxes]:
    """What a model in training finds, with relations or without; it is in evaluation mode meanwhile.

    Args:
        model: on any device; nothing in it changes.
        frames: of a video, each uint8 [H, W, 3] RGB, all of one size.
        dials: the model's own by default; single frames have none.

    Returns:
        One result a frame, in order.
    """
    training = model.training
    model.eval()
    try:
        if isinstance(model, SmallFCOS):
            return [model.detect(frame) for frame in frames]
        return detect_video(model, frames, dials)
    finally:
        model.train(training)
