"""The internal form of an annotated video set: CocoVID JSON, read and written. docs/datasets.md has it field by field.

Boxes. On disk `bbox` is COCO's [x, y, width, height]. In memory a box is xyxy in pixels with the last pixel included:
x1 is the first column that it covers and x2 the last, from 0, so width = x2 - x1 + 1. A box over a whole frame of
W x H pixels is [0, 0, W, H] on disk and (0, 0, W - 1, H - 1) in memory; one of a single pixel has width 1 and x1 = x2.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, NoReturn, TypeGuard

from rdn_engine.errors import DatasetError
from rdn_engine.text import read_text

_FAR = 1e9  # pixels
MOST_BYTES = 4 << 30
"""Of an annotation file: more than the largest public ones, less than what takes a machine's memory unseen"""

Box = tuple[float, float, float, float]
"""x1, y1, x2, y2 in pixels of the frame, the last pixel included"""


def to_coco_box(xyxy: Box) -> list[float]:
    """A box as COCO writes it.

    Args:
        xyxy: x1, y1, x2, y2 in pixels, the last pixel included.

    Returns:
        x, y, width, height in pixels; width = x2 - x1 + 1.
    """
    x1, y1, x2, y2 = xyxy
    return [x1, y1, x2 - x1 + 1, y2 - y1 + 1]


def from_coco_box(xywh: Sequence[float]) -> Box:
    """The inverse of `to_coco_box`.

    Args:
        xywh: x, y, width, height in pixels.

    Returns:
        x1, y1, x2, y2 in pixels, the last pixel included.
    """
    x, y, width, height = xywh
    return x, y, x + width - 1, y + height - 1


@dataclass(frozen=True, slots=True)
class Category:
    id: int
    name: str


@dataclass(frozen=True, slots=True)
class Video:
    id: int
    name: str


@dataclass(frozen=True, slots=True)
class Frame:
    id: int
    video_id: int
    frame_id: int
    """Position in the video, from 0; grows from frame to frame, and may leave numbers out."""
    file_name: str
    """Relative to the folder of images, with forward slashes"""
    width: int
    height: int
    train: bool = True
    """Training may draw this frame as a reference; where False, it is seen as a support frame alone."""


@dataclass(frozen=True, slots=True)
class Annotation:
    id: int
    image_id: int
    """`Frame.id`"""
    category_id: int
    xyxy: Box
    instance_id: int | None = None
    """The same for the same object in every frame of its video; None where nobody followed the object."""
    ignore: bool = False
    """A region in which a detection of this class is neither right nor wrong, and which is no example for training."""


@dataclass
class Dataset:
    categories: list[Category] = field(default_factory=list)
    """By id; the position in this list is the class index, from 0."""
    videos: list[Video] = field(default_factory=list)
    frames: list[Frame] = field(default_factory=list)
    """The frames of one video in the order in which they are shown"""
    annotations: list[Annotation] = field(default_factory=list)

    @property
    def class_names(self) -> list[str]:
        return [c.name for c in self.categories]


def write_dataset(dataset: Dataset, path: Path, info: Mapping[str, Any] | None = None) -> None:
    """Writes CocoVID JSON; the old file stays whole until the new one is.

    Args:
        dataset: to write.
        path: of the file.
        info: where the data come from, as COCO has it under this name; nothing here reads it.
    """
    video_of = {f.id: f.video_id for f in dataset.frames}
    rows: dict[str, list[dict[str, Any]]] = {
        "categories": [{"id": c.id, "name": c.name} for c in dataset.categories],
        "videos": [{"id": v.id, "name": v.name} for v in dataset.videos],
        "images": [
            {
                "id": f.id,
                "video_id": f.video_id,
                "frame_id": f.frame_id,
                "file_name": f.file_name,
                "width": f.width,
                "height": f.height,
                "is_vid_train_frame": f.train,
            }
            for f in dataset.frames
        ],
        "annotations": [],
    }
    for a in dataset.annotations:
        bbox = to_coco_box(a.xyxy)
        row = {"id": a.id, "image_id": a.image_id, "video_id": video_of[a.image_id], "category_id": a.category_id}
        track = {} if a.instance_id is None else {"instance_id": a.instance_id}
        flags = {"iscrowd": int(a.ignore), "ignore": int(a.ignore)}
        rows["annotations"].append({**row, **track, "bbox": bbox, "area": bbox[2] * bbox[3], **flags})
    part = path.with_name(path.name + ".part")
    about = {} if info is None else {"info": dict(info)}
    part.write_text(json.dumps({**about, **rows}, allow_nan=False) + "\n", encoding="utf-8")
    os.replace(part, path)


