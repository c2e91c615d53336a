"""MOTChallenge's layout, as the challenges have it and as annotation tools export it with classes of their own."""

from __future__ import annotations

import configparser
from pathlib import Path

from rdn_engine.errors import DatasetError
from rdn_engine.evaluation.coco_vid import from_coco_box, read_json
from rdn_engine.text import read_text
from training.data.builder import Builder
from training.data.readers.base import (
    Format,
    Option,
    frames_of,
    image_size,
    near,
    none_left,
    read_names,
    rows_by_frame,
    whole,
)

PEDESTRIAN = 1
IGNORED = {2, 6, 7, 8, 12, 13}
"""Person on vehicle, vehicle without motor, static person, distractor, reflection, crowd: neither right nor wrong"""
OTHER = {3, 4, 5, 9, 10, 11}
"""Car, bicycle, motorbike and the occluders: no people"""

_MOST = 1_000_000
"""Frames of a sequence, and pixels of a side"""


def read_mot(root: Path, min_visibility: float = 0.0, names: Path | None = None) -> Builder:
    """Sequences in MOTChallenge's layout: gt/gt.txt, frames in img1/ and, as the challenges have it, seqinfo.ini.

    Without class names the classes are MOTChallenge's and pixels count from 1: pedestrians are the only class, those
    marked 0 and what looks like a pedestrian become ignore regions, other things are left out. With class names, from
    gt/labels.txt as CVAT writes it or dataset_meta.json as datumaro does, every class is kept, pixels count from 0, and
    what is marked 0 becomes an ignore region of its class. Frames count from 1, or from 0 where a frame 0 is there.

    Args:
        root: the folder of the sequences.
        min_visibility: objects seen less than this part, 0..1, become ignore regions.
        names: a file with the class names, one in each line, for sequences that bring none.

    Returns:
        The data set, and how many boxes were cut or dropped.

    Raises:
        DatasetError: a file is missing, cannot be read, or does not have this layout.
    """
    files = sorted(root.rglob("gt/gt.txt"))
    if not files:
        raise DatasetError(f"{root} holds no sequence; wanted SEQUENCE/gt/gt.txt and SEQUENCE/img1/")
    given = read_names(names) if names is not None else []
    found = {path: _names(path, root) or given for path in files}
    classes = found[files[0]]
    for path, other in found.items():
        if other != classes:
            raise DatasetError(f"{path.parent} has the classes {other}; wanted {classes} as {files[0].parent} has them")
    builder = Builder(enumerate(classes or ["pedestrian"], 1))
    if not classes:
        builder.note(
            "no class names beside gt.txt: read as MOTChallenge, pedestrians alone, pixels from 1; "
            "--names says the classes of another set"
        )
    for path in files:
        sequence = path.parents[1]
        rows = rows_by_frame(path, at_least=7)
        builder.video(sequence.relative_to(root).as_posix() if sequence != root else root.resolve().name)
        frames = _frames(root, sequence, first=0 if 0 in rows else 1)
        origin = 0 if 0 in frames else 1
        for number, (file_name, width, height) in frames.items():
            builder.frame(file_name, width, height, number - origin)
            for values in rows.pop(number, []):
                _box(builder, values, classes, min_visibility, path)
        none_left(rows, path)
    return builder


def _box(builder: Builder, values: list[float], names: list[str], min_visibility: float, path: Path) -> None:
    where = f"{path}: frame {values[0]:g}, track {values[1]:g}"
    track, (x, y, width, height), considered = whole(values[1], where, "the track"), values[2:6], values[6] != 0
    label = whole(values[7], where, "the class") if len(values) > 7 else -1
    seen = values[8] if len(values) > 8 else 1.0
    if label == -1 and len(names) <= 1:  # MOT15 has no classes; of one class there is no other
        label = PEDESTRIAN
    ignore = not considered or 0 <= seen < min_visibility
    if not names:
        if label in OTHER:
            return
        ignore = ignore or label in IGNORED
        label = PEDESTRIAN if label in IGNORED else label
    if not 1 <= label <= max(len(names), 1):
        wanted = "1..13, a class of MOTChallenge, or class names in gt/labels.txt or by --names"
        if names:
            wanted = f"1..{len(names)}, a line of the class names"
        raise DatasetError(f"{where} is of class {label}; wanted {wanted}")
    origin = 0 if names else 1
    builder.box(from_coco_box((x - origin, y - origin, width, height)), label, track, ignore)


def _frames(root: Path, sequence: Path, first: int) -> dict[int, tuple[str, int, int]]:
    """Number to name, width and height of each frame: what seqinfo.ini says, or what img1/ holds"""
    info = configparser.ConfigParser(interpolation=None)
    path = sequence / "seqinfo.ini"
    try:
        if path.is_file():
            info.read_string(read_text(path), str(path))
        if info.has_section("Sequence"):
            found = info["Sequence"]
            folder = (sequence.relative_to(root) / found.get("imDir", "img1")).as_posix()
            suffix = found.get("imExt", ".jpg")
            count, width, height = (found.getint(key, 0) for key in ("seqLength", "imWidth", "imHeight"))
            if min(count, width, height) < 1 or max(count, width, height) > _MOST:
                raise DatasetError(
                    f"{path}: seqLength, imWidth, imHeight are {count, width, height}; wanted 1..{_MOST} each"
                )
            return {t: (f"{folder}/{t:06d}{suffix}", width, height) for t in range(first, first + count)}
    except (OSError, configparser.Error, ValueError) as error:
        raise DatasetError(f"{path} cannot be read: {error}") from error
    return sized(root, sequence / "img1")


def sized(root: Path, folder: Path) -> dict[int, tuple[str, int, int]]:
    """Number to name, width and height of each image in a folder: the size of the first, which the check compares."""
    frames = frames_of(folder)
    width, height = image_size(next(iter(frames.values())))
    return {number: (path.relative_to(root).as_posix(), width, height) for number, path in frames.items()}


def _names(path: Path, root: Path) -> list[str]:
    """The class names beside a gt.txt: labels.txt, or a dataset_meta.json there or in a folder above it"""
    labels = path.with_name("labels.txt")
    if labels.is_file():
        return read_names(labels)
    for folder in path.parents:
        meta = folder / "dataset_meta.json"
        if meta.is_file():
            names = read_json(meta).get("labels")
            if not isinstance(names, list) or not names or not all(isinstance(n, str) for n in names):
                raise DatasetError(f"{meta}: labels is {str(names)[:80]}; wanted a list of class names")
            return names
        if folder == root:
            break
    return []


FORMAT = Format(
    "mot",
    "a folder of sequences",
    read_mot,
    lambda path: near(path, "gt/gt.txt") is not None,
    (
        Option("--min-visibility", "0..1; less seen is an ignore region", float, default=0.0),
        Option("--names", "class names, one in each line, for sequences that bring none"),
    ),
)
