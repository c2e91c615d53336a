"""Text of DarkLabel, whose columns the user chooses."""

from __future__ import annotations

import csv
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from rdn_engine.errors import DatasetError
from rdn_engine.evaluation.coco_vid import Box, from_coco_box
from training.data.builder import Builder
from training.data.readers.base import (
    FIRST_IMAGE,
    IMAGES,
    Format,
    Option,
    frame_image,
    frames_of,
    image_size,
    images_in,
    numbers_of,
    read_lines,
    read_names,
    whole,
)

COLUMNS = "fn,cname,id,x1,y1,w,h"
"""DarkLabel's own example of boxes in a video"""
_CORNERS = {"x1", "y1", "x2", "y2", "cx", "cy", "w", "h"}
_KNOWN = {"fn", "iname", "cname", "classid", "id", "difficult"} | _CORNERS | {f"n{name}" for name in _CORNERS}
_FORMS = ({"x1", "y1", "w", "h"}, {"x1", "y1", "x2", "y2"}, {"cx", "cy", "w", "h"})


@dataclass(frozen=True, slots=True)
class _Row:
    label: str
    track: int | None
    sides: dict[str, float]
    ignore: bool


def read_darklabel(
    path: Path,
    images: Path | None = None,
    first_image: int = 0,
    columns: str = COLUMNS,
    names: Path | None = None,
) -> Builder:
    """Text files of DarkLabel 2.x, one for each video, all of its frames in it ("gt_merged: 1").

    Frames and pixels count from 0. x2 and y2 are the last pixels inside: w = x2 - x1 + 1. What starts with n is a part
    of the frame's width or height. `difficult` boxes become ignore regions.

    Args:
        path: of a text file, or of a folder of them.
        images: the folder that holds a folder of frames for each file, by its name without suffix, or the frames of a
            single one; beside the files by default.
        first_image: number in the name of frame 0's image.
        columns: as `data_fmt` in darklabel.yml; a column c=VALUE is passed over.
        names: the class set, a name in each line, for files with `classid`.

    Returns:
        The data set, and how many boxes were cut or dropped.

    Raises:
        DatasetError: a file cannot be read, its columns are not these, or a frame is missing.
    """
    wanted = [word.strip() for word in columns.strip("[] ").split(",")]
    _check_columns(wanted, columns, names)
    files = sorted(path.glob("*.txt")) if path.is_dir() else [path]
    if not files:
        raise DatasetError(f"{path} holds no text file; wanted one for each video")
    listed = read_names(names) if names is not None else []
    rows = {file: _rows(file, wanted, listed) for file in files}
    classes = listed or sorted({row.label for of_file in rows.values() for of in of_file.values() for row in of})
    builder = Builder(enumerate(classes, 1))
    root = images or (path if path.is_dir() else path.parent)
    for file, found in rows.items():
        folder = root / file.stem
        if not folder.is_dir() and len(files) == 1:
            folder = root
        builder.video(file.stem)
        frames = _frames(found, file, folder, first_image, "iname" in wanted)
        for key, (t, image) in frames.items():
            width, height = image_size(image)
            builder.frame(image.relative_to(root).as_posix(), width, height, t)
            for row in found.get(key, []):
                builder.box(_box(row.sides, width, height), classes.index(row.label) + 1, row.track, row.ignore)
    return builder


def _frames(
    rows: dict[str, list[_Row]], path: Path, folder: Path, first_image: int, by_name: bool
) -> dict[str, tuple[int, Path]]:
    """Position and image of each frame, by the name or number that rows give: a frame without a box is one, too."""
    if by_name:
        frames = {image.name: (t, image) for t, image in enumerate(images_in(folder))}
        missing = sorted(set(rows) - set(frames))
        if missing:
            raise DatasetError(f"{path} has boxes of {missing[0]}, which {folder} does not hold; wanted its images")
        return frames
    found = frames_of(folder)
    for frame in rows:
        frame_image(found, int(frame), first_image, folder)
    numbers = {number - first_image: image for number, image in found.items() if number >= first_image}
    return {str(t): (t, image) for t, image in numbers.items()}


