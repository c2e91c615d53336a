"""BDD100K's multi-object tracking labels, in Scalabel's JSON."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from rdn_engine.errors import DatasetError
from rdn_engine.evaluation.coco_vid import Row, read_json_value
from training.data.builder import Builder
from training.data.readers.base import Format, head, track_of

CLASSES = ("pedestrian", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle")
DISTRACTORS = {"other person": "pedestrian", "trailer": "truck", "other vehicle": "car"}
"""What looks like a class and is none: an ignore region of it"""
OLD_NAMES = {"person": "pedestrian", "bike": "bicycle", "motor": "motorcycle"}
SIZE = (1280, 720)


def read_bdd100k(path: Path) -> Builder:
    """BDD100K MOT 2020 (box_track_20): a JSON file of frames for each video; pixels from 0, x2 and y2 inside.

    Crowds and what looks like a class and is none (other person, trailer, other vehicle) become ignore regions.

    Args:
        path: of one JSON file, or of the folder of a split's files.

    Returns:
        The data set, with file names VIDEO/NAME.

    Raises:
        DatasetError: a file cannot be read, or is not of this layout.
    """
    files = sorted(path.glob("*.json")) if path.is_dir() else [path]
    if not files:
        raise DatasetError(f"{path} holds no annotation; wanted a JSON file for each video")
    builder = Builder(enumerate(CLASSES, 1))
    for file in files:
        data = read_json_value(file)
        size = SIZE
        if isinstance(data, dict):  # Scalabel's newer form, with a config beside the frames
            config = Row(Row(data, str(file)).mapping("config"), f"{file}: config")
            size = _size(config, "imageSize") or SIZE
            data = data.get("frames")
        if not isinstance(data, list) or not data or not all(isinstance(frame, dict) for frame in data):
            raise DatasetError(f"{file} holds no list of frames; wanted BDD100K's tracking labels")
        videos: dict[str, list[Row]] = defaultdict(list)
        for i, frame in enumerate(data):
            row = Row(frame, f"{file}: frame[{i}]")
            videos[row.text("videoName") if frame.get("videoName") else file.stem].append(row)
        for name, frames in videos.items():
            _video(builder, name, frames, size)
    return builder


def _video(builder: Builder, name: str, frames: list[Row], size: tuple[int, int]) -> None:
    builder.video(name)
    number = "frameIndex" if "frameIndex" in frames[0].data else "index"
    for frame in sorted(frames, key=lambda row: row.integer(number)):
        width, height = _size(frame, "size") or size
        builder.frame(f"{name}/{frame.text('name')}", width, height, frame.integer(number))
        for label in frame.rows("labels"):
            if label.data.get("box2d") is None:
                builder.note(f"labels without a box are left out, such as {label.where}")
                continue
            _box(builder, label)


def _box(builder: Builder, label: Row) -> None:
    name = OLD_NAMES.get(label.text("category"), label.text("category"))
    known = DISTRACTORS.get(name, name)
    if known not in CLASSES:
        label.refuse("category", f"one of {', '.join((*CLASSES, *DISTRACTORS))}")
    sides = Row(label.mapping("box2d"), f"{label.where}.box2d")
    x1, y1, x2, y2 = (sides.number(side) for side in ("x1", "y1", "x2", "y2"))
    crowd = label.mapping("attributes").get("crowd") in (True, "true")
    track = track_of(label.data.get("id"))
    if track is None:
        label.refuse("id", "the track")
    builder.box((x1, y1, x2, y2), CLASSES.index(known) + 1, track, crowd or name in DISTRACTORS)


def _size(row: Row, name: str) -> tuple[int, int] | None:
    """Width and height in a field; None where it is missing or null"""
    if row.data.get(name) is None:
        return None
    size = Row(row.mapping(name), f"{row.where}.{name}")
    return size.size("width"), size.size("height")


FORMAT = Format(
    "bdd100k",
    "a JSON file of the tracking labels, or the folder of a split's",
    read_bdd100k,
    lambda path: '"box2d"' in head(next(iter(sorted(path.glob("*.json"))), path) if path.is_dir() else path, 1 << 16),
)
