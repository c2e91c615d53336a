"""A detector whose one box moves with the grey level of the frame."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from rdn_engine import Detections, Detector
from rdn_engine.config import RDNConfig
from rdn_engine.frame import Image
from rdn_engine.host.features import EncodedFrame
from rdn_engine.host.model import HostModel
from rdn_engine.host.runtime import HostRuntime
from rdn_engine.kernels.cpu.arrays import Float
from rdn_engine.stream.pairs import EARLIER, JITTER
from tests.fakes import SIDE, FakeEncoder, FakeRelation, image, tiny_config

SCALE = 10
"""Frames of these tests are so many times larger than their network input"""


class MovingEncoder(FakeEncoder):
    """One proposal a frame, whose left side is the grey level of the frame: 8 pixels of the network input."""

    def __init__(self, config: RDNConfig) -> None:
        super().__init__(config.relation, proposals=lambda level: 1)
        self._relation = config.relation
        self.levels: list[int] = []
        self.fail = False

    def __call__(
        self, images: Float, num_reference: int, num_support: int, lap: Callable[[str], None]
    ) -> list[EncodedFrame]:
        if self.fail:
            raise MemoryError("no room")
        frames = super().__call__(images, num_reference, num_support, lap)
        found = []
        for one, frame in zip(images, frames, strict=True):
            level = float(one[0, 0, 0])
            self.levels.append(round(level))
            found.append(replace(frame, boxes=np.array([[level, 2, level + 7, 9]], np.float32)))
        return found


def moving_detector() -> tuple[Detector, MovingEncoder, FakeRelation]:
    config = tiny_config()
    encoder, relation = MovingEncoder(config), FakeRelation(config.num_logits)
    return Detector(HostRuntime(HostModel(config, encoder, relation, threads=1))), encoder, relation


def large(level: int) -> Image:
    return image(level, SIDE * SCALE, SIDE * SCALE)


def indices(results: list[Detections]) -> list[int]:
    return [r.frame_index for r in results]


def surely(result: Detections, moved: float) -> float:
    """Part of a movement, in pixels of the network input, that is no jitter of its one box."""
    [box] = result.xyxy
    squared = (SCALE * moved) ** 2
    return squared / (squared + JITTER**2 * float(np.prod(box[2:] - box[:2] + 1)))


def steady(found: float, likely: float) -> float:
    """From where a box goes on that was found, and that was likely to be, somewhere, with the same confidence."""
    return found - float(EARLIER / (1 + EARLIER)) * (found - likely)


def bases(results: list[Detections]) -> list[str]:
    return [r.basis for r in results]


def lefts(results: list[Detections]) -> list[float]:
    return [float(r.xyxy[0, 0]) / SCALE for r in results]
