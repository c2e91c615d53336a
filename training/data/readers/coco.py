"""COCO's JSON: of single images, and with videos as TAO, mmtracking and CocoVID itself have it."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from rdn_engine.errors import DatasetError
from rdn_engine.evaluation.coco_vid import Row, from_coco_box, read_json, rows_of
from training.data.builder import Builder
from training.data.readers.base import VIDEO, Format, Option, each_image, head, track_of


def read_coco(path: Path, video: bool = False) -> Builder:
    """COCO's instances JSON: x, y, width, height in pixels from 0, edges; tracks are the attribute `track_id`.

    Each image is a video of one frame. Crowds become ignore regions. Masks are not read.

    Args:
        path: of the JSON file.
        video: the images of a folder are the frames of one video, as annotation tools export one.

    Returns:
        The data set, and how many boxes were cut or dropped.

    Raises:
        DatasetError: the file cannot be read, or is not of this layout.
    """
    data = read_json(path)
    builder = Builder((row.integer("id"), row.text("name")) for row in rows_of(data, "categories", path))
    images = rows_of(data, "images", path)
    boxes = _boxes(data, images, builder, path)
    sizes = {row.text("file_name"): (row.size("width"), row.size("height")) for row in images}
    number = {row.text("file_name"): row.integer("id") for row in images}
    for name in each_image(builder, sizes, video):
        for row in boxes[number[name]]:
            _box(builder, row, row.mapping("attributes").get("track_id"))
    return builder


def read_coco_video(path: Path, short_boxes: bool = False) -> Builder:
    """COCO's JSON with `videos`, and images with `video_id`: CocoVID, mmtracking's converters, TAO.

    The order of frames is `frame_id`, `frame_index` or `frame_number`; tracks are `instance_id` or `track_id`. Crowds
    and `ignore` become ignore regions. Of TAO the categories without a box stay: its ids are LVIS's.

    Args:
        path: of the JSON file.
        short_boxes: adds a pixel to every width and height: mmtracking's converter of ImageNet VID writes xmax - xmin,
            where the last pixel is inside.

    Returns:
        The data set, and how many boxes were cut or dropped.

    Raises:
        DatasetError: the file cannot be read, or is not of this layout.
    """
    data = read_json(path)
    builder = Builder((row.integer("id"), row.text("name")) for row in rows_of(data, "categories", path))
    videos = {row.integer("id"): row.text("name") for row in rows_of(data, "videos", path)}
    images = rows_of(data, "images", path)
    boxes = _boxes(data, images, builder, path)
    of_video = defaultdict(list)
    for image in images:
        of_video[image.reference("video_id", set(videos), "videos")].append(image)
    for video_id, name in videos.items():
        builder.video(name)
        for image in sorted(of_video[video_id], key=_frame_number):
            train = image.flag("is_vid_train_frame", True)
            width, height = image.size("width"), image.size("height")
            builder.frame(image.text("file_name"), width, height, _frame_number(image), train)
            for row in boxes[image.integer("id")]:
                track = row.data.get("instance_id", row.data.get("track_id"))
                _box(builder, row, track, 1 if short_boxes else 0)
    if not short_boxes and _looks_short(boxes):
        builder.note(
            "the annotations look like those of mmtracking's converter of ImageNet VID, whose boxes are a pixel short: "
            "--short-boxes adds it. Its file names begin below Data/VID: --images ILSVRC2015/Data/VID for the check"
        )
    return builder


def _looks_short(boxes: dict[int, list[Row]]) -> bool:
    """Whether every annotation has the fields that converter writes of VID's XML"""
    rows = [row for found in boxes.values() for row in found]
    return bool(rows) and all({"generated", "occluded"} <= set(row.data) for row in rows)


def _frame_number(image: Row) -> int:
    name = next((n for n in ("frame_id", "frame_index", "frame_number") if n in image.data), "frame_id")
    return image.integer(name)


def _boxes(data: dict[str, object], images: list[Row], builder: Builder, path: Path) -> dict[int, list[Row]]:
    """The annotations of each image that have a box"""
    known, classes = {image.integer("id") for image in images}, {c.id for c in builder.dataset.categories}
    if len(known) < len(images):
        raise DatasetError(f"{path}: images has an id twice; wanted distinct ids")
    boxes = defaultdict(list)
    for row in rows_of(data, "annotations", path):
        image_id = row.reference("image_id", known, "images")
        row.reference("category_id", classes, "categories")
        if not row.data.get("bbox"):
            builder.note(f"annotations without a box are left out, such as {row.where}")
            continue
        boxes[image_id].append(row)
    return boxes


def _box(builder: Builder, row: Row, track: object, add: int = 0) -> None:
    x, y, width, height = row.box("bbox")
    ignore = row.flag("iscrowd", False) or row.flag("ignore", False)
    box = from_coco_box((x, y, width + add, height + add))
    builder.box(box, row.integer("category_id"), track_of(track), ignore)


def _found(path: Path, video: bool) -> bool:
    if path.suffix.lower() != ".json":
        return False
    text = head(path, 1 << 24)  # the sections come in any order
    return '"images"' in text and '"categories"' in text and ('"video_id"' in text) == video


IMAGES_FORMAT = Format(
    "coco",
    "the JSON file of COCO's layout",
    read_coco,
    lambda path: _found(path, video=False),
    (VIDEO,),
)
VIDEO_FORMAT = Format(
    "coco-video",
    "the JSON file of CocoVID, mmtracking or TAO",
    read_coco_video,
    lambda path: _found(path, video=True),
    (Option("--short-boxes", "add the pixel that mmtracking's converter of VID leaves out", None, default=False),),
)
