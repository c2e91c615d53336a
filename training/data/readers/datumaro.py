"""Datumaro's own JSON."""

from __future__ import annotations

from pathlib import Path

from rdn_engine.evaluation.coco_vid import Row, from_coco_box, read_json, rows_of
from training.data.builder import Builder
from training.data.readers.base import IMAGES, VIDEO, Format, each_image, head, image_size, track_of


def read_datumaro(path: Path, images: Path | None = None, video: bool = False) -> Builder:
    """Datumaro's JSON, dm_format_version 1.0: x, y, width, height in pixels from 0, classes counted from 0.

    Each item is a video of one frame. Tracks are the attribute `track_id`.

    Args:
        path: of annotations/SUBSET.json.
        images: the folder of the images; images/SUBSET beside annotations/ by default.
        video: the images of a folder are the frames of one video.

    Returns:
        The data set, and how many boxes were cut or dropped.

    Raises:
        DatasetError: the file cannot be read, or is not of this layout.
    """
    data = read_json(path)
    folder = images or path.parent.parent / "images" / path.stem
    names = Row(Row(data, str(path)).mapping("categories"), f"{path}: categories").mapping("label")
    labels = [row.text("name") for row in rows_of(names, "labels", f"{path}: categories.label")]
    builder = Builder(enumerate(labels, 1))
    found = {}
    for item in rows_of(data, "items", path):
        name, width, height = _image(item, folder)
        if name in found:
            item.refuse("image", f"one item of the image {name}")
        found[name] = (item, (width, height))
    for name in each_image(builder, {name: size for name, (_, size) in found.items()}, video):
        _boxes(builder, found[name][0], labels)
    return builder


def _image(item: Row, folder: Path) -> tuple[str, int, int]:
    """Name, width and height; Datumaro writes the height first."""
    image = item.data.get("image")
    if not isinstance(image, dict):
        item.refuse("image", "an image with path and size")
    row = Row(image, f"{item.where}.image")
    # An export without media leaves the path empty: then the item's own name is that of its image.
    name = row.text("path") if image.get("path") else f"{item.text('id')}.jpg"
    if "size" not in image:
        return (name, *image_size(folder / name))
    size = image["size"]
    if not isinstance(size, list) or len(size) != 2 or not all(isinstance(v, int) and v > 0 for v in size):
        row.refuse("size", "[height, width]")
    return name, size[1], size[0]


def _boxes(builder: Builder, item: Row, labels: list[str]) -> None:
    for shape in item.rows("annotations"):
        if shape.data.get("type") != "bbox":
            builder.note(f"shapes other than boxes are left out, such as {shape.where}")
            continue
        label = shape.integer("label_id")
        if not 0 <= label < len(labels):
            shape.refuse("label_id", f"0..{len(labels) - 1}")
        attributes = shape.mapping("attributes")
        ignore = attributes.get("is_crowd") in (True, 1, "true")
        builder.box(from_coco_box(shape.box("bbox")), label + 1, track_of(attributes.get("track_id")), ignore)


FORMAT = Format(
    "datumaro",
    "annotations/SUBSET.json of an export as Datumaro",
    read_datumaro,
    lambda path: path.suffix.lower() == ".json" and '"dm_format_version"' in head(path),
    (IMAGES, VIDEO),
)
