"""A frame in blocks: their means, and how many there may be."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rdn_engine.host.blocks import (
    ROWS,
    block_means,
    block_side,
    most_blocks,
    picture_nbytes,
    small_picture,
)
from rdn_engine.input_config import InputConfig

CONFIGS = (InputConfig(), InputConfig(128, 224), InputConfig(fit="letterbox", size=(64, 96)),
           InputConfig(fit="stretch", size=(96, 64)))  # fmt: skip


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 20), st.integers(1, 20), st.integers(0, 2**32 - 1))
def test_means_are_those_of_the_rows_that_are_read(height: int, width: int, tall: int, wide: int, seed: int) -> None:
    tall, wide = min(tall, height), min(wide, width)
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)
    means = block_means(image, (tall, wide))
    assert means.shape == (-(-height // tall), -(-width // wide), 3)
    count = min(ROWS, tall)
    for i in range(means.shape[0]):
        top = min(i * tall, height - tall)
        rows = [top + int((k + 0.5) * tall / count) for k in range(count)]
        assert len(set(rows)) == count
        assert max(rows) < top + tall
        for j in range(means.shape[1]):
            left = min(j * wide, width - wide)
            wanted = image[rows, left : left + wide].astype(np.float64).mean((0, 1))
            np.testing.assert_allclose(means[i, j], wanted, atol=1e-3)


def test_every_pixel_of_a_row_that_is_read_counts() -> None:
    """The last column of blocks too, where the width is no multiple of a block."""
    flat = np.zeros((8, 21, 3), np.uint8)
    before = block_means(flat, (8, 8))
    for x in range(21):
        image = flat.copy()
        image[:, x, 1] = 80
        assert np.abs(block_means(image, (8, 8)) - before).max() == pytest.approx(10)


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


def test_rows_may_lie_anywhere_in_memory() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (96, 128, 3)).astype(np.uint8)
    assert np.array_equal(block_means(picture[::-1, ::-1], (8, 8)), block_means(picture[::-1, ::-1].copy(), (8, 8)))
