"""VisDrone-VID and -MOT."""

from __future__ import annotations

from pathlib import Path

from rdn_engine.errors import DatasetError
from rdn_engine.evaluation.coco_vid import from_coco_box
from training.data.builder import Builder
from training.data.readers.base import Format, none_left, rows_by_frame, whole
from training.data.readers.mot import sized

CLASSES = (
    "pedestrian",
    "people",
    "bicycle",
    "car",
    "van",
    "truck",
    "tricycle",
    "awning-tricycle",
    "bus",
    "motor",
)
"""Categories 1..10; 0 is an ignored region, 11 `others`."""


def read_visdrone(root: Path) -> Builder:
    """VisDrone-VID (or -MOT): sequences/NAME/0000001.jpg and annotations/NAME.txt; pixels from 0, frames from 1.

    Ignored regions and `others` become ignore regions of all ten classes, boxes with score 0 of their own class.

    Args:
        root: the folder of both.

    Returns:
        The data set, and how many boxes were cut or dropped.

    Raises:
        DatasetError: a file is missing, cannot be read, or does not have this layout.
    """
    files = sorted((root / "annotations").glob("*.txt"))
    if not files:
        raise DatasetError(f"{root / 'annotations'} holds no annotation; wanted NAME.txt for each of sequences/NAME")
    builder = Builder(enumerate(CLASSES, 1))
    for path in files:
        rows = rows_by_frame(path, at_least=8)
        builder.video(path.stem)
        frames = sized(root, root / "sequences" / path.stem)
        origin = 0 if 0 in frames else 1
        for number, (file_name, width, height) in frames.items():
            builder.frame(file_name, width, height, number - origin)
            for values in rows.pop(number, []):
                where = f"{path}: frame {number}"
                box, label = from_coco_box(values[2:6]), whole(values[7], where, "the category")
                if not 0 <= label <= 11:
                    raise DatasetError(f"{where} has a box of category {label}; wanted 0..11")
                if label in (0, 11):
                    builder.ignore_region(box)
                else:
                    builder.box(box, label, whole(values[1], where, "the track"), ignore=values[6] == 0)
        none_left(rows, path)
    return builder


FORMAT = Format(
    "visdrone",
    "the folder with annotations and sequences",
    read_visdrone,
    lambda path: (path / "annotations").is_dir() and (path / "sequences").is_dir(),
)
