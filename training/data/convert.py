"""Converts annotated video sets to CocoVID JSON (docs/datasets.md).

    python training/data/convert.py imagenet-vid ILSVRC2015 --split train --det --output train.json
    python training/data/convert.py youtube-vis instances.json --output data.json
    python training/data/convert.py mot MOT17/train --output data.json
    python training/data/convert.py visdrone VisDrone2019-VID-train --output data.json

Boxes are cut at the frame; those of which nothing is left are dropped, and counted.
Exit code 1 where the set cannot be converted.
"""

from __future__ import annotations

import argparse
import configparser
import csv
import math
import sys
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from rdn_engine.errors import DatasetError, RDNError
from rdn_engine.evaluation.coco_vid import from_coco_box, is_box, read_json, rows_of, write_dataset
from rdn_engine.text import read_text
from training.data.builder import Builder
from training.data.imagenet_vid import add_imagenet_det, read_imagenet_vid

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")

PEDESTRIAN = 1
MOT_IGNORED = {2, 6, 7, 8, 12, 13}
"""Person on vehicle, vehicle without motor, static person, distractor, reflection, crowd: neither right nor wrong"""
MOT_OTHER = {3, 4, 5, 9, 10, 11}
"""Car, bicycle, motorbike and the occluders: no people"""

