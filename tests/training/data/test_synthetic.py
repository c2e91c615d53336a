"""The synthetic videos: what is drawn, and that the annotation says the same."""

import subprocess
import sys
from dataclasses import replace

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ImageFilter

from training.data import drawing, synthetic, weather
from training.data.synthetic import CLASS_NAMES, SyntheticVideos, write_clip

WIDTH, HEIGHT = 96, 64


def videos(split="test", seed=0, count=8, frames=12):
    return SyntheticVideos(split, count, frames, (WIDTH, HEIGHT), seed)


def test_same_seed_same_video():
    one, two = videos()[3], videos(count=20)[3]
    assert np.array_equal(one.frames, two.frames)
    assert all(np.array_equal(a, b) for a, b in zip(one.boxes, two.boxes, strict=True))


@pytest.mark.parametrize("other", [videos("train")[3], videos(seed=1)[3], videos()[4]], ids=["split", "seed", "index"])
def test_anything_else_is_another_video(other):
    assert not np.array_equal(videos()[3].frames, other.frames)


def test_index_beyond_the_set_is_refused():
    with pytest.raises(IndexError, match=r"video 8; wanted 0\.\.7"):
        videos()[8]


def test_shapes_and_ranges():
    video = videos()[0]
    assert video.frames.shape == (12, HEIGHT, WIDTH, 3)
    assert video.frames.dtype == np.uint8
    for boxes, labels, ids in zip(video.boxes, video.labels, video.track_ids, strict=True):
        assert boxes.shape == (len(labels), 4)
        assert len(set(ids)) == len(labels)
        assert ((boxes >= 0) & (boxes <= [WIDTH - 1, HEIGHT - 1] * 2)).all()
        assert (boxes[:, :2] < boxes[:, 2:]).all()
        assert ((labels >= 0) & (labels < len(CLASS_NAMES))).all()


def test_a_track_keeps_its_class():
    for i in range(4):
        seen: dict[int, int] = {}
        video = videos()[i]
        for labels, ids in zip(video.labels, video.track_ids, strict=True):
            assert all(seen.setdefault(k, c) == c for k, c in zip(ids, labels, strict=True))


def test_every_class_occurs():
    found = {c for i in range(30) for labels in videos(count=30, frames=2)[i].labels for c in labels}
    assert found == set(range(len(CLASS_NAMES)))


def test_objects_come_in_herds():
    rng = np.random.default_rng(1)
    repeated = [len(looks) - len(set(looks)) for looks in (synthetic._draw_looks(rng, 5) for _ in range(500))]
    assert abs(np.mean(repeated) / 4 - synthetic._HERD) < 0.05  # of five objects, four have one before them
    look = synthetic._draw_looks(rng, 1)[0]
    assert np.array_equal(look.sprite(30), look.sprite(30))


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 2**32), t=st.integers(0, 23))
def test_boxes_are_tight(seed, t):
    thing = synthetic._Thing.draw(np.random.default_rng(seed), synthetic._Look(seed % 6, seed), 24, WIDTH, HEIGHT)
    frame = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    owner = np.full((HEIGHT, WIDTH), -1, np.int16)
    object.__setattr__(thing, "occluder", None)
    placed = thing.paste(frame, owner, 7, t)
    ys, xs = np.nonzero(owner == 7)
    if placed is None:
        assert not len(xs)
    else:
        assert placed.box == (xs.min(), ys.min(), xs.max(), ys.max())
        assert placed.area >= len(xs)


def test_hidden_objects_are_not_annotated():
    rng = np.random.default_rng(0)
    thing = synthetic._Thing.draw(rng, synthetic._Look(2, 0), 1, WIDTH, HEIGHT)
    video = synthetic.Video(np.zeros((1, 10, 10, 3), np.uint8), [], [], [], np.zeros(1, np.float32))
    owner = np.full((10, 10), -1, np.int16)
    owner[:6, :5] = 0
    placed = synthetic._Placed((0, 0, 9, 9), 100)
    synthetic._annotate(video, [thing], [placed], owner)
    owner[0, 0] = -1
    synthetic._annotate(video, [thing], [placed], owner)
    assert [len(b) for b in video.boxes] == [1, 0]
    assert video.labels[0].tolist() == [2]


def test_objects_are_hidden_for_as_long_as_is_asked_for():
    """In front of one object nothing passes but what hides it, and half of it is seen in the frames around."""
    rng = np.random.default_rng(3)
    lengths = []
    for seed in range(40):
        thing = synthetic._Thing.draw(rng, synthetic._Look(seed % 6, seed), 60, WIDTH, HEIGHT)
        thing = replace(thing, occluder=None).hidden(rng, 60, (WIDTH, HEIGHT), (5, 12))
        if thing.passer is None:
            continue
        seen = []
        for t in range(60):
            owner = np.full((HEIGHT, WIDTH), -1, np.int16)
            placed = thing.paste(np.zeros((HEIGHT, WIDTH, 3), np.uint8), owner, 7, t)
            seen.append(placed is not None and (owner == 7).any())
        gone = range(thing.passer.first, thing.passer.last + 1)
        assert not any(seen[t] for t in gone)
        assert seen[gone.start - 1]
        assert seen[gone.stop]
        lengths.append(len(gone))
    assert len(lengths) > 5
    assert min(lengths) >= 5
    assert max(lengths) <= 12
    assert len(set(lengths)) > 2


