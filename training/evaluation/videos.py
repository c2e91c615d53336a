"""Annotated videos to evaluate on: a data set and its frames, from files or drawn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rdn_engine.errors import DatasetError
from rdn_engine.evaluation.annotated import Annotated
from rdn_engine.evaluation.coco_vid import Frame, read_dataset
from rdn_engine.evaluation.images import read_image
from training.data.export_synthetic import synthetic_dataset
from training.data.synthetic import SyntheticVideos

Pixels = NDArray[np.uint8]
"""[H, W, 3] RGB"""


@dataclass(frozen=True)
class AnnotatedVideos(Annotated):
    """Annotated videos with their pictures."""

    read: Callable[[Frame], Pixels]
    """The image of one of the data set's frames. Raises DatasetError where it cannot be read."""


def from_files(annotations: Path, images: Path) -> AnnotatedVideos:
    """Annotated videos on disk.

    Args:
        annotations: CocoVID JSON.
        images: the folder that its file names start from.

    Returns:
        Videos whose frames are read when they are asked for.

    Raises:
        DatasetError: the annotations cannot be read, or the folder is not there.
    """
    if not images.is_dir():
        raise DatasetError(f"{images} is no folder; wanted the one that the file names start from")
    return AnnotatedVideos(annotations.name, read_dataset(annotations), lambda frame: read_image(images, frame))


def from_synthetic(videos: SyntheticVideos) -> AnnotatedVideos:
    """Drawn videos, which stay in memory; the conditions are frames that are clear as a whole, or blurred or dim."""
    dataset = synthetic_dataset(videos)
    conditions: dict[str, list[int]] = {"clear": [], "degraded": []}
    for frame in dataset.frames:
        strength = videos[frame.video_id - 1].strength[frame.frame_id]
        conditions["degraded" if strength > 0 else "clear"].append(frame.id)
    hidden = "" if videos.hidden is None else f", objects hidden for {videos.hidden[0]} to {videos.hidden[1]} frames"
    return AnnotatedVideos(
        f"synthetic videos, split {videos.split}, seed {videos.seed}{hidden}",
        dataset,
        lambda frame: videos[frame.video_id - 1].frames[frame.frame_id],
        conditions=conditions,
    )