def check_length(path: Path) -> None:
    """Raises DatasetError where a file is longer than any annotation file; OSError where it is not there."""
    length = path.stat().st_size
    if length > MOST_BYTES:
        raise DatasetError(f"has {length} bytes; wanted at most {MOST_BYTES}")


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; DatasetError where there is none."""
    data = read_json_value(path)
    if not isinstance(data, dict):
        raise DatasetError(f"{path} holds a {type(data).__name__}; wanted an object with videos, images, annotations")
    return data


def read_json_value(path: Path) -> Any:
    """What a JSON file holds; DatasetError where it is none."""
    try:
        check_length(path)
        return json.loads(read_text(path))
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"{path} is not JSON: {error}") from error
    except DatasetError as error:
        raise DatasetError(f"{path} {error}") from None


def read_dataset(path: Path) -> Dataset:
    """Reads CocoVID JSON. What a data set can get wrong beyond its form, `training/data/check.py` reports.

    Args:
        path: of the file.

    Returns:
        The data set.

    Raises:
        DatasetError: a field is missing or of the wrong type, an id occurs twice, or a row refers to a video or an
            image that is not there.
    """
    data = read_json(path)
    dataset = Dataset()
    for row in rows_of(data, "categories", path):
        dataset.categories.append(Category(row.integer("id"), row.text("name")))
    for row in rows_of(data, "videos", path):
        dataset.videos.append(Video(row.integer("id"), row.text("name")))
    _distinct(dataset.categories, "categories", path)
    videos = _distinct(dataset.videos, "videos", path)
    for row in rows_of(data, "images", path):
        file_name = row.text("file_name")
        if not is_inside(file_name):
            row.refuse("file_name", "a path inside the folder of images, with forward slashes")
        dataset.frames.append(
            Frame(
                row.integer("id"),
                row.reference("video_id", videos, "videos"),
                row.integer("frame_id"),
                file_name,
                row.size("width"),
                row.size("height"),
                row.flag("is_vid_train_frame", default=True),
            )
        )
    frames = _distinct(dataset.frames, "images", path)
    for row in rows_of(data, "annotations", path):
        track = "instance_id" if "instance_id" in row.data else "track_id"
        dataset.annotations.append(
            Annotation(
                row.integer("id"),
                row.reference("image_id", frames, "images"),
                row.integer("category_id"),
                from_coco_box(row.box("bbox")),
                row.integer(track) if row.data.get(track) is not None else None,
                row.flag("iscrowd", default=False) or row.flag("ignore", default=False),
            )
        )
    _distinct(dataset.annotations, "annotations", path)
    dataset.categories.sort(key=lambda c: c.id)
    return dataset


def is_inside(name: str) -> bool:
    """Whether a name leads to a file inside the folder that it starts from, on every system"""
    path = PurePosixPath(name)
    return bool(path.parts) and not (path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name)


def _distinct(items: Sequence[Category | Video | Frame | Annotation], section: str, path: Path) -> set[int]:
    seen: set[int] = set()
    for item in items:
        if item.id in seen:
            raise DatasetError(f"{path}: {section} has the id {item.id} twice; wanted distinct ids")
        seen.add(item.id)
    return seen


def rows_of(data: dict[str, Any], section: str, path: Path | str) -> list[Row]:
    """The rows of a section of a JSON annotation file; DatasetError where it is missing or no list of objects."""
    rows = data.get(section)
    if not isinstance(rows, list):
        got = "is missing" if section not in data else f"is {str(rows)[:80]}"
        raise DatasetError(f"{path}: {section} {got}; wanted a list")
    for i, row in enumerate(rows):
        if not isinstance(row, dict):
            raise DatasetError(f"{path}: {section}[{i}] is {str(row)[:80]}; wanted an object")
    return [Row(row, f"{path}: {section}[{i}]") for i, row in enumerate(rows)]


@dataclass(frozen=True, slots=True)
class Row:
    """A JSON object and where it stands; each method returns a field of a type or raises DatasetError."""

    data: dict[str, Any]
    where: str

    def integer(self, name: str) -> int:
        value = self.data.get(name)
        if isinstance(value, bool) or not isinstance(value, int):
            self.refuse(name, "a whole number")
        return value

    def number(self, name: str) -> float:
        value = self.data.get(name)
        if not is_number(value):
            self.refuse(name, "a finite number")
        return float(value)

    def size(self, name: str) -> int:
        """A number of pixels"""
        value = self.integer(name)
        if not 1 <= value <= _FAR:
            self.refuse(name, "1 or more pixels")
        return value

    def reference(self, name: str, known: set[int], section: str) -> int:
        value = self.integer(name)
        if value not in known:
            self.refuse(name, f"the id of one of {section}")
        return value

    def text(self, name: str) -> str:
        value = self.data.get(name)
        if not isinstance(value, str) or not value or any("\ud800" <= c <= "\udfff" for c in value):
            self.refuse(name, "text")
        return value

    def flag(self, name: str, default: bool) -> bool:
        value = self.data.get(name, default)
        if value not in (0, 1):
            self.refuse(name, "0, 1, false or true")
        return bool(value)

    def mapping(self, name: str) -> dict[str, Any]:
        """An object; empty where the field is missing or null"""
        value = self.data.get(name)
        if value is not None and not isinstance(value, dict):
            self.refuse(name, "an object")
        return value or {}

    def rows(self, name: str) -> list[Row]:
        """A list of objects; empty where the field is missing or null"""
        if self.data.get(name) is None:
            return []
        return rows_of(self.data, name, self.where)

    def box(self, name: str) -> list[float]:
        value = self.data.get(name)
        if not is_box(value):
            self.refuse(name, "[x, y, width, height], four finite numbers")
        return [float(v) for v in value]

    def refuse(self, name: str, wanted: str) -> NoReturn:
        got = f"is {str(self.data[name])[:80]!r}" if name in self.data else "is missing"
        raise DatasetError(f"{self.where}.{name} {got}; wanted {wanted}")


def is_number(value: object) -> TypeGuard[float]:
    """A finite number; NaN, infinity and what is no pixel on any frame are refused."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= _FAR


def is_box(value: object) -> TypeGuard[list[float]]:
    """Four finite numbers in a list"""
    return isinstance(value, list) and len(value) == 4 and all(map(is_number, value))
