"""Anamorphic frames: the network sees square pixels, boxes stay in those of the frame."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rdn_engine import Detections, Detector
from rdn_engine.frame import Frame
from rdn_engine.host.preprocess import network_input
from rdn_engine.input_config import InputConfig
from rdn_engine.media.source import open_source
from training.data.synthetic import write_clip

ENGINES = Path(__file__).parents[2] / "models" / "rdn_tiny" / "engines"


@pytest.fixture(scope="module")
def detector() -> Detector:
    return Detector.from_pretrained(ENGINES, threads=1)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[np.ndarray]:
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    write_clip(path, index=7)
    with open_source(path) as clip:
        return [frame.image for frame in clip][:12]


def squeezed(image: np.ndarray) -> np.ndarray:
    """[H, W / 2, 3]: two columns become one."""
    return np.ascontiguousarray(image.reshape(image.shape[0], -1, 2, 3).mean(axis=2).round().astype(np.uint8))


def detect(detector: Detector, images: list[np.ndarray], aspect: float) -> list[Detections]:
    dials = replace(detector.config.dials, score_threshold=0.5)
    with detector.open_stream(dials) as stream:
        frames = [Frame(image, t, t / 25, "clip", aspect) for t, image in enumerate(images)]
        return [result for frame in frames for result in stream.push(frame)] + stream.flush()


@pytest.mark.parametrize(
    ("aspect", "wanted"), [(1.0, (60, 80)), (2.0, (45, 120)), (0.5, (90, 60)), (64 / 45, (60, 113))]
)
def test_the_network_s_size_is_that_of_the_shown_frame(aspect: float, wanted: tuple[int, int]) -> None:
    config = InputConfig(shorter_side=60, longer_side=120)
    assert config.network_size(48, 64, aspect) == wanted
    x, y = config.frame_scale(48, 64, aspect)
    assert (wanted[1] * x, wanted[0] * y) == pytest.approx((64, 48))
    assert network_input(np.zeros((48, 64, 3), np.uint8), config, 1, pixel_aspect=aspect).shape == (3, *wanted)


def test_boxes_stay_in_stored_pixels(detector: Detector, images: list[np.ndarray]) -> None:
    """A squeezed clip whose pixels are twice as wide as high is seen as the clip itself."""
    plain = detect(detector, images, 1.0)
    wide = detect(detector, [squeezed(image) for image in images], 2.0)
    assert sum(len(result) for result in plain) >= len(images)
    found = 0
    for whole, half in zip(plain, wide, strict=True):
        assert (half.height, half.width) == (whole.height, whole.width // 2)
        stretched = half.xyxy * np.array([2, 1, 2, 1], np.float32)
        for box, class_id in zip(whole.xyxy, whole.class_id, strict=True):
            same = stretched[half.class_id == class_id]
            found += bool(len(same) and np.abs(same - box).max(axis=1).min() < 8)
    assert found >= 0.8 * sum(len(result) for result in plain)


def test_another_aspect_is_another_epoch(detector: Detector, images: list[np.ndarray]) -> None:
    with detector.open_stream() as stream:
        for t, aspect in enumerate((1.0, 1.0, 1.5, 1.5)):
            stream.push(Frame(images[t], t, t / 25, "clip", aspect))
        assert stream.epoch == 1