def _check_columns(columns: list[str], given: str, names: Path | None) -> None:
    unknown = sorted(c for c in columns if c not in _KNOWN and not c.startswith("c="))
    if unknown or not {"fn", "iname"} & set(columns):
        raise DatasetError(
            f"--columns {given}: {', '.join(unknown) or 'neither fn nor iname'}; wanted DarkLabel's names of columns, "
            f"such as {COLUMNS}"
        )
    sides = {c.removeprefix("n") for c in columns if c.removeprefix("n") in _CORNERS}
    if sides not in _FORMS:
        raise DatasetError(f"--columns {given}: a box of {sorted(sides)}; wanted x1,y1,w,h or x1,y1,x2,y2 or cx,cy,w,h")
    if not {"cname", "classid"} & set(columns) or ("cname" not in columns and names is None):
        raise DatasetError(f"--columns {given} name no class; wanted cname, or classid and --names FILE with its names")


def _rows(path: Path, columns: list[str], names: list[str]) -> dict[str, list[_Row]]:
    """The boxes of each frame, one a line, by its number or the name of its image"""
    rows = defaultdict(list)
    key = "fn" if "fn" in columns else "iname"
    for i, values in enumerate(csv.reader(read_lines(path), skipinitialspace=True), 1):
        words = [word.strip() for word in values]
        while words and not words[-1]:
            words.pop()
        if not words:
            continue
        where = f"{path}, line {i}"
        if len(words) != len(columns):
            raise DatasetError(f"{where} is {','.join(values)[:80]!r}; wanted the {len(columns)} columns {columns}")
        row = dict(zip(columns, words, strict=True))
        sides = [c for c in columns if c.removeprefix("n") in _CORNERS]
        numbers = dict(zip(sides, numbers_of([row[c] for c in sides], where, len(sides)), strict=True))
        frame = row[key] if key == "iname" else str(_number(row, "fn", where))
        track = _number(row, "id", where) if "id" in row else None
        difficult = "difficult" in row and _number(row, "difficult", where) != 0
        rows[frame].append(_Row(_label(row, names, where), track, numbers, difficult))
    return dict(rows)


def _label(row: dict[str, str], names: list[str], where: str) -> str:
    if "cname" in row:
        if not row["cname"] or (names and row["cname"] not in names):
            raise DatasetError(f"{where}: the class is {row['cname']!r}; wanted {', '.join(names) or 'a name'}")
        return row["cname"]
    label = _number(row, "classid", where)
    if not 0 <= label < len(names):
        raise DatasetError(f"{where}: the class is {label}; wanted 0..{len(names) - 1}, a line of --names")
    return names[label]


def _number(row: dict[str, str], column: str, where: str) -> int:
    return whole(numbers_of([row[column]], f"{where}: {column}", 1)[0], where, column)


def _box(sides: dict[str, float], width: int, height: int) -> Box:
    """Sides in pixels or, with names that start with n, in parts of the frame"""
    pixels = {}
    for name, value in sides.items():
        across = width if name[1:] in ("x1", "x2", "cx", "w") else height
        pixels[name.removeprefix("n")] = value * across if name.startswith("n") else value
    if "x2" in pixels:
        last = 1 if "nx2" in sides else 0  # an edge in parts of the frame, a last pixel in pixels
        return pixels["x1"], pixels["y1"], pixels["x2"] - last, pixels["y2"] - last
    w, h = pixels["w"], pixels["h"]
    if "cx" in pixels:
        return from_coco_box((pixels["cx"] - w / 2, pixels["cy"] - h / 2, w, h))
    return from_coco_box((pixels["x1"], pixels["y1"], w, h))


FORMAT = Format(
    "darklabel",
    "a text file of DarkLabel, all frames of a video in it, or a folder of such",
    read_darklabel,
    lambda path: False,  # columns of the user's choice: nothing tells them apart from other text
    (
        IMAGES,
        FIRST_IMAGE,
        Option("--columns", f"data_fmt of darklabel.yml; default: {COLUMNS}", str, default=COLUMNS),
        Option("--names", "the class set, a name in each line, for files with classid"),
    ),
)
