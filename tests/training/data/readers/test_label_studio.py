"""Label Studio's videos: ends, the last annotation, several videos, turned boxes."""

import json

import pytest

from rdn_engine.errors import DatasetError
from tests.data_files import nothing_wrong, picture
from training.data.readers.label_studio import read_label_studio


def key(frame, x, enabled=True, **more):
    return {"frame": frame, "x": x, "y": 25, "width": 50, "height": 50, "enabled": enabled, "time": 0, **more}


def region(*sequence, label="car"):
    value = {"framesCount": 6, "duration": 1.0, "sequence": list(sequence), "labels": [label] if label else []}
    return {"id": "r", "type": "videorectangle", "from_name": "box", "to_name": "video", "value": value}


def task(*regions, video="/data/upload/1/0a1b2c3d-street.mp4"):
    other = {"id": "c", "type": "choices", "value": {"choices": ["day"]}}
    return {"id": 5, "data": {"video": video}, "annotations": [{"id": 1, "result": [other, *regions]}]}


def export(root, *tasks, folders=("0a1b2c3d-street",)):
    for folder in folders:
        for t in range(6):
            picture(root / folder / f"{t:06d}.png")
    (root / "export.json").write_text(json.dumps(list(tasks)))
    return root / "export.json"


def found(dataset):
    frames = {f.id: f.frame_id for f in dataset.frames}
    return [(frames[a.image_id], a.xyxy[0], a.instance_id) for a in dataset.annotations]


def test_a_lifespan_ends_after_its_last_keyframe(tmp_path):
    """Frame 1 of Label Studio is the first; where `enabled` is false the object is still shown."""
    path = export(tmp_path, task(region(key(1, 0), key(3, 50, enabled=False), key(5, 25)), region(key(6, 0))))
    dataset = read_label_studio(path).dataset
    assert found(dataset) == [(0, 0, 1), (1, 8, 1), (2, 16, 1), (4, 8, 1), (5, 8, 1), (5, 0, 2)]
    assert dataset.annotations[0].xyxy == (0, 6, 15, 17)  # 0, 25, 50, 50 percent of 32 x 24
    assert nothing_wrong(dataset, tmp_path)


def test_the_last_annotation_counts(tmp_path):
    one = task(region(key(1, 0)))
    one["annotations"].append({"id": 2, "result": [region(key(1, 50), label="dog")]})
    one["annotations"].append({"id": 3, "was_cancelled": True, "result": []})
    dataset = read_label_studio(export(tmp_path, one)).dataset
    assert dataset.class_names == ["dog"]
    assert len(dataset.annotations) == 6


@pytest.mark.parametrize(
    ("video", "folder"),
    [
        ("https://host/a/street.mp4?token=1", "street"),
        ("/data/local-files/?d=clips/street%20one.mp4", "street one"),
        ("s3://bucket/clips/street.mp4", "street"),
        ("/data/local-files/?d=C%3A%5Cclips%5Cstreet.mp4", "street"),
    ],
)
def test_each_video_has_a_folder_by_the_name_of_its_file(tmp_path, video, folder):
    path = export(tmp_path, task(region(key(1, 0)), video=video), task(region(key(2, 0)), video="x/yard.mp4"),
                  folders=(folder, "yard"))  # fmt: skip
    dataset = read_label_studio(path).dataset
    assert [v.name for v in dataset.videos] == [folder, "yard"]
    assert nothing_wrong(dataset, tmp_path)


def test_frames_of_one_video_may_lie_in_the_folder_itself(tmp_path):
    path = export(tmp_path, task(region(key(1, 0))), folders=("images",))
    dataset = read_label_studio(path, tmp_path / "images").dataset
    assert [f.file_name for f in dataset.frames] == [f"{t:06d}.png" for t in range(6)]


def test_a_turned_box_becomes_the_one_around_it(tmp_path):
    """By 90 degrees about its upper left corner at 16, 6: 16 wide and 12 high become 12 wide, to the left."""
    dataset = read_label_studio(export(tmp_path, task(region(key(1, 50, rotation=90), key(2, 50, False))))).dataset
    assert dataset.annotations[0].xyxy == pytest.approx((4, 6, 15, 21))


def test_a_region_without_a_label_is_said(tmp_path):
    builder = read_label_studio(export(tmp_path, task(region(key(1, 0)), region(key(1, 0), label=None))))
    assert len(builder.dataset.annotations) == 6
    assert "regions without a label are left out" in builder.notes[0]


@pytest.mark.parametrize(("images", "message"), [(6, None), (8, None), (9, "goes on to frame 9; wanted frames at the")])
def test_frames_at_another_rate_than_label_studios(tmp_path, images, message):
    path = export(tmp_path, task(region(key(1, 0))))
    for t in range(6, images):
        picture(tmp_path / f"0a1b2c3d-street/{t:06d}.png")
    if message is None:
        assert read_label_studio(path).notes == []
        return
    with pytest.raises(DatasetError, match=message):
        read_label_studio(path)


def test_fewer_frames_than_label_studios_are_said(tmp_path):
    path = export(tmp_path, task(region(key(1, 0))))
    for t in (3, 4, 5):
        (tmp_path / f"0a1b2c3d-street/{t:06d}.png").unlink()
    (note,) = read_label_studio(path).notes
    assert "framesCount is 6, and" in note
    assert note.endswith("ends at frame 3")


@pytest.mark.parametrize(
    ("one", "message"),
    [
        (task(region(key(0, 0))), "frame is '0'; wanted 1 or more: frames of Label Studio count from 1"),
        (task(region(key(9, 0))), "has no image of number 8"),
        (task(region(key(1, None))), r"sequence\[0\].x is 'None'; wanted a finite number"),
        (task(region(key(1, 0, enabled="yes"))), "enabled is 'yes'"),
        (task(region(key(1.5, 0))), "frame is 1.5; wanted a whole number"),
        (task(region(key(1, 0)), video=""), "wanted the address of a video"),
        (task(), "has no labelled region of a video"),
        (task(region(key(1, 0)), video="other/yard.mp4"), "yard holds no frame"),
    ],
)
def test_a_bad_export(tmp_path, one, message):
    with pytest.raises(DatasetError, match=message):
        read_label_studio(export(tmp_path, one))
