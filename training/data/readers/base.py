"""What a reader of a layout is, and what readers share: bounded files, XML without entities, text rows, frames."""

from __future__ import annotations

import csv
import math
import re
import xml.etree.ElementTree as ET
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, NoReturn

from PIL import Image

from rdn_engine.errors import DatasetError
from rdn_engine.evaluation.coco_vid import Box, check_length
from rdn_engine.text import read_text
from training.arguments import given_path
from training.data.builder import Builder

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")


@dataclass(frozen=True, slots=True)
class Option:
    """An option of the command that is passed on to one reader, by its name with underscores."""

    flag: str
    """With the two hyphens"""
    help: str
    kind: Callable[[str], Any] | None = given_path
    """Makes a value of the text; None for a flag that takes none."""
    choices: tuple[str, ...] = ()
    default: Any = None

    @property
    def name(self) -> str:
        return self.flag.removeprefix("--").replace("-", "_")


@dataclass(frozen=True, slots=True)
class Format:
    """One layout of annotated videos, and how it is read."""

    name: str
    root: str
    """What the path that the user gives leads to"""
    read: Callable[..., Builder]
    """Of that path and, by name, of each option; raises DatasetError for what is not of the layout."""
    found: Callable[[Path], bool]
    """Whether a path looks like this layout, by names and the first bytes alone; never raises."""
    options: tuple[Option, ...] = ()


IMAGES = Option("--images", "the folder that the frames lie in; default: that of the annotations")
FIRST_IMAGE = Option("--first-image", "number in the name of a video's first frame; default: 0", int, default=0)
VIDEO = Option(
    "--video", "the images of a folder are the frames of one video, in the order of the numbers in their names", None
)


def near(folder: Path, name: str) -> Path | None:
    """A file of this name in a folder or up to two below it; a large set is not searched through."""
    for pattern in (name, f"*/{name}", f"*/*/{name}"):
        for path in folder.glob(pattern):
            return path
    return None


def head(path: Path, size: int = 4096) -> str:
    """The beginning of a file as text, for `Format.found`; "" where there is none."""
    try:
        with path.open("rb") as file:
            return file.read(size).decode("utf-8", "replace").lstrip("\ufeff")
    except OSError:
        return ""


class _PlainTree(ET.TreeBuilder):
    """Refuses a document type: with none, there are no entities to expand or to fetch."""

    def doctype(self, name: str, pubid: str | None, system: str | None) -> NoReturn:
        raise DatasetError("has a DOCTYPE; wanted plain XML without one")


def read_tree(path: Path) -> ET.Element:
    """The root of an XML file without a document type; DatasetError names the file."""
    try:
        check_length(path)
        return ET.fromstring(path.read_bytes(), ET.XMLParser(target=_PlainTree()))
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error.strerror or error}") from error
    except (ET.ParseError, ValueError, LookupError) as error:  # the last two: an encoding that is not one
        raise DatasetError(f"{path} is not XML: {error}") from error
    except DatasetError as error:
        raise DatasetError(f"{path} {error}") from None


def read_lines(path: Path) -> list[str]:
    """The lines of a text file; DatasetError where it cannot be read."""
    try:
        check_length(path)
        return read_text(path).splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path} cannot be read: {error}") from error
    except DatasetError as error:
        raise DatasetError(f"{path} {error}") from None


def read_names(path: Path) -> list[str]:
    """A class list, a name in each line; DatasetError where it cannot be read or names a class twice."""
    names = [line.strip() for line in read_lines(path) if line.strip()]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice or not names:
        raise DatasetError(f"{path} names {', '.join(twice) or 'no class'}{' twice' * bool(twice)}; wanted each once")
    return names


def numbers_of(words: list[str], where: str, at_least: int, between: str = "commas") -> list[float]:
    """Words as finite numbers; DatasetError where one is none, or they are too few."""
    try:
        numbers = [float(word) for word in words]
    except ValueError:
        numbers = []
    if len(numbers) < at_least or not all(math.isfinite(v) and abs(v) < 1e9 for v in numbers):
        got = ",".join(words)[:80]
        raise DatasetError(f"{where} is {got!r}; wanted {at_least} numbers or more between {between}")
    return numbers


def whole(value: float, where: str, what: str) -> int:
    """A number that must be whole, such as that of a frame, a track or a class"""
    if value != int(value):
        raise DatasetError(f"{where}: {what} is {value:g}; wanted a whole number")
    return int(value)


def track_of(value: object) -> int | str | None:
    """A track as JSON has it, a number or text; what is neither is none."""
    return value if isinstance(value, (int, str)) and not isinstance(value, bool) else None


