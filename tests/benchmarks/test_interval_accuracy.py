"""The accuracy of `interval` and `still` is measured on what a stream gives out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.quality.interval_accuracy import results
from benchmarks.quality.recorded import linkables
from benchmarks.quality.still_accuracy import BURST, TIMES, StaticVideos, moments
from rdn_engine import Detector
from rdn_engine.config import Link
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
