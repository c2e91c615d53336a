"""Miniatures of layouts of text: KITTI, DarkLabel, YOLO."""

import pytest

from rdn_engine.errors import DatasetError
from tests.data_files import ENCODINGS, encode, nothing_wrong, picture, rows, text
from training.data.formats import find_format
from training.data.readers.darklabel import read_darklabel
from training.data.readers.kitti import CLASSES, read_kitti
from training.data.readers.yolo import read_yolo

SPACE = "1.5 1.6 3.9 0 1 10 0"
"""A box in space, which is not read"""


def kitti(root, *lines):
    for t in range(2):
        picture(root / f"image_02/0000/{t:06d}.png")
    text(root / "label_02/0000.txt", *(f"{line} {SPACE}" for line in lines))
    return root


def test_kitti(tmp_path):
    root = kitti(
        tmp_path,
        "0 7 Car 0 0 -1.5 2 3 12 11",
        "1 7 Car 0 2 -1.5 3 3 13 11",
        "1 -1 DontCare -1 -1 -10 20 10 24 14",
        "1 8 Person_sitting 0 0 0 0 0 32 24",
    )
    assert find_format(root).name == find_format(root / "label_02").name == "kitti"
    dataset = read_kitti(root).dataset
    regions = dataset.annotations[2 : 2 + len(CLASSES)]
    assert {(a.xyxy, a.ignore, a.instance_id) for a in regions} == {((20, 10, 23, 13), True, None)}
    assert [a.category_id for a in regions] == list(range(1, len(CLASSES) + 1))
    del dataset.annotations[2 : 2 + len(CLASSES)]
    assert rows(dataset, "image_id", "category_id", "xyxy", "instance_id") == [
        (1, 1, (2, 3, 11, 10), 1),
        (2, 1, (3, 3, 12, 10), 1),
        (2, 5, (0, 0, 31, 23), 2),
    ]
    assert [f.frame_id for f in dataset.frames] == [0, 1]
    assert nothing_wrong(dataset, root)
    assert read_kitti(root / "label_02").dataset.frames == dataset.frames


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("0 7 Cow 0 0 0 1 1 2 2", "line 1: the type is 'Cow'; wanted one of Car, Van"),
        ("5 7 Car 0 0 0 1 1 2 2", "has boxes of frame 5"),
        ("0 7 Car 0 0 0 1 x 2 2", "wanted 6 numbers or more between blanks"),
    ],
)
def test_bad_kitti(tmp_path, line, message):
    with pytest.raises(DatasetError, match=message):
        read_kitti(kitti(tmp_path, line))
    text(tmp_path / "label_02/0000.txt", "0 7 Car")
    with pytest.raises(DatasetError, match="wanted 10 columns or more"):
        read_kitti(tmp_path)


def darklabel(root, *lines):
    for t in range(3):
        picture(root / f"street/{t:05d}.png")
    text(root / "street.txt", *lines)
    return root / "street.txt"


@pytest.mark.parametrize(
    ("columns", "line"),
    [
        ("fn,cname,id,x1,y1,w,h", "1,car,7,8,6,16,12"),
        ("[fn, cname, id, x1, y1, x2, y2]", "1, car, 7, 8, 6, 23, 17"),
        ("fn,id,cx,cy,w,h,cname", "1,7,16,12,16,12,car"),
        ("fn,cname,id,nx1,ny1,nw,nh", "1,car,7,0.25,0.25,0.5,0.5"),
        ("fn,cname,id,nx1,ny1,nx2,ny2,c=-1", "1,car,7,0.25,0.25,0.75,0.75,-1"),
        ("fn,cname,id,ncx,ncy,nw,nh", "1,car,7,0.5,0.5,0.5,0.5,"),
        ("iname,cname,id,x1,y1,w,h", "00001.png,car,7,8,6,16,12"),
    ],
)
def test_columns_of_darklabel(tmp_path, columns, line):
    dataset = read_darklabel(darklabel(tmp_path, line), columns=columns).dataset
    assert [f.frame_id for f in dataset.frames] == [0, 1, 2]
    assert rows(dataset, "image_id", "category_id", "xyxy", "instance_id") == [(2, 1, (8, 6, 23, 17), 1)]
    assert nothing_wrong(dataset, tmp_path)
    alone = read_darklabel(tmp_path / "street.txt", tmp_path / "street", columns=columns).dataset
    assert [f.file_name for f in alone.frames] == [f"{t:05d}.png" for t in range(3)]


def test_a_folder_of_darklabel(tmp_path):
    darklabel(tmp_path, "0,car,7,2,3,10,8")
    picture(tmp_path / "yard/000.png")
    text(tmp_path / "yard.txt", "0,bird,7,2,3,10,8")
    dataset = read_darklabel(tmp_path).dataset
    assert [v.name for v in dataset.videos] == ["street", "yard"]
    assert dataset.class_names == ["bird", "car"]
    assert rows(dataset, "category_id", "instance_id") == [(2, 1), (1, 2)]
    assert nothing_wrong(dataset, tmp_path)


