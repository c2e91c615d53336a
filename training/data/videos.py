"""Where the clips of a training come from: synthetic videos, or CocoVID annotations with their folder of images."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from rdn_engine.errors import ConfigError, DatasetError
from rdn_engine.evaluation.coco_vid import Frame, read_dataset
from rdn_engine.evaluation.images import read_image
from rdn_engine.kernels.cpu.arrays import Float
from training.data.check import KINDS, check_annotations
from training.data.drawing import CLASS_NAMES
from training.data.problem import Problem
from training.data.synthetic import SyntheticVideos


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

    def check(self) -> None:
        """Raises ConfigError where it is of neither kind."""
        files = bool(self.annotations), bool(self.images)
        if files != ((False, False) if self.synthetic is not None else (True, True)):
            raise ConfigError(f"a source of data is {self}; wanted `synthetic`, or `annotations` with `images`")


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
        """Raises DatasetError where the file of the frame cannot be read."""

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


class CocoVideos:
    """A CocoVID data set as TrainingVideos.

    Raises DatasetError where the annotations cannot be read or anything is wrong with them (training/data/check.py has
    the list), where frames are missing, and where no frame may be drawn as a reference.
    """

    def __init__(self, annotations: Path, images: Path) -> None:
        dataset = read_dataset(annotations)
        _refuse_problems(list(check_annotations(dataset, str(annotations))), annotations)
        self.images, self.class_names = images, tuple(dataset.class_names)
        place = {video.id: i for i, video in enumerate(dataset.videos)}
        frames = sorted(dataset.frames, key=lambda f: place[f.video_id])  # stable: in order within a video
        _refuse_missing(frames, images)
        if not any(f.train for f in frames):
            raise DatasetError(f"{annotations} has no frame with is_vid_train_frame; wanted one or more to train on")
        # Arrays rather than objects: a million frames, and every worker that reads images has its copy.
        self._names = np.array([f.file_name.encode() for f in frames])
        self._sizes = np.array([(f.width, f.height) for f in frames])
        self._train = np.array([f.train for f in frames])
        self._starts = np.searchsorted([place[f.video_id] for f in frames], np.arange(len(place) + 1))
        row = {f.id: i for i, f in enumerate(frames)}
        label = {c.id: i for i, c in enumerate(dataset.categories)}
        boxes = sorted(dataset.annotations, key=lambda a: row[a.image_id])
        self._boxes = np.array([a.xyxy for a in boxes], np.float32).reshape(-1, 4)
        self._labels = np.array([label[a.category_id] for a in boxes], np.int64)
        self._ignored = np.array([a.ignore for a in boxes], bool)
        self._box_starts = np.searchsorted([row[a.image_id] for a in boxes], np.arange(len(frames) + 1))

    def __len__(self) -> int:
        return len(self._starts) - 1

    def num_frames(self, video: int) -> int:
        return int(self._starts[video + 1] - self._starts[video])

    def references(self, video: int) -> NDArray[np.int64]:
        return np.flatnonzero(self._train[self._starts[video] : self._starts[video + 1]])

    def example(self, video: int, t: int) -> Example:
        row = int(self._starts[video]) + t
        width, height = (int(side) for side in self._sizes[row])
        image = read_image(self.images, Frame(row, video, t, self._names[row].decode(), width, height))
        part = slice(self._box_starts[row], self._box_starts[row + 1])
        boxes, labels, ignored = self._boxes[part], self._labels[part], self._ignored[part]
        return Example(image, boxes[~ignored], labels[~ignored], boxes[ignored])

    def name(self, video: int, t: int) -> str:
        return str(self.images / self._names[self._starts[video] + t].decode())


def _refuse_problems(problems: list[Problem], annotations: Path) -> None:
    if problems:
        first = problems[0]
        raise DatasetError(
            f"{annotations}: {KINDS[first.kind]}: {first.where}: {first.what}; {len(problems)} problems in all, which "
            f"python training/data/check.py {annotations} --images FOLDER lists"
        )


def _refuse_missing(frames: Sequence[Frame], images: Path) -> None:
    """By one listing of each folder: a million questions for single files would take long."""
    wanted: dict[str, list[str]] = defaultdict(list)
    for frame in frames:
        folder, _, name = frame.file_name.rpartition("/")
        wanted[folder].append(name)
    missing = []
    for folder, names in wanted.items():
        path = images / folder
        there = set(os.listdir(path)) if path.is_dir() else set()
        missing += [path / name for name in names if name not in there]
    if missing:
        shown = ", ".join(str(path) for path in missing[:3])
        raise DatasetError(f"{len(missing)} of {len(frames)} frames are not there, such as {shown}; wanted them all")


def open_source(source: Source) -> TrainingVideos:
    """Raises ConfigError for a source of neither kind, DatasetError for one that cannot be trained on."""
    source.check()
    if source.synthetic is not None:
        return RenderedVideos(source.synthetic)
    return CocoVideos(Path(source.annotations), Path(source.images))


def class_names_of(source: Source) -> tuple[str, ...]:
    """Raises as `open_source`, without a look at frames and boxes."""
    source.check()
    return CLASS_NAMES if source.synthetic is not None else tuple(read_dataset(Path(source.annotations)).class_names)


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
                f"{', '.join(wanted)}, in this order; convert.py --classes gives a set the class list of a model"
            )
    return MixedVideos(parts)