def test_hidden_objects_come_back_in_videos():
    hidden = SyntheticVideos("test", 6, 60, (WIDTH, HEIGHT), hidden=(5, 20))
    gaps = []
    for i in range(6):
        again = SyntheticVideos("test", 6, 60, (WIDTH, HEIGHT), hidden=(5, 20))[i]
        assert np.array_equal(hidden[i].frames, again.frames)
        for track in {k for ids in again.track_ids for k in ids}:
            times = np.flatnonzero([track in ids for ids in again.track_ids])
            gaps += (np.diff(times) - 1).tolist()
    assert sum(5 <= gap <= 20 for gap in gaps) >= 6


def overlap(a, b):
    """IoU of two boxes with the last pixel included"""
    sides = np.maximum(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]) + 1, 0)
    areas = np.prod(a[2:] - a[:2] + 1) + np.prod(b[2:] - b[:2] + 1)
    return sides.prod() / (areas - sides.prod())


def test_about_half_of_the_frames_are_degraded_in_short_episodes():
    strengths = [videos(count=60, frames=24)[i].strength for i in range(60)]
    assert 0.3 < np.mean([s > 0 for s in strengths]) < 0.6
    for strength in strengths:
        runs = "".join("x" if s > 0 else " " for s in strength).split()
        assert max(map(len, runs), default=0) <= 8, "an episode must end within a window of 8 frames"


@pytest.mark.parametrize("kind", ["defocus", "motion", "dim"])
def test_degradation_removes_contrast(kind):
    spoiled = weather.Weather([kind], np.ones(1, np.float32), np.float32([[1, 0]]))
    rng = np.random.default_rng(0)
    frame = rng.integers(0, 2, (HEIGHT, WIDTH, 1), np.uint8) * np.full(3, 200, np.uint8)
    noise = 18 if kind == "dim" else 4
    left = spoiled.apply(rng, frame, 0).std() ** 2 - noise**2
    assert left < 0.15 * frame.std() ** 2


def test_objects_are_still_slow_and_fast():
    """Each a good share of the mean overlap of a box with itself in the frames within 10."""
    overlaps = []
    for i in range(30):
        video = videos(count=30, frames=24)[i]
        seen = [dict(zip(ids, boxes, strict=True)) for ids, boxes in zip(video.track_ids, video.boxes, strict=True)]
        for t, boxes in enumerate(seen):
            near = [u for u in range(max(t - 10, 0), min(t + 11, 24)) if u != t]
            overlaps += [
                np.mean([overlap(box, seen[u][track]) for u in near if track in seen[u]] or [1.0])
                for track, box in boxes.items()
            ]
    slow, fast = np.mean(np.array(overlaps) > 0.9), np.mean(np.array(overlaps) < 0.7)
    assert 0.2 < slow < 0.45
    assert 0.2 < fast < 0.45


def test_a_blur_wider_than_its_patch_is_drawn():
    """Objects of long videos get fast."""
    sprite = drawing.draw_sprite(np.random.default_rng(5), 0, 20)
    patch = drawing.turned(sprite, np.zeros(2), 15, 0.0, 1.0)
    wide = drawing.smeared(patch, np.array([100.0, 3.0]))
    assert wide.size == patch.size
    assert 0 < np.asarray(wide.getchannel("A"), float).sum() < np.asarray(patch.getchannel("A"), float).sum()


def test_motion_blurs_an_object_along_its_way():
    sprite = drawing.draw_sprite(np.random.default_rng(5), 0, 60)
    patch = drawing.turned(sprite, np.zeros(2), 45, 0.0, 1.0)
    assert drawing.smeared(patch, np.array([0.9, 0.4])) is patch
    inner = np.s_[30:60, 30:60]
    before = np.asarray(patch.convert("RGB"), float)[inner]
    # Stripes that stand upright: across them nothing is left, along them everything.
    across, along = (
        np.asarray(drawing.smeared(patch, way).convert("RGB"), float)[inner]
        for way in (np.array([17.2, 0]), np.array([0, 17.2]))
    )
    assert across.std((0, 1)).max() < 0.2 * before.std((0, 1)).max()
    assert along.std((0, 1)).max() > 0.9 * before.std((0, 1)).max()


def test_blur_leaves_nothing_of_the_pattern():
    """Striped and checked of one colour pair cannot be told apart by their mean colour."""
    means = []
    for label in (2, 3):
        image = drawing.draw_sprite(np.random.default_rng(5), label, 60).convert("RGB")
        inner = np.asarray(image.filter(ImageFilter.GaussianBlur(8)), float)[30:60, 30:60]
        assert inner.std((0, 1)).max() < 8
        means.append(inner.mean((0, 1)))
    assert np.abs(means[0] - means[1]).max() < 6


def test_clip_is_readable(tmp_path):
    video = write_clip(tmp_path / "clip.mp4", num_frames=6, size=(WIDTH, HEIGHT))
    with av.open(str(tmp_path / "clip.mp4")) as container:
        assert container.streams.video[0].codec_context.name == "h264"
        frames = [f.to_ndarray(format="rgb24") for f in container.decode(video=0)]
    assert len(frames) == 6
    difference = np.abs(np.float32(frames) - np.float32(video.frames)).mean()
    assert difference < 12


def test_needs_no_torch():
    code = "import sys; sys.modules['torch'] = None; from training.data.synthetic import write_clip"
    subprocess.run([sys.executable, "-c", code], check=True)
