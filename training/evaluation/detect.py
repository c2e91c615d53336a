"""What is evaluated: anything that finds objects in the frames of a video."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from rdn_engine import Detector
from rdn_engine.config import Dials
from rdn_engine.results import Detections
from training.evaluation.boxes import Found
from training.evaluation.videos import Pixels
from training.model.inference import detect_video
from training.model.rdn import RDN


class Detect(Protocol):
    """Finds objects in one video: frames in order, one result each, in order. Called once a video."""

    @property
    def class_names(self) -> tuple[str, ...]: ...

    @property
    def dials(self) -> Dials: ...

    def __call__(self, frames: Iterable[Pixels]) -> Iterable[Found]: ...


@dataclass(frozen=True)
class RunDetector:
    """The deployed detector at a setting of its dials; many of these may share one Detector."""

    detector: Detector
    dials: Dials

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.detector.config.class_names

    def __call__(self, frames: Iterable[Pixels]) -> Iterator[Detections]:
        with self.detector.open_stream(self.dials) as stream:
            for frame in frames:
                yield from stream.push(frame)
            yield from stream.flush()


@dataclass(frozen=True)
class FrameDetections:
    """The least that a `Found` is."""

    xyxy: NDArray[np.float32]
    confidence: NDArray[np.float32]
    class_id: NDArray[np.int64]


@dataclass(frozen=True)
class RunModel:
    """The torch model, for a look at a training that goes on; figures that are published come from `RunDetector`."""

    model: RDN
    dials: Dials

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.model.config.class_names

    def __call__(self, frames: Iterable[Pixels]) -> Iterator[FrameDetections]:
        training = self.model.training
        self.model.eval()
        try:
            results = detect_video(self.model, list(frames), self.dials)
        finally:
            self.model.train(training)
        for r in results:
            yield FrameDetections(*(t.cpu().numpy() for t in (r.xyxy, r.confidence, r.class_id)))
