"""The frozen configuration that travels with a model: in checkpoints, in manifests, in results.

Symbols are the paper's (Deng et al., ICCV 2019): T, K, N, N_b, M, r. Lengths are pixels of the network input.
"""

from __future__ import annotations

import dataclasses
import typing
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rdn_engine.errors import ConfigError
from rdn_engine.input_config import LONGEST_SIDE, InputConfig
from rdn_engine.plain import check, check_fields, from_plain, shown, to_plain

Backbone = Literal["resnet18", "resnet50", "resnet101", "resnext101_64x4d"]
Norm = Literal["frozen", "batch", "group"]
Pooling = Literal["align", "max"]
Sampling = Literal["per_frame", "global"]
Edges = Literal["replicate", "clip"]
LinkMethod = Literal["relations", "boxes", "seq_nms"]
Link = Literal["off", "relations", "boxes", "seq_nms"]
Attention = Literal["relation", "cosine_score"]
MemoryOrder = Literal["time", "shuffled"]

WHOLE_VIDEO = 2**31 - 1
"""A link_delay that no video outlasts."""

LONGEST_INTERVAL = 4096
"""Frames: the largest interval."""


@dataclass(frozen=True)
class BackboneConfig:
    """The network that makes the feature map; DESIGN section 2 (Backbone)."""

    name: Backbone = "resnet101"
    width: float = 1.0
    """Multiplies every channel count; other than 1 only for resnet18."""
    norm: Norm = "frozen"
    """`frozen`: statistics and affine fixed; `batch`, `group`: trained from scratch."""
    norm_eps: float = 0.0
    """Added to the variance; 0 in the public checkpoints."""
    stride_in_1x1: bool = True
    """Stride in the first 1x1 convolution of a bottleneck; False puts it in the 3x3 (torchvision)."""

    def __post_init__(self) -> None:
        check_fields(self, "backbone", width=(1 / 8, 4), norm_eps=(0, 1))
        check(self.name == "resnet18" or self.width == 1, "backbone.width", self.width, f"1 for {self.name}")
        check((64 * self.width) % 8 == 0, "backbone.width", self.width, "a multiple of 1/8")


@dataclass(frozen=True)
class RPNConfig:
    """From the feature map to proposals; DESIGN section 2 (RPN)."""

    anchor_sizes: tuple[int, ...] = (64, 128, 256, 512)
    """Sides of a square anchor, pixels."""
    anchor_ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    """Height / width."""
    stride: int = 16
    """Pixels from one cell of the feature map to the next; the kernels have 16."""
    pre_nms_top_n: int = 6000
    """How many candidates, by objectness, go into NMS."""
    nms_threshold: float = 0.7
    """IoU in 0..1, sides with + 1; a box that overlaps a better one by more goes."""

    def __post_init__(self) -> None:
        check_fields(self, "rpn", anchor_sizes=(1, LONGEST_SIDE), anchor_ratios=(1e-3, 1e3), stride=(16, 16),
                      pre_nms_top_n=(1, 2**20), nms_threshold=(0, 1))  # fmt: skip
        check(self.num_anchors > 0, "rpn.anchor_sizes, ratios", (self.anchor_sizes, self.anchor_ratios),
               "at least one of each")  # fmt: skip

    @property
    def num_anchors(self) -> int:
        """A: anchors of one cell."""
        return len(self.anchor_sizes) * len(self.anchor_ratios)

    def cell_anchors(self) -> NDArray[np.float32]:
        """The anchors of the first cell; DESIGN section 2 (RPN).

        Returns:
            [A, 4] xyxy, network-input pixels, ratios outer and sizes inner.
        """
        rows = []
        for ratio in self.anchor_ratios:
            w = round((self.stride**2 / ratio) ** 0.5)
            h = round(w * ratio)
            for size in self.anchor_sizes:
                centre, scale = (self.stride - 1) / 2, size / self.stride
                half_w, half_h = (w * scale - 1) / 2, (h * scale - 1) / 2
                rows.append([centre - half_w, centre - half_h, centre + half_w, centre + half_h])
        return np.asarray(rows, np.float32)


@dataclass(frozen=True)
class RoIConfig:
    """From a proposal to what the FC of its feature reads; DESIGN section 2 (RoI feature)."""

    pooling: Pooling = "align"
    """`align` is the public checkpoints' choice, `max` the paper's word."""
    size: int = 7
    """Cells of the pooled map on each side."""
    reduce_channels: int | None = 256
    """Width of the 1x1 convolution + ReLU on the conv5 map before pooling; None leaves it out."""

    def __post_init__(self) -> None:
        check_fields(self, "roi", size=(1, 64), reduce_channels=(1, 2**14))


