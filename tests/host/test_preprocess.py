"""Letterboxed and stretched network inputs, and the way back to the frame."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rdn_engine.host.preprocess import network_input
from rdn_engine.input_config import InputConfig

LETTERBOX = InputConfig(
    fit="letterbox", size=(40, 60), channel_order="rgb", mean=(10, 20, 30), std=(2, 4, 5), padding=110
)
STRETCH = InputConfig(fit="stretch", size=(40, 60))


@settings(deadline=None)
@given(st.integers(1, 4000), st.integers(1, 4000))
def test_a_letterboxed_image_is_as_large_as_fits(height: int, width: int) -> None:
    tall, wide = LETTERBOX.image_size(height, width)
    assert LETTERBOX.network_size(height, width) == (40, 60)
    assert (tall == 40 and wide <= 60) or (wide == 60 and tall <= 40)
    ratio = min(40 / height, 60 / width)
    assert tall == pytest.approx(max(height * ratio, 1), abs=1)
    assert wide == pytest.approx(max(width * ratio, 1), abs=1)


def test_sides_that_fit_exactly_lose_no_pixel() -> None:
    for height, width in ((720, 1280), (1080, 1920), (270, 480), (999, 333)):
        config = InputConfig(fit="letterbox", size=(416, 416))
        assert max(config.image_size(height, width)) == 416
        assert config.image_size(2 * height, 2 * width) == config.image_size(height, width)


def test_the_rest_is_padding_as_the_network_sees_it() -> None:
    image = np.full((20, 20, 3), 50, np.uint8)
    found = network_input(image, LETTERBOX, 1)
    assert found.shape == (3, 40, 60)
    np.testing.assert_array_equal(found[:, :, :40], np.float32([20, 7.5, 4])[:, None, None] * np.ones((3, 40, 40)))
    np.testing.assert_array_equal(found[:, :, 40:], np.float32([50, 22.5, 16])[:, None, None] * np.ones((3, 40, 20)))
    stretched = network_input(image, STRETCH, 1)
    assert stretched.shape == (3, 40, 60)
    assert np.ptp(stretched, axis=(1, 2)).max() == 0


@pytest.mark.parametrize("config", [LETTERBOX, STRETCH], ids=["letterbox", "stretch"])
def test_edges_come_back_where_they_were(config: InputConfig) -> None:
    """The whole image in the network's pixels is the whole frame, to its last pixel."""
    tall, wide = config.image_size(100, 120)
    whole = np.float32([[0, 0, wide - 1, tall - 1], [wide / 2, tall / 4, wide - 1, tall / 2 - 1]])
    wanted = [[0, 0, 119, 99], [60, 25, 119, 49]]
    np.testing.assert_allclose(config.on_frame(whole, 100, 120), wanted, atol=1e-4)


def test_anamorphic_frames_are_letterboxed_as_shown() -> None:
    config = InputConfig(fit="letterbox", size=(40, 60))
    assert config.image_size(40, 30, 2.0) == (40, 60)
    np.testing.assert_allclose(config.on_frame(np.float32([[0, 0, 59, 39]]), 40, 30, 2.0), [[0, 0, 29, 39]], atol=1e-4)


def test_corners_of_the_public_checkpoints_are_scaled_as_they_are() -> None:
    config = InputConfig(shorter_side=50, longer_side=100)
    np.testing.assert_array_equal(
        config.on_frame(np.float32([[0, 10, 59, 49]]), 100, 120), np.float32([[0, 20, 118, 98]])
    )
