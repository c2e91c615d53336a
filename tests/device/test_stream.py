"""Streams on a device give, frame by frame, what streams on the CPU give."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from rdn_engine import BackendUnavailable, Detector, RDNError
from rdn_engine.backends.graph import BackendName
from rdn_engine.bundle.directory import Bundle
from rdn_engine.config import Dials, RelationConfig
from rdn_engine.device.relation import DevicePrecision
from rdn_engine.device.runtime import DeviceRuntime
from rdn_engine.results import Detections
from rdn_engine.stream.base import Stream
from tests.cuda_machines import gpu_missing
from tests.device_models import DIALS, BackendOf, assert_same, frames, small_config, small_model
from tests.emulated_gpu import EmulatedGpu
from training.data.synthetic import SyntheticVideos

ENGINES = Path(__file__).parents[2] / "models" / "rdn_tiny" / "engines"

FULL = RelationConfig(32, 2)
WIDE = replace(DIALS, window=2)


def both(
    gpu: Any, relation: RelationConfig = FULL, dials: Dials = DIALS, capacity: Dials | None = None, **model: Any
) -> tuple[Stream, Stream]:
    made = small_model(small_config(relation), **model)
    there, here = made.on(gpu), made.on_cpu()
    return (
        there.open_stream(dials, capacity=capacity, source_id="cam"),
        here.open_stream(dials, capacity=capacity, source_id="cam"),
    )


def assert_equal(got: list[Detections], wanted: list[Detections]) -> None:
    assert len(got) == len(wanted)
    for one, other in zip(got, wanted, strict=True):
        assert_same(one, other)


MODELS = {
    "full": (FULL, DIALS, 6),
    "whole window": (FULL, WIDE, 7),
    "clip": (FULL, replace(DIALS, edges="clip"), 5),
    "look-ahead 0": (FULL, replace(DIALS, look_ahead=0), 4),
    "look-ahead 1 of 2": (FULL, replace(WIDE, look_ahead=1, edges="clip"), 5),
    "global": (FULL, replace(DIALS, sampling="global", advanced_ratio=0.5), 5),
    "within the frame": (FULL, replace(DIALS, window=0), 3),
    "as few reference proposals as support": (FULL, replace(DIALS, num_reference=3), 4),
    "basic only": (RelationConfig(32, 2, num_basic=2, advanced=False), DIALS, 5),
    "three basic modules, no FC": (RelationConfig(32, 2, num_basic=3, advanced_fc=False), DIALS, 4),
    "advanced only": (RelationConfig(32, 1, num_basic=0), DIALS, 4),
    "single frame": (RelationConfig(32, 2, num_basic=0, advanced=False), replace(DIALS, look_ahead=0), 3),
}


@pytest.mark.parametrize("name", MODELS)
def test_every_frame_of_a_video_is_what_the_cpu_says(gpu: Any, name: str) -> None:
    relation, dials, count = MODELS[name]
    there, here = both(gpu, relation, dials)
    found = 0
    for t, frame in enumerate(frames(count)):
        got = there.push(frame, pts=t / 25)
        assert_equal(got, here.push(frame, pts=t / 25))
        found += sum(len(one) for one in got)
    rest = there.flush()
    assert_equal(rest, here.flush())
    assert found + sum(len(one) for one in rest) > count


def test_threads_and_blocks_in_the_other_order_change_nothing() -> None:
    there, here = both(EmulatedGpu(descending=True))
    for frame in frames(4):
        assert_equal(there.push(frame), here.push(frame))
    assert_equal(there.flush(), here.flush())


MOVES = {
    "fewer and more support proposals": [{"num_support": 2}, {"num_support": 3}],
    "more of them refined": [{"advanced_ratio": 0.34}, {"advanced_ratio": 1.0}],
    "a smaller and a larger window": [{"window": 1}, {"window": 2}],
    "results at once, then late": [{"look_ahead": 0}, {"look_ahead": 2}],
    "more and fewer reference proposals": [{"num_reference": 5}, {"num_reference": 8}, {"num_reference": 4}],
    "threshold, edges and sampling": [{"score_threshold": 0.3}, {"edges": "clip"}, {"sampling": "global"}],
}


@pytest.mark.parametrize("name", MOVES)
def test_dials_move_while_frames_come(gpu: Any, name: str) -> None:
    there, here = both(gpu, dials=WIDE, capacity=replace(WIDE, num_reference=8))
    dials = WIDE
    for t, frame in enumerate(frames(4 + 2 * len(MOVES[name]))):
        if t >= 4 and t % 2 == 0:
            dials = replace(dials, **MOVES[name][t // 2 - 2])
            there.dials = here.dials = dials
        assert_equal(there.push(frame), here.push(frame))
    assert_equal(there.flush(), here.flush())


def test_dials_move_between_the_last_frame_and_the_flush(gpu: Any) -> None:
    there, here = both(gpu)
    for frame in frames(3):
        there.push(frame), here.push(frame)
    there.dials = here.dials = replace(DIALS, num_support=2, advanced_ratio=0.5)
    assert_equal(there.flush(), here.flush())


def test_epochs(gpu: Any) -> None:
    """A flush, another size, back to the first, a jump in time."""
    there, here = both(gpu)
    small, large = frames(4), frames(3, 60, 50)
    pushes = [
        (small[0], 0),
        (small[1], 1),
        None,
        (small[2], 2),
        (large[0], 3),
        (large[1], 4),
        (small[3], 5),
        (small[0], 1),
    ]
    for step in pushes:
        if step is None:
            assert_equal(there.flush(), here.flush())
        else:
            assert_equal(there.push(*step), here.push(*step))
    assert_equal(there.flush(), here.flush())
    assert there.epoch == here.epoch == 4
    assert there.accepted == here.accepted == 7


@pytest.mark.parametrize("proposals", [0, 1])
def test_frames_with_few_proposals(gpu: Any, proposals: int) -> None:
    """Fewer than K: what is missing is nowhere looked at."""
    there, here = both(gpu, dark_below=40, in_the_dark=proposals)
    bright = frames(6)
    video = [frame if t in (0, 3, 5) else frame // 8 for t, frame in enumerate(bright)]
    for frame in video:
        assert_equal(there.push(frame), here.push(frame))
    assert_equal(there.flush(), here.flush())


def test_half_precision_is_near(gpu: Any) -> None:
    config = small_config()
    made = small_model(config)
    there, here = made.on(gpu, "float16").open_stream(), made.on_cpu().open_stream()
    results = []
    for frame in frames(5):
        results += zip(there.push(frame), here.push(frame), strict=True)
    results += zip(there.flush(), here.flush(), strict=True)
    assert len(results) == 5
    for got, wanted in results:
        assert got.class_id.tolist() == wanted.class_id.tolist()
        np.testing.assert_allclose(got.xyxy, wanted.xyxy, atol=0.5)
        np.testing.assert_allclose(got.confidence, wanted.confidence, atol=0.02)


@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 0.01), ("float16", 0.5)])
def test_the_committed_model_finds_the_same_boxes(gpu: Any, precision: DevicePrecision, tolerance: float) -> None:
    dials = Dials(window=1, num_support=8, num_reference=20, advanced_ratio=0.5, score_threshold=0.2)
    runtime = DeviceRuntime.load(Bundle.open(ENGINES), BackendOf(gpu), gpu, precision=precision, threads=1)
    there = Detector(runtime).open_stream(dials)
    here = Detector.from_pretrained(ENGINES, threads=1).open_stream(dials)
    found = 0
    for frame in SyntheticVideos("device", num_videos=1, num_frames=4)[0].frames:
        for got, wanted in zip(there.push(frame), here.push(frame), strict=True):
            assert_same(got, wanted, tolerance)
            found += len(got)
    assert found > 3


def test_every_backend_that_is_there_finds_the_same_boxes_on_a_gpu() -> None:
    missing = gpu_missing()
    if missing is not None:
        pytest.skip(f"needs a GPU: {missing}")
    dials = Dials(window=2, num_support=8, num_reference=20, advanced_ratio=0.5, score_threshold=0.2)
    here = Detector.from_pretrained(ENGINES, threads=1)
    video = SyntheticVideos("device", num_videos=1, num_frames=8)[0].frames
    tried = []
    for backend in get_args(BackendName):
        try:
            there = Detector.from_pretrained(ENGINES, backend=backend, device="cuda", threads=1)
        except BackendUnavailable:
            continue
        tried.append(backend)
        for got, wanted in zip(there.predict(video, dials=dials), here.predict(video, dials=dials), strict=True):
            assert_same(got, wanted, 0.05)
    assert tried


def test_a_result_on_the_device_is_not_pickled(gpu: EmulatedGpu) -> None:
    stream = small_model(small_config()).on(gpu).open_stream()
    [frame] = frames(1)
    results = [*stream.push_device(frame), *stream.flush_device()]
    with pytest.raises(RDNError, match=r"cannot be pickled; its cpu\(\) gives one that can"):
        pickle.dumps(results[0])
    assert len(pickle.loads(pickle.dumps(results[0].cpu()))) == len(results[0].cpu())
