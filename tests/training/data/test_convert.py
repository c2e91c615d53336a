"""Miniatures of YouTube-VIS, MOTChallenge and VisDrone, converted."""

import dataclasses
import json

import pytest

from rdn_engine.errors import DatasetError
from tests.data_files import ENCODINGS, encode, nothing_wrong, picture, rows, text
from training.data.convert import VISDRONE_CLASSES, convert_mot, convert_visdrone, convert_youtube_vis

# YouTube-VIS and OVIS


def youtube_vis(tmp_path, **changes):
    names = ["aa/00000.jpg", "aa/00005.jpg"]
    for name in names:
        picture(tmp_path / name)
    annotation = {"id": 8, "video_id": 3, "category_id": 25, "iscrowd": 0, "segmentations": [None, None]}
    data = {
        "videos": [{"id": 3, "width": 32, "height": 24, "length": 2, "file_names": names}],
        "categories": [{"id": 25, "name": "owl"}, {"id": 1, "name": "person"}],
        "annotations": [
            {**annotation, "bboxes": [[1, 2, 3, 4], None], **changes},
            {**annotation, "id": 9, "category_id": 1, "iscrowd": 1, "bboxes": [[0, 0, 5, 5], [20, 9, 12, 15]]},
        ],
    }
    path = tmp_path / "instances.json"
    path.write_text(json.dumps(data))
    return path


def test_youtube_vis(tmp_path):
    dataset = convert_youtube_vis(youtube_vis(tmp_path)).dataset
    assert dataset.class_names == ["person", "owl"]
    assert [v.name for v in dataset.videos] == ["aa"]
    assert [f.frame_id for f in dataset.frames] == [0, 1]
    assert rows(dataset, "image_id", "category_id", "xyxy", "instance_id", "ignore") == [
        (1, 25, (1, 2, 3, 5), 1, False),
        (1, 1, (0, 0, 4, 4), 2, True),
        (2, 1, (20, 9, 31, 23), 2, True),
    ]
    assert nothing_wrong(dataset, tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bboxes": [None]}, "wanted a list of 2 boxes or nulls"),
        ({"bboxes": [None, [1, 2, 3]]}, "of finite numbers, or nulls"),
        ({"category_id": 4}, "category_id is '4'; wanted the id of one of categories"),
        ({"video_id": 4}, "video_id is '4'; wanted the id of one of videos"),
    ],
)
def test_bad_youtube_vis(tmp_path, changes, message):
    with pytest.raises(DatasetError, match=message):
        convert_youtube_vis(youtube_vis(tmp_path, **changes))


# MOT


def mot(root, *lines, info=True, labels=()):
    sequence = root / "MOT17-02"
    for t in (1, 2):
        picture(sequence / f"img1/{t:06d}.jpg")
    text(sequence / "gt/gt.txt", *lines)
    if info:
        text(
            sequence / "seqinfo.ini",
            "[Sequence]",
            "imDir=img1",
            "seqLength=2",
            "imWidth=32",
            "imHeight=24",
            "imExt=.jpg",
        )
    if labels:
        text(sequence / "gt/labels.txt", *labels)
    return root


@pytest.mark.parametrize("info", [True, False])
def test_mot(tmp_path, info):
    lines = [
        "1,1,1,1,10,8,1,1,1",
        "2,1,3,1,10,8,1,1,0.2",
        "1,2,5,5,4,4,0,1,0.5",
        "1,3,8,8,4,4,1,8,1",
        "1,4,8,8,4,4,0,3,1",
    ]
    root = mot(tmp_path, *lines, info=info)
    dataset = convert_mot(root).dataset
    assert dataset.class_names == ["pedestrian"]
    assert [(f.frame_id, f.file_name) for f in dataset.frames] == [
        (t, f"MOT17-02/img1/00000{t + 1}.jpg") for t in (0, 1)
    ]
    assert rows(dataset, "image_id", "xyxy", "instance_id", "ignore") == [
        (1, (0, 0, 9, 7), 1, False),  # pixels of MOT count from 1
        (1, (4, 4, 7, 7), 2, True),  # marked 0
        (1, (7, 7, 10, 10), 3, True),  # a distractor; the car is left out
        (2, (2, 0, 11, 7), 1, False),
    ]
    assert nothing_wrong(dataset, root)
    assert [a.ignore for a in convert_mot(root, min_visibility=0.3).dataset.annotations] == [False, True, True, True]


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_text_may_begin_with_a_byte_order_mark(tmp_path, encoding):
    root = mot(tmp_path, "1,1,1,1,10,8,1,1,1", "2,1,1,1,10,8,1,2,1", labels=("person", "car"))
    wanted = convert_mot(root).dataset
    assert wanted.class_names == ["person", "car"]
    encode(encoding, *root.rglob("*.txt"), *root.rglob("*.ini"))
    assert convert_mot(root).dataset == wanted
    path = youtube_vis(tmp_path / "vis")
    wanted = convert_youtube_vis(path).dataset
    encode(encoding, path)
    assert convert_youtube_vis(path).dataset == wanted


