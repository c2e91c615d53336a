"""Videos held out for validation."""

import pytest

from rdn_engine.errors import DatasetError
from rdn_engine.evaluation.coco_vid import Annotation, Category, Dataset, Frame, Video
from training.data.check import check_annotations
from training.data.split import split_dataset


def videos(count, frames=10):
    dataset = Dataset([Category(1, "cat")], [Video(v + 1, f"v{v}") for v in range(count)])
    for video in dataset.videos:
        for t in range(frames):
            number = len(dataset.frames) + 1
            dataset.frames.append(Frame(number, video.id, t, f"{video.name}/{t}.png", 32, 24))
            dataset.annotations.append(Annotation(number, number, 1, (0.0, 0.0, 9.0, 9.0), video.id))
    return dataset


@pytest.mark.parametrize(("count", "held"), [(2, 1), (5, 1), (8, 2), (50, 10)])
def test_every_fifth_video_is_held_out(count, held):
    train, validation, apart = split_dataset(videos(count))
    assert apart
    names = [{v.name for v in one.videos} for one in (train, validation)]
    assert (len(names[0]), len(names[1])) == (count - held, held)
    assert names[0].isdisjoint(names[1])
    for one in (train, validation):
        assert {f.video_id for f in one.frames} == {v.id for v in one.videos}
        assert len(one.annotations) == len(one.frames) == 10 * len(one.videos)
        assert list(check_annotations(one, "x")) == []


@pytest.mark.parametrize(("frames", "late"), [(2, 1), (10, 2), (100, 20)])
def test_the_end_of_the_only_video_is_held_out(frames, late):
    train, validation, apart = split_dataset(videos(1, frames))
    assert not apart
    assert [f.frame_id for f in train.frames] == list(range(frames - late))
    assert [f.frame_id for f in validation.frames] == list(range(frames - late, frames))
    assert [v.name for v in (*train.videos, *validation.videos)] == ["v0", "v0 (end)"]
    assert all(list(check_annotations(one, "x")) == [] for one in (train, validation))


def test_one_frame_cannot_be_shared_out():
    with pytest.raises(DatasetError, match="has 1 frames; wanted two or more"):
        split_dataset(videos(1, 1))
