"""What is evaluated, anything that finds objects in the frames of a video, and how: `evaluate`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from rdn_engine import Detector
from rdn_engine.config import Dials
from rdn_engine.errors import DatasetError
from rdn_engine.evaluation.boxes import Found, Truth, label_map
from rdn_engine.evaluation.score import Result, score
from rdn_engine.results import Detections
from training.evaluation.videos import AnnotatedVideos, Pixels
from training.model.fcos import SmallFCOS
from training.model.inference import find_objects
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

    model: RDN | SmallFCOS
    dials: Dials

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.model.config.class_names

    def __call__(self, frames: Iterable[Pixels]) -> Iterator[FrameDetections]:
        for r in find_objects(self.model, list(frames), self.dials):
            yield FrameDetections(*(t.cpu().numpy() for t in (r.xyxy, r.confidence, r.class_id)))


def evaluate(detect: Detect, videos: AnnotatedVideos, report: Callable[[int], None] = lambda frames: None) -> Result:
    """The accuracy of a detector. One loaded Detector and one set of videos serve many calls, each with other dials.

    Args:
        detect: the detector at a setting of its dials.
        videos: annotated ones, all of which are looked at.
        report: is called with the number of frames done, after each video.

    Returns:
        See `score`.

    Raises:
        DatasetError: frames cannot be read, or the classes or the number of results do not fit.
    """
    found = detect_all(detect, videos, report)
    return figures(found, videos, detect)


def figures(found: Mapping[int, Found], videos: AnnotatedVideos, detect: Detect) -> Result:
    """The accuracy of what a detector found.

    Args:
        found: of `detect_all`.
        videos: annotated ones.
        detect: the detector at a setting of its dials, which the result quotes.

    Returns:
        See `score`.
    """
    return {"dials": asdict(detect.dials), **score(found, videos, detect.class_names, detect.dials.frames_ahead)}


def detect_all(
    detect: Detect, videos: AnnotatedVideos, report: Callable[[int], None] = lambda frames: None
) -> dict[int, Found]:
    """The detections of every frame.

    Args:
        detect: the detector at a setting of its dials.
        videos: annotated ones; their classes are checked before the first frame.
        report: is called with the number of frames done, after each video.

    Returns:
        `Frame.id` -> what was found.

    Raises:
        DatasetError: see `evaluate`.
    """
    # What cannot be scored is refused before the hours of detecting.
    Truth.of(videos.dataset)
    label_map(videos.dataset, detect.class_names)
    found: dict[int, Found] = {}
    for name, frames in videos.videos():
        results = list(detect(videos.read(frame) for frame in frames))
        if len(results) != len(frames):
            raise DatasetError(f"video {name} has {len(frames)} frames and {len(results)} results; wanted one a frame")
        found |= {frame.id: result for frame, result in zip(frames, results, strict=True)}
        report(len(found))
    return found
