"""Says what is wrong with an annotated video set, before hours are spent on training with it.

    python training/data/check.py data.json --images ROOT [--classes names.txt] [--decode] [--json]
    python training/data/check.py train.json --images ROOT --against val.json --config training.yaml --html report.html

Reads the annotations and the header of every frame; `--decode` decodes every frame. Beside what is wrong it names
doubts: what is allowed and seldom meant. Exit code 1 if anything is wrong, else 0.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import partial
from pathlib import Path

from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from rdn_engine.config import RPNConfig
from rdn_engine.errors import DatasetError, RDNError
from rdn_engine.evaluation.coco_vid import Dataset, Frame, read_dataset
from rdn_engine.input_config import InputConfig
from rdn_engine.text import read_text
from training.arguments import given_path
from training.data.anchors import fit_anchors, network_sides, read_anchors
from training.data.doubts import DOUBTS, find_doubts
from training.data.page import page
from training.data.problem import Problem
from training.data.shared import shared_videos, signs_of

KINDS = {
    "annotations": "the annotation file cannot be read",
    "empty": "the data set is empty",
    "classes": "the class list disagrees",
    "unknown class": "annotations of a class that is not in the data set",
    "missing frame": "frames that are not there",
    "unreadable frame": "frames that cannot be read, or are cut off",
    "frame size": "frames of another size than the annotations say",
    "video size": "videos whose frames differ in size",
    "frame order": "frame ids that are below 0 or do not grow along their video",
    "box outside": "boxes that reach outside their frame",
    "empty box": "boxes without width or height",
    "duplicated track": "track ids that occur twice in a frame",
}
EXAMPLES = 5
"""Of each kind, printed; the JSON holds all."""
TOLERANCE = 1e-3
"""Pixels by which a box may pass the edge of its frame: rounding of numbers with fractions"""
_THREADS = 8  # waiting for a disk, not for a processor
_TAIL = 64  # bytes at the end of a file in which the end mark of its image stands
_END_MARKS = {"JPEG": b"\xff\xd9", "PNG": b"IEND"}


def check_dataset(
    dataset: Dataset, source: str, images: Path, classes: list[str] | None = None, decode: bool = False
) -> Iterator[Problem]:
    """Looks for everything that is wrong with a data set and its images.

    Args:
        dataset: to check.
        source: name of the annotation file, for messages.
        images: the folder that file names start from.
        classes: the list that the model is to have; None compares with none.
        decode: decodes every frame; slow, and finds more.

    Yields:
        Each problem.
    """
    yield from check_annotations(dataset, source, classes)
    with ThreadPoolExecutor(_THREADS) as pool:
        for found in pool.map(partial(_check_image, images=images, decode=decode), dataset.frames):
            yield from found


def check_annotations(dataset: Dataset, source: str, classes: list[str] | None = None) -> Iterator[Problem]:
    """What `check_dataset` finds without a look at the images."""
    yield from _check_size(dataset, source)
    yield from _check_classes(dataset, source, classes)
    yield from _check_videos(dataset)
    yield from _check_boxes(dataset)


def _check_size(dataset: Dataset, source: str) -> Iterator[Problem]:
    parts = {"classes": dataset.categories, "videos": dataset.videos, "frames": dataset.frames}
    objects = [a for a in dataset.annotations if not a.ignore]
    for name, rows in {**parts, "annotations besides ignore regions": objects}.items():
        if not rows:
            yield Problem("empty", source, f"it has no {name}; wanted one or more")
    filled = {f.video_id for f in dataset.frames}
    for video in dataset.videos:
        if video.id not in filled:
            yield Problem("empty", video.name, "the video has no frames; wanted one or more")


def _check_classes(dataset: Dataset, source: str, classes: list[str] | None) -> Iterator[Problem]:
    names = dataset.class_names
    for name, times in Counter(names).items():
        if times > 1:
            yield Problem("classes", source, f"it has the class {name!r} {times} times; wanted distinct names")
    if classes is None or classes == names:
        return
    lacking, extra = sorted(set(classes) - set(names)), sorted(set(names) - set(classes))
    if lacking:
        yield Problem("classes", source, f"it lacks {', '.join(lacking)} of the class list")
    if extra:
        yield Problem("classes", source, f"it has {', '.join(extra)}, which the class list lacks")
    if not lacking and not extra:
        yield Problem("classes", source, f"its classes by id are {', '.join(names)}; wanted {', '.join(classes)}")


def _check_videos(dataset: Dataset) -> Iterator[Problem]:
    frames: dict[int, list[Frame]] = defaultdict(list)
    for frame in dataset.frames:
        frames[frame.video_id].append(frame)
    for video in dataset.videos:
        rows = frames[video.id]
        first = {(f.width, f.height): f.file_name for f in reversed(rows)}
        if len(first) > 1:
            sizes = ", ".join(f"{w} x {h} from {name}" for (w, h), name in sorted(first.items()))
            yield Problem("video size", video.name, f"its frames are {sizes}; wanted one size")
        if rows and rows[0].frame_id < 0:
            what = f"frame_id {rows[0].frame_id} in video {video.name}; wanted 0 or more"
            yield Problem("frame order", rows[0].file_name, what)
        for before, after in itertools.pairwise(rows):
            if after.frame_id <= before.frame_id:
                what = f"frame_id {after.frame_id} after {before.frame_id} in video {video.name}; wanted a larger one"
                yield Problem("frame order", after.file_name, what)


def _check_boxes(dataset: Dataset) -> Iterator[Problem]:
    known = {c.id for c in dataset.categories}
    frames = {f.id: f for f in dataset.frames}
    tracks: Counter[tuple[int, int]] = Counter()
    for a in dataset.annotations:
        frame = frames[a.image_id]
        x1, y1, x2, y2 = a.xyxy
        width, height = x2 - x1 + 1, y2 - y1 + 1
        box = f"annotation {a.id}: x {x1:g}, y {y1:g}, width {width:g}, height {height:g}"
        if a.category_id not in known:
            what = f"annotation {a.id} is of category {a.category_id}; wanted one of {sorted(known)}"
            yield Problem("unknown class", frame.file_name, what)
        if width <= 0 or height <= 0:
            yield Problem("empty box", frame.file_name, f"{box}; wanted sides above 0")
        elif min(x1, y1, frame.width - x1 - width, frame.height - y1 - height) < -TOLERANCE:
            yield Problem("box outside", frame.file_name, f"{box}; the frame is {frame.width} x {frame.height}")
        if a.instance_id is not None:
            tracks[a.image_id, a.instance_id] += 1
    for (image_id, instance_id), times in tracks.items():
        if times > 1:
            what = f"track {instance_id} occurs {times} times; wanted once in a frame"
            yield Problem("duplicated track", frames[image_id].file_name, what)


def _check_image(frame: Frame, images: Path, decode: bool) -> list[Problem]:
    path = images / frame.file_name
    try:
        with Image.open(path) as image:
            size = image.size
            if decode or not _has_end(path, image.format):
                image.load()
    except FileNotFoundError:
        return [Problem("missing frame", frame.file_name, f"there is no file {path}")]
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        return [Problem("unreadable frame", frame.file_name, str(error))]
    if size != (frame.width, frame.height):
        what = f"the file is {size[0]} x {size[1]}; the annotations say {frame.width} x {frame.height}"
        return [Problem("frame size", frame.file_name, what)]
    return []


def _has_end(path: Path, image_format: str | None) -> bool:
    """Whether the file ends as a whole one does; where it does not, or nobody knows, decoding tells."""
    mark = _END_MARKS.get(image_format or "")
    with path.open("rb") as file:
        file.seek(0, 2)
        file.seek(max(file.tell() - _TAIL, 0))
        return mark is not None and mark in file.read()


def images_elsewhere(dataset: Dataset, images: Path) -> Path | None:
    """The folder that file names start from, where all are missing from `images` and one near it has the first."""
    if not dataset.frames or any((images / f.file_name).is_file() for f in dataset.frames):
        return None
    first = dataset.frames[0].file_name
    near = [*images.glob("*/"), *images.glob("*/*/"), *images.resolve().parents[:2]]
    return next((folder for folder in near if (folder / first).is_file()), None)


def check_file(path: Path, images: Path, classes: Path | None, decode: bool) -> tuple[Dataset, list[Problem]]:
    """Checks a file.

    Args:
        path: CocoVID JSON.
        images: the folder that file names start from.
        classes: the class list of the model, a name in each line; None compares with none.
        decode: decodes every frame; slow, and finds more.

    Returns:
        The data set, empty where it cannot be read, and its problems.

    Raises:
        DatasetError: an argument is at fault.
    """
    if not images.is_dir():
        raise DatasetError(f"--images {images} is no folder; wanted the one that the file names start from")
    names = None
    if classes is not None:
        try:
            names = [line.strip() for line in read_text(classes).splitlines() if line.strip()]
        except (OSError, UnicodeDecodeError) as error:
            raise DatasetError(f"--classes {classes} cannot be read: {error}; wanted a name in each line") from error
    try:
        dataset = read_dataset(path)
    except DatasetError as error:
        return Dataset(), [Problem("annotations", str(path), str(error))]
    elsewhere = images_elsewhere(dataset, images)
    if elsewhere is not None:
        what = f"the file names start from another folder; --images {elsewhere} has them"
        return dataset, [*check_annotations(dataset, str(path), names), Problem("missing frame", str(images), what)]
    return dataset, list(check_dataset(dataset, str(path), images, names, decode))


def compare_sets(mine: Dataset, images: Path, other: Path, other_images: Path) -> Iterator[Problem]:
    """What two data sets that should have nothing in common share, and what they should share and do not.

    Args:
        mine: the data set that is checked.
        images: its folder.
        other: CocoVID JSON of the other one, such as the validation set of a training set.
        other_images: its folder.

    Yields:
        Doubts.

    Raises:
        DatasetError: the other one cannot be read.
    """
    theirs = read_dataset(other)
    yield from shared_videos(signs_of(mine, images), signs_of(theirs, other_images), str(other))
    shown = [{d.class_names[k] for k in _shown(d)} for d in (mine, theirs)]
    for name in sorted(shown[0] ^ shown[1]):
        here = "is in this set and not in" if name in shown[0] else "is not in this set, but in"
        yield Problem("class of one set", str(other), f"{name} {here} the other one")


def _shown(dataset: Dataset) -> set[int]:
    """The class indices that have a box"""
    index = {category.id: i for i, category in enumerate(dataset.categories)}
    return {index[a.category_id] for a in dataset.annotations if not a.ignore and a.category_id in index}


def print_report(dataset: Dataset, problems: list[Problem], doubts: list[Problem]) -> None:
    counts = (len(dataset.videos), len(dataset.frames), len(dataset.annotations), len(dataset.categories))
    print("{} videos, {} frames, {} annotations, {} classes".format(*counts))
    for kind, title in {**KINDS, **DOUBTS}.items():
        found = [p for p in (*problems, *doubts) if p.kind == kind]
        if found:
            print(f"\n{len(found)} x {kind}: {title}")
            for problem in found[:EXAMPLES]:
                print(f"  {problem.where}: {problem.what}")
            if len(found) > EXAMPLES:
                print(f"  and {len(found) - EXAMPLES} more")
    wrong = f"{len(problems)} problems" if problems else "nothing is wrong"
    print(f"\n{wrong}{f', {len(doubts)} doubts: look at them' if doubts else ''}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=given_path, help="CocoVID JSON")
    parser.add_argument("--images", type=given_path, required=True, help="the folder that the file names start from")
    parser.add_argument(
        "--classes", type=given_path, help="the class list of the model: a name in each line, in its order"
    )
    parser.add_argument(
        "--config", type=given_path, help="a training configuration, whose anchors are to meet the boxes"
    )
    parser.add_argument("--against", type=given_path, help="CocoVID JSON of the other set, which should share no video")
    parser.add_argument("--against-images", type=given_path, help="its folder of images; default: that of --images")
    parser.add_argument("--decode", action="store_true", help="decode every frame; slow, and finds more")
    parser.add_argument("--html", type=given_path, help="write a page with pictures and histograms")
    parser.add_argument("--json", action="store_true", help="print JSON, with every problem")
    return parser


def main() -> None:
    arguments = _parser().parse_args()
    source, images, fit = str(arguments.data), arguments.images, None
    doubts: list[Problem] = []
    try:
        dataset, problems = check_file(arguments.data, images, arguments.classes, arguments.decode)
        frames, rpn = (InputConfig(), RPNConfig()) if arguments.config is None else read_anchors(arguments.config)
        if len(network_sides(dataset, frames)):
            fit = fit_anchors(dataset, frames, rpn)
        readable = not any(p.kind == "annotations" for p in problems)
        if readable:
            doubts += find_doubts(dataset, source, fit if arguments.config is not None else None)
        if readable and arguments.against is not None:
            doubts += compare_sets(dataset, images, arguments.against, arguments.against_images or images)
        if arguments.html is not None:
            arguments.html.write_text(page(dataset, source, images, problems, doubts, fit), encoding="utf-8")
    except (RDNError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    if arguments.json:
        sizes = {k: len(getattr(dataset, k)) for k in ("videos", "frames", "annotations", "categories")}
        counts = Counter(p.kind for p in (*problems, *doubts))
        lists = {"problems": [asdict(p) for p in problems], "doubts": [asdict(p) for p in doubts]}
        print(json.dumps({**sizes, "counts": counts, **lists}, indent=2))
    else:
        print_report(dataset, problems, doubts)
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