def rows_by_frame(path: Path, at_least: int) -> dict[int, list[list[float]]]:
    """The numbers of each line of comma-separated text, by the first of them."""
    rows = defaultdict(list)
    for i, words in enumerate(csv.reader(read_lines(path)), 1):
        values = [word.strip() for word in words]
        while values and not values[-1]:  # a comma at the end of the line
            values.pop()
        if values:
            where = f"{path}, line {i}"
            numbers = numbers_of(values, where, at_least)
            rows[whole(numbers[0], where, "the frame")].append(numbers)
    return dict(rows)


def none_left(frames: Collection[int], path: Path) -> None:
    """Raises DatasetError where boxes are left over, of frames that the video does not have."""
    if frames:
        raise DatasetError(
            f"{path} has boxes of frame {min(frames)}, which the sequence does not have; wanted its frames"
        )


def image_size(path: Path) -> tuple[int, int]:
    """Width and height, from the header; DatasetError where it is no image."""
    try:
        with Image.open(path) as image:
            return image.size
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DatasetError(f"{path} is no image that can be read: {error}") from error


def images_in(folder: Path) -> list[Path]:
    """The images in a folder, in the order of their names; none in one that is not there."""
    try:
        return sorted(p for p in folder.glob("*") if p.suffix.lower() in IMAGE_SUFFIXES)
    except UnicodeEncodeError:  # of a name that no file can have, from Python 3.13 on
        return []


def numbered_images(folder: Path) -> dict[int, Path]:
    """The images of a folder by the number that their names end in, growing.

    Args:
        folder: such as img1/ with 000001.jpg, or images/ with frame_000000.png.

    Returns:
        Number to path; empty where no name ends in a number.

    Raises:
        DatasetError: two names end in the same number.
    """
    found: dict[int, Path] = {}
    for path in images_in(folder):
        digits = re.search(r"(\d+)$", path.stem)
        if digits is None:
            continue
        number = int(digits[1])
        if number in found:
            raise DatasetError(f"{folder} has {found[number].name} and {path.name}; wanted one image of each number")
        found[number] = path
    return dict(sorted(found.items()))


def frames_of(folder: Path) -> dict[int, Path]:
    """`numbered_images`, or DatasetError where there is none."""
    found = numbered_images(folder)
    if not found:
        raise DatasetError(
            f"{folder} holds no frame; wanted images with numbers as names, such as 000001.jpg; python "
            "training/data/frames.py VIDEO --output FOLDER writes those of a video"
        )
    return found


def frame_image(found: dict[int, Path], t: int, first_image: int, folder: Path) -> Path:
    """The image of frame t of a video, from 0; DatasetError where it is not there."""
    path = found.get(t + first_image)
    if path is None:
        raise DatasetError(
            f"{folder} has no image of number {t + first_image}, frame {t} of the video counted from 0; its images are "
            f"{min(found)}..{max(found)}; wanted all annotated frames, and --first-image {min(found)} where the "
            "numbers begin there"
        )
    return path


def edges_box(x1: float, y1: float, x2: float, y2: float) -> Box:
    """A box given by its edges, where a whole frame is 0, 0, W, H: the last pixel is one before the right edge."""
    return x1, y1, x2 - 1, y2 - 1


def each_image(builder: Builder, sizes: Mapping[str, tuple[int, int]], video: bool) -> Iterator[str]:
    """Adds the frames of a layout of single images; the boxes of one go in before the next is asked for.

    Args:
        builder: that takes them.
        sizes: width and height of each image, by its name.
        video: whether the images of a folder are the frames of a video; otherwise each is a video of one frame.

    Yields:
        The name of the frame that was added.

    Raises:
        DatasetError: a name that has no number, or two of one number in a folder, where they are to make a video.
    """
    if not video:
        for name, (width, height) in sizes.items():
            builder.video(PurePosixPath(name).with_suffix("").as_posix())
            builder.frame(name, width, height, 0)
            yield name
        return
    folders: dict[str, dict[int, str]] = defaultdict(dict)
    for name in sizes:
        path = PurePosixPath(name)
        digits = re.search(r"(\d+)$", path.stem)
        if digits is None:
            raise DatasetError(f"{name} has no number at its end; wanted one in each name with --video")
        other = folders[path.parent.as_posix()].setdefault(int(digits[1]), name)
        if other != name:
            raise DatasetError(f"{name} and {other} have the same number; wanted the frames of one video in a folder")
    for folder, names in folders.items():
        builder.video(folder if folder != "." else "video")
        for number in sorted(names):
            builder.frame(names[number], *sizes[names[number]], number - min(names))
            yield names[number]
