"""The frozen configuration that travels with a model: in checkpoints, in manifests, in results.

Symbols are the paper's (Deng et al., ICCV 2019): T, K, N, N_b, M, r. Lengths are pixels of the network input.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from rdn_engine.errors import ConfigError

Backbone = Literal["resnet18", "resnet50", "resnet101", "resnext101_64x4d"]
Norm = Literal["frozen", "batch", "group"]
Pooling = Literal["align", "max"]
Sampling = Literal["per_frame", "global"]
Edges = Literal["replicate", "clip"]


@dataclass(frozen=True)
class InputConfig:
    """From a frame to the network input."""

    shorter_side: int = 600
    longer_side: int = 1000
    channel_order: Literal["bgr", "rgb"] = "bgr"
    mean: tuple[float, ...] = (102.9801, 115.9465, 122.7717)
    """Subtracted from 0..255, in `channel_order`."""
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    """Divides after the mean; ones for the public checkpoints."""

    def network_size(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) of the network input for a frame of this size; DESIGN section 2."""
        short, long = min(height, width), max(height, width)
        side = self.shorter_side
        if side * long / short > self.longer_side:
            side = round(self.longer_side * short / long)
        other = int(side * long / short) if side else self.longer_side
        side = max(side, 1)
        return (side, other) if height <= width else (other, side)


@dataclass(frozen=True)
class BackboneConfig:
    name: Backbone = "resnet101"
    width: float = 1.0
    """Multiplies every channel count; other than 1 only for resnet18."""
    norm: Norm = "frozen"
    """`frozen`: statistics and affine fixed; `batch`, `group`: trained from scratch."""
    norm_eps: float = 0.0
    """Added to the variance; 0 in the public checkpoints."""
    stride_in_1x1: bool = True
    """Stride in the first 1x1 convolution of a bottleneck; False puts it in the 3x3 (torchvision)."""


@dataclass(frozen=True)
class RPNConfig:
    anchor_sizes: tuple[int, ...] = (64, 128, 256, 512)
    anchor_ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    """height / width"""
    stride: int = 16
    pre_nms_top_n: int = 6000
    nms_threshold: float = 0.7

    @property
    def num_anchors(self) -> int:
        return len(self.anchor_sizes) * len(self.anchor_ratios)

    def cell_anchors(self) -> NDArray[np.float32]:
        """[A, 4] xyxy around the first cell, ratios outer and sizes inner; DESIGN section 2."""
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
    pooling: Pooling = "align"
    """`align` is the public checkpoints' choice, `max` the paper's word."""
    size: int = 7
    reduce_channels: int | None = 256
    """Width of the 1x1 convolution + ReLU on the conv5 map before pooling; None leaves it out."""


@dataclass(frozen=True)
class RelationConfig:
    dim: int = 1024
    """D: width of a proposal's feature."""
    heads: int = 16
    """M; every head has dim / heads channels."""
    num_basic: int = 2
    """N_b: basic relation modules; 0 and no advanced stage is the single-frame detector."""
    advanced: bool = True
    advanced_fc: bool = True
    """FC + ReLU after the refinement of the advanced stage: in the public checkpoints, not in the paper."""

    @property
    def head_dim(self) -> int:
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
class DetectionConfig:
    nms_threshold: float = 0.5
    max_detections: int = 300
    box_weights: tuple[float, ...] = (10.0, 10.0, 5.0, 5.0)


