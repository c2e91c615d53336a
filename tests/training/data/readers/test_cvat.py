"""CVAT for video 1.1 by its documented form: keyframes, ends, labels, steps; and what images add."""

import pytest

from rdn_engine.errors import DatasetError
from tests.data_files import nothing_wrong, picture, text
from training.data.formats import find_format
from training.data.readers.cvat import read_cvat_images, read_cvat_video

TASK = (
    "<version>1.1</version><meta><task><id>3</id><name>street</name><size>{size}</size><mode>interpolation</mode>"
    "<start_frame>{start}</start_frame><stop_frame>{stop}</stop_frame><frame_filter>{step}</frame_filter><labels>"
    "<label><name>car</name><attributes><attribute><name>parked</name></attribute></attributes></label>"
    "<label><name>dog</name></label></labels><original_size><width>32</width><height>24</height></original_size>"
    "</task></meta>"
)


def box(frame, x, y=3, w=10, h=8, outside=0, keyframe=1, more=""):
    return (
        f'<box frame="{frame}" outside="{outside}" occluded="0" keyframe="{keyframe}" xtl="{x:.2f}" ytl="{y:.2f}" '
        f'xbr="{x + w:.2f}" ybr="{y + h:.2f}" z_order="0"{more}><attribute name="parked">false</attribute></box>'
    )


def track(number, label, *boxes):
    return f'<track id="{number}" label="{label}" source="manual">{"".join(boxes)}</track>'


def export(root, *tracks, frames=range(8), size=None, start=0, stop=None, step=""):
    for t in frames:
        picture(root / f"images/frame_{t:06d}.png")
    stop = max(frames) if stop is None else stop
    head = TASK.format(size=size or len(frames), start=start, stop=stop, step=step)
    text(root / "annotations.xml", '<?xml version="1.0" encoding="utf-8"?>', "<annotations>" + head, *tracks)
    with (root / "annotations.xml").open("a") as file:
        file.write("</annotations>")
    return root / "annotations.xml"


def of_track(dataset, number):
    """Position and first column of each box of an object"""
    frames = {f.id: f.frame_id for f in dataset.frames}
    return [(frames[a.image_id], a.xyxy[0]) for a in dataset.annotations if a.instance_id == number]


def test_a_video_task(tmp_path):
    path = export(
        tmp_path,
        track(0, "car", box(1, 2), box(5, 10), box(6, 10, outside=1)),
        track(1, "dog", box(2, 0, 0, 32, 24), box(3, 0, 0, 32, 24, outside=1), box(6, 4)),
    )
    assert find_format(path).name == "cvat-video"
    builder = read_cvat_video(path)
    dataset = builder.dataset
    assert dataset.class_names == ["car", "dog"]
    assert [v.name for v in dataset.videos] == ["street"]
    assert [(f.frame_id, f.file_name) for f in dataset.frames] == [(t, f"images/frame_{t:06d}.png") for t in range(8)]
    assert of_track(dataset, 1) == [(1, 2), (2, 4), (3, 6), (4, 8), (5, 10)]  # gone from frame 6 on
    assert of_track(dataset, 2) == [(2, 0), (6, 4), (7, 4)]  # hidden from 3 on, then up to the end of the task
    assert dataset.annotations[0].xyxy == (2, 3, 11, 10)  # edges 2, 3, 12, 11
    assert dataset.annotations[2].xyxy == (0, 0, 31, 23)
    assert (builder.cut, builder.dropped) == (0, 0)
    assert nothing_wrong(dataset, tmp_path)


def test_boxes_between_keyframes_that_cvat_wrote_itself_are_taken_as_they_are(tmp_path):
    keys = [box(0, 0), box(1, 7, keyframe=0), box(2, 1, keyframe=0), box(3, 9)]
    dataset = read_cvat_video(export(tmp_path, track(0, "car", *keys), frames=range(4))).dataset
    assert of_track(dataset, 1) == [(0, 0), (1, 7), (2, 1), (3, 9)]


def test_an_object_moves_towards_where_it_left(tmp_path):
    """As CVAT shows it: a keyframe that ends an object has a place, too."""
    dataset = read_cvat_video(export(tmp_path, track(0, "car", box(0, 0), box(4, 8, outside=1)))).dataset
    assert of_track(dataset, 1) == [(0, 0), (1, 2), (2, 4), (3, 6)]


