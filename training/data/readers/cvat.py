"""CVAT's own XML, version 1.1: for video (tracks) and for images."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ET
from collections import defaultdict
from pathlib import Path

from rdn_engine.errors import DatasetError
from rdn_engine.evaluation.coco_vid import Box
from training.data.builder import Builder
from training.data.readers.base import (
    FIRST_IMAGE,
    IMAGE_SUFFIXES,
    IMAGES,
    VIDEO,
    Format,
    Option,
    each_image,
    edges_box,
    frame_image,
    frames_of,
    head,
    image_size,
    near,
    numbers_of,
    read_tree,
    whole,
)
from training.data.readers.keyframes import Keyframe, at_frames

IGNORE = (
    Option("--ignore-label", "label whose boxes become ignore regions of all classes", str),
    Option("--ignore-attribute", "attribute that makes a box an ignore region of its class where it is true", str),
)
_TRUE = {"true", "1", "yes"}
_TRACK = "<track "
_SIDES = ("xtl", "ytl", "xbr", "ybr")


def read_cvat_video(
    path: Path,
    images: Path | None = None,
    first_image: int = 0,
    ignore_label: str | None = None,
    ignore_attribute: str | None = None,
) -> Builder:
    """CVAT for video 1.1: tracks move linearly between keyframes as CVAT shows them; one task is one video.

    Sides are edges in pixels from 0. Frames have the numbers of the video, from 0: those of the task are start_frame
    and every step-th after it. `outside="1"` ends an object before that frame. A rotated box becomes the one around it.

    Args:
        path: of annotations.xml, or a folder of exports, each in a folder of its own.
        images: the folder of the frames, whose names end in their number, or of the folders of several exports; by
            default images/ beside each file, or the folder that it is in.
        first_image: number in the name of a video's frame 0.
        ignore_label: boxes of this label become ignore regions of all classes.
        ignore_attribute: boxes with this attribute at true, 1 or yes become ignore regions of their class. No other
            attribute is kept.

    Returns:
        The data set, and how many boxes were cut or dropped; file names begin in `images`, or in the folder of `path`.

    Raises:
        DatasetError: a file cannot be read, is not of this layout, or frames of a task are missing.
    """
    top = path if path.is_dir() else path.parent
    files = sorted(path.rglob("annotations.xml")) if path.is_dir() else [path]
    if not files:
        raise DatasetError(f"{path} holds no annotations.xml; wanted exports as CVAT for video 1.1")
    trees = {file: _annotations(file) for file in files}
    builder, labels = _builder(trees, path, ignore_label)
    for file, tree in trees.items():
        folder = file.parent / "images" if (file.parent / "images").is_dir() else file.parent
        if images is not None:
            folder = images / file.parent.relative_to(top)
        _read_task(builder, tree, file, folder, images or top, labels, first_image, ignore_label, ignore_attribute)
    return builder


def _read_task(
    builder: Builder,
    tree: ET.Element,
    path: Path,
    folder: Path,
    root: Path,
    labels: dict[str, int],
    first_image: int,
    ignore_label: str | None,
    ignore_attribute: str | None,
) -> None:
    task = tree.find("meta/task")
    task = task if task is not None else tree.find("meta/job")
    if task is None or tree.find("image") is not None:
        raise DatasetError(f"{path} holds no task with tracks; wanted an export as CVAT for video 1.1 of one task")
    found = frames_of(folder)
    frames = _task_frames(builder, task, path, found, first_image, folder)
    boxes = defaultdict(list)
    for number, track in enumerate(tree.iter("track")):
        where = f"{path}: track {track.get('id', number)}"
        label = _label(track, labels, where, ignore_label)
        if track.find("box") is None:
            builder.note(f"shapes other than boxes are left out, such as those of {where}")
        keyframes = _keyframes(track, where, ignore_attribute)
        for one in keyframes:
            if one.shown and one.t not in frames:  # of a deleted frame CVAT exports no box
                frame_image(found, one.t, first_image, folder)
                raise DatasetError(f"{where} has a box in frame {one.t}; wanted frames of the task alone")
        for t, box, ignore in at_frames(keyframes, list(frames)):
            boxes[t].append((box, label, number, ignore))
    place = folder.relative_to(root)
    place = place.parent if place.name == "images" else place
    name = (task.findtext("name") or task.findtext("source") or "").strip()
    builder.video(name if place == Path() and name else place.as_posix() if place != Path() else path.stem)
    for t, image in frames.items():
        width, height = image_size(image)
        builder.frame(image.relative_to(root).as_posix(), width, height, t)
        for box, label, number, ignore in boxes[t]:
            if label is None:
                builder.ignore_region(box)
            else:
                builder.box(box, label, number, ignore)


def _task_frames(
    builder: Builder, task: ET.Element, path: Path, found: dict[int, Path], first_image: int, folder: Path
) -> dict[int, Path]:
    """The frames of the task that have an image, by their number in the video"""
    start, stop, size = (_whole(task, name, path) for name in ("start_frame", "stop_frame", "size"))
    step = re.fullmatch(r"\s*(?:step\s*=\s*(\d+))?\s*", task.findtext("frame_filter") or "")
    if step is None:
        raise DatasetError(f"{path}: frame_filter is {task.findtext('frame_filter')!r}; wanted step=N, or nothing")
    every = int(step[1] or 1)
    if every < 1:
        raise DatasetError(f"{path}: frame_filter is {task.findtext('frame_filter')!r}; wanted a step of 1 or more")
    first = start or 0
    last = stop if stop is not None else ((size - 1) * every + first if size else None)
    numbers = [n - first_image for n in found if n >= first_image]
    frames = [t for t in numbers if t >= first and (t - first) % every == 0 and (last is None or t <= last)]
    if last is not None and first not in frames and last + 1 in numbers:  # one off: 1..N in the place of 0..N - 1
        frame_image(found, first, first_image, folder)
    lacking = (last - first) // every + 1 - len(frames) if last is not None else 0
    if lacking > 0:
        builder.note(f"{lacking} frames of the task have no image in {folder}, as frames that were deleted have none")
    return {t: found[t + first_image] for t in frames}


def read_cvat_images(
    path: Path,
    images: Path | None = None,
    ignore_label: str | None = None,
    ignore_attribute: str | None = None,
    video: bool = False,
) -> Builder:
    """CVAT for images 1.1: each image is a video of one frame, sides are edges in pixels from 0; there are no tracks.

    Args:
        path: of annotations.xml.
        images: the folder that the names of the images start from; images/ beside the file, or its own, by default.
        ignore_label: boxes of this label become ignore regions of all classes.
        ignore_attribute: boxes with this attribute at true, 1 or yes become ignore regions of their class. No other
            attribute is kept.
        video: the images of a folder are the frames of one video.

    Returns:
        The data set, and how many boxes were cut or dropped.

    Raises:
        DatasetError: the file cannot be read, or is not of this layout.
    """
    tree = _annotations(path)
    if tree.find("track") is not None:
        raise DatasetError(f"{path} holds tracks; wanted an export as CVAT for images 1.1, or the format cvat-video")
    builder, labels = _builder({path: tree}, path, ignore_label)
    prefix = "images/" if images is None and (path.parent / "images").is_dir() else ""
    sizes, found = {}, {}
    for image in tree.iter("image"):
        name = image.get("name", "")
        where = f"{path}: image {name!r}"
        width, height = (_integer(image, side, where) for side in ("width", "height"))
        if min(width, height) < 1:
            raise DatasetError(f"{where} is {width} x {height}; wanted 1 or more pixels each way")
        file_name = prefix + _file_name(name, (images or path.parent) / prefix)
        if file_name in sizes:
            raise DatasetError(f"{where} is there twice; wanted each image once")
        sizes[file_name], found[file_name] = (width, height), (image, where)
    for file_name in each_image(builder, sizes, video):
        image, where = found[file_name]
        for box in image.iter("box"):
            label = _label(box, labels, where, ignore_label)
            if label is None:
                builder.ignore_region(_box(box, where))
            else:
                builder.box(_box(box, where), label, ignore=_marked(box, ignore_attribute))
        if any(shape.tag not in ("box", "tag", "attribute") for shape in image):
            builder.note(f"shapes other than boxes are left out, such as those of {where}")
    return builder


def _file_name(name: str, folder: Path) -> str:
    """Of a video's frame CVAT writes the name without its suffix, frame_000000."""
    if Path(name).suffix.lower() in IMAGE_SUFFIXES:
        return name
    there = [name + suffix for suffix in IMAGE_SUFFIXES + tuple(s.upper() for s in IMAGE_SUFFIXES)]
    return next((one for one in there if (folder / one).is_file()), name)


