"""Which annotated frame each line of results is of.

A line says what it comes from (`source_id`) and which frame of that it is (`frame_index`). An image is the frame whose
file name it ends with; a video is the one of its name, and its frames are those whose `frame_id` is the `frame_index`.
What nobody can tell is refused, never guessed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

import numpy as np

from rdn_engine.errors import DatasetError
from rdn_engine.evaluation.boxes import Int
from rdn_engine.evaluation.coco_vid import Dataset, Frame, Video
from rdn_engine.evaluation.lines import Line
from rdn_engine.results import Detections

Parts = tuple[str, ...]


@dataclass(frozen=True)
class Placed:
    """A result and where it belongs."""

    video: int
    """`Video.id`"""
    frame: Frame | None
    """None where the data set leaves the frame out"""
    source: str
    """`source_id` of its line"""
    result: Detections
    """`class_id` is the position in the data set's classes"""


@dataclass(frozen=True)
class Joined:
    """Results and the annotated frames that they are of."""

    placed: list[Placed]
    """Of every line"""
    found: dict[int, Detections]
    """`Frame.id` -> its result, for every frame"""
    absent: int
    """Frames without a line, in which nothing counts as found"""


class Names:
    """Finds frames of a data set by what results say of their source."""

    def __init__(self, dataset: Dataset, named: Mapping[str, str]) -> None:
        """Index a data set.

        Args:
            dataset: annotated videos.
            named: source -> name of its video, for sources that are called otherwise. A source is a `source_id`, its
                last part, or of images the folder that they are in.

        Raises:
            DatasetError: for a name that is none, or several, of the data set's videos.
        """
        self._frames: dict[int, dict[int, Frame]] = {video.id: {} for video in dataset.videos}
        self._images: dict[tuple[int, str], list[Frame]] = {}
        # By folder: those that fit a source are found once, not for each of its images.
        self._folders: dict[Parts, dict[str, list[Frame]]] = {}
        for frame in dataset.frames:
            self._frames[frame.video_id][frame.frame_id] = frame
            *folder, name = PurePosixPath(frame.file_name).parts
            self._images.setdefault((frame.video_id, name), []).append(frame)
            self._folders.setdefault(tuple(folder), {}).setdefault(name, []).append(frame)
        self._near: dict[Parts, list[tuple[int, dict[str, list[Frame]]]]] = {}
        self._videos = dataset.videos
        self._named = {source: self._called(source, name) for source, name in named.items()}
        self._known: dict[str, Video] = {}
        self.unused = set(named)
        """Names that no source had so far"""

    def _called(self, source: str, name: str) -> Video:
        fits = [video for video in self._videos if video.name == name]
        if len(fits) != 1:
            raise DatasetError(
                f"--video {source}={name}: {len(fits)} videos of the data set are named {name!r}; wanted one of "
                f"{_some([video.name for video in self._videos])}"
            )
        return fits[0]

    def place(self, source: str, index: int) -> tuple[int, Frame | None]:
        """The video and the frame of a line.

        Args:
            source: its `source_id`.
            index: its `frame_index`.

        Returns:
            `Video.id`, and the frame; None where the data set has the video and leaves this frame out.

        Raises:
            DatasetError: where nothing, or more than one thing, fits the source; it says how to name its video.
        """
        path = PurePosixPath(source)
        video = self._given(source, path)
        if video is not None:
            own = self._images.get((video.id, path.name), [])
            return video.id, own[0] if len(own) == 1 else self._frames[video.id].get(index)
        fits = self._fitting(path)
        if len(fits) > 1:
            raise DatasetError(
                f"the source {source!r} is any of {_some([frame.file_name for frame in fits])}; wanted results whose "
                f"source_id tells them apart, or --video {path.parent}=NAME with the name of its video"
            )
        if fits:
            return fits[0].video_id, fits[0]
        video = self._video(source, path)
        return video.id, self._frames[video.id].get(index)

    def _fitting(self, path: PurePosixPath) -> list[Frame]:
        """The images that an image may be: those that have the most names of folders in common with it."""
        folder = path.parts[:-1]
        if folder not in self._near:
            near = [(min(len(own), len(folder)), names) for own, names in self._folders.items() if _ends(own, folder)]
            self._near[folder] = sorted(near, key=lambda one: -one[0])
        fits: list[Frame] = []
        longest = 0
        for length, names in self._near[folder]:
            if fits and length < longest:
                break
            if path.name in names:
                longest = length
                fits += names[path.name]
        return fits

    def _given(self, source: str, path: PurePosixPath) -> Video | None:
        for name in (source, path.name, str(path.parent), path.parent.name):
            if name in self._named:
                self.unused.discard(name)
                return self._named[name]
        return None

    def _video(self, source: str, path: PurePosixPath) -> Video:
        """By name: with or without folders, with or without the end of a file's name."""
        if source not in self._known:
            own = {path.parts, (*path.parts[:-1], path.stem)}
            fits = [
                video
                for video in self._videos
                for theirs in {PurePosixPath(video.name).parts, PurePosixPath(video.name).with_suffix("").parts}
                if theirs and any(parts and _ends(theirs, parts) for parts in own)
            ]
            fits = list({video.id: video for video in fits}.values())
            exact = [video for video in fits if video.name in (source, path.name, path.stem)]
            fits = exact if len(exact) == 1 else fits
            if len(fits) != 1:
                what = f"any of {_some([v.name for v in fits])}" if fits else "no video and no image of the data set"
                raise DatasetError(
                    f"the source {source!r} is {what} by its name; wanted --video {source}=NAME with one of "
                    f"{_some([video.name for video in self._videos])}"
                )
            self._known[source] = fits[0]
        return self._known[source]