@pytest.mark.parametrize("every_frame", [False, True])
def test_start_frame_and_step(tmp_path, every_frame):
    """The numbers in the file are the video's: a task of frames 10, 13, 16; of other images none is taken."""
    frames = range(20) if every_frame else (10, 13, 16)
    track_ = track(0, "car", box(10, 0), box(16, 12))
    dataset = read_cvat_video(export(tmp_path, track_, frames=frames, size=3, start=10, stop=16, step="step=3")).dataset
    assert [f.frame_id for f in dataset.frames] == [10, 13, 16]
    assert of_track(dataset, 1) == [(10, 0), (13, 6), (16, 12)]
    assert nothing_wrong(dataset, tmp_path)


@pytest.mark.parametrize("first", [0, 3])
def test_images_elsewhere_that_count_from_one(tmp_path, first):
    """Where the first frame has no box, the image behind the last tells."""
    path = export(tmp_path / "export", track(0, "car", box(first, first), box(7, 7)), frames=range(8))
    for t in range(8):
        (tmp_path / f"export/images/frame_{t:06d}.png").unlink()
        picture(tmp_path / f"frames/{t + 1:05d}.jpg")
    with pytest.raises(DatasetError, match=r"has no image of number 0, .* and --first-image 1 where"):
        read_cvat_video(path, tmp_path / "frames")
    dataset = read_cvat_video(path, tmp_path / "frames", first_image=1).dataset
    assert [(f.frame_id, f.file_name) for f in dataset.frames] == [(t, f"{t + 1:05d}.jpg") for t in range(8)]
    assert of_track(dataset, 1) == [(t, t) for t in range(first, 8)]
    assert nothing_wrong(dataset, tmp_path / "frames")


def test_a_deleted_frame_is_left_out(tmp_path):
    path = export(tmp_path, track(0, "car", box(0, 0), box(7, 7)), frames=[0, 1, 2, 4, 5, 6, 7], size=8)
    builder = read_cvat_video(path)
    dataset = builder.dataset
    assert builder.notes == [
        f"1 frames of the task have no image in {tmp_path / 'images'}, as frames that were deleted have none"
    ]
    assert [f.frame_id for f in dataset.frames] == [0, 1, 2, 4, 5, 6, 7]
    assert of_track(dataset, 1) == [(t, t) for t in (0, 1, 2, 4, 5, 6, 7)]


def test_a_label_of_regions_to_ignore(tmp_path):
    path = export(tmp_path, track(0, "car", box(0, 0)), track(1, "dog", box(0, 5), box(1, 5, outside=1)))
    dataset = read_cvat_video(path, ignore_label="dog").dataset
    assert dataset.class_names == ["car"]
    assert [(a.ignore, a.instance_id) for a in dataset.annotations if a.ignore] == [(True, None)]


@pytest.mark.parametrize("word", ["true", "1", "Yes"])
def test_an_attribute_that_marks_what_to_ignore(tmp_path, word):
    """It holds from its keyframe up to the next one, as CVAT has it."""
    marked = box(2, 2).replace(">false<", f">{word}<")
    path = export(tmp_path, track(0, "car", box(0, 0), marked, box(4, 4)), frames=range(6))
    dataset = read_cvat_video(path, ignore_attribute="parked").dataset
    assert [a.ignore for a in dataset.annotations] == [False, False, True, True, False, False]
    assert not any(a.ignore for a in read_cvat_video(path, ignore_attribute="crowd").dataset.annotations)
    assert not any(a.ignore for a in read_cvat_video(path).dataset.annotations)
    path = images(tmp_path / "stills", box(0, 2), marked)
    path.write_text(path.read_text().replace("<box ", '<box label="car" '))
    stills = read_cvat_images(path, ignore_attribute="parked").dataset
    assert [a.ignore for a in stills.annotations] == [False, True]


def test_a_turned_box_becomes_the_one_around_it(tmp_path):
    turned = box(0, 10, 8, 10, 4, more=' rotation="90.00"')
    dataset = read_cvat_video(export(tmp_path, track(0, "car", turned), frames=[0])).dataset
    assert dataset.annotations[0].xyxy == pytest.approx((13, 5, 16, 14))


@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_folder_of_exports(tmp_path, elsewhere):
    """Each task is a video of its own, called as its folder; the classes of all are one list."""
    for name, label in (("street", "car"), ("yard/one", "dog")):
        export(tmp_path / "exports" / name, track(0, label, box(0, 2)), frames=range(3))
    other = tmp_path / "exports/yard/one/annotations.xml"
    other.write_text(other.read_text().replace("<label><name>car", "<label><name>cow"))
    images = None
    if elsewhere:
        images = tmp_path / "frames"
        for name in ("street", "yard/one"):
            (images / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "exports" / name / "images").rename(images / name)
    assert find_format(tmp_path / "exports").name == "cvat-video"
    dataset = read_cvat_video(tmp_path / "exports", images).dataset
    assert dataset.class_names == ["car", "dog", "cow"]
    assert [v.name for v in dataset.videos] == ["street", "yard/one"]
    assert [a.category_id for a in dataset.annotations] == [1] * 3 + [2] * 3
    assert [f.frame_id for f in dataset.frames] == [0, 1, 2] * 2
    assert nothing_wrong(dataset, images or tmp_path / "exports")