def _annotations(path: Path) -> ET.Element:
    tree = read_tree(path)
    version = tree.findtext("version")
    if tree.tag != "annotations" or version not in ("1.0", "1.1"):
        raise DatasetError(f"{path} is <{tree.tag}> of version {version}; wanted CVAT's <annotations> of 1.1")
    return tree


def _builder(trees: dict[Path, ET.Element], path: Path, ignore_label: str | None) -> tuple[Builder, dict[str, int]]:
    """The labels of all tasks, in the order in which they come"""
    names: list[str] = []
    for tree in trees.values():
        own = [(label.findtext("name") or "").strip() for label in tree.iterfind("meta//labels/label")]
        # A file without the task's labels, as other tools write it, has the ones that occur.
        names += own or sorted({e.get("label", "") for e in tree.iter() if e.tag in ("track", "box")})
    labels = {name: 0 for name in names if name and name != ignore_label}
    if not labels:
        raise DatasetError(f"{path} has no labels; wanted one or more")
    labels = {name: i for i, name in enumerate(labels, 1)}
    return Builder((i, name) for name, i in labels.items()), labels


def _label(element: ET.Element, labels: dict[str, int], where: str, ignore_label: str | None) -> int | None:
    name = element.get("label")
    if name is not None and name == ignore_label:
        return None
    if name not in labels:
        raise DatasetError(f"{where}: the label is {name!r}; wanted one of {', '.join(labels)}")
    return labels[name]


