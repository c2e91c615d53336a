"""Videos that two sets share, told by their pictures."""

import numpy as np
import pytest
from PIL import Image

from rdn_engine.evaluation.coco_vid import Dataset, Frame, Video
from training.data.drawing import draw_background
from training.data.shared import shared_videos, signs_of


def write(root, name, pictures, size=(160, 120), suffix="jpg", quality=90):
    """A data set of one video"""
    dataset = Dataset(videos=[Video(1, name)])
    for t, picture in enumerate(pictures):
        file = f"{name}/{t:03d}.{suffix}"
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        picture.resize(size).save(root / file, quality=quality)
        dataset.frames.append(Frame(t + 1, 1, t, file, *size))
    return dataset


def panning(seed, frames=12, step=4):
    """A camera that moves over a drawn background"""
    wide = Image.fromarray(draw_background(np.random.default_rng(seed), 160 + step * frames, 120, clutter=8))
    return [wide.crop((step * t, 0, step * t + 160, 120)) for t in range(frames)]


def doubts(tmp_path, mine, other):
    return list(shared_videos(signs_of(mine, tmp_path), signs_of(other, tmp_path), "val.json"))


@pytest.mark.parametrize(
    "copy", [{}, {"suffix": "png"}, {"quality": 40}, {"size": (80, 60)}, {"size": (320, 240), "quality": 60}]
)
def test_a_copy_under_another_name(tmp_path, copy):
    mine = write(tmp_path, "street", panning(1))
    (doubt,) = doubts(tmp_path, mine, write(tmp_path, "copy", panning(1), **copy))
    assert (doubt.kind, doubt.where.split("/")[0]) == ("shared video", "street")
    assert doubt.what.startswith("video street: looks like copy/")
    assert doubt.what.endswith("of video copy in val.json; wanted videos in one set alone")


def test_every_other_frame_of_one_video(tmp_path):
    """Split by frames instead of by videos: no frame is in both."""
    pictures = panning(2, frames=24, step=1)
    (doubt,) = doubts(tmp_path, write(tmp_path, "even", pictures[::2]), write(tmp_path, "odd", pictures[1::2]))
    assert doubt.kind == "shared video"


def test_other_videos_are_not_shared(tmp_path):
    sets = [write(tmp_path, f"video{seed}", panning(seed)) for seed in range(6)]
    assert [doubts(tmp_path, one, other) for one in sets[:3] for other in sets[3:]] == [[]] * 9


def test_frames_of_one_colour_or_missing_ones_tell_nothing(tmp_path):
    black = [Image.new("RGB", (160, 120))] * 4
    mine, other = write(tmp_path, "a", black), write(tmp_path, "b", black)
    assert doubts(tmp_path, mine, other) == []
    copy = write(tmp_path, "c", panning(3))
    for path in (tmp_path / "c").iterdir():
        path.write_bytes(b"no image")
    assert doubts(tmp_path, write(tmp_path, "d", panning(3)), copy) == []
