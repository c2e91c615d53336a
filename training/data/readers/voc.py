"""Pascal VOC's XML: one file for each image."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

from rdn_engine.errors import DatasetError
from rdn_engine.evaluation.coco_vid import Box
from training.data.builder import Builder
from training.data.readers.base import (
    VIDEO,
    Format,
    Option,
    each_image,
    edges_box,
    image_size,
    images_in,
    numbers_of,
    read_lines,
    read_names,
    read_tree,
    whole,
)

_SIDES = ("xmin", "ymin", "xmax", "ymax")


def read_voc(
    root: Path, origin: int = 1, split: str | None = None, names: Path | None = None, video: bool = False
) -> Builder:
    """Pascal VOC: Annotations/NAME.xml and JPEGImages/; every image is a video of one frame.

    In VOC pixels count from 1 and the last one is inside. Tools that write edges from 0 instead, as datumaro and with
    it CVAT do, want `origin` 0; nothing in the file tells them apart. Objects marked difficult become ignore regions.

    Args:
        root: the folder of Annotations.
        origin: 1 for VOC's own numbers, 0 for edges in pixels from 0.
        split: takes the images of ImageSets/Main/SPLIT.txt alone; all by default.
        names: a file of class names, one in each line; by default those that occur, in the order of the alphabet.
        video: the images of a folder are the frames of one video.

    Returns:
        The data set, and how many boxes were cut or dropped.

    Raises:
        DatasetError: a file is missing, cannot be read, or does not have this layout.
    """
    if origin not in (0, 1):
        raise DatasetError(f"--origin {origin}; wanted 0 or 1")
    folder = root / "Annotations"
    images = {image.stem: image for image in images_in(root / "JPEGImages")}
    listed = _listed(root, split)
    paths = sorted(folder.rglob("*.xml"))
    if listed is not None:
        paths = [folder / f"{name}.xml" for name in listed]
        paths = [path for path in paths if path.is_file() or path.stem not in images]
    if not paths:
        raise DatasetError(f"{folder} holds no annotation; wanted NAME.xml for each of JPEGImages")
    trees = {path: read_tree(path) for path in paths}
    found = {_name(thing, path) for path, tree in trees.items() for thing in tree.iterfind("object")}
    classes = read_names(names) if names is not None else sorted(found)
    if found - set(classes):
        raise DatasetError(f"{folder} has {', '.join(sorted(found - set(classes)))}, which {names} does not name")
    builder = Builder(enumerate(classes, 1))
    sizes, of_image = {}, {}
    for path, tree in trees.items():
        name = f"JPEGImages/{(tree.findtext('filename') or '').strip() or path.stem + '.jpg'}"
        width, height = (whole(_number(tree, f"size/{side}", path), str(path), side) for side in ("width", "height"))
        if min(width, height) < 1:
            raise DatasetError(f"{path}: size is {width} x {height}; wanted 1 or more pixels each way")
        sizes[name], of_image[name] = (width, height), (path, tree)
    # A tool that writes no file for an image without an object, as datumaro, has nothing less to say of it.
    for stem, image in images.items():
        name = f"JPEGImages/{image.name}"
        if name not in sizes and (listed is None or stem in listed):
            sizes[name] = image_size(image)
            builder.note(f"images without a file in Annotations show nothing, such as {name}")
    lowest = 1.0
    for name in each_image(builder, sizes, video):
        if name not in of_image:
            continue
        path, tree = of_image[name]
        for thing in tree.iterfind("object"):
            x1, y1, x2, y2 = (_number(thing, f"bndbox/{side}", path) for side in _SIDES)
            lowest = min(lowest, x1, y1)
            box: Box = (x1 - 1, y1 - 1, x2 - 1, y2 - 1) if origin == 1 else edges_box(x1, y1, x2, y2)
            ignore = (thing.findtext("difficult") or "0").strip() == "1"
            builder.box(box, classes.index(_name(thing, path)) + 1, _track(thing), ignore)
    if origin == 1:
        clue = f"; a box begins at {lowest:g}, so they seem to count from 0" if lowest < 1 else ""
        builder.note(f"pixels are taken to count from 1, the last one inside; --origin 0 reads edges from 0{clue}")
    return builder


def _listed(root: Path, split: str | None) -> list[str] | None:
    """The names of an image set, None for none; the second column, 1 or -1, is passed over."""
    if split is None:
        return None
    lines = read_lines(root / "ImageSets/Main" / f"{split}.txt")
    return [line.split()[0] for line in lines if line.strip()]


def _track(thing: ET.Element) -> str | None:
    """The attribute `track_id` as datumaro writes it"""
    for attribute in thing.iterfind("attributes/attribute"):
        if attribute.findtext("name") == "track_id":
            return attribute.findtext("value")
    return None


def _name(thing: ET.Element, path: Path) -> str:
    name = (thing.findtext("name") or "").strip()
    if not name:
        raise DatasetError(f"{path}: an object has no name; wanted its class")
    return name


def _number(element: ET.Element, field: str, path: Path) -> float:
    return numbers_of([element.findtext(field) or ""], f"{path}: {field}", 1)[0]


FORMAT = Format(
    "voc",
    "the folder with Annotations and JPEGImages",
    read_voc,
    lambda path: (path / "Annotations").is_dir() and (path / "JPEGImages").is_dir(),
    (
        Option("--origin", "1 where pixels count from 1 (VOC), 0 for edges from 0; default: 1", int, default=1),
        Option("--split", "the images of ImageSets/Main/SPLIT.txt alone", str),
        Option("--names", "class names, one in each line; default: those that occur"),
        VIDEO,
    ),
)