def join(lines: Sequence[Line], dataset: Dataset, named: Mapping[str, str], *, allow_missing: bool = False) -> Joined:
    """The result of every annotated frame.

    Args:
        lines: of `read_lines`.
        dataset: annotated videos.
        named: source -> name of its video, as `Names` takes it.
        allow_missing: whether a frame may have no line; it is then one in which nothing was found.

    Returns:
        A result for each of the data set's frames.

    Raises:
        DatasetError: for a source that fits nothing or several, two lines of one frame, a frame without a line, a size
            or a class that is not the data set's. It says which line, and what to do.
    """
    names, labels = Names(dataset, named), _labels(lines, dataset)
    placed: list[Placed] = []
    found: dict[int, Detections] = {}
    first: dict[int, str] = {}
    for line in lines:
        result = replace(line.result, class_names=tuple(dataset.class_names), class_id=labels[line.result.class_id])
        try:
            video, frame = names.place(result.source_id, result.frame_index)
        except DatasetError as error:
            raise DatasetError(f"{line.where}: {error}") from error
        placed.append(Placed(video, frame, result.source_id, result))
        if frame is None:
            continue
        if frame.id in found:
            raise DatasetError(
                f"{line.where} and {first[frame.id]} are both of {frame.file_name}; wanted one run of each video"
            )
        if (result.width, result.height) != (frame.width, frame.height):
            raise DatasetError(
                f"{line.where}: the frame has {result.width} x {result.height} pixels, and {frame.file_name} is "
                f"annotated at {frame.width} x {frame.height}; wanted results of the same pictures"
            )
        first[frame.id] = line.where
        found[frame.id] = result
    if names.unused:
        sources = sorted({line.result.source_id for line in lines})
        raise DatasetError(f"--video names {_some(sorted(names.unused))}; the results come from {_some(sources)}")
    absent = _absent(found, dataset, allow_missing=allow_missing)
    return Joined(placed, found | absent, len(absent))


def _labels(lines: Sequence[Line], dataset: Dataset) -> Int:
    """Class of the results -> position in the data set's classes; -1 for one that no line holds."""
    own = dataset.class_names
    used = sorted({c for line in lines for c in line.result.class_id.tolist()})
    names = lines[0].result.class_names if lines else ()
    unknown = [names[c] for c in used if names[c] not in own]
    if unknown:
        raise DatasetError(f"the results have the classes {_some(unknown)}, which are none of the data set's {own}")
    return np.array([own.index(name) if name in own else -1 for name in names], np.int64)


def _absent(found: Mapping[int, Detections], dataset: Dataset, *, allow_missing: bool) -> dict[int, Detections]:
    frames = [frame for frame in dataset.frames if frame.id not in found]
    if frames and not allow_missing:
        videos = {video.id: video.name for video in dataset.videos}
        there = {frame.video_id for frame in dataset.frames if frame.id in found}
        whole = sorted({frame.video_id for frame in frames} - there)
        parts = [f"frame {f.frame_id} of {videos[f.video_id]}" for f in frames if f.video_id in there]
        lost = [f"no line of {_some([videos[v] for v in whole])}"] if whole else []
        lost += [f"none of {_some(parts)}"] if parts else []
        raise DatasetError(
            f"{len(frames)} of {len(dataset.frames)} annotated frames have no result: {', '.join(lost)}; wanted a line "
            "each (several files may be given), or --allow-missing, which counts them as frames without detections"
        )
    return {frame.id: _nothing(frame, dataset) for frame in frames}


def _nothing(frame: Frame, dataset: Dataset) -> Detections:
    return Detections(
        xyxy=np.zeros((0, 4), np.float32),
        confidence=np.zeros(0, np.float32),
        class_id=np.zeros(0, np.int64),
        tracker_id=None,
        class_names=tuple(dataset.class_names),
        frame_index=frame.frame_id,
        pts=None,
        source_id=frame.file_name,
        height=frame.height,
        width=frame.width,
        pool_fill=0,
        lookahead=0,
        epoch=0,
    )


def _ends(parts: Parts, other: Parts) -> bool:
    """Whether one path is the end of the other."""
    length = min(len(parts), len(other))
    return parts[len(parts) - length :] == other[len(other) - length :]


def _some(names: Sequence[str]) -> str:
    """The first five of a list, and how many more there are"""
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return f"{list(names[:5])}{more}"
