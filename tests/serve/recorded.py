"""Frames, videos and detectors of archives, and the results of a video that is computed as a whole."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from rdn_engine.config import Dials
from rdn_engine.detector import Detector
from rdn_engine.errors import FrameError, VideoError
from rdn_engine.frame import Frame, Image
from rdn_engine.media.base import VideoSource
from rdn_engine.results import Detections
from training.data.synthetic import SyntheticVideos

ENGINES = Path(__file__).parents[2] / "models" / "rdn_tiny" / "engines"


@cache
def detector() -> Detector:
    return Detector.from_pretrained(ENGINES, threads=1)


@cache
def pictures(count: int) -> Sequence[Image]:
    """Of moving objects."""
    return list(SyntheticVideos("demo", 1, count, (192, 128))[0].frames)


def frames(images: Iterable[Image], fps: float = 10.0) -> list[Frame]:
    return [Frame(image, t, t / fps, "given") for t, image in enumerate(images)]


class Given(VideoSource):
    """Frames that are there, and how they end."""

    def __init__(self, given: Sequence[Frame], error: str | None = None) -> None:
        super().__init__("given", len(given), 10.0)
        self._given, self._error = given, error

    def _frames(self) -> Iterator[Frame]:
        yield from self._given
        if self._error is not None:
            raise VideoError(self._error)


def unsplit(dials: Dials, source: Iterable[Frame], model: Detector | None = None) -> list[Detections]:
    """The results of one stream over all frames."""
    results: list[Detections] = []
    with (model or detector()).open_stream(dials) as stream:
        try:
            for frame in source:
                try:
                    results += stream.push(frame)
                except FrameError:
                    continue
        except VideoError:
            pass
        results += stream.flush()
    return results


def told(results: Iterable[Detections]) -> list[dict[str, Any]]:
    """Everything of each result; boxes and confidences in as many digits as tell one float32 from the next."""
    return [one.to_dict() for one in results]