def test_shapes_other_than_boxes_are_said(tmp_path):
    builder = read_cvat_video(export(tmp_path, track(0, "car", '<polygon frame="0"/>'), track(1, "dog", box(0, 0))))
    assert len(builder.dataset.annotations) == 8
    assert "shapes other than boxes are left out" in builder.notes[0]


@pytest.mark.parametrize(
    ("tracks", "options", "message"),
    [
        ([track(0, "cow", box(0, 0))], {}, "track 0: the label is 'cow'; wanted one of car, dog"),
        ([track(0, "car", box(0, 0), box(0, 1))], {}, "track 0 has two boxes in frame 0"),
        ([track(0, "car", box("a", 0))], {}, "track 0: frame is 'a'; wanted 1 numbers"),
        ([track(0, "car", box(0, float("nan")))], {}, "wanted 4 numbers"),
        ([track(0, "car", box(0, 0))], {"step": "step=0"}, "wanted a step of 1 or more"),
        ([track(0, "car", box(0, 0))], {"step": "every 3"}, "frame_filter is 'every 3'; wanted step=N"),
        ([track(0, "car", box(0, 0), box(9, 0))], {"stop": 11, "size": 12}, "has no image of number 9"),
        ([track(0, "car", box(5, 0))], {"step": "step=2"}, "track 0 has a box in frame 5; wanted frames of the task"),
        (["<image/>"], {}, "wanted an export as CVAT for video 1.1"),
        (['<!DOCTYPE a [<!ENTITY b "c">]>'], {}, "is not XML"),
    ],
)
def test_a_bad_export(tmp_path, tracks, options, message):
    with pytest.raises(DatasetError, match=message) as caught:
        read_cvat_video(export(tmp_path, *tracks, **options))
    assert str(tmp_path) in str(caught.value)


def test_no_frames_at_all(tmp_path):
    path = export(tmp_path, track(0, "car", box(0, 0)), frames=[0])
    (tmp_path / "images/frame_000000.png").unlink()
    with pytest.raises(DatasetError, match=r"holds no frame; .* training/data/frames.py VIDEO --output FOLDER"):
        read_cvat_video(path)


# For images


def images(root, *rows, names=("frame_000000", "frame_000001")):
    for name in names:
        picture(root / f"images/{name}.PNG")
    body = "".join(
        f'<image id="{i}" name="{name}" width="32" height="24">{rows[i] if i < len(rows) else ""}</image>'
        for i, name in enumerate(names)
    )
    head = TASK.format(size=2, start=0, stop=1, step="")
    text(root / "annotations.xml", f"<annotations>{head}{body}</annotations>")
    return root / "annotations.xml"


def test_images_of_a_video_have_no_suffix_in_the_file(tmp_path):
    path = images(tmp_path, box(0, 2), box(0, 3) + '<polygon label="car"/>')
    path.write_text(path.read_text().replace("<box ", '<box label="car" '))
    assert find_format(path).name == "cvat-images"
    builder = read_cvat_images(path, video=True)
    assert [(f.frame_id, f.file_name) for f in builder.dataset.frames] == [
        (t, f"images/frame_{t:06d}.PNG") for t in (0, 1)
    ]
    assert [(a.xyxy, a.instance_id) for a in builder.dataset.annotations] == [
        ((2, 3, 11, 10), None),
        ((3, 3, 12, 10), None),
    ]
    assert "shapes other than boxes" in builder.notes[0]
    assert nothing_wrong(builder.dataset, tmp_path)


def test_bad_images(tmp_path):
    with pytest.raises(DatasetError, match="the label is None; wanted one of car, dog"):
        read_cvat_images(images(tmp_path, box(0, 2)))
    with pytest.raises(DatasetError, match="is there twice"):
        read_cvat_images(images(tmp_path, names=("a", "a")))
    with pytest.raises(DatasetError, match=r"or the format cvat-video"):
        read_cvat_images(export(tmp_path, track(0, "car", box(0, 0))))
    path = images(tmp_path)
    path.write_text(path.read_text().replace("1.1", "2.0"))
    with pytest.raises(DatasetError, match=r"of version 2.0; wanted CVAT's"):
        read_cvat_images(path)
