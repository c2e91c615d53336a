"""ImageNet VID in the layout of ILSVRC2015, with the images of DET that join it in training.

ROOT/Data/VID/train/ILSVRC2015_VID_train_0000/ILSVRC2015_train_00000000/000000.JPEG
ROOT/Data/VID/val/ILSVRC2015_val_00000000/000000.JPEG
ROOT/Annotations/VID/...                  the same names, .xml
ROOT/ImageSets/VID/train_1.txt ... train_30.txt, val.txt
ROOT/Data/DET/train/..., ROOT/Annotations/DET/train/...
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal, NoReturn

from rdn_engine.errors import DatasetError
from rdn_engine.evaluation.coco_vid import Box
from rdn_engine.text import read_text
from training.data.builder import Builder

SYNSETS = {
    "n02691156": "airplane",
    "n02419796": "antelope",
    "n02131653": "bear",
    "n02834778": "bicycle",
    "n01503061": "bird",
    "n02924116": "bus",
    "n02958343": "car",
    "n02402425": "cattle",
    "n02084071": "dog",
    "n02121808": "domestic_cat",
    "n02503517": "elephant",
    "n02118333": "fox",
    "n02510455": "giant_panda",
    "n02342885": "hamster",
    "n02374451": "horse",
    "n02129165": "lion",
    "n01674464": "lizard",
    "n02484322": "monkey",
    "n03790512": "motorcycle",
    "n02324045": "rabbit",
    "n02509815": "red_panda",
    "n02411705": "sheep",
    "n01726692": "snake",
    "n02355227": "squirrel",
    "n02129604": "tiger",
    "n04468005": "train",
    "n01662784": "turtle",
    "n04530566": "watercraft",
    "n02062744": "whale",
    "n02391049": "zebra",
}
"""WordNet id -> class name, in the order of the public checkpoints"""

TRAIN_FRAMES = 15
"""Of each training video, evenly"""
DET_IMAGES = 2000
"""Of each class, at most"""

Split = Literal["train", "val"]


def read_imagenet_vid(root: Path, split: Split, vid_list: Path | None = None) -> Builder:
    """The videos of a split, with all of their frames; of a training video, `TRAIN_FRAMES` are marked as train.

    Args:
        root: the folder of Annotations, Data and ImageSets.
        split: `train` or `val`.
        vid_list: a file that names a video in each line; in the four-column form of the public VID_train_15frames.txt
            (video, 1, frame, number of frames) the listed frames are the ones marked. The list of ImageSets/VID
            by default.

    Returns:
        The data set, and how many boxes were cut or dropped.

    Raises:
        DatasetError: a list, an annotation or a folder is missing, or does not have this layout.
    """
    categories = {synset: i + 1 for i, synset in enumerate(SYNSETS)}
    builder = Builder((i, SYNSETS[synset]) for synset, i in categories.items())
    for name, listed in _videos(root, split, vid_list).items():
        annotations = sorted((root / "Annotations/VID" / name).glob("*.xml"))
        if not annotations:
            raise DatasetError(f"{root / 'Annotations/VID' / name} holds no annotation; wanted 000000.xml and so on")
        numbers = [_frame_number(path) for path in annotations]
        chosen = set(listed) or {numbers[i] for i in evenly(len(numbers), TRAIN_FRAMES)}
        builder.video(name)
        for path, number in zip(annotations, numbers, strict=True):
            image = read_xml(path)
            train = split == "val" or number in chosen
            builder.frame(f"Data/VID/{name}/{path.stem}.JPEG", image.width, image.height, number, train)
            for thing in image.objects:
                if thing.synset not in categories:
                    raise DatasetError(f"{path}: an object is a {thing.synset!r}; wanted one of the 30 classes of VID")
                if thing.track is None:
                    raise DatasetError(f"{path}: an object has no trackid; wanted one in every annotation of VID")
                builder.box(thing.xyxy, categories[thing.synset], thing.track)
    return builder


def add_imagenet_det(builder: Builder, root: Path, det_list: Path | None = None) -> None:
    """Adds the training images of DET with an object of the 30 classes, each as a video of one frame.

    Of each class at most `DET_IMAGES` images are taken, evenly over their sorted names; an image taken for one class
    shows its other classes too. Objects of other classes are left out.

    Args:
        builder: of `read_imagenet_vid`, which takes the images.
        root: the folder of Annotations, Data and ImageSets.
        det_list: a file such as the public DET_train_30classes.txt; the images are then exactly the listed ones.

    Raises:
        DatasetError: as `read_imagenet_vid`.
    """
    categories = {synset: i + 1 for i, synset in enumerate(SYNSETS)}
    folder = root / "Annotations/DET"
    if det_list is not None:
        names = sorted({_inside(words[0], det_list) for words in _lines(det_list)})
    else:
        names = sorted(p.relative_to(folder).with_suffix("").as_posix() for p in folder.glob("train/**/*.xml"))
    if not names:
        raise DatasetError(f"{det_list or folder / 'train'} names no image; wanted the training images of DET")
    images = {name: read_xml(folder / f"{name}.xml") for name in names}
    if det_list is None:
        images = {name: images[name] for name in _at_most(images, DET_IMAGES)}
    for name, image in images.items():
        builder.video(name)
        builder.frame(f"Data/DET/{name}.JPEG", image.width, image.height, 0)
        for i, thing in enumerate(image.objects):
            if thing.synset in categories:
                builder.box(thing.xyxy, categories[thing.synset], i)


def evenly(length: int, count: int) -> list[int]:
    """The middles of `count` equal parts of 0..length - 1, or all if there are fewer; 15 of 300 are 10, 30, 50, ..."""
    if length <= count:
        return list(range(length))
    return [(2 * i + 1) * length // (2 * count) for i in range(count)]


def _at_most(images: dict[str, Image], count: int) -> list[str]:
    chosen: set[str] = set()
    for synset in SYNSETS:
        of_class = [name for name, image in images.items() if any(o.synset == synset for o in image.objects)]
        chosen.update(of_class[i] for i in evenly(len(of_class), count))
    return sorted(chosen)


def _videos(root: Path, split: Split, vid_list: Path | None) -> dict[str, list[int]]:
    """Name below Annotations/VID -> the listed frames, if the list names frames"""
    folder = root / "ImageSets/VID"
    if vid_list is not None:
        files = [vid_list]
    elif split == "train":
        files = sorted(folder.glob("train_*.txt"))
    else:
        files = [folder / "val.txt"]
    videos: dict[str, list[int]] = {}
    for path in files:
        for words in _lines(path):
            name = PurePosixPath(_inside(words[0], path))
            if vid_list is None and split == "val":  # val.txt names frames: ILSVRC2015_val_00000000/000000 1
                name = name.parent
            full = name.as_posix() if name.parts[:1] == (split,) else f"{split}/{name}"
            frames = videos.setdefault(full, [])
            if vid_list is not None and split == "train" and len(words) == 4:
                if not words[2].isdecimal():
                    raise DatasetError(f"{path} says frame {words[2]!r} of {full}; wanted its number, from 0")
                frames.append(int(words[2]))
    if not videos:
        raise DatasetError(f"{vid_list or folder} names no video of {split}; wanted train_1.txt..train_30.txt, val.txt")
    return dict(sorted(videos.items()))


def _lines(path: Path) -> Iterator[list[str]]:
    """The words of each line of an image list, without the negative images (second of two columns -1)"""
    try:
        text = read_text(path)
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path} cannot be read: {error}; wanted an image list") from error
    for line in text.splitlines():
        words = line.split()
        if words and words[1:] != ["-1"]:
            yield words


def _inside(name: str, path: Path) -> str:
    parts = PurePosixPath(name)
    if parts.is_absolute() or ".." in parts.parts:
        raise DatasetError(f"{path} names {name!r}; wanted a path inside the data set")
    return name


def _frame_number(path: Path) -> int:
    if not path.stem.isdecimal():
        raise DatasetError(f"{path} is no frame; wanted a number as its name, such as 000000.xml")
    return int(path.stem)


@dataclass(frozen=True, slots=True)
class Object:
    synset: str
    xyxy: Box
    track: str | None


@dataclass(frozen=True, slots=True)
class Image:
    width: int
    height: int
    objects: list[Object]


class _PlainTree(ET.TreeBuilder):
    """Refuses a document type: with none, there are no entities to expand or to fetch."""

    def doctype(self, name: str, pubid: str | None, system: str | None) -> NoReturn:
        raise DatasetError("has a DOCTYPE; wanted plain XML without one")


def read_xml(path: Path) -> Image:
    """One annotation of VID or DET, in pixels from 0, the last pixel included; DatasetError names the place."""
    try:
        tree = ET.fromstring(path.read_bytes(), ET.XMLParser(target=_PlainTree()))
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error.strerror or error}") from error
    except (ET.ParseError, ValueError, LookupError) as error:  # the last two: an encoding that is not one
        raise DatasetError(f"{path} is not XML: {error}") from error
    except DatasetError as error:
        raise DatasetError(f"{path} {error}") from None
    objects = []
    for thing in tree.iter("object"):
        x1, y1, x2, y2 = (_number(thing, f"bndbox/{side}", path) for side in ("xmin", "ymin", "xmax", "ymax"))
        objects.append(Object((thing.findtext("name") or "").strip(), (x1, y1, x2, y2), thing.findtext("trackid")))
    width, height = (int(_number(tree, f"size/{side}", path)) for side in ("width", "height"))
    if min(width, height) < 1:
        raise DatasetError(f"{path}: size is {width} x {height}; wanted 1 or more pixels each way")
    return Image(width, height, objects)


def _number(element: ET.Element, field: str, path: Path) -> float:
    text = element.findtext(field)
    try:
        return float(int(text or ""))
    except (ValueError, OverflowError):
        raise DatasetError(f"{path}: {field} is {text!r}; wanted a whole number of pixels") from None
