"""Where boxes have gone to, against a slow search in float64."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rdn_engine.kernels import cpu
from tests.reference import follow

pytestmark = pytest.mark.isa

SIZE = (60, 90)


def picture(seed: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """Spots of some pixels, so that a place is like those beside it and unlike those farther away."""
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(0, 255, (size[0] // 5 + 2, size[1] // 5 + 2, 3))
    return np.kron(coarse, np.ones((5, 5, 1)))[: size[0], : size[1]].astype(np.uint8)


def shifted(before: np.ndarray, x: int, y: int) -> np.ndarray:
    """The picture after all of it moved by x and y; what comes in is what goes out on the other side."""
    return np.roll(before, (y, x), (0, 1))


def moves(
    before: np.ndarray, after: np.ndarray, boxes: list[list[float]], guess: list[list[float]] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    given = np.array(boxes, np.float32).reshape(-1, 4)
    start = np.zeros((len(given), 2)) if guess is None else np.array(guess)
    return cpu.follow(before, after, boxes=given, guess=start.astype(np.float32))


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 30), st.integers(1, 30), st.integers(0, 2**32 - 1))
def test_the_best_place_is_that_of_a_slow_search(height: int, width: int, seed: int) -> None:
    """Boxes of any size, which may lie outside the pictures in part or wholly."""
    rng = np.random.default_rng(seed)
    before, after = (rng.integers(0, 256, (height, width, 3)).astype(np.uint8) for _ in range(2))
    corner, sides = rng.uniform(-8, (width, height)), rng.uniform(0.5, 30, 2)
    box = np.concatenate([corner, corner + sides])[None].astype(np.float32)
    guess = rng.uniform(-4, 4, (1, 2)).astype(np.float32)
    moved, likeness = cpu.follow(before, after, boxes=box, guess=guess)
    like, worth = follow(before, after, box[0], guess[0])
    step = 1.2 * (box[0, 2:] - box[0, :2]) / 12
    column, row = np.rint((moved[0] - guess[0]) / step + 8).astype(int)
    # A top between two cells may be rounded to either of them.
    near = [(i, j) for i in range(row - 1, row + 2) for j in range(column - 1, column + 2)]
    assert max(worth[i, j] for i, j in near if 0 <= i < 17 and 0 <= j < 17) == pytest.approx(worth.max(), abs=2e-3)
    assert np.abs(like - likeness[0]).min() < 2e-3
    assert (np.abs(moved[0] - guess[0]) <= 8.5 * step + 1e-3).all()


def test_no_rounding_takes_a_likeness_out_of_its_range() -> None:
    """Boxes that lie over edges, of two colours as far apart as they can be."""
    rng = np.random.default_rng(364)
    for _ in range(200):
        height, width = rng.choice([1, 2, 3, 5, 8], 2)
        before = rng.choice([0, 255], (height, width, 3)).astype(np.uint8)
        corners = rng.uniform(-1, 1, (60, 2)) * [width, height]
        boxes = np.concatenate([corners, corners + np.exp(rng.uniform(-1, 3, (60, 2)))], 1)
        guess = rng.uniform(-3, 3, (60, 2)).tolist()
        for after in (before, 255 - before):
            assert np.abs(moves(before, after, boxes.tolist(), guess)[1]).max() <= 1


@pytest.mark.parametrize(("x", "y"), [(0, 0), (3, 0), (0, -4), (-6, 5)])
def test_what_moved_is_found(x: int, y: int) -> None:
    before = picture(0)
    boxes = [[30, 20, 54, 44], [20.5, 15.25, 40, 30], [40, 10, 64, 34]]
    moved, likeness = moves(before, shifted(before, x, y), boxes)
    np.testing.assert_allclose(moved, [[x, y]] * 3, atol=0.4)
    assert (likeness > 0.9).all()


def test_what_moved_farther_is_found_from_a_good_guess() -> None:
    before = picture(1)
    after = shifted(before, 20, 0)
    near, far = moves(before, after, [[20, 20, 40, 40]] * 2, [[18, 1], [0, 0]])[0]
    np.testing.assert_allclose(near, [20, 0], atol=0.4)
    assert abs(far[0] - 20) > 4


def test_light_and_contrast_do_not_matter() -> None:
    before = picture(2)
    after = 0.4 * shifted(before, 4, -3) + 90
    moved, likeness = moves(before, after.astype(np.uint8), [[30, 20, 54, 44]])
    np.testing.assert_allclose(moved, [[4, -3]], atol=0.4)
    assert likeness[0] > 0.9


def test_what_shows_nothing_stays_where_it_is_guessed() -> None:
    flat = np.full((*SIZE, 3), 90, np.uint8)
    moved, likeness = moves(flat, flat, [[30, 20, 54, 44], [200, 200, 210, 210]], [[2, -1], [0, 3]])
    np.testing.assert_allclose(moved, [[2, -1], [0, 3]], atol=1e-5)
    assert likeness[0] == pytest.approx(1), "nothing is as it was"
    assert likeness[1] == -1, "outside"


def test_a_box_that_lies_over_the_edge_is_found_by_what_can_be_seen() -> None:
    before = picture(3)
    after = shifted(before, 4, 0)
    moved, likeness = moves(before, after, [[-8, 20, 20, 44], [74, 20, 98, 44]])
    np.testing.assert_allclose(moved[0], [4, 0], atol=0.4)
    assert likeness[0] > 0.8
    assert moved[1, 0] == pytest.approx(4, abs=0.5)


def test_nothing_is_followed_to_nowhere() -> None:
    moved, likeness = moves(picture(0), picture(0), [])
    assert moved.shape == (0, 2)
    assert likeness.shape == (0,)


def test_what_does_not_fit_is_refused() -> None:
    before, box, guess = picture(0), np.array([[0, 0, 5, 5]], np.float32), np.zeros((1, 2), np.float32)
    for arguments, message in (
        ((before, before[1:], box, guess), r"after \[h = 60, w = 90, 3\], got uint8 \[59, 90, 3\]"),
        ((before[:0], before[:0], box, guess), "sides of the pictures must be positive"),
        ((before, before, box[:, :3], guess), r"boxes \[n, 4\]"),
        ((before, before, box, guess[:0]), r"guess \[n = 1, 2\]"),
        ((before.astype(np.float32), before, box, guess), r"before \[h, w, 3\]"),
        ((before, before, box * np.float32(np.nan), guess), "boxes must be finite, got nan"),
        ((before, before, box, guess + np.float32(np.inf)), "guess must be finite, got inf"),
        ((before, before, box[:, [2, 1, 0, 3]], guess), "box 0 must have positive sides"),
    ):
        first, second, boxes, start = arguments
        with pytest.raises(ValueError, match=message):
            cpu.follow(first, second, boxes=boxes, guess=start)
