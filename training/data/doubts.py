"""What is not wrong in a data set and wants a look: frames left out, tracks that change, boxes that stand still."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Iterator

from rdn_engine.evaluation.coco_vid import Annotation, Dataset, Frame, Video
from training.data.anchors import ENOUGH, MET, AnchorFit
from training.data.problem import Problem

DOUBTS = {
    "empty stretch": "frames without a box between frames with boxes",
    "track gap": "tracks that leave out a frame or two",
    "early end": "videos whose last frames have no box",
    "class change": "tracks of more than one class",
    "sub-pixel box": "boxes that are less than a pixel wide or high",
    "still box": "boxes that stand in one place to the pixel for a whole track",
    "no tracks": "videos whose boxes have no track",
    "unused class": "classes without a box",
    "rare class": "classes that few videos show",
    "anchors": "boxes that no anchor of the model meets",
    "shared video": "videos that the other set shows, too",
    "class of one set": "classes that only one of the two sets shows",
}
SHORT_GAP = 2
"""Frames: what a track leaves out by oversight; an object that hides stays away longer."""
LONG_TAIL = 0.1
"""Part of a video at its end without a box from which on it is said, and LEAST_TAIL frames at least"""
LEAST_TAIL = 5
STILL = 10
"""Boxes of a track from which on it is strange that all are the same"""
FEW_VIDEOS = 2
"""A class in fewer videos cannot be learned and measured on different ones."""


def find_doubts(dataset: Dataset, source: str, anchors: AnchorFit | None = None) -> Iterator[Problem]:
    """Looks for what is allowed and seldom meant.

    Args:
        dataset: without the problems that `check_annotations` finds.
        source: name of the annotation file, for messages.
        anchors: of the model that is to be trained; None compares with none.

    Yields:
        Each doubt, of the kinds in DOUBTS.
    """
    frames: dict[int, list[Frame]] = defaultdict(list)
    for frame in dataset.frames:
        frames[frame.video_id].append(frame)
    rows: dict[int, list[Annotation]] = defaultdict(list)
    for annotation in dataset.annotations:
        rows[annotation.image_id].append(annotation)
    for video in dataset.videos:
        yield from _empty_frames(video, frames[video.id], rows)
        yield from _tracks(video, frames[video.id], rows, dataset)
    yield from _classes(dataset, source, {f.id: f.video_id for f in dataset.frames})
    if anchors is not None and anchors.met < ENOUGH:
        sizes, proposal = (f"[{', '.join(map(str, some))}]" for some in (anchors.sizes, anchors.proposal))
        what = f"anchor_sizes: {sizes} meet {anchors.met:.0%} of the boxes at IoU {MET}; {proposal} would meet "
        yield Problem("anchors", source, f"{what}{anchors.proposal_met:.0%}")


def _empty_frames(video: Video, frames: list[Frame], rows: dict[int, list[Annotation]]) -> Iterator[Problem]:
    """Stretches without any box, ignore regions included: between boxes, and at the end"""
    filled = [i for i, frame in enumerate(frames) if rows[frame.id]]
    for before, after in itertools.pairwise(filled):
        if after - before > 1:
            what = f"{after - before - 1} frames without a box from here on; there are boxes before and after"
            yield Problem("empty stretch", frames[before + 1].file_name, what)
    tail = len(frames) - 1 - filled[-1] if filled else 0
    if tail >= max(LEAST_TAIL, LONG_TAIL * len(frames)):
        what = f"the last {tail} of {len(frames)} frames of video {video.name} have no box"
        yield Problem("early end", frames[filled[-1] + 1].file_name, what)


def _tracks(
    video: Video, frames: list[Frame], rows: dict[int, list[Annotation]], dataset: Dataset
) -> Iterator[Problem]:
    names = {category.id: category.name for category in dataset.categories}
    tracks: dict[int, list[tuple[int, Annotation]]] = defaultdict(list)
    untracked = 0
    for i, frame in enumerate(frames):
        for a in rows[frame.id]:
            x1, y1, x2, y2 = a.xyxy
            width, height = x2 - x1 + 1, y2 - y1 + 1
            if 0 < min(width, height) < 1:
                what = f"annotation {a.id}: x {x1:g}, y {y1:g}, width {width:g}, height {height:g}"
                yield Problem("sub-pixel box", frame.file_name, what)
            if a.instance_id is not None:
                tracks[a.instance_id].append((i, a))
            elif not a.ignore:
                untracked += 1
    if untracked and len(frames) > 1:
        yield Problem("no tracks", video.name, f"{untracked} boxes have none; AP by motion speed wants them")
    for number, seen in tracks.items():
        first = frames[seen[0][0]].file_name
        classes = Counter(names.get(a.category_id, str(a.category_id)) for _, a in seen)
        if len(classes) > 1:
            counts = ", ".join(f"{name} {times} times" for name, times in classes.most_common())
            yield Problem("class change", first, f"track {number} is {counts}")
        if len(seen) >= STILL and len({a.xyxy for _, a in seen}) == 1:
            what = f"track {number} has one and the same box in {len(seen)} frames"
            yield Problem("still box", first, f"{what}; wanted boxes that follow the object, if it or the camera moves")
        for (before, _), (after, _) in itertools.pairwise(seen):
            if 1 < after - before <= SHORT_GAP + 1:
                what = f"track {number} is not in {after - before - 1} frames from here on, and in those around them"
                yield Problem("track gap", frames[before + 1].file_name, what)


def _classes(dataset: Dataset, source: str, video_of: dict[int, int]) -> Iterator[Problem]:
    videos: dict[int, set[int]] = defaultdict(set)
    for a in dataset.annotations:
        if not a.ignore:
            videos[a.category_id].add(video_of[a.image_id])
    for category in dataset.categories:
        count = len(videos[category.id])
        if not count:
            yield Problem("unused class", source, f"{category.name} has no box")
        elif count < FEW_VIDEOS <= len(dataset.videos):
            yield Problem("rare class", source, f"{category.name} is in {count} of {len(dataset.videos)} videos")
