"""Miniatures of layouts in JSON written by hand: TAO, mmtracking's converter, BURST, BDD100K's first form."""

import json

import pytest

from rdn_engine.errors import DatasetError
from rdn_engine.evaluation.coco_vid import write_dataset
from tests.data_files import nothing_wrong, picture, rows
from tests.training.data.readers.test_youtube_vis import run_lengths
from training.data.formats import find_format
from training.data.readers.bdd100k import read_bdd100k
from training.data.readers.burst import read_burst
from training.data.readers.coco import read_coco_video


def write(path, data):
    path.write_text(json.dumps(data))
    return path


def tao(root, **annotation):
    for t in (0, 30):
        picture(root / f"train/BDD/b1/frame{t:04d}.jpg")
    image = {"video_id": 4, "width": 32, "height": 24, "license": 0, "video": "train/BDD/b1"}
    box = {"image_id": 8, "track_id": 5, "category_id": 805, "video_id": 4, "bbox": [2, 3, 10, 8], "iscrowd": 0}
    data = {
        "videos": [{"id": 4, "name": "train/BDD/b1", "width": 32, "height": 24, "neg_category_ids": []}],
        "images": [  # not in the order of the video
            {**image, "id": 9, "file_name": "train/BDD/b1/frame0030.jpg", "frame_index": 30},
            {**image, "id": 8, "file_name": "train/BDD/b1/frame0000.jpg", "frame_index": 0},
        ],
        "tracks": [{"id": 5, "category_id": 805, "video_id": 4}],
        "annotations": [{**box, "id": 1, **annotation}, {**box, "id": 2, "image_id": 9, "bbox": [3, 3, 10, 8]}],
        "categories": [{"id": 805, "name": "person", "synset": "person.n.01"}, {"id": 95, "name": "bus"}],
    }
    return write(root / "train.json", data)


def test_tao(tmp_path):
    path = tao(tmp_path)
    assert find_format(path).name == "coco-video"
    dataset = read_coco_video(path).dataset
    assert dataset.class_names == ["bus", "person"]
    assert [(f.frame_id, f.file_name) for f in dataset.frames] == [
        (t, f"train/BDD/b1/frame{t:04d}.jpg") for t in (0, 30)
    ]
    assert rows(dataset, "image_id", "category_id", "xyxy", "instance_id") == [
        (1, 805, (2, 3, 11, 10), 1),
        (2, 805, (3, 3, 12, 10), 1),
    ]
    assert nothing_wrong(dataset, tmp_path)


def test_our_own_form_is_read_as_it_is(tmp_path):
    dataset = read_coco_video(tao(tmp_path)).dataset
    write_dataset(dataset, tmp_path / "again.json")
    assert find_format(tmp_path / "again.json").name == "coco-video"
    assert read_coco_video(tmp_path / "again.json").dataset == dataset


@pytest.mark.parametrize(
    ("annotation", "message"),
    [
        ({"category_id": 1}, "category_id is '1'; wanted the id of one of categories"),
        ({"image_id": 1}, "image_id is '1'; wanted the id of one of images"),
        ({"bbox": [1, 2, 3]}, "bbox is .*; wanted"),
    ],
)
def test_bad_tao(tmp_path, annotation, message):
    with pytest.raises(DatasetError, match=message):
        read_coco_video(tao(tmp_path, **annotation))


def test_boxes_that_are_a_pixel_short(tmp_path):
    """mmtracking's converter of ImageNet VID: a whole frame of 32 x 24 has the sides 31 and 23."""
    name = "val/ILSVRC2015_val_00000000/000000.JPEG"
    picture(tmp_path / name)
    row = {"id": 1, "video_id": 1, "image_id": 1, "category_id": 1, "instance_id": 0, "bbox": [0, 0, 31, 23]}
    data = {
        "categories": [{"id": 1, "name": "airplane", "encode_name": "n02691156"}],
        "videos": [{"id": 1, "name": "val/ILSVRC2015_val_00000000", "vid_train_frames": []}],
        "images": [{"id": 1, "video_id": 1, "frame_id": 0, "file_name": name, "width": 32, "height": 24,
                    "is_vid_train_frame": True}],
        "annotations": [{**row, "iscrowd": False, "occluded": False, "generated": True, "area": 713}],
    }  # fmt: skip
    path = write(tmp_path / "imagenet_vid_val.json", data)
    builder = read_coco_video(path)
    assert "a pixel short: --short-boxes adds it" in builder.notes[0]
    assert "--images ILSVRC2015/Data/VID" in builder.notes[0]
    builder = read_coco_video(path, short_boxes=True)
    assert builder.notes == []
    assert rows(builder.dataset, "xyxy", "instance_id") == [((0, 0, 31, 23), 1)]
    assert nothing_wrong(builder.dataset, tmp_path)


