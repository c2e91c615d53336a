"""Where the clips of a training come from: synthetic videos, or CocoVID annotations with their folder of images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from rdn_engine.errors import ConfigError, DatasetError
from training.data.synthetic import CLASS_NAMES, SyntheticVideos

Float = NDArray[np.float32]


@dataclass(frozen=True)
class Synthetic:
    """Of `training.data.synthetic.SyntheticVideos`."""

    split: str = "train"
    num_videos: int = 300
    num_frames: int = 24
    size: tuple[int, int] = (192, 128)
    """(width, height), pixels"""
    seed: int = 0


@dataclass(frozen=True)
class Source:
    """Either `synthetic`, or a CocoVID file and the folder that its file names start from (docs/datasets.md)."""

    synthetic: Synthetic | None = None
    annotations: str = ""
    images: str = ""


@dataclass(frozen=True)
class Example:
    """One annotated frame."""

    image: NDArray[np.uint8]
    """[H, W, 3] RGB"""
    boxes: Float
    """[n, 4] xyxy pixels of the frame, the last pixel included"""
    labels: NDArray[np.int64]
    """[n] 0 is the first class"""
    ignored: Float
    """[m, 4] regions that are an example of nothing"""


class TrainingVideos(Protocol):
    """Annotated videos whose frames are read one at a time."""

    @property
    def class_names(self) -> tuple[str, ...]: ...

    def __len__(self) -> int: ...

    def num_frames(self, video: int) -> int: ...

    def references(self, video: int) -> NDArray[np.int64]:
        """Frames of a video that may be drawn as a reference, growing."""

    def example(self, video: int, t: int) -> Example:
        """Raises DamagedFrame where the file of the frame cannot be decoded."""

    def name(self, video: int, t: int) -> str:
        """For messages."""


class RenderedVideos:
    """Synthetic videos as TrainingVideos."""

    class_names = CLASS_NAMES

    def __init__(self, source: Synthetic) -> None:
        self.videos = SyntheticVideos(source.split, source.num_videos, source.num_frames, source.size, source.seed)

    def __len__(self) -> int:
        return len(self.videos)

    def num_frames(self, video: int) -> int:
        return self.videos.num_frames

    def references(self, video: int) -> NDArray[np.int64]:
        return np.arange(self.videos.num_frames)

    def example(self, video: int, t: int) -> Example:
        drawn = self.videos[video]
        return Example(drawn.frames[t], drawn.boxes[t], drawn.labels[t], np.empty((0, 4), np.float32))

    def name(self, video: int, t: int) -> str:
        return f"synthetic {self.videos.split} (seed {self.videos.seed}) video {video} frame {t}"


class MixedVideos:
    """Several sources one after the other, as one."""

    def __init__(self, parts: Sequence[TrainingVideos]) -> None:
        self.parts = tuple(parts)
        self.class_names = parts[0].class_names
        self._starts = np.cumsum([0] + [len(p) for p in parts])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def _find(self, video: int) -> tuple[TrainingVideos, int]:
        part = int(np.searchsorted(self._starts, video, side="right")) - 1
        return self.parts[part], video - int(self._starts[part])

    def num_frames(self, video: int) -> int:
        part, i = self._find(video)
        return part.num_frames(i)

    def references(self, video: int) -> NDArray[np.int64]:
        part, i = self._find(video)
        return part.references(i)

    def example(self, video: int, t: int) -> Example:
        part, i = self._find(video)
        return part.example(i, t)

    def name(self, video: int, t: int) -> str:
        part, i = self._find(video)
        return part.name(i, t)


class DamagedFrame(DatasetError):
    """The file of a frame cannot be decoded."""


def open_source(source: Source) -> TrainingVideos:
    if (source.synthetic is None) == (not source.annotations) or bool(source.annotations) != bool(source.images):
        raise ConfigError(f"a source of data is {source}; wanted `synthetic`, or `annotations` with `images`")
    if source.synthetic is not None:
        return RenderedVideos(source.synthetic)
    raise ConfigError("CocoVID sources are not read yet")


def open_sources(sources: Sequence[Source], class_names: Sequence[str] | None = None) -> MixedVideos:
    """All sources as one.

    Raises DatasetError where a source has other classes than `class_names` (than the first source, without), or
    cannot be trained on; ConfigError for a source of neither kind.
    """
    parts = [open_source(s) for s in sources]
    wanted = tuple(class_names) if class_names is not None else parts[0].class_names
    for source, part in zip(sources, parts, strict=True):
        if part.class_names != wanted:
            raise DatasetError(
                f"{source.annotations or 'synthetic'} has the classes {', '.join(part.class_names)}; wanted "
                f"{', '.join(wanted)}, in this order"
            )
    return MixedVideos(parts)
