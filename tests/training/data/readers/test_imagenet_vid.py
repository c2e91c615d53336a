"""A miniature of ILSVRC2015, read as it is and through the lists."""

from pathlib import Path

import numpy as np
import pytest

from rdn_engine.errors import DatasetError
from tests.data_files import ENCODINGS, encode, nothing_wrong, picture, text
from training.data.builder import Builder
from training.data.readers.imagenet_vid import (
    SYNSETS,
    add_imagenet_det,
    evenly,
    read_imagenet_vid,
    read_xml,
    train_frames,
)

ROOT = Path(__file__).parents[4]


def xml(path, *objects, size=(32, 24), head=""):
    things = "".join(
        f"<object>{'' if track is None else f'<trackid>{track}</trackid>'}<name>{name}</name>"
        f"<bndbox><xmax>{x2}</xmax><xmin>{x1}</xmin><ymax>{y2}</ymax><ymin>{y1}</ymin></bndbox></object>"
        for track, name, (x1, y1, x2, y2) in objects
    )
    size = f"<size><width>{size[0]}</width><height>{size[1]}</height></size>"
    text(path, f"{head}<annotation><folder>f</folder>{size}{things}</annotation>")


DOG, ZEBRA, TABLE = "n02084071", "n02391049", "n04379243"
SNIPPETS = ("train/ILSVRC2015_VID_train_0000/ILSVRC2015_train_00000000", "train/ILSVRC2015_VID_train_0001/B")


@pytest.fixture
def ilsvrc(tmp_path):
    root = tmp_path / "ILSVRC2015"
    for name, frames in {SNIPPETS[0]: 30, SNIPPETS[1]: 3, "val/ILSVRC2015_val_00000000": 2}.items():
        for t in range(frames):
            thing = (0, DOG, (1, 2, 20 if t else 32, 12))  # of frame 0, one past the last column
            xml(root / f"Annotations/VID/{name}/{t:06d}.xml", thing, *([(1, ZEBRA, (0, 0, 9, 9))] if t else []))
            picture(root / f"Data/VID/{name}/{t:06d}.JPEG")
    text(
        root / "ImageSets/VID/train_9.txt", f"{SNIPPETS[0].removeprefix('train/')} 1", "ILSVRC2015_VID_train_0009/X -1"
    )
    text(root / "ImageSets/VID/train_30.txt", *(f"{s.removeprefix('train/')} 1" for s in SNIPPETS))
    text(root / "ImageSets/VID/val.txt", *(f"ILSVRC2015_val_00000000/{t:06d} {t + 1}" for t in range(2)))
    for i, names in enumerate([(DOG,), (DOG, TABLE), (ZEBRA, DOG), (TABLE,)]):
        name = f"train/ILSVRC2014_train_0000/ILSVRC2014_train_{i:08d}"
        xml(root / f"Annotations/DET/{name}.xml", *((None, n, (2, 3, 9, 9)) for n in names))
        picture(root / f"Data/DET/{name}.JPEG")
    return root


def test_the_classes_are_those_of_the_public_checkpoints():
    with np.load(ROOT / "tests/data/parity/expected.npz") as expected:
        assert ["__background__", *SYNSETS.values()] == expected["class_names"].tolist()


@pytest.mark.parametrize("length", [1, 14, 15, 16, 31, 300, 5492])
def test_evenly(length):
    chosen = evenly(length, 15)
    assert len(set(chosen)) == min(length, 15)
    assert sorted(chosen) == chosen
    assert set(chosen) <= set(range(length))


def test_evenly_is_as_the_public_list_has_it():
    assert evenly(300, 15) == list(range(10, 300, 20))
    assert evenly(48, 15) == [1, 4, 8, 11, 14, 17, 20, 24, 27, 30, 33, 36, 40, 43, 46]
    assert evenly(26, 15) == [0, 2, 4, 6, 7, 9, 11, 13, 14, 16, 18, 19, 21, 23, 25]


@pytest.mark.parametrize("encoding", ENCODINGS[:2])  # the XML parser knows no UTF-32
def test_lists_and_annotations_may_begin_with_a_byte_order_mark(ilsvrc, encoding):
    lists = (ilsvrc / "ImageSets/VID").glob("*.txt")
    wanted = [read_imagenet_vid(ilsvrc, split).dataset for split in ("train", "val")]
    encode(encoding, *lists, *(ilsvrc / "Annotations/VID/val").rglob("*.xml"))
    assert [read_imagenet_vid(ilsvrc, split).dataset for split in ("train", "val")] == wanted