def burst(root, **changes):
    for t in (0, 5):
        picture(root / f"LaSOT/bird-1/{t:08d}.jpg")
    mask = {"rle": run_lengths(2, 3, 11, 10), "is_gt": True, "score": 1.0}
    sequence = {
        "id": 1, "width": 32, "height": 24, "seq_name": "bird-1", "dataset": "LaSOT", "fps": 30,
        "all_image_paths": [f"{t:08d}.jpg" for t in range(6)],
        "annotated_image_paths": ["00000000.jpg", "00000005.jpg"],
        "track_category_ids": {"3": 12, "4": 12},
        "segmentations": [{"3": mask}, {"3": mask, "4": {"rle": run_lengths(0, 0, 31, 23)}}],
        **changes,
    }  # fmt: skip
    data = {"sequences": [sequence], "categories": [{"id": 12, "name": "bird"}], "split": "val"}
    return write(root / "all_classes.json", data)


def test_burst(tmp_path):
    path = burst(tmp_path)
    assert find_format(path).name == "burst"
    dataset = read_burst(path).dataset
    assert [(f.frame_id, f.file_name) for f in dataset.frames] == [(t, f"LaSOT/bird-1/{t:08d}.jpg") for t in (0, 5)]
    assert rows(dataset, "image_id", "category_id", "xyxy", "instance_id") == [
        (1, 12, (2, 3, 11, 10), 1),
        (2, 12, (2, 3, 11, 10), 1),
        (2, 12, (0, 0, 31, 23), 2),
    ]
    assert nothing_wrong(dataset, tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"segmentations": [{}]}, "wanted one object for each of 2 annotated images"),
        ({"annotated_image_paths": ["9.jpg", "00000005.jpg"]}, "'9.jpg' is not in all_image_paths"),
        ({"track_category_ids": {"3": 13, "4": 12}}, "track_category_ids.3 is '13'"),
        ({"all_image_paths": None}, "all_image_paths is 'None'; wanted a list of file names"),
    ],
)
def test_bad_burst(tmp_path, changes, message):
    with pytest.raises(DatasetError, match=message):
        read_burst(burst(tmp_path, **changes))


def bdd100k(root, category="car", **label):
    frame = {"videoName": "b1", "attributes": {}}
    box = {"x1": 2, "y1": 3, "x2": 11, "y2": 10}
    one = {"id": "00001", "category": category, "attributes": {"crowd": False}, "box2d": box, **label}
    frames = [
        {**frame, "name": "b1-0000002.jpg", "index": 1, "labels": [one, {"id": "2", "category": "lane"}]},
        {**frame, "name": "b1-0000001.jpg", "index": 0, "labels": [one]},
    ]
    (root / "labels").mkdir(exist_ok=True)
    return write(root / "labels/b1.json", frames).parent


def test_bdd100k_as_it_came_in_2020(tmp_path):
    """Frames of 1280 x 720 in a list, `index` in the place of `frameIndex`."""
    for t in (1, 2):
        picture(tmp_path / f"b1/b1-{t:07d}.jpg", 1280, 720)
    root = bdd100k(tmp_path)
    assert find_format(root).name == "bdd100k"
    builder = read_bdd100k(root)
    assert [(f.frame_id, f.file_name) for f in builder.dataset.frames] == [
        (t, f"b1/b1-{t + 1:07d}.jpg") for t in (0, 1)
    ]
    assert rows(builder.dataset, "image_id", "category_id", "xyxy", "instance_id") == [
        (t, 3, (2, 3, 11, 10), 1) for t in (1, 2)
    ]
    assert "labels without a box are left out" in builder.notes[0]
    assert nothing_wrong(builder.dataset, tmp_path)


@pytest.mark.parametrize(
    ("label", "message"),
    [
        ({"category": "cow"}, "category is 'cow'; wanted one of pedestrian, rider"),
        ({"box2d": [1, 2, 3, 4]}, "box2d is .*; wanted an object"),
        ({"box2d": {"x1": 1}}, "box2d.y1 is missing"),
        ({"id": None}, "id is 'None'; wanted the track"),
    ],
)
def test_bad_bdd100k(tmp_path, label, message):
    with pytest.raises(DatasetError, match=message):
        read_bdd100k(bdd100k(tmp_path, **label))
