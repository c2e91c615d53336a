"""A frame in blocks: their means, and how many there may be."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rdn_engine.host.blocks import (
    block_means,
    block_side,
    most_blocks,
    picture_nbytes,
    small_picture,
)
from rdn_engine.input_config import InputConfig

CONFIGS = (InputConfig(), InputConfig(128, 224), InputConfig(fit="letterbox", size=(64, 96)),
           InputConfig(fit="stretch", size=(96, 64)))  # fmt: skip


@settings(deadline=None, max_examples=300)
@given(st.sampled_from(CONFIGS), st.integers(1, 4000), st.integers(1, 4000), st.floats(0.5, 2), st.integers(1, 9))
def test_no_frame_has_more_blocks_than_the_most(
    config: InputConfig, height: int, width: int, aspect: float, block: int
) -> None:
    tall, wide = block_side(config, (height, width, aspect), block)
    assert 1 <= tall <= height
    assert 1 <= wide <= width
    assert -(-height // tall) * -(-width // wide) <= most_blocks(config, block)


@pytest.mark.parametrize("size", [(128, 192), (720, 1280), (90, 61)])
def test_a_small_picture_has_the_means_of_blocks_of_two_pixels_of_the_network(size: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*size, 3)).astype(np.uint8)
    picture = small_picture(image, (*size, 1.0), CONFIGS[1])
    wide, tall = CONFIGS[1].frame_scale(*size)
    assert picture.side == (max(round(2 * tall), 1), max(round(2 * wide), 1))
    np.testing.assert_array_equal(picture.colours, np.rint(block_means(image, picture.side)))
    assert picture.colours.dtype == np.uint8
    assert picture.colours.nbytes <= picture_nbytes(CONFIGS[1])
