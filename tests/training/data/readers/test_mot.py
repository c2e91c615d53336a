"""A miniature in MOTChallenge's layout, with its classes and with others."""

import json

import pytest

from rdn_engine.errors import DatasetError
from tests.data_files import ENCODINGS, encode, nothing_wrong, picture, rows, text
from training.data.readers.mot import read_mot


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
    dataset = read_mot(root).dataset
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
    assert [a.ignore for a in read_mot(root, min_visibility=0.3).dataset.annotations] == [False, True, True, True]


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_text_may_begin_with_a_byte_order_mark(tmp_path, encoding):
    root = mot(tmp_path, "1,1,1,1,10,8,1,1,1", "2,1,1,1,10,8,1,2,1", labels=("person", "car"))
    wanted = read_mot(root).dataset
    assert wanted.class_names == ["person", "car"]
    encode(encoding, *root.rglob("*.txt"), *root.rglob("*.ini"))
    assert read_mot(root).dataset == wanted


@pytest.mark.parametrize("name", ["gt/labels.txt", "gt/gt.txt", "seqinfo.ini"])
def test_text_of_another_encoding_is_named(tmp_path, name):
    root = mot(tmp_path, "1,1,1,1,10,8,1,1,1", labels=("person",))
    (root / "MOT17-02" / name).write_bytes("Füße".encode("latin-1"))
    with pytest.raises(DatasetError, match=rf"{name} cannot be read"):
        read_mot(root)


def test_mot_of_2015_has_no_classes(tmp_path):
    dataset = read_mot(mot(tmp_path, "1,1,1,1,10,8,1,-1,-1,-1")).dataset
    assert rows(dataset, "category_id", "ignore") == [(1, False)]


def test_mot_with_labels_of_its_own(tmp_path):
    dataset = read_mot(mot(tmp_path, "1,1,1,1,9,8,1,2,1,", "1,2,4,4,9,8,0,1,1", labels=["cat", "dog"])).dataset
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
        read_mot(mot(tmp_path, line))


def test_what_is_no_mot_layout(tmp_path):
    with pytest.raises(DatasetError, match="holds no sequence"):
        read_mot(tmp_path)
    mot(tmp_path, "1,1,1,1,10,8,1,1,1")
    text(tmp_path / "MOT17-02/seqinfo.ini", "[Sequence]", "seqLength=many")
    with pytest.raises(DatasetError, match=r"seqinfo.ini cannot be read"):
        read_mot(tmp_path)
    text(tmp_path / "MOT17-02/seqinfo.ini", "[Sequence]", "seqLength=9999999999", "imWidth=32", "imHeight=24")
    with pytest.raises(DatasetError, match=r"are \(9999999999, 32, 24\); wanted 1..1000000 each"):
        read_mot(tmp_path)
    text(tmp_path / "MOT17-02/seqinfo.ini", "[Sequence]", "seqLength=2")
    with pytest.raises(DatasetError, match=r"are \(2, 0, 0\); wanted 1..1000000"):
        read_mot(tmp_path)
    mot(tmp_path, "1,1,1,1,10,8,1,1,1")
    text(tmp_path / "other/gt/gt.txt", "1,1,1,1,10,8,1,1,1")
    text(tmp_path / "other/gt/labels.txt", "cat")
    with pytest.raises(DatasetError, match=r"has the classes \['cat'\]; wanted \[\] as"):
        read_mot(tmp_path)


@pytest.mark.parametrize("track", ["-1", "-1.0", "-7"])
def test_a_negative_track_is_nobodys(tmp_path, track):
    dataset = read_mot(mot(tmp_path, f"1,{track},1,1,10,8,1,1,1", f"2,{track},4,4,10,8,1,1,1")).dataset
    assert rows(dataset, "instance_id") == [(None,), (None,)]


def test_frames_that_count_from_zero(tmp_path):
    root = mot(tmp_path, "0,1,1,1,10,8,1,1,1", "1,1,4,4,10,8,1,1,1", labels=["cat"])  # seqinfo.ini has two frames
    (root / "MOT17-02/img1/000002.jpg").rename(root / "MOT17-02/img1/000000.jpg")
    wanted = [(0, "MOT17-02/img1/000000.jpg"), (1, "MOT17-02/img1/000001.jpg")]
    for _ in range(2):
        dataset = read_mot(root).dataset
        assert [(f.frame_id, f.file_name) for f in dataset.frames] == wanted
        assert rows(dataset, "image_id") == [(1,), (2,)]
        assert nothing_wrong(dataset, root)
        (root / "MOT17-02/seqinfo.ini").unlink(missing_ok=True)  # then what img1/ holds tells


def test_a_class_that_nobody_gave_is_no_first_class(tmp_path):
    with pytest.raises(DatasetError, match=r"is of class -1; wanted 1..2, a line of the class names"):
        read_mot(mot(tmp_path, "1,1,1,1,9,8,1,-1,-1,-1", labels=["cat", "dog"]))
    dataset = read_mot(mot(tmp_path, "1,1,1,1,9,8,1,-1,-1,-1", labels=["cat"])).dataset  # there is one class alone
    assert rows(dataset, "category_id", "xyxy") == [(1, (1, 1, 9, 8))]


@pytest.mark.parametrize("where", ["MOT17-02/gt", "MOT17-02", "."])
def test_names_in_dataset_meta(tmp_path, where):
    root = mot(tmp_path, "1,1,1,1,9,8,1,2,1")
    (root / where / "dataset_meta.json").write_text(json.dumps({"labels": ["cat", "dog"]}))
    dataset = read_mot(root).dataset
    assert dataset.class_names == ["cat", "dog"]
    assert rows(dataset, "category_id", "xyxy") == [(2, (1, 1, 9, 8))]
    (root / where / "dataset_meta.json").write_text(json.dumps({"labels": {}}))
    with pytest.raises(DatasetError, match=r"dataset_meta.json: labels is {}; wanted a list of class names"):
        read_mot(root)


def test_names_that_the_user_gives(tmp_path):
    root = mot(tmp_path / "set", "1,1,1,1,9,8,1,2,1")
    builder = read_mot(root)
    assert "read as MOTChallenge" in builder.notes[0]
    text(tmp_path / "names.txt", "cat", "dog")
    builder = read_mot(root, names=tmp_path / "names.txt")
    assert (builder.notes, builder.dataset.class_names) == ([], ["cat", "dog"])
    assert rows(builder.dataset, "category_id", "xyxy") == [(2, (1, 1, 9, 8))]
    text(tmp_path / "names.txt", "cat", "cat")
    with pytest.raises(DatasetError, match=r"names.txt names cat twice; wanted each once"):
        read_mot(root, names=tmp_path / "names.txt")


def test_a_sequence_itself_is_a_folder_of_one(tmp_path):
    root = mot(tmp_path, "1,1,1,1,9,8,1,1,1") / "MOT17-02"
    dataset = read_mot(root).dataset
    assert [v.name for v in dataset.videos] == ["MOT17-02"]
    assert nothing_wrong(dataset, root)


@pytest.mark.parametrize("column", ["1.5,1,1,1,10,8,1,1,1", "1,1.5,1,1,10,8,1,1,1", "1,1,1,1,10,8,1,1.5,1"])
def test_numbers_that_must_be_whole(tmp_path, column):
    with pytest.raises(DatasetError, match=r"is 1.5; wanted a whole number"):
        read_mot(mot(tmp_path, column))
