"""The detector as public RDN code runs a video, in plain torch: what the engine is compared with.

Written from docs/design.md, and slow where that code is slow: the RPN and conv5 run twice a frame, once for each role;
nothing is projected ahead, so every key of the window is computed anew at every frame; geometry embeddings and weights
are whole tensors in that code's layout; the weighted sum is over raw features of width D, and each head's value
projection comes after it. `benchmarks/frame/planar.py` is the relation stage in a layout chosen for speed.
Between frames it keeps what that code keeps: support proposals and their features, and the conv4 maps of the frames
whose own turn is still to come. It computes what `training.model` computes, with the same weights.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from rdn_engine.config import Dials
from training.model.inference import advanced_rows, select_detections, to_input, window_indices
from training.model.rdn import RDN
from training.model.relation import WAVELENGTHS, RelationModule, RelationStage


def embed(boxes: Tensor, support_boxes: Tensor) -> Tensor:
    """Relative geometry E of all pairs: boxes [n, 4], support_boxes [S, 4] -> [1, 64, n, S], stored channels last."""
    p = torch.stack(relative_positions(boxes, support_boxes), 2)
    phase = (100 * p)[..., None] / torch.tensor(WAVELENGTHS, dtype=p.dtype, device=p.device)
    return torch.cat([phase.sin(), phase.cos()], 3).flatten(2).permute(2, 0, 1)[None]


def relative_positions(boxes: Tensor, support_boxes: Tensor) -> list[Tensor]:
    """The four logarithms of equation 3, each [n, S]."""
    w, h, cx, cy = _sizes_and_centres(boxes[:, None])
    u, v, ux, uy = _sizes_and_centres(support_boxes[None])
    return [((cx - ux).abs() / w + 1e-3).log(), ((cy - uy).abs() / h + 1e-3).log(), (w / u).log(), (h / v).log()]


def _sizes_and_centres(boxes: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """boxes [..., 4] -> width, height, centre x, centre y, each [...]"""
    x1, y1, x2, y2 = boxes.unbind(-1)
    return x2 - x1 + 1, y2 - y1 + 1, 0.5 * (x1 + x2), 0.5 * (y1 + y2)


def attend(module: RelationModule, x: Tensor, support: Tensor, geometry: Tensor) -> Tensor:
    """rel(x, s): x [n, D], support [S, D], geometry [1, 64, n, S] -> [n, D]. Weights are stored [n, M, S]."""
    heads, head_dim = module.heads, module.head_dim
    query = module.query(x).unflatten(1, (heads, head_dim)).transpose(0, 1)
    key = module.key(support).unflatten(1, (heads, head_dim)).transpose(0, 1)
    affinity = torch.bmm(query, key.transpose(1, 2)) / head_dim**0.5
    gate = F.conv2d(geometry, module.geometry.weight[..., None, None], module.geometry.bias)[0].relu()
    weights = ((gate.transpose(0, 1) + 1e-6).log() + affinity.transpose(0, 1)).softmax(2)
    # [n M, S] @ [S, D]: every head sums whole features, and only then projects them to its own 64 channels.
    gathered = weights.flatten(0, 1) @ support
    value = module.value
    return F.conv2d(gathered.view(len(x), -1, 1, 1), value.weight[..., None, None], value.bias, groups=heads)[..., 0, 0]


class BaselineRelation:
    """The relation stage of one frame, from features alone."""

    embed = staticmethod(embed)
    attend = staticmethod(attend)

    def __init__(self, stage: RelationStage) -> None:
        self._stage = stage

    @torch.no_grad()
    def __call__(
        self, features: Tensor, boxes: Tensor, support: Tensor, support_boxes: Tensor, advanced: Tensor
    ) -> tuple[Tensor, Tensor]:
        """features [n, D], boxes [n, 4] of the reference; support [S, D], support_boxes [S, 4] of the window, repeated
        frames repeated; advanced [A] rows of support -> logits [n, C + 1], deltas [n, 4 (C + 1)].
        """
        stage, config = self._stage, self._stage.config
        x = features
        if config.num_basic:
            geometry = self.embed(boxes, support_boxes)
            for i in range(config.num_basic):
                if i:
                    x = stage.basic_fc[i - 1](x).relu()
                x = x + self.attend(stage.rel[i], x, support, geometry)
            del geometry
        if config.advanced:
            refine, distil = stage.rel[config.num_basic :]
            chosen, chosen_boxes = support[advanced], support_boxes[advanced]
            chosen = chosen + self.attend(refine, chosen, support, self.embed(chosen_boxes, support_boxes))
            if stage.advanced_fc is not None:
                chosen = stage.advanced_fc(chosen).relu()
            x = x + self.attend(distil, x, chosen, self.embed(boxes, chosen_boxes))
        return stage.classify(x), stage.regress(x)


@dataclass
class BaselineResult:
    """Detections of one frame, best first."""

    input_xyxy: Tensor
    """[k, 4] network-input pixels"""
    xyxy: Tensor
    """[k, 4] pixels of the frame"""
    confidence: Tensor
    """[k]"""
    class_id: Tensor
    """[k] 0 is the first foreground class"""


@dataclass
class Kept:
    """What is kept of a frame between steps."""

    boxes: Tensor
    """[k, 4] support proposals, network-input pixels"""
    objectness: Tensor
    """[k]"""
    features: Tensor
    """[k, D]"""
    c4: Tensor | None
    """[1, C, h, w] conv4 map, until the frame has been the reference"""


class BaselineVideo:
    """One video of frames of one size: `push` each in order, then `flush` once."""

    def __init__(self, model: RDN, dials: Dials | None = None) -> None:
        """dials default to the model's own."""
        self._model = model.eval()
        self._dials = dials or model.config.dials
        self._relation = BaselineRelation(model.relation)
        self._kept: deque[Kept] = deque(maxlen=self._dials.window + self._dials.frames_ahead + 1)
        self._pushed = 0
        self._next = 0
        self._frame_size = self._network_size = (0, 0)

    @torch.no_grad()
    def push(self, frame: NDArray[np.uint8]) -> list[BaselineResult]:
        """frame uint8 [H, W, 3] RGB -> the result of the frame L before it, if there is one."""
        self._kept.append(self.encode(frame))
        self._pushed += 1
        return [self._detect()] if self._pushed > self._dials.frames_ahead else []

    @torch.no_grad()
    def encode(self, frame: NDArray[np.uint8]) -> Kept:
        """The support role of a frame, uint8 [H, W, 3] RGB; changes nothing but the size of frames."""
        model, backbone = self._model, self._model.backbone
        device = next(model.parameters()).device
        image = to_input(frame, model.config.input)[None].to(device)
        self._frame_size, self._network_size = frame.shape[:2], (image.shape[-2], image.shape[-1])
        x = backbone.maxpool(backbone.relu(backbone.bn1(backbone.conv1(image))))
        c4 = backbone.layer3(backbone.layer2(backbone.layer1(x)))
        return Kept(*self.describe(c4, self._dials.num_support), c4)

    def fill(self, frames: Sequence[Kept]) -> None:
        """Go on as if `frames`, at least T + L of them, had been pushed and their results taken: for measurements."""
        for kept in frames:
            # Each holds a map of its own, as if it had been pushed.
            self._kept.append(replace(kept, c4=None if kept.c4 is None else kept.c4.clone()))
        self._pushed += len(frames)
        self._next = max(self._pushed - self._dials.frames_ahead, 0)
        for kept in list(self._kept)[: max(len(self._kept) - self._dials.frames_ahead, 0)]:
            kept.c4 = None

    @torch.no_grad()
    def flush(self) -> list[BaselineResult]:
        """The results still to come; the last frame stands in for those that do not, as the edge rule says."""
        return [self._detect() for _ in range(self._next, self._pushed)]

    @torch.no_grad()
    def describe(self, c4: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
        """RPN, conv5 and RoI features for one role: c4 [1, C, h, w] -> boxes [n, 4], objectness [n], features [n, D]"""
        model = self._model
        logits, deltas = model.rpn(c4)
        grid = c4.shape[-2], c4.shape[-1]
        [(boxes, objectness)] = model.propose(logits, deltas, grid, self._network_size, count)
        c5 = model.backbone.layer4(c4)
        feature_map = c5 if model.roi.reduce is None else model.roi.reduce(c5).relu()
        return boxes, objectness, model.roi_features(feature_map, [boxes])

    def _detect(self) -> BaselineResult:
        """The result of the frame whose turn it is."""
        dials, t = self._dials, self._next
        oldest = self._pushed - len(self._kept)
        reference = self._kept[t - oldest]
        assert reference.c4 is not None
        boxes, _, features = self.describe(reference.c4, dials.num_reference)
        reference.c4 = None
        self._next += 1
        return self.relate(boxes, features, [self._kept[j - oldest] for j in window_indices(t, self._pushed, dials)])

    @torch.no_grad()
    def relate(self, boxes: Tensor, features: Tensor, window: Sequence[Kept]) -> BaselineResult:
        """boxes [n, 4] and features [n, D] of the reference frame, `window` oldest first, repeats repeated."""
        model, dials = self._model, self._dials
        logits, deltas = self._relation(
            features,
            boxes,
            torch.cat([kept.features for kept in window]),
            torch.cat([kept.boxes for kept in window]),
            advanced_rows([kept.objectness for kept in window], dials).to(boxes.device),
        )
        size, (height, width) = self._network_size, self._frame_size
        found = select_detections(logits, deltas, boxes, size, model.config, dials.score_threshold)
        scale = torch.tensor([width / size[1], height / size[0]], device=boxes.device).repeat(2)
        return BaselineResult(found[0], found[0] * scale, found[1], found[2])


def detect_video(model: RDN, frames: Sequence[NDArray[np.uint8]], dials: Dials | None = None) -> list[BaselineResult]:
    """frames: each uint8 [H, W, 3] RGB of one size -> one result a frame."""
    video = BaselineVideo(model, dials)
    results = [result for frame in frames for result in video.push(frame)]
    return results + video.flush()
