"""What a kernel that `kernels.py` times is: its inputs, what a user would pick instead, and counts.

`moved` is the bytes that must be read and written at least once, `operations` the float additions and multiplications
of the plain formula; sines, exponentials and comparisons are not counted, so the floor is lower than what any real
kernel reaches.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from rdn_engine.config import RDNConfig
from training.checkpoints.files import read_config

Arrays = tuple[NDArray[Any], ...]
Call = Callable[[], Any]

HEIGHT, WIDTH, STRIDE, CHANNELS = 600, 1000, 16, 2048
GRID = 38, 63
N, K, T = 300, 75, 18


@dataclass(frozen=True)
class Case:
    name: str
    ours: Call
    """-> arrays or named tuple of arrays; numpy"""
    module: nn.Module
    """what a user writes in torch, with torchvision's operators; run as it is, compiled, and in ONNX Runtime"""
    inputs: tuple[Tensor, ...]
    compare: Callable[[Any, Sequence[NDArray[Any]]], float]
    """ours, a peer's outputs -> difference, in the units of `tolerance`"""
    tolerance: float
    unit: str
    moved: float
    operations: float
    others: Mapping[str, Call] = field(default_factory=dict)
    """more peers: name -> call"""
    truth: Callable[[], Sequence[NDArray[Any]]] | None = None
    """float64, by the definition in tests/; without it the peers are what is compared with"""
    left_out: Mapping[str, str] = field(default_factory=dict)
    """peers that cannot run this, and why"""


def public_config() -> RDNConfig:
    return RDNConfig.from_dict(read_config(Path(__file__).parents[2] / "export" / "configs" / "public_r101.yaml"))


def random_boxes(rng: np.random.Generator, count: int) -> NDArray[np.float32]:
    """[count, 4] around sixteen objects of all sizes, clipped to the image."""
    centre, side = rng.uniform(0, [WIDTH, HEIGHT], (16, 2)), np.exp(rng.uniform(np.log(40), np.log(450), (16, 2)))
    which = rng.integers(0, 16, count)
    c = centre[which] + rng.normal(0, 0.2, (count, 2)) * side[which]
    s = side[which] * np.exp(rng.normal(0, 0.3, (count, 2)))
    boxes = np.concatenate([c - s / 2, c + s / 2], 1)
    high = [WIDTH - 2, HEIGHT - 2]
    boxes[:, :2] = boxes[:, :2].clip(0, high)
    boxes[:, 2:] = np.maximum(boxes[:, 2:].clip(0, [WIDTH - 1, HEIGHT - 1]), boxes[:, :2] + 1)
    return boxes.astype(np.float32)


def relative(got: NDArray[Any], wanted: NDArray[Any]) -> float:
    """Norm of the difference over the norm of what was wanted."""
    return float(np.linalg.norm(np.float64(got) - wanted) / np.linalg.norm(wanted))
