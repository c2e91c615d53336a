"""Videos that two data sets share, by what their frames show: copies under other names, and parts of one video."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rdn_engine.evaluation.coco_vid import Dataset
from training.data.problem import Problem

FRAMES = 8
"""Of each video that are looked at, evenly"""
SIDE = 16
"""A frame is told by the SIDE x SIDE signs of its brightness from left to right."""
SAME = 20
"""Of its 256 signs, which may differ: another compression or size turns a few, another picture about half."""
PLAIN = 2.0
"""Levels of 255: the spread of brightness of a frame below which nothing is seen on it"""
_THREADS = 8
_ROWS = 4096  # compared at once
_ONES = np.array([value.bit_count() for value in range(256)], np.uint8)


@dataclass(frozen=True, slots=True)
class Signs:
    """What the frames of a data set look like"""

    videos: list[str]
    """The name of the video of each row"""
    files: list[str]
    bits: NDArray[np.uint8]
    """[rows, SIDE * SIDE / 8] the signs, eight in a byte"""


def signs_of(dataset: Dataset, images: Path) -> Signs:
    """Looks at `FRAMES` frames of each video; what cannot be read or is of one colour is passed over."""
    names = {video.id: video.name for video in dataset.videos}
    of_video: dict[int, list[str]] = defaultdict(list)
    for frame in dataset.frames:
        of_video[frame.video_id].append(frame.file_name)
    rows = []
    for video_id, files in of_video.items():
        places = np.unique(np.linspace(0, len(files) - 1, min(FRAMES, len(files))).round().astype(int))
        rows += [(names[video_id], files[i]) for i in places]
    with ThreadPoolExecutor(_THREADS) as pool:
        found = list(pool.map(partial(_signs, images=images), [file for _, file in rows]))
    kept = [(video, file, bits) for (video, file), bits in zip(rows, found, strict=True) if bits is not None]
    bits = np.array([bits for _, _, bits in kept], np.uint8).reshape(-1, SIDE * SIDE // 8)
    return Signs([video for video, _, _ in kept], [file for _, file, _ in kept], bits)


def shared_videos(mine: Signs, other: Signs, other_source: str) -> Iterator[Problem]:
    """The videos of one set of which a frame looks like one of the other's.

    Args:
        mine, other: of the two sets.
        other_source: name of the other annotation file, for messages.

    Yields:
        One doubt for each pair of videos, with the frames that are most alike.
    """
    best: dict[tuple[str, str], tuple[int, str, str]] = {}
    for start in range(0, len(mine.videos), _ROWS):
        part = mine.bits[start : start + _ROWS]
        for j in range(len(other.videos)):
            differ = _ONES[part ^ other.bits[j]].sum(axis=1, dtype=np.int64)
            for i in np.flatnonzero(differ <= SAME):
                pair = (mine.videos[start + i], other.videos[j])
                found = (int(differ[i]), mine.files[start + i], other.files[j])
                best[pair] = min(best.get(pair, found), found)
    for (video, other_video), (_, file, other_file) in best.items():
        what = f"looks like {other_file} of video {other_video} in {other_source}; wanted videos in one set alone"
        yield Problem("shared video", file, f"video {video}: {what}")


def _signs(file: str, images: Path) -> NDArray[np.uint8] | None:
    try:
        with Image.open(images / file) as image:
            image.draft("L", (8 * SIDE, 8 * SIDE))  # of a JPEG, an eighth is decoded
            small = image.convert("L").resize((SIDE + 1, SIDE), Image.Resampling.BOX)
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError):
        return None  # the check names it
    levels = np.asarray(small, np.float32)
    if levels.std() < PLAIN:
        return None
    return np.packbits(levels[:, 1:] > levels[:, :-1])
