"""Holds a part of a data set out for validation: whole videos, where there is more than one."""

from __future__ import annotations

from dataclasses import replace

from rdn_engine.errors import DatasetError
from rdn_engine.evaluation.coco_vid import Dataset, Video

PART = 5
"""Every fifth video, or the last fifth of the only one, is for validation."""


def split_dataset(dataset: Dataset) -> tuple[Dataset, Dataset, bool]:
    """Shares a data set out.

    Args:
        dataset: of two frames or more.

    Returns:
        For training, for validation, and whether no video is in both. Of a single video the last fifth of its frames is
        for validation, which measures less than another video would.

    Raises:
        DatasetError: there is one frame or none.
    """
    videos = dataset.videos
    if len(videos) > 1:
        count = max(round(len(videos) / PART), 1)
        held = {videos[(2 * i + 1) * len(videos) // (2 * count)].id for i in range(count)}
        return _without(dataset, held), _without(dataset, {v.id for v in videos} - held), True
    frames = dataset.frames
    if len(frames) < 2:
        raise DatasetError(
            f"the data set has {len(frames)} frames; wanted two or more, to train on one and validate on"
        )
    cut = max(len(frames) - max(len(frames) // PART, 1), 1)
    late = {frame.id for frame in frames[cut:]}
    other = Video(videos[0].id + 1, f"{videos[0].name} (end)")
    moved = [replace(frame, video_id=other.id) if frame.id in late else frame for frame in frames]
    whole = replace(dataset, videos=[*videos, other], frames=moved)
    return _without(whole, {other.id}), _without(whole, {videos[0].id}), False


def _without(dataset: Dataset, videos: set[int]) -> Dataset:
    """All but these videos"""
    kept = [frame for frame in dataset.frames if frame.video_id not in videos]
    ids = {frame.id for frame in kept}
    return replace(
        dataset,
        videos=[video for video in dataset.videos if video.id not in videos],
        frames=kept,
        annotations=[a for a in dataset.annotations if a.image_id in ids],
    )