def test_darklabel_with_numbers_of_classes_and_difficult_ones(tmp_path):
    path = darklabel(tmp_path, "0,1,7,0,2,3,10,8", "1,0,-1,1,2,3,10,8")
    text(tmp_path / "names.txt", "car", "dog")
    columns = "fn,classid,id,difficult,x1,y1,w,h"
    dataset = read_darklabel(path, columns=columns, names=tmp_path / "names.txt").dataset
    assert dataset.class_names == ["car", "dog"]
    assert rows(dataset, "category_id", "instance_id", "ignore") == [(2, 1, False), (1, None, True)]
    with pytest.raises(DatasetError, match="name no class; wanted cname, or classid and --names"):
        read_darklabel(path, columns=columns)
    text(tmp_path / "names.txt", "car")
    with pytest.raises(DatasetError, match=r"line 1: the class is 1; wanted 0..0"):
        read_darklabel(path, columns=columns, names=tmp_path / "names.txt")


@pytest.mark.parametrize(
    ("columns", "line", "message"),
    [
        ("fn,cname,x,y,w,h", "", "--columns .*: x, y; wanted DarkLabel's names of columns"),
        ("cname,x1,y1,w,h", "", "neither fn nor iname"),
        ("fn,cname,x1,y1,w", "", r"a box of \['w', 'x1', 'y1'\]; wanted"),
        ("fn,cname,x1,y1,w,h", "0,car,1,1,5", "line 1 is '0,car,1,1,5'; wanted the 6 columns"),
        ("fn,cname,x1,y1,w,h", "0,car,1,1,5,x", "wanted 4 numbers or more"),
        ("fn,cname,x1,y1,w,h", "9,car,1,1,5,5", "has no image of number 9"),
        ("iname,cname,x1,y1,w,h", "9.png,car,1,1,5,5", "has boxes of 9.png, which"),
    ],
)
def test_bad_darklabel(tmp_path, columns, line, message):
    with pytest.raises(DatasetError, match=message):
        read_darklabel(darklabel(tmp_path, line), columns=columns)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_text_may_begin_with_a_byte_order_mark(tmp_path, encoding):
    path = darklabel(tmp_path / "dark", "0,car,7,2,3,10,8")
    data = yolo(tmp_path / "yolo", "0 0.5 0.5 0.5 0.5")
    root = kitti(tmp_path / "kitti", "0 7 Car 0 0 -1.5 2 3 12 11")
    wanted = read_darklabel(path).dataset, read_yolo(data).dataset, read_kitti(root).dataset
    encode(encoding, *tmp_path.rglob("*.txt"), *tmp_path.rglob("*.yaml"))
    assert (read_darklabel(path).dataset, read_yolo(data).dataset, read_kitti(root).dataset) == wanted


def yolo(root, *lines, settings=("path: ../elsewhere", "train: images/train", "names:", "  0: car", "  1: dog")):
    for t in range(2):
        picture(root / f"images/train/street_{t:03d}.jpg")
    text(root / "labels/train/street_000.txt", *lines)
    text(root / "data.yaml", *settings)
    return root


def test_yolo(tmp_path):
    root = yolo(tmp_path, "1 0.5 0.5 0.5 0.5", "0 0.25 0.25 0.25 0.25 7", "0 0 0 0.5 0 0.5 0.5 0 0.5", "")
    assert find_format(root).name == "yolo"
    builder = read_yolo(root)
    assert rows(builder.dataset, "image_id", "category_id", "xyxy", "instance_id") == [
        (1, 2, (8, 6, 23, 17), None),
        (1, 1, (4, 3, 11, 8), 1),
        (1, 1, (0, 0, 15, 11), None),
    ]
    assert "polygons become the boxes around them" in builder.notes[0]
    assert [f.frame_id for f in read_yolo(root, video=True).dataset.frames] == [0, 1]
    assert nothing_wrong(builder.dataset, root)


@pytest.mark.parametrize(
    ("settings", "line", "message"),
    [
        (("names: [car, dog]", "train: absent"), "", "train is 'absent', and .*absent is not there"),
        (("names: [car, dog]", "val: images/train"), "", "train is None; wanted a folder of images"),
        (("names: {1: car}", "train: images/train"), "", "names is .*; wanted a list, or numbers from 0"),
        (("- a",), "", "holds a list; wanted names, train and val"),
        (("names: [a",), "", "cannot be read"),
        (("names: [car]", "train: images/train"), "1 0.5 0.5 0.5 0.5", r"line 1: the class is 1; wanted 0..0"),
        (("names: [car]", "train: images/train"), "0 16 12 16 12", "wanted parts of the frame"),
        (("names: [car]", "train: images/train"), "0 0.5 0.5", "wanted 5 numbers or more between blanks"),
        (("names: [car]", "train: images/train"), "0 1 1 1 1 1 1 1", "has 8 numbers"),
        (("names: [car]", "train: ../outside"), "", "is not there"),
    ],
)
def test_bad_yolo(tmp_path, settings, line, message):
    with pytest.raises(DatasetError, match=message):
        read_yolo(yolo(tmp_path, line, settings=settings))


def test_a_list_of_images_may_not_leave_its_folder(tmp_path):
    root = yolo(tmp_path / "set", settings=("names: [car]", "train: list.txt"))
    picture(tmp_path / "other.jpg")
    text(root / "list.txt", "images/train/street_000.jpg", "../other.jpg")
    with pytest.raises(DatasetError, match="wanted images inside it"):
        read_yolo(root)
