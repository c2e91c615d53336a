"""The JSON of YouTube-VIS, OVIS and LV-VIS."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path, PurePosixPath
from typing import Any

from rdn_engine.evaluation.coco_vid import Row, from_coco_box, is_box, read_json, rows_of
from training.data.builder import Builder
from training.data.readers.base import Format, head
from training.data.readers.masks import box_around


def read_youtube_vis(path: Path) -> Builder:
    """The boxes of a YouTube-VIS, OVIS or LV-VIS annotation file; crowds become ignore regions.

    A file that has no `bboxes` has the boxes around its masks (`segmentations`, compressed run lengths).

    Args:
        path: of the JSON file.

    Returns:
        The data set, and how many boxes were cut or dropped.

    Raises:
        DatasetError: the file cannot be read, or does not have this layout.
        BackendUnavailable: masks are to be read, and faster-coco-eval is not installed.
    """
    data = read_json(path)
    builder = Builder((row.integer("id"), row.text("name")) for row in rows_of(data, "categories", path))
    known = {c.id for c in builder.dataset.categories}
    videos = {row.integer("id"): row for row in rows_of(data, "videos", path)}
    for video in videos.values():
        names = video.data.get("file_names")
        if not isinstance(names, list) or not names or not all(isinstance(n, str) for n in names):
            video.refuse("file_names", "the names of the frames")
    tracks = defaultdict(list)
    video_ids = set(videos)
    for row in rows_of(data, "annotations", path):
        video = videos[row.reference("video_id", video_ids, "videos")]
        boxes = _boxes(row, video)
        label = row.reference("category_id", known, "categories")
        tracks[video.integer("id")].append((label, row, boxes, row.flag("iscrowd", False)))
    for video_id, video in videos.items():
        names = video.data["file_names"]
        builder.video(PurePosixPath(names[0]).parent.as_posix())
        for t, name in enumerate(names):
            builder.frame(name, video.size("width"), video.size("height"), t)
            for category_id, row, boxes, crowd in tracks[video_id]:
                if boxes[t] is not None:
                    builder.box(boxes[t], category_id, row.integer("id"), crowd)
    return builder


def _boxes(row: Row, video: Row) -> list[Any]:
    """One box or None for each frame of the video"""
    count = len(video.data["file_names"])
    name = "bboxes" if "bboxes" in row.data or "segmentations" not in row.data else "segmentations"
    found = row.data.get(name)
    if not isinstance(found, list) or len(found) != count:
        row.refuse(name, f"a list of {count} boxes or nulls, one for each frame of video {video.integer('id')}")
    if name == "segmentations":
        width, height = video.size("width"), video.size("height")
        masks = [None if m is None else Row({"mask": m}, f"{row.where}.{name}[{t}]") for t, m in enumerate(found)]
        return [None if m is None else box_around(m, "mask", width, height) for m in masks]
    if not all(box is None or is_box(box) for box in found):
        row.refuse("bboxes", "boxes [x, y, width, height] of finite numbers, or nulls")
    return [None if box is None else from_coco_box(box) for box in found]


FORMAT = Format(
    "youtube-vis",
    "the annotation file of YouTube-VIS, OVIS or LV-VIS",
    read_youtube_vis,
    lambda path: path.suffix.lower() == ".json" and '"file_names"' in head(path, 1 << 24),
)
