"""KITTI's tracking benchmark: a text file for each sequence."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from rdn_engine.errors import DatasetError
from training.data.builder import Builder
from training.data.readers.base import (
    IMAGES,
    Format,
    edges_box,
    none_left,
    numbers_of,
    read_lines,
    whole,
)
from training.data.readers.mot import sized

CLASSES = ("Car", "Van", "Truck", "Pedestrian", "Person", "Cyclist", "Tram", "Misc")
OTHER_NAMES = {"Person_sitting": "Person"}
"""As the detection benchmark calls it"""
DONT_CARE = "DontCare"
_COLUMNS = 10
"""frame, track, type, truncated, occluded, alpha, left, top, right, bottom, and the box in space, which is not read"""


def read_kitti(root: Path, images: Path | None = None) -> Builder:
    """KITTI tracking of 2012: label_02/0000.txt and image_02/0000/000000.png; frames and pixels from 0, edges of boxes.

    Regions that nobody annotated (DontCare, track -1) become ignore regions of all classes.

    Args:
        root: the folder of label_02, or that folder itself.
        images: the folder of image_02; `root` by default.

    Returns:
        The data set, and how many boxes were cut or dropped.

    Raises:
        DatasetError: a file is missing, cannot be read, or does not have this layout.
    """
    folder = root / "label_02" if (root / "label_02").is_dir() else root
    images = images or (root if folder != root else root.parent)
    files = sorted(folder.glob("*.txt"))
    if not files:
        raise DatasetError(f"{folder} holds no annotation; wanted 0000.txt and so on, and image_02/0000/ beside it")
    builder = Builder(enumerate(CLASSES, 1))
    for path in files:
        rows = _rows(path)
        builder.video(path.stem)
        for number, (file_name, width, height) in sized(images, images / "image_02" / path.stem).items():
            builder.frame(file_name, width, height, number)
            for name, track, sides in rows.pop(number, []):
                if name == DONT_CARE:
                    builder.ignore_region(edges_box(*sides))
                else:
                    builder.box(edges_box(*sides), CLASSES.index(name) + 1, track)
        none_left(rows, path)
    return builder


def _rows(path: Path) -> dict[int, list[tuple[str, int, list[float]]]]:
    rows = defaultdict(list)
    for i, line in enumerate(read_lines(path), 1):
        words = line.split()
        if not words:
            continue
        where = f"{path}, line {i}"
        if len(words) < _COLUMNS:
            raise DatasetError(f"{where} is {line[:80]!r}; wanted {_COLUMNS} columns or more")
        name = OTHER_NAMES.get(words[2], words[2])
        if name not in CLASSES and name != DONT_CARE:
            raise DatasetError(f"{where}: the type is {words[2]!r}; wanted one of {', '.join(CLASSES)}, {DONT_CARE}")
        frame, track, *sides = numbers_of([*words[:2], *words[6:10]], where, 6, "blanks")
        rows[whole(frame, where, "the frame")].append((name, whole(track, where, "the track"), sides))
    return dict(rows)


FORMAT = Format(
    "kitti",
    "the folder with label_02 and image_02",
    read_kitti,
    lambda path: (path / "label_02").is_dir() or (path.name == "label_02" and path.is_dir()),
    (IMAGES,),
)