@dataclass(frozen=True)
class RelationConfig:
    """The relation modules (paper, section 3); DESIGN section 2 (Stages)."""

    dim: int = 1024
    """D: width of a proposal's feature; of a detector that is attached alone, its class scores are that feature."""
    heads: int = 16
    """M; every head has dim / heads channels."""
    num_basic: int = 2
    """N_b: basic relation modules; 0 and no advanced stage is the single-frame detector."""
    advanced: bool = True
    """Whether there is the advanced stage: refinement and distillation."""
    advanced_fc: bool = True
    """FC + ReLU after the refinement of the advanced stage: in the public checkpoints, not in the paper."""
    attention: Attention = "relation"
    """`relation`: RDN's modules; `cosine_score`: YOLOV's attention, which has no modules of these (config.cosine)."""

    def __post_init__(self) -> None:
        check_fields(self, "relation", dim=(1, 2**14), heads=(1, 1024), num_basic=(0, 16))
        if self.attention == "cosine_score":
            check(not self.num_modules, "relation.num_basic, advanced", (self.num_basic, self.advanced),
                  "0 and no advanced stage for cosine_score")  # fmt: skip
        fits = self.dim % self.heads == 0 and (self.head_dim % 16 == 0 or not self.num_modules)
        check(fits, "relation.dim / relation.heads", (self.dim, self.heads), "heads of a multiple of 16 channels")

    @property
    def head_dim(self) -> int:
        """d: channels of one head."""
        return self.dim // self.heads

    @property
    def num_modules(self) -> int:
        """Relation modules in all: basic, refinement, distillation."""
        return self.num_basic + (2 if self.advanced else 0)

    @property
    def num_cached(self) -> int:
        """Modules whose keys and values depend on a support proposal alone: basic and refinement."""
        return self.num_basic + (1 if self.advanced else 0)


@dataclass(frozen=True)
class CosineConfig:
    """YOLOV's attention (Shi et al., AAAI 2023); read where `relation.attention` is `cosine_score`. docs/yolov.md."""

    similarity: float = 0.75
    """Mean cosine of two values above which the second round averages them."""
    score_in_regression: bool = True
    """Whether the objectness scales the box branch too. The public online head has it; the offline head had it until
    the end of 2023, and since then not, on the same parameters."""
    least_memory: int = 2
    """Frames in front of one that its relations want, with look-ahead 0; with fewer the detector's own scores stand."""
    memory_order: MemoryOrder = "time"
    """With look-ahead 0: `time` remembers the last T frames; `shuffled` draws T of the last 600 as the public online
    head does, by a fixed seed, for comparison with its results."""
    local_frames: int = 20
    """With look-ahead 0: the last frames whose related features are averaged with new ones that overlap; 0: none."""

    def __post_init__(self) -> None:
        check_fields(self, "cosine", similarity=(-1, 1), least_memory=(1, 4096), local_frames=(0, 4096))
        check(self.similarity < 1, "cosine.similarity", self.similarity, "less than 1, the value with itself")


@dataclass(frozen=True)
class AttachedConfig:
    """An encoder made of somebody's detector, in place of backbone and RPN (docs/own_detector.md)."""

    relations: bool = False
    """Whether a relation stage follows. Without one, the detector's own boxes and class scores are the result."""
    num_classes: int = 1
    """Of the detector's own scores. The results' are `class_names`, which a relation stage may have been taught."""
    features: int = 0
    """Width of a proposal's feature as the detector gives it; 0 where it gives none."""
    features_reg: int = 0
    """Width of a second feature, of the box branch, for cosine_score; 0 where there is none."""
    objectness: bool = False
    """Whether the graph gives each box an objectness beside its class scores, for cosine_score: candidates enter NMS by
    it, and are ordered there by its product with the best class's score."""
    map_stride: int | None = None
    """Pixels from one cell to the next of the map that `roi` pools features from; None where the detector gives them
    row by row."""
    boxes_per_feature: int = 1
    """Boxes, one after the other, that share a row of the features: the anchors of a cell."""
    batched: bool = False
    """Whether the graph takes any number of images in one call; else it takes one."""
    pre_nms_top_n: int = 1000
    """How many candidates, by their best class's score, go into NMS."""
    nms_threshold: float = 0.75
    """IoU in 0..1 within a class; a box that overlaps a better one by more goes."""

    def __post_init__(self) -> None:
        check_fields(self, "attached", num_classes=(1, 2**16), features=(0, 2**16), features_reg=(0, 2**16),
                      map_stride=(1, 1024), boxes_per_feature=(1, 1024), pre_nms_top_n=(1, 2**20),
                      nms_threshold=(0, 1))  # fmt: skip


