"""Miniatures that annotation tools wrote themselves (tests/data/miniatures/make.py): all show the same three frames."""

import json
from pathlib import Path

import pytest

from rdn_engine.errors import DatasetError
from tests.data_files import ENCODINGS, encode, nothing_wrong, picture
from training.data.convert import convert
from training.data.formats import FORMATS, find_format

MINIATURES = Path(__file__).parents[3] / "data/miniatures"
CAR, LATER, DOG = (2, 3, 11, 10), (3, 3, 12, 10), (0, 0, 31, 23)

TOOLS = [
    # where, format, options, whether tracks come along, the folder of the images
    ("datumaro/coco/annotations/instances_train.json", "coco", {}, True, "datumaro/coco/images/train"),
    ("datumaro/voc", "voc", {"origin": 0}, True, "datumaro/voc"),
    ("datumaro/voc", "voc", {"origin": 0, "split": "train"}, True, "datumaro/voc"),
    ("datumaro/cvat/train.xml", "cvat-images", {}, False, "datumaro/cvat"),
    ("datumaro/datumaro/annotations/train.json", "datumaro", {}, True, "datumaro/datumaro/images/train"),
    ("datumaro/yolo", "yolo", {}, False, "datumaro/yolo"),
    ("datumaro/darknet", "yolo", {}, False, "datumaro/darknet"),
    ("datumaro/darknet/obj.data", "yolo", {}, False, "datumaro/darknet"),
    ("datumaro/yolo/data.yaml", "yolo", {"split": "val"}, False, "datumaro/yolo"),
    ("supervision/coco/instances.json", "coco", {}, False, "supervision/coco/images"),
    ("supervision/voc", "voc", {}, False, "supervision/voc"),
    ("supervision/yolo", "yolo", {}, False, "supervision/yolo"),
]


def seen(dataset):
    """Number of the frame, class and box of every object, to a thousandth: YOLO's text has so many digits"""
    number = {frame.id: i for i, frame in enumerate(dataset.frames)}
    names = {category.id: category.name for category in dataset.categories}
    return [(number[a.image_id], names[a.category_id], tuple(round(v, 3) for v in a.xyxy)) for a in dataset.annotations]


def close(dataset):
    found = seen(dataset)
    wanted = [(0, "car", CAR), (0, "dog", DOG), (1, "car", LATER), (1, "dog", DOG)]
    assert [row[:2] for row in found] == [row[:2] for row in wanted]
    for row, want in zip(found, wanted, strict=True):
        assert row[2] == pytest.approx(want[2], abs=2e-3)
    return True


@pytest.mark.parametrize(("where", "name", "options", "tracks", "images"), TOOLS)
@pytest.mark.parametrize("video", [False, True])
def test_what_a_tool_wrote(where, name, options, tracks, images, video):
    assert find_format(MINIATURES / where).name == name
    builder = convert(MINIATURES / where, **options, video=video)
    dataset = builder.dataset
    assert close(dataset)
    assert (builder.cut, builder.dropped) in [(0, 0)] or name == "yolo"  # digits of parts of the frame
    assert [f.frame_id for f in dataset.frames] == ([0, 1, 2] if video else [0, 0, 0])
    assert len(dataset.videos) == (1 if video else 3)
    ids = [a.instance_id for a in dataset.annotations]
    assert ids == ([1, 2, 1, 2] if tracks and video else [1, 2, 3, 4] if tracks else [None] * 4)
    assert nothing_wrong(dataset, MINIATURES / images)


@pytest.mark.parametrize("folder", ["mot", "mot_meta"])
def test_mot_with_the_names_of_datumaro(folder):
    root = MINIATURES / "datumaro" / folder
    dataset = convert(root).dataset
    assert close(dataset)
    assert [a.instance_id for a in dataset.annotations] == [1, 2, 1, 2]
    assert [f.frame_id for f in dataset.frames] == [0, 1, 2]
    assert nothing_wrong(dataset, root)


def test_voc_of_datumaro_read_as_voc_says_what_is_doubtful():
    builder = convert(MINIATURES / "datumaro/voc")
    assert any("a box begins at 0, so they seem to count from 0" in note for note in builder.notes)
    assert builder.dataset.annotations[0].xyxy == (1, 2, 11, 10)


def test_label_studio_shows_what_its_own_tool_expands(tmp_path):
    for t in range(8):
        picture(tmp_path / f"street/{t:06d}.png")
    path = tmp_path / "street.json"
    path.write_text((MINIATURES / "label_studio/street.json").read_text())
    assert find_format(path).name == "label-studio"
    dataset = convert(path).dataset
    assert nothing_wrong(dataset, tmp_path)
    assert [v.name for v in dataset.videos] == ["street"]
    found = {}
    for a in dataset.annotations:
        x1, y1, x2, y2 = a.xyxy
        sides = [x1 / 32 * 100, y1 / 24 * 100, (x2 - x1 + 1) / 32 * 100, (y2 - y1 + 1) / 24 * 100]
        frame = next(f for f in dataset.frames if f.id == a.image_id)
        found.setdefault(a.instance_id, []).append([frame.frame_id + 1, *sides])
    expanded = json.loads((MINIATURES / "label_studio/expanded.json").read_text())
    for mine, theirs in zip(found.values(), expanded, strict=True):
        assert [row[0] for row in mine] == [row[0] for row in theirs]
        for row, want in zip(mine, theirs, strict=True):
            assert row == pytest.approx(want)


def test_tracking_labels_that_scalabel_wrote(tmp_path):
    for t in range(3):
        picture(tmp_path / f"b1/b1-{t + 1:07d}.jpg")
    path = MINIATURES / "scalabel.json"
    assert find_format(path).name == "bdd100k"
    dataset = convert(path).dataset
    assert [(row[0], row[1]) for row in seen(dataset)] == [
        (t, name) for t in (0, 1) for name in ("car", "pedestrian", "bus")
    ]
    assert [a.xyxy for a in dataset.annotations[::3]] == [CAR, LATER]
    assert [a.ignore for a in dataset.annotations] == [False, True, True] * 2
    assert [a.instance_id for a in dataset.annotations] == [1, 2, 3] * 2
    assert nothing_wrong(dataset, tmp_path)


@pytest.mark.parametrize("where", ["datumaro/cvat/train.xml", "datumaro/coco/annotations/instances_train.json"])
@pytest.mark.parametrize("encoding", ENCODINGS[:2])
def test_files_may_begin_with_a_byte_order_mark(tmp_path, where, encoding):
    wanted = convert(MINIATURES / where).dataset
    path = tmp_path / Path(where).name
    text = (MINIATURES / where).read_text()
    path.write_text(text.replace(' encoding="utf-8"', ""))
    encode(encoding, path)
    name = find_format(MINIATURES / where).name
    again = convert(path, name).dataset
    assert (again.categories, again.annotations) == (wanted.categories, wanted.annotations)


def test_every_format_refuses_what_is_not_its_own(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "list.json").write_text("[]")
    (tmp_path / "object.json").write_text("{}")
    (tmp_path / "text.txt").write_text("hello\n")
    (tmp_path / "plain.xml").write_text("<a/>")
    for one in FORMATS.values():
        options = {"split": "val"} if one.name == "imagenet-vid" else {}
        for path in (*sorted(tmp_path.iterdir()), tmp_path / "absent"):
            assert not one.found(path)
            with pytest.raises(DatasetError) as caught:
                one.read(path, **options)
            assert str(tmp_path) in str(caught.value)
