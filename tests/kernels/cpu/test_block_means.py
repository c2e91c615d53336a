"""Means of colours over blocks, against their definition."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rdn_engine.kernels import cpu

pytestmark = pytest.mark.isa


@settings(deadline=None, max_examples=40)
@given(
    st.integers(1, 40),
    st.integers(1, 40),
    st.integers(1, 20),
    st.integers(1, 20),
    st.integers(1, 12),
    st.integers(0, 2**32 - 1),
)
def test_means_are_those_of_the_rows_that_are_read(
    height: int, width: int, tall: int, wide: int, most: int, seed: int
) -> None:
    tall, wide = min(tall, height), min(wide, width)
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)
    means = cpu.block_means(image, (tall, wide), most_rows=most)
    assert means.shape == (-(-height // tall), -(-width // wide), 3)
    count = min(most, tall)
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
    before = cpu.block_means(flat, (8, 8), most_rows=8)
    for x in range(21):
        image = flat.copy()
        image[:, x, 1] = 80
        assert np.abs(cpu.block_means(image, (8, 8), most_rows=8) - before).max() == pytest.approx(10)


def test_rows_may_lie_anywhere_in_memory() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (96, 128, 3)).astype(np.uint8)
    assert np.array_equal(
        cpu.block_means(picture[::-1, ::-1], (8, 8), most_rows=8),
        cpu.block_means(picture[::-1, ::-1].copy(), (8, 8), most_rows=8),
    )


def test_so_many_rows_are_the_most_that_sums_have_room_for() -> None:
    white = np.full((300, 2, 3), 255, np.uint8)
    assert (cpu.block_means(white, (300, 2), most_rows=257) == 255).all()


def test_what_does_not_fit_is_refused() -> None:
    image = np.zeros((8, 6, 3), np.uint8)
    for arguments, most, message in (
        ((image.astype(np.float32), (2, 2)), 8, r"image \[H, W, 3\]"),
        ((image[:0], (1, 1)), 8, "sides of the image must lie in"),
        ((image, (9, 2)), 8, r"sides of a block must lie in 1..those of the image, \(8, 6\), got \(9, 2\)"),
        ((image, (2, 0)), 8, r"got \(2, 0\)"),
        ((image, (2, 2)), 0, "most_rows must lie in 1..257, got 0"),
        ((image, (2, 2)), 258, "most_rows must lie in 1..257, got 258"),
    ):
        with pytest.raises(ValueError, match=message):
            cpu.block_means(*arguments, most_rows=most)
