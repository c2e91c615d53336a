"""YOLO's text files, in the layout of Ultralytics with data.yaml and in Darknet's with obj.data."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from rdn_engine.errors import DatasetError
from rdn_engine.evaluation.coco_vid import from_coco_box, is_inside
from rdn_engine.text import read_text
from training.data.builder import Builder
from training.data.readers.base import (
    IMAGE_SUFFIXES,
    VIDEO,
    Format,
    Option,
    each_image,
    image_size,
    numbers_of,
    read_lines,
    read_names,
    whole,
)

_FILES = ("data.yaml", "obj.data")


def read_yolo(path: Path, split: str = "train", video: bool = False) -> Builder:
    """Ultralytics' layout: data.yaml with `names`, images/... and the same path under labels/ with .txt.

    Darknet's: obj.data, obj.names, train.txt and each text file beside its image, as CVAT's "YOLO 1.1" has it.

    A line is a class from 0, and the middle, width and height of a box as parts of the frame. A sixth number, where one
    is, is a track. A polygon (seven numbers or more) becomes the box around it. Every image is a video of one frame; an
    image without a text file shows nothing.

    Args:
        path: of data.yaml or obj.data, or the folder that holds it.
        split: `train`, `val` or `test` of data.yaml; where it names none of them, all of images/.
        video: the images of a folder are the frames of one video.

    Returns:
        The data set, with file names from the folder that `path` of data.yaml names, the one of data.yaml itself where
        that is not there.

    Raises:
        DatasetError: a file cannot be read, or is not of this layout.
    """
    file = path / "data.yaml" if path.is_dir() else path
    if not file.is_file() and (path / "obj.data").is_file():
        file = path / "obj.data"
    settings = _darknet(file) if file.name == "obj.data" else _settings(file)
    names = _names(settings, file)
    root = file.parent
    given = settings.get("path")
    if isinstance(given, str) and (root / given).is_dir():
        root = root / given
    builder = Builder(enumerate(names, 1))
    sizes = {image: image_size(root / image) for image in _images(settings, split, file, root)}
    if not sizes:
        raise DatasetError(f"{file}: {split} holds no image; wanted one or more")
    for image in each_image(builder, sizes, video):
        width, height = sizes[image]
        labels = root / _labels_of(image)
        for i, line in enumerate(read_lines(labels) if labels.is_file() else [], 1):
            _box(builder, line, f"{labels}, line {i}", len(names), width, height)
    return builder


def _settings(file: Path) -> dict[str, Any]:
    try:
        settings = yaml.safe_load(read_text(file))
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        raise DatasetError(f"{file} cannot be read: {error}; wanted data.yaml with names") from error
    if not isinstance(settings, dict):
        raise DatasetError(f"{file} holds a {type(settings).__name__}; wanted names, train and val")
    return settings


def _darknet(file: Path) -> dict[str, Any]:
    """The same settings from obj.data, whose paths begin with data/ in the place of its own folder"""
    lines = (line.partition("=") for line in read_lines(file))
    found = {key.strip(): value.strip().removeprefix("data/") for key, equals, value in lines if equals}
    if not is_inside(found.get("names", "")):
        raise DatasetError(
            f"{file}: names is {found.get('names')!r}; wanted a file of class names, such as data/obj.names"
        )
    settings: dict[str, Any] = {"names": read_names(file.parent / found["names"])}
    for split, key in (("train", "train"), ("val", "valid"), ("test", "test")):
        if key in found:
            settings[split] = found[key]
    return settings


def _names(settings: dict[str, Any], file: Path) -> list[str]:
    names = settings.get("names")
    if isinstance(names, dict) and sorted(names, key=str) == sorted(range(len(names)), key=str):
        names = [names[i] for i in range(len(names))]
    if not isinstance(names, list) or not names or not all(isinstance(n, (str, int)) for n in names):
        raise DatasetError(f"{file}: names is {str(names)[:80]}; wanted a list, or numbers from 0 with a name each")
    return [str(name) for name in names]


def _images(settings: dict[str, Any], split: str, file: Path, root: Path) -> Iterator[str]:
    """The images of a split, by their path from the root: of folders, or of text files that list images"""
    given = settings.get(split)
    if not {"train", "val", "test"} & set(settings) and (root / "images").is_dir():  # as supervision writes it
        given = "images"
    places: list[Any] = given if isinstance(given, list) else [given]
    if not places or not all(isinstance(place, str) and place for place in places):
        raise DatasetError(f"{file}: {split} is {str(given)[:80]}; wanted a folder of images, or several")
    for place in places:
        target = root / place
        if not target.exists() and place.startswith("../"):
            target = root / place.removeprefix("../")  # as Roboflow writes what lies beside data.yaml
        if target.is_file():
            lines = [line.strip() for line in read_lines(target) if line.strip()]
            # Darknet's lists begin with data/ in the place of their own folder.
            found = [root / (line.removeprefix("data/") if file.name == "obj.data" else line) for line in lines]
        elif target.is_dir():
            found = sorted(p for p in target.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES)
        else:
            raise DatasetError(f"{file}: {split} is {place!r}, and {target} is not there; wanted a folder of images")
        for image in found:
            try:
                yield image.resolve().relative_to(root.resolve()).as_posix()
            except ValueError:
                raise DatasetError(f"{target} has {image}, outside {root}; wanted images inside it") from None


def _labels_of(image: str) -> str:
    """As Ultralytics finds it: the last folder `images` becomes `labels`, the suffix .txt."""
    parts = Path(image).with_suffix(".txt").parts
    for i in reversed(range(len(parts) - 1)):
        if parts[i] == "images":
            return Path(*parts[:i], "labels", *parts[i + 1 :]).as_posix()
    return Path(*parts).as_posix()


def _box(builder: Builder, line: str, where: str, classes: int, width: int, height: int) -> None:
    words = line.split()
    if not words:
        return
    numbers = numbers_of(words, where, 5, "blanks")
    label = whole(numbers[0], where, "the class")
    if not 0 <= label < classes:
        raise DatasetError(f"{where}: the class is {label}; wanted 0..{classes - 1}, one of names")
    track = None
    if len(numbers) <= 6:
        x, y, w, h = numbers[1:5]
        track = whole(numbers[5], where, "the track") if len(numbers) == 6 else None
    elif len(numbers) % 2:
        across, down = numbers[1::2], numbers[2::2]
        w, h = max(across) - min(across), max(down) - min(down)
        x, y = min(across) + w / 2, min(down) + h / 2
        builder.note(f"polygons become the boxes around them, such as {where}")
    else:
        raise DatasetError(f"{where} has {len(numbers)} numbers; wanted 5 of a box, 6 with a track, or a polygon's")
    if max(map(abs, numbers[1:5])) > 2:
        raise DatasetError(f"{where} is {line[:80]!r}; wanted parts of the frame, 0..1")
    builder.box(from_coco_box(((x - w / 2) * width, (y - h / 2) * height, w * width, h * height)), label + 1, track)


FORMAT = Format(
    "yolo",
    "data.yaml or obj.data of a data set in the layout of Ultralytics or Darknet, or its folder",
    read_yolo,
    lambda path: path.name in _FILES or any((path / name).is_file() for name in _FILES),
    (Option("--split", "train, val or test of data.yaml; default: train", str, default="train"), VIDEO),
)