@pytest.mark.parametrize("name", ["gt/labels.txt", "gt/gt.txt", "seqinfo.ini"])
def test_text_of_another_encoding_is_named(tmp_path, name):
    root = mot(tmp_path, "1,1,1,1,10,8,1,1,1", labels=("person",))
    (root / "MOT17-02" / name).write_bytes("Füße".encode("latin-1"))
    with pytest.raises(DatasetError, match=rf"{name} cannot be read"):
        convert_mot(root)


def test_mot_of_2015_has_no_classes(tmp_path):
    dataset = convert_mot(mot(tmp_path, "1,1,1,1,10,8,1,-1,-1,-1")).dataset
    assert rows(dataset, "category_id", "ignore") == [(1, False)]


def test_mot_with_labels_of_its_own(tmp_path):
    dataset = convert_mot(mot(tmp_path, "1,1,1,1,9,8,1,2,1,", "1,2,4,4,9,8,0,1,1", labels=["cat", "dog"])).dataset
    assert dataset.class_names == ["cat", "dog"]
    assert rows(dataset, "category_id", "xyxy", "ignore") == [(2, (1, 1, 9, 8), False), (1, (4, 4, 12, 11), True)]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("1,1,1,1,10,8,1,99,1", "is of class 99; wanted 1..13"),
        ("7,1,1,1,10,8,1,1,1", "boxes of frame 7, which the sequence does not have"),
        ("1,1,1,x,10,8,1,1,1", "line 1 is .* wanted 7 numbers or more"),
        ("1,1,1,nan,10,8,1,1,1", "line 1 is .* wanted 7 numbers or more"),
        ("1,1,1", "line 1 is '1,1,1'; wanted 7 numbers"),
    ],
)
def test_bad_mot(tmp_path, line, message):
    with pytest.raises(DatasetError, match=message):
        convert_mot(mot(tmp_path, line))


def test_what_is_no_mot_layout(tmp_path):
    with pytest.raises(DatasetError, match="holds no sequence"):
        convert_mot(tmp_path)
    mot(tmp_path, "1,1,1,1,10,8,1,1,1")
    text(tmp_path / "MOT17-02/seqinfo.ini", "[Sequence]", "seqLength=many")
    with pytest.raises(DatasetError, match=r"seqinfo.ini cannot be read"):
        convert_mot(tmp_path)
    text(tmp_path / "MOT17-02/seqinfo.ini", "[Sequence]", "seqLength=2")
    with pytest.raises(DatasetError, match=r"are \(2, 0, 0\); wanted 1 or more"):
        convert_mot(tmp_path)
    mot(tmp_path, "1,1,1,1,10,8,1,1,1")
    text(tmp_path / "other/gt/gt.txt", "1,1,1,1,10,8,1,1,1")
    text(tmp_path / "other/gt/labels.txt", "cat")
    with pytest.raises(DatasetError, match=r"has \['cat'\]; wanted \[\]"):
        convert_mot(tmp_path)


# VisDrone


def visdrone(root, *lines):
    for t in (1, 2):
        picture(root / f"sequences/uav_1/{t:07d}.jpg")
    text(root / "annotations/uav_1.txt", *lines)
    return root


def test_visdrone(tmp_path):
    lines = ["1,7,0,0,10,8,1,4,0,0", "2,7,2,0,10,8,1,4,0,0", "2,8,5,5,4,4,0,1,1,2", "2,0,20,10,40,4,0,0,0,0"]
    builder = convert_visdrone(visdrone(tmp_path, *lines))
    dataset = builder.dataset
    assert dataset.class_names == list(VISDRONE_CLASSES)
    objects = dataclasses.replace(dataset, annotations=dataset.annotations[:3])
    assert rows(objects, "image_id", "category_id", "xyxy", "instance_id", "ignore") == [
        (1, 4, (0, 0, 9, 7), 1, False),
        (2, 4, (2, 0, 11, 7), 1, False),
        (2, 1, (5, 5, 8, 8), 2, True),
    ]
    regions = dataset.annotations[3:]  # one for each class
    assert [a.category_id for a in regions] == list(range(1, 11))
    assert {(a.xyxy, a.instance_id, a.ignore) for a in regions} == {((20, 10, 31, 13), None, True)}
    assert nothing_wrong(dataset, tmp_path)


def test_what_is_no_visdrone_layout(tmp_path):
    with pytest.raises(DatasetError, match="holds no annotation"):
        convert_visdrone(tmp_path)
    with pytest.raises(DatasetError, match=r"category 12; wanted 0..11"):
        convert_visdrone(visdrone(tmp_path, "1,7,0,0,10,8,1,12,0,0"))
    (tmp_path / "sequences/uav_1/0000001.jpg").write_bytes(b"no image")
    with pytest.raises(DatasetError, match=r"0000001.jpg is no image"):
        convert_visdrone(tmp_path)
    text(tmp_path / "annotations/uav_2.txt", "1,7,0,0,10,8,1,4,0,0")
    picture(tmp_path / "sequences/uav_1/0000001.jpg")
    text(tmp_path / "annotations/uav_1.txt")
    with pytest.raises(DatasetError, match="uav_2 holds no frame"):
        convert_visdrone(tmp_path)
