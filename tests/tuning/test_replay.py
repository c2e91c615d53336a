"""Frames that are encoded once give what a stream gives that encodes them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rdn_engine import Detector
from rdn_engine.config import Dials
from rdn_engine.host.model import HostModel
from rdn_engine.host.runtime import HostRuntime
from rdn_engine.tuning.replay import detect, encode
from tests.fakes import DIALS, fake_detector, image
from training.data.synthetic import SyntheticVideos

ENGINES = Path(__file__).parents[2] / "models" / "rdn_tiny" / "engines"


def model_of(detector: Detector) -> HostModel:
    assert isinstance(detector.runtime, HostRuntime)
    return detector.runtime.model


@pytest.fixture(scope="module")
def detector() -> Detector:
    return Detector.from_pretrained(ENGINES, threads=1)


@pytest.mark.parametrize(
    "turned",
    [
        {},
        {"window": 2, "look_ahead": 0},
        {"window": 3, "look_ahead": 1, "interval": 3},
        {"window": 3, "look_ahead": 0, "interval": 2, "advanced_ratio": 0.125},
        {"num_support": 12, "num_reference": 32},
    ],
)
def test_a_replayed_video_has_the_results_of_a_pushed_one(detector: Detector, turned: dict[str, Any]) -> None:
    frames = SyntheticVideos("test", 1, 8)[0].frames
    dials = detector.config.dials.turned(turned)
    with detector.open_stream(dials) as stream:
        wanted = [result for frame in frames for result in stream.push(frame)] + stream.flush()
    encoded = encode(model_of(detector), frames, detector.config.dials)
    found = detect(model_of(detector), encoded, dials)
    assert [r.basis for r in found] == [r.basis for r in wanted]
    assert [r.frame_index for r in found] == list(range(len(frames)))
    for got, want in zip(found, wanted, strict=True):
        # Fewer rows in a call of a graph may be summed in another order.
        sure = want.confidence > 0.05
        assert sure.any()
        np.testing.assert_allclose(got.confidence[: sure.sum()], want.confidence[sure], atol=1e-3)
        np.testing.assert_allclose(got.xyxy[: sure.sum()], want.xyxy[sure], atol=0.1)


def test_the_last_frame_of_a_size_is_encoded_as_itself() -> None:
    detector, _, relation = fake_detector()
    frames = [image(t, 16 if t < 5 else 20) for t in range(9)]
    with detector.open_stream(replace(DIALS, interval=3)) as stream:
        for frame in frames:
            stream.push(frame)
        stream.flush()
    pushed = relation.levels[:]
    relation.levels.clear()
    detect(model_of(detector), encode(model_of(detector), frames, DIALS), replace(DIALS, interval=3))
    assert relation.levels == pushed == [0, 3, 4, 5, 8]


def test_the_encoder_is_asked_once_a_frame() -> None:
    detector, encoder, relation = fake_detector()
    frames = [image(10 * t) for t in range(5)]
    encoded = encode(model_of(detector), frames, DIALS)
    assert len(encoder.asked) == 5
    for interval in (1, 2, 3):
        relation.levels.clear()
        dials = Dials(window=1, num_support=2, num_reference=3, advanced_ratio=0.5, interval=interval)
        results = detect(model_of(detector), encoded, dials)
        assert len(results) == 5
        assert set(relation.rows) <= {3, 4}, "N of the dials"
        # Every n-th frame, and the last one.
        assert relation.levels == [10 * t for t in range(5) if t % interval == 0 or t == 4]
        relation.rows.clear()
    assert len(encoder.asked) == 5


def test_a_frame_that_is_not_stored_is_encoded() -> None:
    from rdn_engine.tuning.replay import ReplayStream

    detector, encoder, relation = fake_detector()
    (stored,) = encode(model_of(detector), [image(7)], DIALS)
    stream = ReplayStream(model_of(detector), replace(DIALS, look_ahead=0))
    stream.push_kept(stored)
    stream.replay.stored = None
    stream.push(image(9))
    assert relation.levels == [7, 9]
    assert len(encoder.asked) == 2