def _marked(box: ET.Element, attribute: str | None) -> bool:
    """Whether an attribute of this name is true"""
    return attribute is not None and any(
        one.get("name") == attribute and (one.text or "").strip().lower() in _TRUE for one in box.iterfind("attribute")
    )


def _keyframes(track: ET.Element, where: str, ignore_attribute: str | None) -> list[Keyframe]:
    found: dict[int, Keyframe] = {}
    for box in track.iterfind("box"):
        t = _integer(box, "frame", where)
        if t in found:
            raise DatasetError(f"{where} has two boxes in frame {t}; wanted one")
        inside = box.get("outside", "0") != "1"
        marked = _marked(box, ignore_attribute)
        found[t] = Keyframe(t, _box(box, f"{where}, frame {t}"), inside, inside, marked)
    return [found[t] for t in sorted(found)]


def _box(box: ET.Element, where: str) -> Box:
    x1, y1, x2, y2 = numbers_of([box.get(side, "") for side in _SIDES], f"{where}: {', '.join(_SIDES)}", 4)
    turn = math.radians(numbers_of([box.get("rotation", "0")], f"{where}: rotation", 1)[0])
    if turn:  # about its middle; the detector's boxes are upright
        w, h, cos, sin = x2 - x1, y2 - y1, abs(math.cos(turn)), abs(math.sin(turn))
        x, y, wide, high = (x1 + x2) / 2, (y1 + y2) / 2, w * cos + h * sin, w * sin + h * cos
        x1, y1, x2, y2 = x - wide / 2, y - high / 2, x + wide / 2, y + high / 2
    return edges_box(x1, y1, x2, y2)


def _integer(element: ET.Element, name: str, where: str) -> int:
    return whole(numbers_of([element.get(name, "")], f"{where}: {name}", 1)[0], where, name)


def _whole(task: ET.Element, name: str, path: Path) -> int | None:
    text = (task.findtext(name) or "").strip()
    return whole(numbers_of([text], f"{path}: {name}", 1)[0], str(path), name) if text else None


def _is_cvat(path: Path, mark: str) -> bool:
    if path.is_dir() and mark == _TRACK:
        path = near(path, "annotations.xml") or path
    text = head(path, 1 << 20)
    return path.suffix.lower() == ".xml" and "<annotations>" in text and mark in text


TRACKS = Format(
    "cvat-video",
    "annotations.xml of an export as CVAT for video 1.1, or a folder of exports",
    read_cvat_video,
    lambda path: _is_cvat(path, _TRACK),
    (IMAGES, FIRST_IMAGE, *IGNORE),
)
STILLS = Format(
    "cvat-images",
    "annotations.xml of an export as CVAT for images 1.1",
    read_cvat_images,
    lambda path: _is_cvat(path, "<image "),
    (IMAGES, *IGNORE, VIDEO),
)