def test_vid_training_videos(ilsvrc):
    builder = read_imagenet_vid(ilsvrc, "train")
    dataset = builder.dataset
    assert [v.name for v in dataset.videos] == list(SNIPPETS)
    first = [f for f in dataset.frames if f.video_id == 1]
    assert [f.frame_id for f in first] == list(range(30))
    assert [f.frame_id for f in first if f.train] == list(range(1, 30, 2))
    assert all(f.train for f in dataset.frames if f.video_id == 2)
    assert dataset.annotations[0].xyxy == (1, 2, 31, 12)  # cut
    assert builder.cut == 2
    assert {a.instance_id for a in dataset.annotations} == {1, 2, 3, 4}  # two in each video
    assert {dataset.class_names[a.category_id - 1] for a in dataset.annotations} == {"dog", "zebra"}
    assert nothing_wrong(dataset, ilsvrc)


def test_vid_validation_videos_and_lists(ilsvrc, tmp_path):
    dataset = read_imagenet_vid(ilsvrc, "val").dataset
    assert [f.file_name for f in dataset.frames] == [
        f"Data/VID/val/ILSVRC2015_val_00000000/00000{t}.JPEG" for t in (0, 1)
    ]
    assert all(f.train for f in dataset.frames)
    text(tmp_path / "videos.txt", "val/ILSVRC2015_val_00000000 1 0 2")
    assert read_imagenet_vid(ilsvrc, "val", tmp_path / "videos.txt").dataset == dataset
    text(tmp_path / "frames.txt", f"{SNIPPETS[0]} 1 4 30", f"{SNIPPETS[0]} 1 20 30")
    listed = read_imagenet_vid(ilsvrc, "train", tmp_path / "frames.txt").dataset
    assert [f.frame_id for f in listed.frames if f.train] == [4, 20]
    assert len(listed.frames) == 30


def test_det_joins_as_videos_of_one_frame(ilsvrc, tmp_path, monkeypatch):
    builder = read_imagenet_vid(ilsvrc, "train")
    videos = len(builder.dataset.videos)
    add_imagenet_det(builder, ilsvrc)
    dataset = builder.dataset
    assert [v.name[-1] for v in dataset.videos[videos:]] == ["0", "1", "2"]  # not the table alone
    assert dataset.annotations[-1].xyxy == (2, 3, 9, 9)
    assert nothing_wrong(dataset, ilsvrc)
    monkeypatch.setattr("training.data.readers.imagenet_vid.DET_IMAGES", 1)
    few = Builder((i + 1, name) for i, name in enumerate(SYNSETS.values()))
    add_imagenet_det(few, ilsvrc)
    assert [v.name[-1] for v in few.dataset.videos] == ["1", "2"]  # the middle one of three dogs, the only zebra
    text(tmp_path / "det.txt", "train/ILSVRC2014_train_0000/ILSVRC2014_train_00000000 1", "train/negative -1")
    few = Builder((i + 1, name) for i, name in enumerate(SYNSETS.values()))
    add_imagenet_det(few, ilsvrc, tmp_path / "det.txt")
    assert [v.name[-1] for v in few.dataset.videos] == ["0"]


BOMB = '<!DOCTYPE a [<!ENTITY b "bbbb"><!ENTITY c "&b;&b;&b;">]>'


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (f"{BOMB}<annotation>&c;</annotation>".encode(), "has a DOCTYPE; wanted plain XML"),
        (f"{BOMB}<annotation>&c;</annotation>".encode("utf-16"), "has a DOCTYPE; wanted plain XML"),
        (b'<!DOCTYPE a SYSTEM "file:///etc/passwd"><annotation/>', "has a DOCTYPE"),
        (b"<annotation>", "is not XML"),
        (b'<?xml version="1.0" encoding="none-such"?><annotation/>', "is not XML"),
        (b"<annotation/>", "size/width is None; wanted a whole number"),
        (b"<annotation><size><width>9</width><height>0</height></size></annotation>", "size is 9 x 0"),
        (b"<annotation><object><name>n</name></object></annotation>", "bndbox/xmin is None"),
    ],
)
def test_bad_xml(tmp_path, content, message):
    path = tmp_path / "0.xml"
    path.write_bytes(content)
    with pytest.raises(DatasetError, match=message) as caught:
        read_xml(path)
    assert str(path) in str(caught.value)


