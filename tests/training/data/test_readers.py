"""The internal form on disk and in memory, and how a data set is built."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rdn_engine.config import RPNConfig
from rdn_engine.errors import DatasetError
from rdn_engine.evaluation.coco_vid import (
    Annotation,
    Category,
    Dataset,
    Frame,
    Video,
    from_coco_box,
    read_dataset,
    to_coco_box,
    write_dataset,
)
from rdn_engine.input_config import InputConfig
from tests.data_files import rows
from training.data.anchors import fit_anchors, network_sides
from training.data.builder import Builder
from training.data.check import check_dataset, print_report
from training.data.doubts import find_doubts
from training.data.page import page


def test_the_last_pixel_is_included():
    assert to_coco_box((0, 0, 31, 23)) == [0, 0, 32, 24]  # a whole frame of 32 x 24
    assert from_coco_box([0, 0, 32, 24]) == (0, 0, 31, 23)
    assert to_coco_box((5, 7, 5, 7)) == [5, 7, 1, 1]  # one pixel


pixels = st.integers(-50, 5000)
boxes = st.tuples(pixels, pixels, pixels, pixels).map(lambda b: tuple(map(float, b)))


@settings(max_examples=60, deadline=None)
@given(boxes, st.tuples(*[st.floats(-1e4, 1e4)] * 4))
def test_boxes_come_back(whole, fraction):
    assert from_coco_box(to_coco_box(whole)) == whole
    assert from_coco_box(to_coco_box(fraction)) == pytest.approx(fraction, abs=1e-9)


@st.composite
def datasets(draw):
    names = draw(st.lists(st.text(min_size=1, max_size=5), min_size=1, max_size=3, unique=True))
    dataset = Dataset([Category(i + 1, name) for i, name in enumerate(names)], [Video(7, "a"), Video(2, "b/c")])
    sizes, flags = st.integers(1, 4000), st.booleans()
    for i in range(draw(st.integers(0, 4))):
        video = draw(st.sampled_from([7, 2]))
        dataset.frames.append(Frame(i + 3, video, i, f"{video}/{i}.jpg", draw(sizes), draw(sizes), draw(flags)))
    for i in range(draw(st.integers(0, 5)) if dataset.frames else 0):
        frame, category = draw(st.sampled_from(dataset.frames)), draw(st.sampled_from(dataset.categories))
        track = draw(st.none() | st.integers(0, 9))
        dataset.annotations.append(Annotation(i, frame.id, category.id, draw(boxes), track, draw(flags)))
    return dataset


@settings(max_examples=40, deadline=None)
@given(dataset=datasets())
def test_a_data_set_comes_back(tmp_path_factory, dataset):
    path = tmp_path_factory.mktemp("round") / "data.json"
    write_dataset(dataset, path)
    assert read_dataset(path) == dataset


SOUND = {
    "categories": [{"id": 2, "name": "dog"}, {"id": 1, "name": "cat"}],
    "videos": [{"id": 1, "name": "v"}],
    "images": [{"id": 1, "video_id": 1, "frame_id": 0, "file_name": "v/0.jpg", "width": 32, "height": 24}],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 1, "instance_id": 4, "bbox": [1, 2, 3, 4], "iscrowd": False}
    ],
}


def test_what_others_write_is_read(tmp_path):
    path = tmp_path / "data.json"
    path.write_text(json.dumps({**SOUND, "info": {}}))
    dataset = read_dataset(path)
    assert dataset.class_names == ["cat", "dog"]
    assert dataset.frames[0].train
    assert dataset.annotations == [Annotation(1, 1, 1, (1.0, 2.0, 3.0, 5.0), 4, False)]
    crowd = {"id": 1, "image_id": 1, "category_id": 1, "track_id": 5, "bbox": [1, 2, 3, 4], "iscrowd": 1}
    path.write_text(json.dumps({**SOUND, "annotations": [crowd]}))
    assert rows(read_dataset(path), "instance_id", "ignore") == [(5, True)]


@pytest.mark.parametrize(
    ("section", "field", "value", "message"),
    [
        ("categories", "name", 3, "categories.0..name is '3'; wanted text"),
        ("videos", "id", "one", "videos.0..id is 'one'; wanted a whole number"),
        ("images", "video_id", 9, "images.0..video_id is '9'; wanted the id of one of videos"),
        ("images", "width", 0, "width is '0'; wanted 1 or more pixels"),
        ("images", "frame_id", None, "frame_id is 'None'; wanted a whole number"),
        ("images", "file_name", "../secret.jpg", "file_name .* wanted a path inside"),
        ("images", "file_name", "/etc/passwd", "file_name .* wanted a path inside"),
        ("images", "is_vid_train_frame", "yes", "wanted 0, 1, false or true"),
        ("annotations", "image_id", 9, "annotations.0..image_id is '9'; wanted the id of one of images"),
        ("annotations", "bbox", [1, 2, 3], "bbox .* wanted .x, y, width, height."),
        ("annotations", "bbox", [1, 2, 3, float("nan")], "four finite numbers"),
        ("annotations", "bbox", [1, 2, 3, 10**400], "four finite numbers"),
        ("annotations", "instance_id", 1.5, "instance_id is '1.5'; wanted a whole number"),
    ],
)
def test_a_wrong_field_is_named(tmp_path, section, field, value, message):
    data = json.loads(json.dumps(SOUND))
    data[section][0][field] = value
    path = tmp_path / "data.json"
    path.write_text(json.dumps(data))
    with pytest.raises(DatasetError, match=message) as caught:
        read_dataset(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("[]", "holds a list; wanted an object"),
        ("{}", "categories is missing; wanted a list"),
        (json.dumps({**SOUND, "videos": [1]}), "videos.0. is 1; wanted an object"),
        (json.dumps({**SOUND, "images": {}}), "images is {}; wanted a list"),
        (json.dumps({**SOUND, "videos": SOUND["videos"] * 2}), "videos has the id 1 twice"),
    ],
)
def test_a_file_of_another_form_is_refused(tmp_path, content, message):
    path = tmp_path / "data.json"
    path.write_text(content)
    with pytest.raises(DatasetError, match=message):
        read_dataset(path)
    with pytest.raises(DatasetError, match="cannot be read"):
        read_dataset(tmp_path / "absent.json")


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=3),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["id", "bbox"]), inner),
    max_leaves=6,
)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_a_damaged_file_is_read_or_refused(tmp_path_factory, data):
    damaged = json.loads(json.dumps(SOUND))
    section = data.draw(st.sampled_from(sorted(damaged)))
    field = data.draw(st.sampled_from(sorted(damaged[section][0])))
    damaged[section][0][field] = data.draw(anything)
    folder = tmp_path_factory.mktemp("damaged")
    (folder / "data.json").write_text(json.dumps(damaged))
    try:
        dataset = read_dataset(folder / "data.json")
    except DatasetError:
        return
    problems = list(check_dataset(dataset, "data.json", folder))
    fit = None
    if len(network_sides(dataset, InputConfig())):
        fit = fit_anchors(dataset, InputConfig(), RPNConfig())
    doubts = list(find_doubts(dataset, "data.json", fit))
    print_report(dataset, problems, doubts)
    page(dataset, "data.json", folder, problems, doubts, fit)


def test_a_box_is_cut_at_the_frame_and_dropped_outside():
    builder = Builder([(1, "thing")])
    builder.video("v")
    builder.frame("0.jpg", 32, 24, 0)
    builder.box((-4, 2, 40, 10), 1, "a")
    builder.box((31, 23, 31, 23), 1, "b")
    builder.box((32, 0, 40, 10), 1, "outside")
    builder.box((5, 5, 4, 9), 1, "no width")
    assert rows(builder.dataset, "xyxy", "instance_id") == [((0, 2, 31, 10), 1), ((31, 23, 31, 23), 2)]
    assert (builder.cut, builder.dropped) == (1, 2)
