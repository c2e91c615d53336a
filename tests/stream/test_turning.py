"""Dials that are turned in the middle of a stream whose results do not wait."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rdn_engine import Detections, Detector, Frame
from rdn_engine.frame import Image
from rdn_engine.host.features import EncodedFrame, RelationOutput
from rdn_engine.host.model import HostModel
from rdn_engine.host.runtime import HostRuntime
from rdn_engine.kernels.cpu.arrays import Float
from rdn_engine.results import NOBODY
from tests.fakes import DIALS, SIDE, FakeEncoder, FakeRelation, tiny_config
from tests.stream.moving import indices

CAUSAL = replace(DIALS, look_ahead=0, link_delay=0, interval=2)
CAPACITY = replace(CAUSAL, look_ahead=2, link_delay=3)
NOISE = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3)).astype(np.uint8)


class CrowdEncoder(FakeEncoder):
    """Boxes of each frame where its level says, some of them a little farther than in the frame before."""

    def __call__(self, images: Float, *args: Any) -> list[EncodedFrame]:
        crowd = []
        for frame in super().__call__(images, *args):
            n = len(frame.boxes)
            level = int(frame.features[0, 0]) if n else 0
            rng = np.random.default_rng(level // 4)
            corner, size = rng.uniform(0, SIDE / 2, (n, 2)), rng.uniform(3, SIDE / 2, (n, 2))
            boxes = np.concatenate([corner, corner + size], 1) + level % 4
            crowd.append(replace(frame, boxes=boxes.clip(0, SIDE - 1).astype(np.float32)))
        return crowd


class CrowdRelation(FakeRelation):
    """Calls each proposal what its frame and its number say."""

    def __call__(self, boxes: Float, features: Float, *args: Any) -> RelationOutput:
        output = super().__call__(boxes, features, *args)
        for row, logits in zip(features, output.logits, strict=True):
            logits[:] = np.random.default_rng([int(row[0]), int(row[1])]).normal(0, 2, len(logits))
        return output


def crowd_detector(counts: list[int]) -> Detector:
    """As many proposals in a frame as `counts` says, by its level."""
    config = tiny_config()
    encoder = CrowdEncoder(config.relation, lambda level: counts[level % len(counts)])
    return Detector(HostRuntime(HostModel(config, encoder, CrowdRelation(config.num_logits), threads=1)))


def picture(level: int) -> Image:
    """Noise that moves on with the level, which is in its first pixel."""
    frame = np.roll(NOISE, level % 4, 1)
    frame[0, 0] = level
    return frame


def turned(detector: Detector, first: dict[str, Any], turns: dict[int, dict[str, Any]], levels: list[int]) -> None:
    """Push frames, dials turned before some of them, and look at what comes."""
    found: list[Detections] = []
    with detector.open_stream(replace(CAUSAL, **first), capacity=CAPACITY) as stream:
        for t, level in enumerate(levels):
            if t in turns:
                stream.dials = replace(stream.dials, **turns[t])
            found += stream.push(Frame(picture(level), t, t / 25, "cam"))
        found += stream.flush()
    assert indices(found) == list(range(len(levels)))
    for result in found:
        assert np.isfinite(result.xyxy).all()
        assert ((result.xyxy >= 0) & (result.xyxy < SIDE)).all()
        assert ((result.confidence > 0) & (result.confidence <= 1)).all()
        if result.tracker_id is not None:
            names = result.tracker_id[result.tracker_id != NOBODY]
            assert len(set(names.tolist())) == len(names)


@pytest.mark.parametrize("link", ["boxes", "seq_nms", "relations"])
def test_links_turned_on_and_off_again(link: str) -> None:
    """What linked boxes in the first frames without links is not asked where those go on that were linked since."""
    detector = crowd_detector([4, 4, 4, 4, 4, 4, 2, 2, 3])
    turned(detector, {"link": "off"}, {4: {"link": link}, 8: {"link": "off"}}, list(range(14)))


@pytest.mark.parametrize("link", ["boxes", "seq_nms", "relations"])
def test_results_that_wait_from_now_on(link: str) -> None:
    """Boxes moved since the last result, which is not of the last frame any more."""
    detector = crowd_detector([3, 3, 0, 3, 3])
    turned(detector, {"link": link}, {2: {"link_delay": 1}}, list(range(8)))


TURNS: dict[str, list[Any]] = {
    "link": ["off", "off", "boxes", "seq_nms", "relations"],
    "link_delay": [0, 0, 1, 3],
    "link_gap": [0, 4],
    "interval": [1, 2, 2, 3],
    "still": [0.0, 0.0, 3.0],
    "look_ahead": [0, 0, 0, 1, 2],
    "score_threshold": [0.0, 0.05, 0.5, 0.9],
}


@settings(deadline=None, max_examples=120)
@given(st.integers(0, 2**32 - 1), st.integers(1, 20), st.sets(st.sampled_from(sorted(TURNS)), min_size=1))
def test_every_frame_comes_out_once_in_order_whatever_is_turned(seed: int, length: int, dials: set[str]) -> None:
    """Some dials, one at a time, in one frame of three. A frame is as the one before, a little farther, or another."""
    chance, turns, level, levels = Random(seed), {}, 0, []
    for t in range(length):
        if chance.random() < 1 / 3:
            name = chance.choice(sorted(dials))
            turns[t] = {name: chance.choice(TURNS[name])}
        level = chance.choice([level, level + 1, level + 1, chance.randrange(200)])
        levels.append(level)
    first = {"link": chance.choice(TURNS["link"])}
    turned(crowd_detector([chance.randrange(5) for _ in range(5)]), first, turns, levels)