@dataclass(frozen=True)
class Dials:
    """What may change on a running stream, without a rebuild."""

    window: int = 18
    """T, frames on each side; the window of frame t is t-T..t+L."""
    look_ahead: int | None = None
    """L in 0..T, frames; None is T, as in the paper. Results come L frames late."""
    num_support: int = 75
    """K: support proposals kept of each frame."""
    num_reference: int = 300
    """N: proposals classified on each frame; at least K."""
    advanced_ratio: float = 0.2
    """r in (0, 1]: part of the support proposals that the advanced stage refines."""
    sampling: Sampling = "per_frame"
    edges: Edges = "replicate"
    score_threshold: float = 0.001
    """Detections at or below this confidence are dropped."""

    def __post_init__(self) -> None:
        _check(self.window >= 0, "window (T)", self.window, "a whole number of frames, 0 or more")
        look_ahead_ok = self.look_ahead is None or 0 <= self.look_ahead <= self.window
        _check(look_ahead_ok, "look_ahead (L)", self.look_ahead, f"0..{self.window} (the window) or None")
        _check(self.num_support >= 1, "num_support (K)", self.num_support, "1 or more")
        _check(self.num_reference >= self.num_support, "num_reference (N)", self.num_reference,
               f"at least num_support = {self.num_support}")  # fmt: skip
        _check(0 < self.advanced_ratio <= 1, "advanced_ratio (r)", self.advanced_ratio, "in (0, 1]")
        _check(int(self.num_support * self.advanced_ratio) >= 1, "advanced_ratio (r)", self.advanced_ratio,
               f"at least 1/{self.num_support}, so that one of the K support proposals is left")  # fmt: skip
        _check(self.sampling in typing.get_args(Sampling), "sampling", self.sampling, typing.get_args(Sampling))
        _check(self.edges in typing.get_args(Edges), "edges", self.edges, typing.get_args(Edges))
        _check(0 <= self.score_threshold < 1, "score_threshold", self.score_threshold, "in [0, 1)")

    @property
    def frames_ahead(self) -> int:
        """L with the default resolved."""
        return self.window if self.look_ahead is None else self.look_ahead

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
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    rpn: RPNConfig = field(default_factory=RPNConfig)
    roi: RoIConfig = field(default_factory=RoIConfig)
    relation: RelationConfig = field(default_factory=RelationConfig)
    detection: DetectionConfig = field(default_factory=DetectionConfig)
    dials: Dials = field(default_factory=Dials)
    """The model's own settings; a stream starts with them."""

    def __post_init__(self) -> None:
        names = self.class_names
        _check(len(names) >= 1 and len(set(names)) == len(names), "class_names", names, "one or more distinct names")
        i = self.input
        _check(1 <= i.shorter_side <= i.longer_side, "input.shorter_side", i.shorter_side, f"1..{i.longer_side}")
        _check(len(i.mean) == 3 and len(i.std) == 3 and min(i.std) > 0, "input.mean, std", (i.mean, i.std),
               "three numbers each, std above 0")  # fmt: skip
        b = self.backbone
        _check(b.name == "resnet18" or b.width == 1, "backbone.width", b.width, f"1 for {b.name}")
        _check(b.width > 0 and (64 * b.width) % 8 == 0, "backbone.width", b.width, "a multiple of 1/8")
        r = self.relation
        _check(r.dim % r.heads == 0 and r.head_dim % 16 == 0, "relation.dim / relation.heads", (r.dim, r.heads),
               "heads of a multiple of 16 channels")  # fmt: skip
        _check(r.num_basic >= 0, "relation.num_basic (N_b)", r.num_basic, "0 or more")
        p = self.rpn
        _check(min(p.anchor_sizes, default=0) > 0 and min(p.anchor_ratios, default=0) > 0, "rpn.anchor_sizes, ratios",
               (p.anchor_sizes, p.anchor_ratios), "positive, at least one of each")  # fmt: skip
        _check(p.pre_nms_top_n >= 1, "rpn.pre_nms_top_n", p.pre_nms_top_n, "1 or more")
        _check(len(self.detection.box_weights) == 4 and min(self.detection.box_weights) > 0, "detection.box_weights",
               self.detection.box_weights, "four numbers above 0")  # fmt: skip

    @property
    def num_logits(self) -> int:
        """C + 1, background first."""
        return len(self.class_names) + 1

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, strings and lists, as JSON and YAML hold them."""
        return typing.cast("dict[str, Any]", _plain(dataclasses.asdict(self)))

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> RDNConfig:
        """The inverse of `to_dict`; sections and fields left out keep their defaults, unknown ones are refused."""
        return _build(cls, data, "config")


def _check(ok: bool, name: str, got: object, wanted: object) -> None:
    if not ok:
        raise ConfigError(f"{name} is {got!r}; wanted {wanted}")


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return value


_T = TypeVar("_T")


def _build(cls: type[_T], data: Any, path: str) -> _T:
    if not isinstance(data, dict):
        raise ConfigError(f"{path} is {data!r}; wanted a mapping")
    hints = typing.get_type_hints(cls)
    unknown = sorted(set(data) - set(hints))
    if unknown:
        raise ConfigError(f"{path} has unknown fields {unknown}; known are {sorted(hints)}")
    values = {name: _coerce(hints[name], value, f"{path}.{name}") for name, value in data.items()}
    try:
        return cls(**values)
    except TypeError as error:
        raise ConfigError(f"{path}: {error}") from error


def _coerce(hint: Any, value: Any, path: str) -> Any:
    """`value` as the annotation `hint` says, or ConfigError."""
    origin = typing.get_origin(hint)
    if dataclasses.is_dataclass(hint):
        return _build(typing.cast("type[Any]", hint), value, path)
    if origin is types.UnionType:
        if value is None:
            return None
        return _coerce(next(a for a in typing.get_args(hint) if a is not type(None)), value, path)
    if origin is Literal:
        _check(value in typing.get_args(hint), path, value, f"one of {typing.get_args(hint)}")
        return value
    if origin is tuple:
        _check(isinstance(value, (list, tuple)), path, value, "a list")
        return tuple(_coerce(typing.get_args(hint)[0], v, path) for v in value)
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if hint is float and number:
        return float(value)
    if hint is int and number and value == int(value):
        return int(value)
    _check(isinstance(value, hint) and hint not in (int, float), path, value, f"a {hint.__name__}")
    return value
