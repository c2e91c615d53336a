"""Says what is wrong with an annotated video set, before hours are spent on training with it.

    python training/data/check.py data.json --images ROOT [--classes names.txt] [--decode] [--json]

Reads the annotations and the header of every frame; `--decode` decodes every frame.
Exit code 1 if anything is wrong, else 0.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from rdn_engine.errors import DatasetError
from rdn_engine.evaluation.coco_vid import Dataset, Frame, read_dataset
from rdn_engine.text import read_text

KINDS = {
    "annotations": "the annotation file cannot be read",
    "empty": "the data set is empty",
    "classes": "the class list disagrees",
    "unknown class": "annotations of a class that is not in the data set",
    "missing frame": "frames that are not there",
    "unreadable frame": "frames that cannot be read, or are cut off",
    "frame size": "frames of another size than the annotations say",
    "video size": "videos whose frames differ in size",
    "frame order": "frame ids that do not grow along their video",
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


@dataclass(frozen=True, slots=True)
class Problem:
    kind: str
    """One of KINDS"""
    where: str
    """The file of the frame, the name of the video, or the annotation file"""
    what: str


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
    return dataset, list(check_dataset(dataset, str(path), images, names, decode))


def print_report(dataset: Dataset, problems: list[Problem]) -> None:
    counts = (len(dataset.videos), len(dataset.frames), len(dataset.annotations), len(dataset.categories))
    print("{} videos, {} frames, {} annotations, {} classes".format(*counts))
    for kind, title in KINDS.items():
        found = [p for p in problems if p.kind == kind]
        if found:
            print(f"\n{len(found)} x {kind}: {title}")
            for problem in found[:EXAMPLES]:
                print(f"  {problem.where}: {problem.what}")
            if len(found) > EXAMPLES:
                print(f"  and {len(found) - EXAMPLES} more")
    print(f"\n{len(problems)} problems" if problems else "nothing is wrong")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="CocoVID JSON")
    parser.add_argument("--images", type=Path, required=True, help="the folder that the file names start from")
    parser.add_argument("--classes", type=Path, help="the class list of the model: a name in each line, in its order")
    parser.add_argument("--decode", action="store_true", help="decode every frame; slow, and finds more")
    parser.add_argument("--json", action="store_true", help="print JSON, with every problem")
    arguments = parser.parse_args()
    try:
        dataset, problems = check_file(arguments.data, arguments.images, arguments.classes, arguments.decode)
    except DatasetError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    if arguments.json:
        sizes = {k: len(getattr(dataset, k)) for k in ("videos", "frames", "annotations", "categories")}
        counts = Counter(p.kind for p in problems)
        print(json.dumps({**sizes, "counts": counts, "problems": [asdict(p) for p in problems]}, indent=2))
    else:
        print_report(dataset, problems)
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