@dataclass(frozen=True)
class DetectionConfig:
    """From the heads' output to detections; DESIGN section 2 (Output)."""

    nms_threshold: float = 0.5
    """IoU in 0..1, sides with + 1, within a class; a box that overlaps a better one by more goes."""
    max_detections: int = 300
    """Largest number of a frame: those with the highest confidence."""
    box_weights: tuple[float, ...] = (10.0, 10.0, 5.0, 5.0)
    """What dx, dy, dw and dh are divided by."""

    def __post_init__(self) -> None:
        check_fields(self, "detection", nms_threshold=(0, 1), max_detections=(1, 2**16), box_weights=(1e-6, 1e6))
        check(len(self.box_weights) == 4, "detection.box_weights", self.box_weights, "four numbers")


@dataclass(frozen=True)
class Dials:
    """What may change on a running stream, without a rebuild."""

    window: int = 18
    """T, encoded frames on each side; the window of frame t is t-T..t+L."""
    look_ahead: int | None = None
    """L in 0..T, steps; None is T, as in the paper. Results come L steps late."""
    num_support: int = 75
    """K: support proposals kept of each frame."""
    num_reference: int = 300
    """N: proposals classified on each frame; at least K."""
    advanced_ratio: float = 0.2
    """r in (0, 1]: part of the support proposals that the advanced stage refines."""
    sampling: Sampling = "per_frame"
    """How the refined part is chosen: the first int(K r) of every frame, or the highest objectness of the whole
    window."""
    edges: Edges = "replicate"
    """What the window holds beyond the ends of the epoch: `replicate` repeats its first and last frame, `clip` nothing
    (the paper's Algorithm 1)."""
    score_threshold: float = 0.001
    """Detections at or below this confidence are dropped; linked ones by their confidence after rescoring."""
    link: Link = "off"
    """What links boxes along the video: `relations` (the paper), `boxes` (the same without relations), `seq_nms`."""
    link_delay: int = 24
    """D, steps, 0 or more: linked results come D steps later still, rescored by what came until then."""
    link_gap: int = 0
    """G, steps, 0 or more: an object that is lost for up to so many keeps its identity, and boxes that are no object
    have none; 0 gives every tube an identity, and what comes back another one."""
    interval: int = 1
    """n: every n-th frame is a step, encoded and related; those between get their boxes from the steps beside them. T
    counts encoded frames, L and D count steps (docs/interval.md)."""
    still: float = 0.0
    """Grey levels: a step none of whose blocks changed by more since the last encoded frame is given what was found in
    that one. 0 encodes every step."""
    still_run: int = 24
    """m, steps, 1 or more: at most so many in a row are still."""

    def __post_init__(self) -> None:
        check_fields(self, "dials", window=(0, 4096), num_support=(1, 4096), num_reference=(1, 2**16),
                      link_delay=(0, WHOLE_VIDEO), link_gap=(0, 4096), interval=(1, LONGEST_INTERVAL), still=(0, 255),
                      still_run=(1, 2**20))  # fmt: skip
        look_ahead_ok = self.look_ahead is None or 0 <= self.look_ahead <= self.window
        check(look_ahead_ok, "look_ahead (L)", self.look_ahead, f"0..{self.window} (the window) or None")
        check(self.num_reference >= self.num_support, "num_reference (N)", self.num_reference,
               f"at least num_support = {self.num_support}")  # fmt: skip
        check(0 < self.advanced_ratio <= 1, "advanced_ratio (r)", self.advanced_ratio, "in (0, 1]")
        check(int(self.num_support * self.advanced_ratio) >= 1, "advanced_ratio (r)", self.advanced_ratio,
               f"at least 1/{self.num_support}, so that one of the K support proposals is left")  # fmt: skip
        check(0 <= self.score_threshold < 1, "score_threshold", self.score_threshold, "in [0, 1)")

    def turned(self, given: dict[str, Any], path: str = "dials") -> Dials:
        """Other dials. A smaller window takes the look-ahead with it, and a smaller N its K, unless they are given too.

        Args:
            given: fields that change, by name.
            path: what stands before a field's name in messages.

        Raises:
            ConfigError: names the field that is unknown, of another type or outside its range.
        """
        if not isinstance(given, dict):
            raise ConfigError(f"{path} is {shown(given)}; wanted a mapping of dials")
        merged = {**vars(self), **given}
        for follower, leader in (("look_ahead", "window"), ("num_support", "num_reference")):
            led = merged.get(leader)
            if leader in given and follower not in given and isinstance(led, int) and merged[follower] is not None:
                merged[follower] = min(merged[follower], led)
        return from_plain(Dials, merged, path)

    @property
    def frames_ahead(self) -> int:
        """L with the default resolved."""
        return self.window if self.look_ahead is None else self.look_ahead

    @property
    def over_gaps(self) -> bool:
        """Whether identities are kept over gaps: G of linked boxes is not 0."""
        return self.link != "off" and self.link_gap > 0

    @property
    def waits(self) -> bool:
        """Whether results come late, so that the encoded frames on both sides of one between them are known."""
        return self.frames_ahead > 0 or (self.link != "off" and self.link_delay > 0)

    @property
    def every_frame(self) -> bool:
        """Whether no frame is left out of the encoder: neither `interval` nor `still`."""
        return self.interval == 1 and not self.still

    @property
    def num_advanced(self) -> int:
        """int(K r): proposals of one frame that `per_frame` sampling refines."""
        return int(self.num_support * self.advanced_ratio)


