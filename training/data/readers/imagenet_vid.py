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
from typing import Literal

from rdn_engine.errors import DatasetError
from rdn_engine.evaluation.coco_vid import Box
from training.data.builder import Builder
from training.data.readers.base import Format, Option, read_lines, read_tree

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

# fmt: off
_ROUNDED_DOWN = {
    1: (590, 970),
    2: (18, 36, 72, 144, 174, 288, 318, 348, 654, 696, 1152, 1308),
    4: (130, 260, 520, 850, 1370, 1430, 1700, 3100, 3220),
    7: (54, 58, 62, 74, 78, 108, 116, 124, 148, 156, 170, 216, 222, 226, 232, 248, 296, 312, 340, 370, 406, 414, 432,
        434, 452, 464, 474, 490, 496, 588, 590, 650, 654, 682, 812, 828, 888, 904, 970, 1308, 1390, 2098, 2600),
    10: (170, 340, 590, 650, 710, 970, 1390, 1430, 2600, 3100),
    12: (102, 174, 204, 222, 318, 348, 408, 474, 558, 588, 696, 816, 888),
    13: (910, 970, 1060, 1370, 1430, 3100, 3220),
}
# fmt: on
"""Frame of the 15, from 0 -> lengths of videos at which the public list has the one before the middle of its part.

Middles of equal parts of whole length are one too small there, by the arithmetic that wrote the list; for every other
length of a training video the list is `evenly`'s.
"""

Split = Literal["train", "val"]


def read_imagenet_vid(root: Path, split: Split, vid_list: Path | None = None) -> Builder:
    """The videos of a split, with all of their frames; of a training video, `TRAIN_FRAMES` are marked as train.

    Args:
        root: the folder of Annotations, Data and ImageSets.
        split: `train` or `val`.
        vid_list: the list of ImageSets/VID by default, or a file that names in each line a video (the public
            VID_val_videos.txt) or a frame: in two columns as VID_val_frames.txt (video/frame, a number), or in four as
            VID_train_15frames.txt (video, a number, frame, number of frames). The listed frames are the ones marked in
            training, and of a validation video the ones kept.

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
        chosen = listed or {numbers[i] for i in train_frames(len(numbers))}
        if not chosen <= set(numbers):
            raise DatasetError(f"{vid_list} names frame {min(chosen - set(numbers))} of {name}; wanted one that it has")
        builder.video(name)
        for path, number in zip(annotations, numbers, strict=True):
            if split == "val" and listed and number not in listed:
                continue
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
        det_list: a file such as the public DET_train_30classes.txt; the images are then exactly the listed ones, and
            one that is listed twice, as some are, comes twice.

    Raises:
        DatasetError: as `read_imagenet_vid`.
    """
    categories = {synset: i + 1 for i, synset in enumerate(SYNSETS)}
    folder = root / "Annotations/DET"
    if det_list is not None:
        names = sorted(_inside(words[0], det_list) for words in _lines(det_list))
        repeats = len(names) - len(set(names))
        if repeats:
            builder.note(f"{repeats} lines of {det_list} repeat an image: each is a video of its own")
    else:
        names = sorted(p.relative_to(folder).with_suffix("").as_posix() for p in folder.glob("train/**/*.xml"))
    if not names:
        raise DatasetError(f"{det_list or folder / 'train'} names no image; wanted the training images of DET")
    images = {name: read_xml(folder / f"{name}.xml") for name in dict.fromkeys(names)}
    for name in names if det_list is not None else _at_most(images, DET_IMAGES):
        image = images[name]
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


def train_frames(length: int) -> list[int]:
    """The frames of a training video that the public VID_train_15frames.txt lists.

    Args:
        length: frames of the video.

    Returns:
        Their numbers, from 0: `TRAIN_FRAMES`, or all of a shorter video.
    """
    return [t - (length in _ROUNDED_DOWN.get(i, ())) for i, t in enumerate(evenly(length, TRAIN_FRAMES))]


def _at_most(images: dict[str, Image], count: int) -> list[str]:
    chosen: set[str] = set()
    for synset in SYNSETS:
        of_class = [name for name, image in images.items() if any(o.synset == synset for o in image.objects)]
        chosen.update(of_class[i] for i in evenly(len(of_class), count))
    return sorted(chosen)


def _videos(root: Path, split: Split, vid_list: Path | None) -> dict[str, set[int]]:
    """Name below Annotations/VID -> the listed frames; none where the list names the video as a whole"""
    folder = root / "ImageSets/VID"
    if vid_list is not None:
        files = [vid_list]
    elif split == "train":
        files = sorted(folder.glob("train_*.txt"))
    else:
        files = [folder / "val.txt"]
    listed: dict[str, list[int | None]] = {}
    for path in files:
        for words in _lines(path):
            name, frame = PurePosixPath(_inside(words[0], path)), None
            if len(words) == 4:
                frame = words[2]
            elif name.name.isdecimal():  # a snippet is called ILSVRC2015_val_00000000, a frame of it 000000
                name, frame = name.parent, name.name
            if frame is not None and not frame.isdecimal():
                raise DatasetError(f"{path} says frame {frame!r} of {name}; wanted its number, from 0")
            full = name.as_posix() if name.parts[:1] == (split,) else f"{split}/{name}"
            listed.setdefault(full, []).append(None if frame is None else int(frame))
    if not listed:
        raise DatasetError(f"{vid_list or folder} names no video of {split}; wanted train_1.txt..train_30.txt, val.txt")
    # A list of whole videos may have four columns too: then each video has one line, which says frame 0.
    whole = vid_list is None or (split == "val" and all(frames in ([0], [None]) for frames in listed.values()))
    return {name: set() if whole else {t for t in listed[name] if t is not None} for name in sorted(listed)}


def _lines(path: Path) -> Iterator[list[str]]:
    """The words of each line of an image list, without the negative images (second of two columns -1)"""
    for line in read_lines(path):
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


def read_xml(path: Path) -> Image:
    """One annotation of VID or DET, in pixels from 0, the last pixel included; DatasetError names the place."""
    tree = read_tree(path)
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


def _read(
    root: Path,
    split: Split | None = None,
    vid_list: Path | None = None,
    det: bool = False,
    det_list: Path | None = None,
) -> Builder:
    if split is None:
        raise DatasetError(f"{root} is ILSVRC2015; wanted --split train or --split val with it")
    if (det or det_list) and split != "train":
        raise DatasetError(f"--det with --split {split}; wanted train, the only split that DET joins")
    builder = read_imagenet_vid(root, split, vid_list)
    if det or det_list:
        add_imagenet_det(builder, root, det_list)
    return builder


FORMAT = Format(
    "imagenet-vid",
    "the folder with Annotations, Data and ImageSets",
    _read,
    lambda path: (path / "Annotations/VID").is_dir(),
    (
        Option("--split", "which videos", str, ("train", "val")),
        Option("--vid-list", "videos (and frames) to take; default: all of ImageSets/VID"),
        Option("--det", "add the training images of DET", None, default=False),
        Option("--det-list", "add exactly these images of DET"),
    ),
)