VISDRONE_CLASSES = (
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


def convert_youtube_vis(path: Path) -> Builder:
    """The boxes of a YouTube-VIS or OVIS annotation file; crowds become ignore regions, masks are not read.

    Args:
        path: of the JSON file.

    Returns:
        The data set, and how many boxes were cut or dropped.

    Raises:
        DatasetError: the file cannot be read, or does not have this layout.
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
        video_id = row.reference("video_id", video_ids, "videos")
        boxes, count = row.data.get("bboxes"), len(videos[video_id].data["file_names"])
        if not isinstance(boxes, list) or len(boxes) != count:
            row.refuse("bboxes", f"a list of {count} boxes or nulls, one for each frame of video {video_id}")
        if not all(box is None or is_box(box) for box in boxes):
            row.refuse("bboxes", "boxes [x, y, width, height] of finite numbers, or nulls")
        tracks[video_id].append((row.reference("category_id", known, "categories"), row, row.flag("iscrowd", False)))
    for video_id, video in videos.items():
        names = video.data["file_names"]
        builder.video(PurePosixPath(names[0]).parent.as_posix())
        for t, name in enumerate(names):
            builder.frame(name, video.size("width"), video.size("height"), t)
            for category_id, row, crowd in tracks[video_id]:
                if row.data["bboxes"][t] is not None:
                    builder.box(from_coco_box(row.data["bboxes"][t]), category_id, row.integer("id"), crowd)
    return builder


def convert_mot(root: Path, min_visibility: float = 0.0) -> Builder:
    """Sequences in MOTChallenge's layout: gt/gt.txt, frames in img1/ and, as the challenges have it, seqinfo.ini.

    Without gt/labels.txt the classes are MOTChallenge's and pixels count from 1: pedestrians are the only class, those
    marked 0 and what looks like a pedestrian become ignore regions, other things are left out. With gt/labels.txt (a
    class name in each line, as CVAT exports it) every class is kept, pixels count from 0, and what is marked 0 becomes
    an ignore region of its class.

    Args:
        root: the folder of the sequences.
        min_visibility: objects seen less than this part, 0..1, become ignore regions.

    Returns:
        The data set, and how many boxes were cut or dropped.

    Raises:
        DatasetError: a file is missing, cannot be read, or does not have this layout.
    """
    files = sorted(root.rglob("gt/gt.txt"))
    if not files:
        raise DatasetError(f"{root} holds no sequence; wanted SEQUENCE/gt/gt.txt and SEQUENCE/img1/")
    labels = {path: _labels(path.with_name("labels.txt")) for path in files}
    names = labels[files[0]]
    for path, other in labels.items():
        if other != names:
            raise DatasetError(
                f"{path.with_name('labels.txt')} has {other}; wanted {names} as {files[0].parent} has it"
            )
    builder = Builder(enumerate(names or ["pedestrian"], 1))
    origin = 0 if names else 1
    for path in files:
        sequence = path.parents[1]
        rows = _rows_by_frame(path, at_least=7)
        builder.video(sequence.relative_to(root).as_posix())
        for number, file_name, width, height in _mot_frames(root, sequence):
            builder.frame(file_name, width, height, number - 1)
            for values in rows.pop(number, []):
                _mot_box(builder, values, names, origin, min_visibility, path)
        _none_left(rows, path)
    return builder


def _mot_box(
    builder: Builder, values: list[float], names: list[str], origin: int, min_visibility: float, path: Path
) -> None:
    track, (x, y, width, height), considered = int(values[1]), values[2:6], values[6] != 0
    label = int(values[7]) if len(values) > 7 else -1
    seen = values[8] if len(values) > 8 else 1.0
    label = PEDESTRIAN if label == -1 else label  # MOT15 has no classes
    ignore = not considered or 0 <= seen < min_visibility
    if not names:
        if label in MOT_OTHER:
            return
        ignore = ignore or label in MOT_IGNORED
        label = PEDESTRIAN if label in MOT_IGNORED else label
    if not 1 <= label <= max(len(names), 1):
        wanted = f"1..{len(names)}, a line of labels.txt" if names else "1..13, a class of MOTChallenge"
        raise DatasetError(f"{path}: frame {values[0]:g}, track {track} is of class {label}; wanted {wanted}")
    builder.box(from_coco_box((x - origin, y - origin, width, height)), label, track, ignore)


def _mot_frames(root: Path, sequence: Path) -> list[tuple[int, str, int, int]]:
    """Number, name, width and height of each frame: what seqinfo.ini says, or what img1/ holds"""
    info = configparser.ConfigParser()
    path = sequence / "seqinfo.ini"
    try:
        if path.is_file():
            info.read_string(read_text(path), str(path))
        if info.has_section("Sequence"):
            found = info["Sequence"]
            folder = (sequence.relative_to(root) / found.get("imDir", "img1")).as_posix()
            suffix = found.get("imExt", ".jpg")
            count, width, height = (found.getint(key, 0) for key in ("seqLength", "imWidth", "imHeight"))
            if min(count, width, height) < 1:
                raise DatasetError(f"{path}: seqLength, imWidth, imHeight are {count, width, height}; wanted 1 or more")
            return [(t, f"{folder}/{t:06d}{suffix}", width, height) for t in range(1, count + 1)]
    except (OSError, configparser.Error, ValueError) as error:
        raise DatasetError(f"{path} cannot be read: {error}") from error
    return _frames_of(root, sequence / "img1")


def _labels(path: Path) -> list[str]:
    if not path.is_file():
        return []
    try:
        return [line.strip() for line in read_text(path).splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path} cannot be read: {error}; wanted a name in each line") from error


def convert_visdrone(root: Path) -> Builder:
    """VisDrone-VID (or -MOT): sequences/NAME/0000001.jpg and annotations/NAME.txt.

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
    builder = Builder(enumerate(VISDRONE_CLASSES, 1))
    for path in files:
        rows = _rows_by_frame(path, at_least=8)
        builder.video(path.stem)
        for number, file_name, width, height in _frames_of(root, root / "sequences" / path.stem):
            builder.frame(file_name, width, height, number - 1)
            for values in rows.pop(number, []):
                box, label = from_coco_box(values[2:6]), int(values[7])
                if not 0 <= label <= 11:
                    raise DatasetError(f"{path}: frame {number} has a box of category {label}; wanted 0..11")
                if label in (0, 11):
                    builder.ignore_region(box)
                else:
                    builder.box(box, label, int(values[1]), ignore=values[6] == 0)
        _none_left(rows, path)
    return builder


def _rows_by_frame(path: Path, at_least: int) -> dict[int, list[list[float]]]:
    """The numbers of each line of comma-separated text, by the first of them"""
    rows = defaultdict(list)
    try:
        lines = read_text(path).splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path} cannot be read: {error}") from error
    for i, words in enumerate(csv.reader(lines), 1):
        values = [word.strip() for word in words]
        while values and not values[-1]:  # a comma at the end of the line
            values.pop()
        if not values:
            continue
        try:
            numbers = [float(v) for v in values]
        except ValueError:
            numbers = []
        if len(numbers) < at_least or not all(map(math.isfinite, numbers)):
            got = ",".join(words)[:80]
            raise DatasetError(f"{path}, line {i} is {got!r}; wanted {at_least} numbers or more between commas")
        rows[int(numbers[0])].append(numbers)
    return dict(rows)


