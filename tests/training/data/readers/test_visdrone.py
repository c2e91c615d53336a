"""A miniature of VisDrone-VID."""

import dataclasses

import pytest

from rdn_engine.errors import DatasetError
from tests.data_files import nothing_wrong, picture, rows, text
from training.data.readers.visdrone import CLASSES, read_visdrone


def visdrone(root, *lines):
    for t in (1, 2):
        picture(root / f"sequences/uav_1/{t:07d}.jpg")
    text(root / "annotations/uav_1.txt", *lines)
    return root


def test_visdrone(tmp_path):
    lines = ["1,7,0,0,10,8,1,4,0,0", "2,7,2,0,10,8,1,4,0,0", "2,8,5,5,4,4,0,1,1,2", "2,0,20,10,40,4,0,0,0,0"]
    builder = read_visdrone(visdrone(tmp_path, *lines))
    dataset = builder.dataset
    assert dataset.class_names == list(CLASSES)
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
        read_visdrone(tmp_path)
    with pytest.raises(DatasetError, match=r"category 12; wanted 0..11"):
        read_visdrone(visdrone(tmp_path, "1,7,0,0,10,8,1,12,0,0"))
    (tmp_path / "sequences/uav_1/0000001.jpg").write_bytes(b"no image")
    with pytest.raises(DatasetError, match=r"0000001.jpg is no image"):
        read_visdrone(tmp_path)
    text(tmp_path / "annotations/uav_2.txt", "1,7,0,0,10,8,1,4,0,0")
    picture(tmp_path / "sequences/uav_1/0000001.jpg")
    text(tmp_path / "annotations/uav_1.txt")
    with pytest.raises(DatasetError, match="uav_2 holds no frame"):
        read_visdrone(tmp_path)


def test_nobody_followed_what_has_the_track_minus_one(tmp_path):
    dataset = read_visdrone(visdrone(tmp_path, "1,-1,0,0,10,8,1,4,0,0", "2,-1,2,0,10,8,1,4,0,0")).dataset
    assert rows(dataset, "instance_id") == [(None,), (None,)]
