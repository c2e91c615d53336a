"""Each kind of doubt in a sound miniature, one at a time."""

import dataclasses

import numpy as np
import pytest

from rdn_engine.evaluation.coco_vid import Annotation, Category, Dataset, Frame, Video
from training.data.anchors import AnchorFit
from training.data.doubts import DOUBTS, LEAST_TAIL, STILL, find_doubts

FRAMES = 20


@pytest.fixture
def sound():
    """Two videos of 20 frames with a cat and a dog that move"""
    dataset = Dataset([Category(1, "cat"), Category(2, "dog")], [Video(1, "a"), Video(2, "b")])
    for video in (1, 2):
        for t in range(FRAMES):
            frame = Frame(len(dataset.frames) + 1, video, t, f"{'_ab'[video]}/{t:02d}.png", 320, 240)
            dataset.frames.append(frame)
            for category in (1, 2):
                box = (10.0 + t, 20.0 * category, 50.0 + t, 60.0 * category)
                row = Annotation(len(dataset.annotations) + 1, frame.id, category, box, 2 * video + category)
                dataset.annotations.append(row)
    return dataset


def found(dataset, **options):
    return [(p.kind, p.where, p.what) for p in find_doubts(dataset, "data.json", **options)]


def without(dataset, frames, tracks=None):
    """Annotations of the first video's frames (and tracks) left out"""
    ids = {f.id for f in dataset.frames if f.video_id == 1 and f.frame_id in frames}
    dataset.annotations[:] = [
        a for a in dataset.annotations if a.image_id not in ids or (tracks and a.instance_id not in tracks)
    ]


def test_nothing_is_in_doubt(sound):
    assert found(sound) == []


def test_frames_without_a_box_between_frames_with_boxes(sound):
    without(sound, {5, 6, 7, 12})
    kinds = [row for row in found(sound) if row[0] == "empty stretch"]
    assert kinds == [
        ("empty stretch", "a/05.png", "3 frames without a box from here on; there are boxes before and after"),
        ("empty stretch", "a/12.png", "1 frames without a box from here on; there are boxes before and after"),
    ]


@pytest.mark.parametrize(("left_out", "doubts"), [({5}, 1), ({5, 6}, 1), ({5, 6, 7}, 0), ({0, 1}, 0)])
def test_a_track_that_leaves_out_a_frame_or_two(sound, left_out, doubts):
    """Longer ones hide; and a track may begin late."""
    without(sound, left_out, tracks={3})
    rows = found(sound)
    assert [row[:2] for row in rows] == [("track gap", "a/05.png")] * doubts
    assert all(row[2].startswith("track 3 is not in ") for row in rows)


@pytest.mark.parametrize(("tail", "doubts"), [(LEAST_TAIL, 1), (LEAST_TAIL - 1, 0)])
def test_annotation_that_stops_early(sound, tail, doubts):
    without(sound, set(range(FRAMES - tail, FRAMES)))
    assert [row[:2] for row in found(sound)] == [("early end", f"a/{FRAMES - tail:02d}.png")] * doubts


def test_a_track_that_changes_its_class(sound):
    sound.annotations[2] = dataclasses.replace(sound.annotations[2], category_id=2)
    assert found(sound) == [("class change", "a/00.png", "track 3 is cat 19 times, dog 1 times")]


@pytest.mark.parametrize(("width", "doubts"), [(0.99, 1), (1.0, 0)])
def test_a_box_of_less_than_a_pixel(sound, width, doubts):
    sound.annotations[0] = dataclasses.replace(sound.annotations[0], xyxy=(5.0, 5.0, 5.0 + width - 1, 9.0))
    assert [row[:2] for row in found(sound)] == [("sub-pixel box", "a/00.png")] * doubts


@pytest.mark.parametrize(("frames", "doubts"), [(STILL, 1), (STILL - 1, 0)])
def test_a_box_that_stands_still(sound, frames, doubts):
    without(sound, set(range(frames, FRAMES)), tracks={3})
    sound.annotations[:] = [
        dataclasses.replace(a, xyxy=(1.0, 2.0, 30.0, 40.0)) if a.instance_id == 3 else a for a in sound.annotations
    ]
    assert [row[:2] for row in found(sound)] == [("still box", "a/00.png")] * doubts


def test_a_box_that_moves_once_does_not_stand_still(sound):
    still = [dataclasses.replace(a, xyxy=(1.0, 2.0, 30.0, 40.0)) for a in sound.annotations if a.instance_id == 3]
    others = [a for a in sound.annotations if a.instance_id != 3]
    still[-1] = dataclasses.replace(still[-1], xyxy=(1.0, 2.0, 30.0, 40.25))
    sound.annotations[:] = [*others, *still]
    assert found(sound) == []


def test_boxes_that_nobody_followed(sound):
    sound.annotations[:] = [dataclasses.replace(a, instance_id=None) for a in sound.annotations]
    assert [row[:2] for row in found(sound)] == [("no tracks", "a"), ("no tracks", "b")]
    one = Dataset(sound.categories, sound.videos[:1], sound.frames[:1], sound.annotations[:2])
    assert found(one) == []  # an image of its own


def test_ignore_regions_are_no_objects(sound):
    sound.annotations[:] = [dataclasses.replace(a, instance_id=None, ignore=True) for a in sound.annotations]
    assert [row[0] for row in found(sound)] == ["unused class", "unused class"]


def test_classes_that_few_videos_show(sound):
    sound.categories.append(Category(9, "fox"))
    sound.annotations[:] = [a for a in sound.annotations if a.category_id == 1 or a.image_id <= FRAMES]
    assert found(sound) == [
        ("rare class", "data.json", "dog is in 1 of 2 videos"),
        ("unused class", "data.json", "fox has no box"),
    ]


def test_anchors_that_meet_few_boxes(sound):
    fit = AnchorFit((64, 128), 0.5, (12, 24), 0.97, np.ones(4))
    assert found(sound, anchors=fit) == [
        ("anchors", "data.json", "anchor_sizes: [64, 128] meet 50% of the boxes at IoU 0.5; [12, 24] would meet 97%")
    ]
    assert found(sound, anchors=dataclasses.replace(fit, met=0.9)) == []


def test_every_kind_has_a_title(sound):
    without(sound, {5}, tracks={3})
    assert {row[0] for row in found(sound)} <= set(DOUBTS)