@dataclass(frozen=True)
class RDNConfig:
    """Everything that decides what a model computes; DESIGN section 2."""

    class_names: tuple[str, ...]
    """Foreground classes; class 0 of the logits is the background and has no name here."""
    input: InputConfig = field(default_factory=InputConfig)
    """From a frame to the network input."""
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    """From the network input to the feature map."""
    rpn: RPNConfig = field(default_factory=RPNConfig)
    """From the feature map to proposals."""
    roi: RoIConfig = field(default_factory=RoIConfig)
    """From a proposal to its feature."""
    relation: RelationConfig = field(default_factory=RelationConfig)
    """From features to features that know of the other frames."""
    cosine: CosineConfig = field(default_factory=CosineConfig)
    """Of that stage where its attention is `cosine_score`."""
    detection: DetectionConfig = field(default_factory=DetectionConfig)
    """From the heads' output to detections."""
    dials: Dials = field(default_factory=Dials)
    """The model's own settings; a stream starts with them."""
    attached: AttachedConfig | None = None
    """The detector in place of backbone and RPN; None for RDN's own."""

    def __post_init__(self) -> None:
        check_fields(self, "config")
        names = self.class_names
        check(len(names) >= 1 and len(set(names)) == len(names), "class_names", names, "one or more distinct names")
        relation, attached = self.relation, self.attached
        cosine = self.cosine_score
        if attached is not None and (cosine or not attached.relations):
            check(attached.num_classes == len(names), "attached.num_classes", attached.num_classes, len(names))
        if attached is not None and not attached.relations:
            check(relation.dim == len(names) and not relation.num_modules and not cosine, "relation", relation,
                   f"no modules and dim {len(names)}, the class scores of a detector alone")  # fmt: skip
            return
        check(cosine or relation.head_dim % 16 == 0, "relation.dim / relation.heads", (relation.dim, relation.heads),
               "heads of a multiple of 16 channels")  # fmt: skip
        check(attached is None or attached.features > 0, "attached.features", 0, "1 or more for a relation stage")
        self._check_attention()

    def _check_attention(self) -> None:
        """cosine_score takes the two features of a detector as they are, and its objectness; RDN's modules do not."""
        dim, a, wanted = self.relation.dim, self.attached, "no features_reg and no objectness for relation"
        got = None if a is None else (a.features, a.features_reg, a.objectness, a.map_stride)
        if self.cosine_score:
            wanted = f"a detector with features and features_reg of relation.dim = {dim} and an objectness, row by row"
            fits = got == (dim, dim, True, None)
        else:
            fits = a is None or (a.features_reg, a.objectness) == (0, False)
        check(fits, "attached.features, features_reg, objectness, map_stride", got, wanted)

    @property
    def cosine_score(self) -> bool:
        """Whether the relation stage is YOLOV's attention."""
        return self.relation.attention == "cosine_score"

    @property
    def alone(self) -> bool:
        """Whether an attached detector's own boxes and scores are the result, with no relation stage behind it."""
        return self.attached is not None and not self.attached.relations

    @property
    def num_logits(self) -> int:
        """C + 1, background first."""
        return len(self.class_names) + 1

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, strings and lists, as JSON and YAML hold them."""
        return typing.cast("dict[str, Any]", to_plain(dataclasses.asdict(self)))

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> RDNConfig:
        """The inverse of `to_dict`.

        Args:
            data: sections and fields left out keep their defaults.

        Raises:
            ConfigError: names the field that is unknown, missing, of another type or out of its range.
        """
        return from_plain(cls, data, "config")
