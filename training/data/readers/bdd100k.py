"""BDD100K's multi-object tracking labels, in Scalabel's JSON."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

from rdn_engine.errors import DatasetError
from training.data.builder import Builder
from training.data.coco_vid import Row, read_json_value
from training.data.readers.base import Format, head

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
            size = _size((data.get("config") or {}).get("imageSize"), str(file)) or SIZE
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
        width, height = _size(frame.data.get("size"), frame.where) or size
        builder.frame(f"{name}/{frame.text('name')}", width, height, frame.integer(number))
        for i, value in enumerate(frame.data.get("labels") or []):
            if not isinstance(value, dict):
                raise DatasetError(f"{frame.where}.labels[{i}] is {str(value)[:80]}; wanted an object")
            label = Row(value, f"{frame.where}.labels[{i}]")
            if value.get("box2d") is None:
                builder.note(f"labels without a box are left out, such as {label.where}")
                continue
            _box(builder, label)


def _box(builder: Builder, label: Row) -> None:
    name = OLD_NAMES.get(label.text("category"), label.text("category"))
    known = DISTRACTORS.get(name, name)
    if known not in CLASSES:
        label.refuse("category", f"one of {', '.join((*CLASSES, *DISTRACTORS))}")
    sides = Row(label.data["box2d"], f"{label.where}.box2d") if isinstance(label.data["box2d"], dict) else None
    if sides is None:
        label.refuse("box2d", "an object of x1, y1, x2, y2")
    x1, y1, x2, y2 = (sides.number(side) for side in ("x1", "y1", "x2", "y2"))
    attributes = label.data.get("attributes")
    crowd = isinstance(attributes, dict) and attributes.get("crowd") in (True, "true")
    track = label.data.get("id")
    if not isinstance(track, (int, str)):
        label.refuse("id", "the track")
    builder.box((x1, y1, x2, y2), CLASSES.index(known) + 1, track, crowd or name in DISTRACTORS)


def _size(value: Any, where: str) -> tuple[int, int] | None:
    if value is None:
        return None
    if not isinstance(value, dict):
        raise DatasetError(f"{where}: the size is {str(value)[:80]}; wanted width and height")
    row = Row(value, f"{where}: size")
    return row.size("width"), row.size("height")


FORMAT = Format(
    "bdd100k",
    "a JSON file of the tracking labels, or the folder of a split's",
    read_bdd100k,
    lambda path: '"box2d"' in head(next(iter(sorted(path.glob("*.json"))), path) if path.is_dir() else path, 1 << 16),
)
