"""Miniatures of YouTube-VIS and of LV-VIS, which has masks alone."""

import json

import numpy as np
import pytest
from faster_coco_eval.core import mask

from rdn_engine.errors import DatasetError
from tests.data_files import ENCODINGS, encode, nothing_wrong, picture, rows
from training.data.formats import find_format
from training.data.readers.youtube_vis import read_youtube_vis


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
    dataset = read_youtube_vis(youtube_vis(tmp_path)).dataset
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
        read_youtube_vis(youtube_vis(tmp_path, **changes))


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_json_may_begin_with_a_byte_order_mark(tmp_path, encoding):
    path = youtube_vis(tmp_path)
    wanted = read_youtube_vis(path).dataset
    encode(encoding, path)
    assert read_youtube_vis(path).dataset == wanted


def run_lengths(x1, y1, x2, y2, width=32, height=24):
    """A mask of a box, the last pixel included, as COCO's tools compress it"""
    pixels = np.zeros((height, width), np.uint8, order="F")
    pixels[y1 : y2 + 1, x1 : x2 + 1] = 1
    return mask.encode(pixels)["counts"].decode()


def lv_vis(tmp_path, *masks):
    path = youtube_vis(tmp_path)
    data = json.loads(path.read_text())
    for row in data["annotations"]:
        del row["bboxes"]
        row["segmentations"] = list(masks)
    path.write_text(json.dumps(data))
    return path


def test_masks_without_boxes_have_the_boxes_around_them(tmp_path):
    path = lv_vis(tmp_path, {"size": [24, 32], "counts": run_lengths(1, 2, 3, 5)}, None)
    assert find_format(path).name == "youtube-vis"
    dataset = read_youtube_vis(path).dataset
    assert rows(dataset, "image_id", "xyxy") == [(1, (1, 2, 3, 5)), (1, (1, 2, 3, 5))]
    assert nothing_wrong(dataset, tmp_path)
    path = lv_vis(tmp_path, {"size": [24, 32], "counts": run_lengths(5, 5, 4, 4)}, run_lengths(0, 0, 31, 23))
    assert rows(read_youtube_vis(path).dataset, "image_id", "xyxy") == [(2, (0, 0, 31, 23))] * 2  # one is empty


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        (run_lengths(1, 2, 3, 5, 64, 48), "is a mask of another size; wanted one of 32 x 24"),
        ("k35c000000Ua", "is a mask of another size"),
        ("k35c0é", "wanted COCO's compressed run lengths"),
        ("k35c0~", "wanted COCO's compressed run lengths"),
        ("1" * 9999, "wanted COCO's compressed run lengths"),
        ([1, 2, 3], "wanted COCO's compressed run lengths"),
    ],
)
def test_masks_from_outside_are_measured_before_they_are_read(tmp_path, counts, message):
    with pytest.raises(DatasetError, match=message):
        read_youtube_vis(lv_vis(tmp_path, {"size": [24, 32], "counts": counts}, None))
