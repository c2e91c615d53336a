"""The accuracy of `interval` and `still` is measured on what a stream gives out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.quality.interval_accuracy import results, truly_moved
from benchmarks.quality.recorded import linkables
from benchmarks.quality.still_accuracy import BURST, TIMES, StaticVideos, moments
from rdn_engine import Detections, Detector
from rdn_engine.config import Link
from rdn_engine.evaluation.boxes import Truth
from rdn_engine.host.blocks import small_picture
from rdn_engine.stream.order import FrameInfo
from tests.benchmarks.test_benchmarks import DEMO
from training.data.synthetic import SyntheticVideos
from training.evaluation.videos import from_synthetic


@pytest.fixture(scope="module")
def detector() -> Detector:
    return Detector.from_pretrained(DEMO, threads=1)


@pytest.mark.parametrize(("ahead", "link", "delay"), [(2, "off", 0), (2, "boxes", 50), (0, "off", 0), (0, "boxes", 0)])
def test_what_is_filled_up_is_what_the_stream_gives_out(detector: Detector, ahead: int, link: Link, delay: int) -> None:
    videos = from_synthetic(SyntheticVideos("test", 1, 9, (96, 64)))
    dials = replace(detector.config.dials, window=2, look_ahead=ahead, interval=3)
    linked = replace(dials, link=link, link_delay=delay)
    [(name, frames)] = videos.videos()
    with detector.open_stream(linked, source_id=name) as stream:
        wanted = [r for frame in frames for r in stream.push(videos.read(frame))] + stream.flush()
    infos = [FrameInfo(t, None, name, 64, 96) for t in range(9)]
    recorded = linkables(detector, videos, replace(dials, link="relations", link_delay=0))[name]
    pictures = [small_picture(videos.read(frame), (64, 96, 1.0), detector.config.input) for frame in frames]
    found = results(recorded, infos, pictures, linked, detector.config.detection.max_detections)
    assert [r.basis for r in found] == [r.basis for r in wanted]
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(a.xyxy, b.xyxy)
        np.testing.assert_array_equal(a.confidence, b.confidence)
        assert (a.tracker_id is None) == (b.tracker_id is None)


@pytest.mark.parametrize("leave", [False, True])
def test_boxes_go_with_their_objects_by_the_annotations(leave: bool) -> None:
    """Of a step with three boxes: of an object that moves, of one that is gone in the next frame, and of nothing."""
    videos = from_synthetic(SyntheticVideos("test", 1, 3, (96, 64)))
    [(_, frames)] = videos.videos()
    boxes = {0: [(0, 1, [10, 10, 29, 29]), (0, 2, [50, 10, 69, 29])], 1: [(0, 1, [16, 12, 35, 31])], 2: []}
    kept = [(t, *row) for t, rows in boxes.items() for row in rows]
    truth = Truth(
        image=np.array([frames[t].id for t, *_ in kept]),
        label=np.array([label for _, label, *_ in kept]),
        xyxy=np.array([xyxy for *_, xyxy in kept], np.float64),
        video=np.zeros(3, np.int64),
        time=np.array([t for t, *_ in kept]),
        ignore=np.zeros(3, bool),
        instance=np.array([instance for _, _, instance, _ in kept]),
    )
    found = np.array([[11, 10, 30, 29], [50, 12, 69, 31], [70, 40, 89, 59]], np.float32)
    facts = {"class_names": ("cat",), "pts": None, "source_id": "", "height": 64, "width": 96, "pool_fill": 1}
    step = Detections(
        **facts, frame_index=0, lookahead=0, epoch=0, xyxy=found, confidence=np.array([0.9, 0.8, 0.7], np.float32),
        class_id=np.zeros(3, np.int64), tracker_id=np.array([4, 5, 6]),
    )  # fmt: skip
    given = [step, *(replace(step, frame_index=t, basis="extrapolated") for t in (1, 2))]
    first, second, third = truly_moved(given, frames, truth, leave=leave)
    assert first is step
    moved = found + np.array([[6, 2, 6, 2], [0, 0, 0, 0], [0, 0, 0, 0]])
    rows = [0, 2] if leave else [0, 1, 2]
    np.testing.assert_allclose(second.xyxy, moved[rows])
    assert second.tracker_id is not None
    assert second.tracker_id.tolist() == [[4, 5, 6][i] for i in rows]
    np.testing.assert_allclose(third.xyxy, found[[2] if leave else rows])
    assert (second.frame_index, second.basis) == (1, "extrapolated")


def test_nine_frames_of_ten_of_a_static_camera_show_the_one_before() -> None:
    shown = moments(2 * BURST)
    assert len(shown) == 2 * BURST * TIMES
    assert sorted(set(shown)) == list(range(2 * BURST))
    assert np.mean(np.diff(shown) == 0) == pytest.approx(0.9, abs=0.02)
    drawn = StaticVideos("test", 1, 2 * BURST * TIMES, (96, 64), noise=0.0)[0]
    for t in range(1, len(shown)):
        same = np.array_equal(drawn.frames[t], drawn.frames[t - 1])
        assert same or shown[t] != shown[t - 1]
    noisy = StaticVideos("test", 1, 2 * BURST * TIMES, (96, 64))[0]
    difference = noisy.frames[-1].astype(float) - noisy.frames[-2]
    assert 4 < difference.std() < 7  # of two noises of 4 levels, less what is cut off at 0 and 255
    assert np.array_equal(noisy.boxes[-1], drawn.boxes[-1])