def _none_left(rows: dict[int, list[list[float]]], path: Path) -> None:
    if rows:
        raise DatasetError(
            f"{path} has boxes of frame {min(rows)}, which the sequence does not have; wanted its frames"
        )


def _frames_of(root: Path, folder: Path) -> list[tuple[int, str, int, int]]:
    """Number, name, width and height of each image in a folder: the size of the first, which the check compares."""
    paths = [p for p in folder.glob("*") if p.suffix.lower() in IMAGE_SUFFIXES and p.stem.isdecimal()]
    paths.sort(key=lambda p: int(p.stem))
    if not paths:
        raise DatasetError(f"{folder} holds no frame; wanted images with numbers as names, such as 000001.jpg")
    try:
        with Image.open(paths[0]) as image:
            width, height = image.size
    except (OSError, Image.DecompressionBombError) as error:
        raise DatasetError(f"{paths[0]} is no image that can be read: {error}") from error
    return [(int(p.stem), p.relative_to(root).as_posix(), width, height) for p in paths]


def _convert_imagenet_vid(arguments: argparse.Namespace) -> Builder:
    with_det = arguments.det or arguments.det_list
    if with_det and arguments.split != "train":
        raise DatasetError(f"--det with --split {arguments.split}; wanted train, the only split that DET joins")
    builder = read_imagenet_vid(arguments.root, arguments.split, arguments.vid_list)
    if with_det:
        add_imagenet_det(builder, arguments.root, arguments.det_list)
    return builder


def main() -> None:
    parser = argparse.ArgumentParser(description="Converts annotated video sets to CocoVID JSON.")
    formats = parser.add_subparsers(required=True)

    def add(name: str, root: str, convert: Callable[[argparse.Namespace], Builder]) -> argparse.ArgumentParser:
        format_ = formats.add_parser(name, description=f"Converts {name} to CocoVID JSON.")
        format_.add_argument("root", type=Path, help=root)
        format_.add_argument("--output", type=Path, required=True, help="the JSON file to write")
        format_.set_defaults(convert=convert)
        return format_

    vid = add("imagenet-vid", "the folder with Annotations, Data and ImageSets", _convert_imagenet_vid)
    vid.add_argument("--split", choices=("train", "val"), required=True)
    vid.add_argument("--vid-list", type=Path, help="videos (and frames) to take; default: all of ImageSets/VID")
    vid.add_argument("--det", action="store_true", help="add the training images of DET")
    vid.add_argument("--det-list", type=Path, help="add exactly these images of DET")
    add("youtube-vis", "the annotation file of YouTube-VIS or OVIS", lambda a: convert_youtube_vis(a.root))
    mot = add("mot", "a folder of sequences", lambda a: convert_mot(a.root, a.min_visibility))
    mot.add_argument("--min-visibility", type=float, default=0.0, help="0..1; less seen is an ignore region")
    add("visdrone", "the folder with annotations and sequences", lambda a: convert_visdrone(a.root))
    arguments = parser.parse_args()
    try:
        builder = arguments.convert(arguments)
        write_dataset(builder.dataset, arguments.output)
    except (RDNError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    d = builder.dataset
    print(f"{arguments.output}: {len(d.videos)} videos, {len(d.frames)} frames, {len(d.annotations)} annotations")
    print(f"{builder.cut} boxes cut at the edge of their frame, {builder.dropped} dropped (nothing of them inside)")


if __name__ == "__main__":
    main()