def test_what_is_no_ilsvrc_layout(ilsvrc, tmp_path):
    with pytest.raises(DatasetError, match=r"val.txt cannot be read"):
        read_imagenet_vid(tmp_path, "val")
    with pytest.raises(DatasetError, match="names no video of train"):
        read_imagenet_vid(tmp_path, "train")
    with pytest.raises(DatasetError, match="names no image"):
        add_imagenet_det(Builder([]), tmp_path)
    for name, message in [("absent", "holds no annotation"), ("../../x", "wanted a path inside")]:
        text(tmp_path / "list.txt", f"{name} 1")
        with pytest.raises(DatasetError, match=message):
            read_imagenet_vid(ilsvrc, "val", tmp_path / "list.txt")
    folder = ilsvrc / "Annotations/VID/val/ILSVRC2015_val_00000000"
    xml(folder / "000001.xml", (0, TABLE, (1, 1, 2, 2)))
    with pytest.raises(DatasetError, match=f"000001.xml: an object is a '{TABLE}'"):
        read_imagenet_vid(ilsvrc, "val")
    xml(folder / "000001.xml", (None, DOG, (1, 1, 2, 2)))
    with pytest.raises(DatasetError, match=r"000001.xml: an object has no trackid"):
        read_imagenet_vid(ilsvrc, "val")
    text(folder / "last.xml")
    with pytest.raises(DatasetError, match=r"last.xml is no frame"):
        read_imagenet_vid(ilsvrc, "val")


PUBLIC = {
    16: [0, 1, 2, 3, 4, 5, 6, 8, 9, 10, 11, 12, 13, 14, 15],
    18: [0, 1, 2, 4, 5, 6, 7, 9, 10, 11, 12, 13, 15, 16, 17],
    54: [1, 5, 9, 12, 16, 19, 23, 26, 30, 34, 37, 41, 45, 48, 52],
    58: [1, 5, 9, 13, 17, 21, 25, 28, 32, 36, 40, 44, 48, 52, 56],
    102: [3, 10, 17, 23, 30, 37, 44, 51, 57, 64, 71, 78, 84, 91, 98],
    300: list(range(10, 300, 20)),
}
"""Length of a video -> the frames that the public VID_train_15frames.txt lists of it"""


@pytest.mark.parametrize("length", PUBLIC)
def test_the_frames_of_training_are_those_of_the_public_list(length):
    assert train_frames(length) == PUBLIC[length]


def test_all_lengths_of_the_public_list():
    """The sum over the lengths of its videos tells one frame moved by one; the list itself is not ours to ship."""
    wrong = sum(train_frames(n) != evenly(n, 15) for n in range(1, 6000))
    assert wrong == 70
    assert all(len(set(train_frames(n))) == min(n, 15) for n in range(1, 6000))


VAL = "val/ILSVRC2015_val_00000000"


def test_lists_of_validation_frames(ilsvrc, tmp_path):
    """In two columns and in four; a list of videos has four columns, too, and is told apart by its single line."""
    whole = read_imagenet_vid(ilsvrc, "val").dataset
    for lines in ([f"{VAL}/000000 1", f"{VAL}/000001 2"], [f"{VAL} 1 0 2", f"{VAL} 2 1 2"], [f"{VAL} 1 0 2"]):
        text(tmp_path / "list.txt", *lines)
        assert read_imagenet_vid(ilsvrc, "val", tmp_path / "list.txt").dataset == whole
    for line in (f"{VAL}/000001 2", f"{VAL} 2 1 2"):
        text(tmp_path / "list.txt", line)
        part = read_imagenet_vid(ilsvrc, "val", tmp_path / "list.txt").dataset
        assert [(f.frame_id, f.file_name[-11:]) for f in part.frames] == [(1, "000001.JPEG")]
        assert nothing_wrong(part, ilsvrc)
    text(tmp_path / "list.txt", f"{VAL}/000007 1")
    with pytest.raises(DatasetError, match=r"list.txt names frame 7 of val/.*; wanted one that it has"):
        read_imagenet_vid(ilsvrc, "val", tmp_path / "list.txt")
    assert read_imagenet_vid(ilsvrc, "val", ilsvrc / "ImageSets/VID/val.txt").dataset == whole


def test_an_image_of_det_that_is_listed_twice_comes_twice(ilsvrc, tmp_path):
    name = "train/ILSVRC2014_train_0000/ILSVRC2014_train_0000000"
    text(tmp_path / "det.txt", f"{name}0 1", f"{name}2 1", f"{name}0 1")
    builder = Builder((i + 1, name) for i, name in enumerate(SYNSETS.values()))
    add_imagenet_det(builder, ilsvrc, tmp_path / "det.txt")
    assert [v.name[-1] for v in builder.dataset.videos] == ["0", "0", "2"]
    assert len({a.instance_id for a in builder.dataset.annotations}) == len(builder.dataset.annotations) == 4
    assert builder.notes == [f"1 lines of {tmp_path / 'det.txt'} repeat an image: each is a video of its own"]
    assert nothing_wrong(builder.dataset, ilsvrc)
