"""Label Studio's JSON of videos: regions of the tag VideoRectangle."""

from __future__ import annotations

import math
from collections import defaultdict
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from rdn_engine.errors import DatasetError
from rdn_engine.evaluation.coco_vid import Row, is_inside, read_json_value, rows_of
from training.data.builder import Builder
from training.data.readers.base import (
    FIRST_IMAGE,
    IMAGES,
    Format,
    edges_box,
    frame_image,
    frames_of,
    head,
    image_size,
    numbered_images,
    whole,
)
from training.data.readers.keyframes import Keyframe, at_frames

_SPARE = 2  # frames by which a browser's count of a video is off


def read_label_studio(path: Path, images: Path | None = None, first_image: int = 0) -> Builder:
    """Label Studio's export as JSON, of tasks with a video; of several annotations of a task the last one counts.

    Sides are percent of the frame; frames count from 1 in the file. Between keyframes the box moves linearly.
    `enabled: false` ends the object after that frame: Label Studio still shows it there. A turned box becomes the one
    around it.

    Args:
        path: of the JSON file.
        images: the folder of the frames, or of a folder for each video by the name of its file without suffix; beside
            the JSON by default.
        first_image: number in the name of a video's first frame; the frames are those at the rate of the Video tag.

    Returns:
        The data set, and how many boxes were cut or dropped.

    Raises:
        DatasetError: the file cannot be read, is not of this layout, or a frame is missing.
    """
    tasks = read_json_value(path)
    if isinstance(tasks, dict):
        tasks = [tasks]
    if not isinstance(tasks, list) or not tasks or not all(isinstance(task, dict) for task in tasks):
        raise DatasetError(f"{path} holds no list of tasks; wanted Label Studio's export as JSON")
    root = images or path.parent
    found = [_task(task, f"{path}: task {task.get('id', i)}") for i, task in enumerate(tasks)]
    names = sorted({label for _, regions in found for _, label in regions if label is not None})
    if not names:
        raise DatasetError(f"{path} has no labelled region of a video; wanted results of type videorectangle")
    builder = Builder(enumerate(names, 1))
    for video, regions in found:
        folder = root / video
        if not folder.is_dir() and len(found) == 1 and numbered_images(root):
            folder = root
        _video(builder, video, regions, frames_of(folder), folder, root, first_image)
    return builder


def _video(
    builder: Builder,
    name: str,
    regions: list[tuple[Row, str | None]],
    found: dict[int, Path],
    folder: Path,
    root: Path,
    first_image: int,
) -> None:
    frames = {number - first_image: image for number, image in found.items() if number >= first_image}
    width, height = image_size(next(iter(found.values())))  # the check compares the others with it
    boxes = defaultdict(list)
    names = {category.name: category.id for category in builder.dataset.categories}
    for number, (region, label) in enumerate(regions):
        if label is None:
            builder.note(f"regions without a label are left out, such as {region.where}")
            continue
        _check_count(builder, region, max(frames), folder)
        keyframes = _keyframes(region, width, height)
        for one in keyframes:
            frame_image(found, one.t, first_image, folder)
        for t, box, _ in at_frames(keyframes, list(frames)):
            boxes[t].append((box, names[label], number))
    builder.video(name)
    for t, image in frames.items():
        builder.frame(image.relative_to(root).as_posix(), width, height, t)
        for box, label_id, number in boxes[t]:
            builder.box(box, label_id, number)


def _check_count(builder: Builder, region: Row, last: int, folder: Path) -> None:
    """Label Studio counts frames by the frame rate of its tag, which may be another than the video's."""
    count = region.data.get("framesCount")
    if not isinstance(count, int) or count < 1:
        return
    if last + 1 > count + _SPARE:
        raise DatasetError(
            f"{region.where}: framesCount is {count}, and {folder} goes on to frame {last + 1}; wanted frames at the "
            "rate of Label Studio's Video tag, 24 by default: python training/data/frames.py VIDEO --fps 24 ..."
        )
    if last + 1 < count - _SPARE:
        builder.note(f"{region.where}: framesCount is {count}, and {folder} ends at frame {last + 1}")


def _task(task: dict[str, Any], where: str) -> tuple[str, list[tuple[Row, str | None]]]:
    """The name of the video's file without suffix, and its regions with their labels"""
    row = Row(task, where)
    annotations = [a for a in row.rows("annotations") if not a.data.get("was_cancelled")]
    regions = []
    for result in annotations[-1].rows("result") if annotations else []:
        if str(result.data.get("type", "")).lower() == "videorectangle":
            value = Row(result.mapping("value"), f"{result.where}.value")
            labels = value.data.get("labels") or value.data.get("rectanglelabels")
            label = labels[0] if isinstance(labels, list) and labels and isinstance(labels[0], str) else None
            regions.append((value, label))
    data = row.mapping("data")
    link = data.get("video", next((v for v in data.values() if isinstance(v, str) and v), None))
    name = _name(link) if isinstance(link, str) else ""
    if not is_inside(name):
        raise DatasetError(f"{where}: the video is {str(link)[:80]!r}; wanted the address of a video")
    return name, regions


def _name(link: str) -> str:
    """Files on the server's own disk are ?d=PATH; what was uploaded has eight digits and a hyphen before its name."""
    try:
        parts = urlsplit(link)
    except ValueError:
        return ""
    return PurePosixPath(unquote(parse_qs(parts.query).get("d", [parts.path])[0]).replace("\\", "/")).stem


def _keyframes(region: Row, width: int, height: int) -> list[Keyframe]:
    found: dict[int, Keyframe] = {}
    for key in rows_of(region.data, "sequence", region.where):
        frame = whole(key.number("frame"), key.where, "frame")
        if frame < 1:
            key.refuse("frame", "1 or more: frames of Label Studio count from 1")
        x, w = (key.number(side) * width / 100 for side in ("x", "width"))
        y, h = (key.number(side) * height / 100 for side in ("y", "height"))
        turn = math.radians(key.number("rotation") if key.data.get("rotation") is not None else 0)
        # About the corner x, y; the detector's boxes are upright, so it becomes the one around it.
        across = [x, x + w * math.cos(turn), x - h * math.sin(turn), x + w * math.cos(turn) - h * math.sin(turn)]
        down = [y, y + w * math.sin(turn), y + h * math.cos(turn), y + w * math.sin(turn) + h * math.cos(turn)]
        box = edges_box(min(across), min(down), max(across), max(down))
        found[frame] = Keyframe(frame - 1, box, key.flag("enabled", True))
    return [found[frame] for frame in sorted(found)]


FORMAT = Format(
    "label-studio",
    "the JSON file of an export of videos",
    read_label_studio,
    lambda path: path.suffix.lower() == ".json" and "videorectangle" in head(path, 1 << 20).lower(),
    (IMAGES, FIRST_IMAGE),
)
