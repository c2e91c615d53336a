"""What a step sees: drawn from the seed alone, resized as the runtime does it, joined into a batch."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rdn_engine.host.preprocess import network_input
from tests.training_files import MODEL, micro, phase, synthetic
from training.data.sampling import Clip, Clips, collate, draw_support, draw_times, keys_of, load, normalise, prepare
from training.data.videos import Example, open_sources


def clips(**changes):
    made = micro(**changes)
    return Clips(open_sources(made.data.train), made)


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 2**32),
    num_frames=st.integers(1, 40),
    window=st.integers(2, 18),
    count=st.integers(1, 3),
    data=st.data(),
)
def test_clips_stay_within_a_window(seed, num_frames, window, count, data):
    chosen = data.draw(st.sets(st.integers(0, num_frames - 1), min_size=1))
    references = np.array(sorted(chosen))
    times = draw_times(np.random.default_rng(seed), references, num_frames, window, count)
    assert len(times) == count
    assert set(times) <= chosen
    assert max(times) - min(times) <= window
    if len(chosen) == num_frames >= count:
        assert len(set(times)) == count


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 2**32), num_frames=st.integers(1, 40), window=st.integers(0, 18), data=st.data())
def test_support_lies_around_the_reference(seed, num_frames, window, data):
    t, ahead = data.draw(st.integers(0, num_frames - 1)), data.draw(st.integers(0, window))
    support = draw_support(np.random.default_rng(seed), t, num_frames, window, ahead, 2)
    assert len(support) == 2
    assert all(0 <= s < num_frames and -window <= s - t <= ahead for s in support)
    if min(t + ahead, num_frames - 1) - max(t - window, 0) >= 1:
        assert len(set(support)) == 2


def test_support_is_drawn_from_both_sides():
    rng = np.random.default_rng(0)
    every = np.arange(24)
    offsets = {b - a for a, b in (draw_times(rng, every, 24, 3, 2) for _ in range(400))}
    assert offsets == {-3, -2, -1, 1, 2, 3}
    offsets = {s - 12 for _ in range(400) for s in draw_support(rng, 12, 24, 3, 3, 2)}
    assert offsets == {-3, -2, -1, 0, 1, 2, 3}
    offsets = {s - 12 for _ in range(400) for s in draw_support(rng, 12, 24, 3, 1, 2)}
    assert offsets == {-3, -2, -1, 0, 1}


@pytest.mark.parametrize(("look_ahead", "latest"), [(None, 3), (0, 0), (2, 2)])
def test_support_is_what_the_model_will_see(look_ahead, latest):
    made = clips(
        phases=[phase(references="first", iterations=30, clips=1, frames_per_clip=3)],
        model=MODEL | {"dials": MODEL["dials"] | {"window": 3, "look_ahead": look_ahead}},
    )
    offsets = set()
    for iteration in range(30):
        t, *support = (int(name.rsplit(" ", 1)[1]) for name in made[iteration, 0].names)
        offsets |= {s - t for s in support}
    assert max(offsets) == latest
    assert min(offsets) < 0


def test_every_reference_is_drawn_once_in_an_epoch():
    phases = [phase(references="first", iterations=12, clips=4)]
    made = clips(phases=phases, data={"train": [synthetic(num_videos=2), synthetic(num_videos=2, seed=1)]})
    drawn = [made[i, j].names[0] for i in range(12) for j in range(4)]
    assert len(set(drawn[:24])) == 24, "4 videos of 6 frames"
    assert set(drawn[:24]) == set(drawn[24:])
    assert drawn[:24] != drawn[24:]


def test_a_step_shows_different_videos():
    made = clips(phases=[phase(clips=4)])
    assert len({made[0, j].names[0].rsplit(" frame")[0] for j in range(4)}) == 4


def same(a, b):
    assert (a.names, a.seeds, a.sizes) == (b.names, b.seeds, b.sizes)
    assert torch.equal(a.images, b.images)
    for name in ("boxes", "labels", "ignored"):
        assert all(torch.equal(x, y) for x, y in zip(getattr(a, name), getattr(b, name), strict=True))


def test_a_resumed_run_draws_the_same():
    phases = [phase(name="a", iterations=3, clips=2), phase(name="b", iterations=3, clips=4, references="first")]
    whole = list(load(clips(phases=phases), 0, 0, 1, workers=0, pin=False))
    rest = list(load(clips(phases=phases), 2, 0, 1, workers=0, pin=False))
    assert len(whole) == 6
    for a, b in zip(whole[2:], rest, strict=True):
        same(a, b)
    assert len({tuple(b.names) for b in whole}) == 6


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
def test_workers_change_nothing():
    phases = [phase(iterations=4)]
    alone = load(clips(phases=phases), 0, 0, 1, workers=0, pin=False)
    with_workers = load(clips(phases=phases), 0, 0, 1, workers=2, pin=False)
    for a, b in zip(alone, with_workers, strict=True):
        same(a, b)


@pytest.mark.parametrize(("size", "accumulate"), [(2, 1), (1, 2), (2, 2)])
def test_processes_and_parts_share_the_clips(size, accumulate):
    whole = micro(phases=[phase(clips=4, iterations=3)])
    shared = micro(phases=[phase(clips=4, iterations=3)], accumulate=accumulate)
    joined = [list(keys_of(shared, 1, rank, size)) for rank in range(size)]
    for step, keys in enumerate(keys_of(whole, 1, 0, 1)):
        parts = [k for rank in joined for part in rank[step * accumulate : (step + 1) * accumulate] for k in part]
        assert parts == keys
        assert keys == [(step + 1, j) for j in range(4)]


def test_mirrored_boxes_follow_their_pixels():
    made = clips(data={"train": [synthetic(num_videos=1, num_frames=4)], "exchange_colours": True},
                 phases=[phase(iterations=12, clips=1, frames_per_clip=1)])  # fmt: skip
    seen = set()
    for i in range(12):
        clip = made[i, 0]
        t = int(clip.names[0].split()[-1])
        shown = made.videos.example(0, t)
        # The colours are exchanged, so compare what does not depend on their order.
        frame, drawn = clip.images[0].sum(-1), shown.image.sum(-1)
        if np.array_equal(frame, drawn):
            assert np.array_equal(clip.boxes[0], shown.boxes)
            seen.add("as it is")
        if np.array_equal(frame, drawn[:, ::-1]):
            assert np.array_equal(clip.boxes[0][:, [2, 0]], 95 - shown.boxes[:, [0, 2]])
            seen.add("mirrored")
        assert clip.labels[0].tolist() == (shown.labels + 1).tolist()
    assert seen == {"as it is", "mirrored"}


def test_flip_and_colours_can_be_left_out():
    made = clips(data={"train": [synthetic(num_videos=1, num_frames=4)], "flip": False},
                 phases=[phase(iterations=8, clips=1, frames_per_clip=1)])  # fmt: skip
    for i in range(8):
        clip = made[i, 0]
        assert np.array_equal(clip.images[0], made.videos.example(0, int(clip.names[0].split()[-1])).image)


@settings(deadline=None, max_examples=10)
@given(height=st.integers(40, 200), width=st.integers(40, 200), seed=st.integers(0, 99))
def test_frames_are_resized_as_the_runtime_resizes_them(height, width, seed):
    config = micro().model.input
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (height, width, 3), np.uint8)
    whole = np.array([[0, 0, width, height]], np.float32)
    example = Example(image, whole, np.zeros(1, np.int64), whole[:0])
    resized, boxes, _, _ = prepare(example, config, False, None)
    ours = normalise(torch.from_numpy(resized.copy())[None], [resized.shape[:2]], config)[0]
    difference = np.abs(ours.numpy() - network_input(image, config, 1))
    assert difference.max() < 1.001, "a grey level, where the two round differently"
    assert difference.mean() < 0.05
    assert boxes[0].tolist() == pytest.approx([0, 0, *resized.shape[1::-1]]), "per axis, as detections are scaled back"


def test_images_of_different_sizes_are_padded():
    def clip(height, width):
        return Clip([np.full((height, width, 3), 200, np.uint8)], [np.ones((1, 4), np.float32)], [np.ones(1, np.int64)],
                    [np.zeros((0, 4), np.float32)], [7], ["a"], [])  # fmt: skip

    batch = collate([clip(64, 96), clip(80, 64)])
    assert batch.images.shape == (2, 80, 96, 3)
    values = normalise(batch.images, batch.sizes, micro().model.input)
    assert (values[0, :, :64] != 0).all()
    assert not values[0, :, 64:].any()
    assert (values[1, :, :, :64] != 0).all()
    assert not values[1, :, :, 64:].any()
