"""Boxes of two steps: which belong together, and where they are between or behind them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rdn_engine.results import NOBODY, Detections
from rdn_engine.stream.pairs import (
    ALIKE,
    EARLIER,
    Pairs,
    interpolated,
    moved_on,
    on_frame,
    pair,
    steadied,
    still_there,
    surely_moved,
)
from tests.stream.boxes import HEIGHT, WIDTH, result, square

BOTH = Pairs(np.arange(2), np.arange(2))


def pairs_of(before: Detections, after: Detections) -> set[tuple[int, int]]:
    return set(zip(*(rows.tolist() for rows in pair(before, after)), strict=True))


# Which boxes belong together


def test_boxes_of_one_class_that_overlap_belong_together() -> None:
    before = result([square(10), square(100), square(200)], classes=[0, 0, 1])
    after = result([square(104), square(12), square(200)], classes=[0, 0, 0])
    assert pairs_of(before, after) == {(0, 1), (1, 0)}


def test_boxes_that_hardly_overlap_are_of_two_objects() -> None:
    assert pairs_of(result([square(10)]), result([square(18)])) == {(0, 0)}
    assert pairs_of(result([square(10)]), result([square(20)])) == set()


def test_the_more_confident_of_two_goes_on() -> None:
    before, after = result([square(10), square(12)], [0.2, 0.9]), result([square(11)])
    assert pairs_of(before, after) == {(1, 0)}


def test_each_box_has_one_partner_at_most() -> None:
    before = result([square(10), square(14)], [0.9, 0.2])
    after = result([square(12)])
    assert len(pairs_of(before, after)) == 1


def test_a_tube_comes_before_overlap() -> None:
    before = result([square(10), square(14)], ids=[4, 7])
    after = result([square(10), square(14)], ids=[7, 4])
    assert pairs_of(before, after) == {(0, 1), (1, 0)}


def test_tubes_that_ended_are_followed_by_overlap() -> None:
    before = result([square(10), square(100)], ids=[4, 7])
    after = result([square(104), square(12)], ids=[9, 4])
    assert pairs_of(before, after) == {(0, 1), (1, 0)}


def test_boxes_without_an_identity_are_followed_by_overlap() -> None:
    before = result([square(100), square(10), square(40)], ids=[NOBODY, 4, NOBODY])
    after = result([square(42), square(12), square(102)], ids=[NOBODY, 4, NOBODY])
    assert pairs_of(before, after) == {(0, 2), (1, 1), (2, 0)}


@settings(deadline=None)
@given(st.integers(0, 6), st.integers(0, 6), st.integers(0, 2**32 - 1), st.booleans())
def test_rows_are_those_of_the_steps_and_none_comes_twice(n: int, m: int, seed: int, linked: bool) -> None:
    rng = np.random.default_rng(seed)

    def some(count: int) -> Detections:
        boxes = [square(float(x), side=30) for x in rng.uniform(0, 120, count)]
        ids = np.where(rng.random(count) < 0.2, NOBODY, rng.permutation(8)[:count]).tolist() if linked else None
        return result(boxes, rng.uniform(0, 1, count).tolist(), rng.integers(0, 2, count).tolist(), ids)

    before, after = some(n), some(m)
    rows, others = pair(before, after)
    assert len(set(rows.tolist())) == len(rows) == len(others) == len(set(others.tolist()))
    assert set(rows.tolist()) <= set(range(n))
    assert set(others.tolist()) <= set(range(m))
    if linked:
        assert before.tracker_id is not None
        assert after.tracker_id is not None
        ends = set(zip(before.tracker_id[rows].tolist(), after.tracker_id[others].tolist(), strict=True))
        both = set(before.tracker_id.tolist()) & set(after.tracker_id.tolist()) - {NOBODY}
        assert {(i, i) for i in both} <= ends


# Where they are between


@settings(deadline=None)
@given(st.floats(0, 1))
def test_a_pair_lies_on_the_line(part: float) -> None:
    before, after = result([square(10)], [0.8], ids=[3]), result([square(30, 60, 40)], [0.4], ids=[3])
    found = interpolated(before, after, pair(before, after), part)
    wanted = (1 - part) * before.xyxy + part * after.xyxy
    np.testing.assert_allclose(found.xyxy, wanted, atol=1e-4)
    np.testing.assert_allclose(found.confidence, [0.8 - 0.4 * part], atol=1e-6)
    assert found.tracker_id is not None
    assert found.tracker_id.tolist() == [3]


def test_a_box_without_a_partner_stays_and_fades() -> None:
    before, after = result([square(10)], [0.8], ids=[3]), result([square(200)], [0.6], ids=[5])
    none = pair(before, after)
    early, late = interpolated(before, after, none, 0.25), interpolated(before, after, none, 0.75)
    assert early.xyxy[:, 0].tolist() == [10, 200]
    assert late.xyxy[:, 0].tolist() == [200, 10]
    np.testing.assert_allclose(early.confidence, [0.6, 0.15], atol=1e-6)
    np.testing.assert_allclose(late.confidence, [0.45, 0.2], atol=1e-6)
    assert early.tracker_id is not None
    assert late.tracker_id is not None
    assert (early.tracker_id.tolist(), late.tracker_id.tolist()) == ([3, 5], [5, 3])


def test_boxes_between_are_best_first() -> None:
    before = result([square(10), square(100)], [0.9, 0.1])
    after = result([square(100), square(10)], [0.9, 0.2])
    found = interpolated(before, after, pair(before, after), 0.75)
    assert found.confidence.tolist() == sorted(found.confidence.tolist(), reverse=True)
    assert found.xyxy[0, 0] == 100


def test_boxes_that_go_on_stay_on_the_frame() -> None:
    earlier, last = result([square(250), square(50)]), result([square(290), square(10)])
    found = moved_on(last, surely_moved(earlier, last, BOTH), np.ones(2, np.float32))
    assert found.xyxy[0].tolist() == [WIDTH - 1, 50, WIDTH - 1, 69]
    assert found.xyxy[1].tolist() == [0, 50, 0, 69]
    assert found.confidence.tolist() == last.confidence.tolist()


@pytest.mark.parametrize(
    ("box", "moved", "wanted"),
    [
        ([0, 50, 19, 79], [6, 0], [0, 50, 25, 79]),  # comes in
        ([1, 50, 20, 79], [6, 0], [1, 50, 26, 79]),
        ([2, 50, 21, 79], [6, 0], [8, 50, 27, 79]),  # is not cut off
        ([0, 50, 19, 79], [25, 0], [15, 50, 44, 79]),  # is wholly there
        ([0, 50, 29, 79], [6, 0], [6, 50, 35, 79]),
        ([0, 50, 19, 79], [-6, 0], [0, 50, 13, 79]),  # goes out
        ([0, 50, 19, 79], [0, 6], [0, 56, 19, 85]),
        ([300, 50, WIDTH - 1, 79], [-6, 3], [294, 53, WIDTH - 1, 82]),
        ([40, 0, 69, 19], [0, 6], [40, 0, 69, 25]),
        ([40, 180, 69, HEIGHT - 1], [0, -6], [40, 174, 69, HEIGHT - 1]),
        ([0, 0, 29, 19], [3, 6], [0, 0, 32, 25]),  # in a corner
        ([290, 0, WIDTH - 1, 19], [-30, 40], [260, 0, WIDTH - 1, 59]),
        ([0, 0, 9, HEIGHT - 1], [3, 5], [0, 5, 12, HEIGHT - 1]),  # which of two sides is cut off nobody knows
    ],
)
def test_what_the_edge_of_the_frame_cut_off_comes_in(box: list[float], moved: list[float], wanted: list[float]) -> None:
    assert on_frame(result([box]), np.array([moved], np.float32)).tolist() == [wanted]


def test_what_may_be_jitter_hardly_goes_on_and_no_box_grows() -> None:
    sides, moves = (20.0, 20.0, 20.0, 80.0), (1.0, 4.0, 8.0, 4.0)
    places = [20.0 + 60 * i for i in range(4)]
    earlier = result([square(x, side=side) for x, side in zip(places, sides, strict=True)])
    later = [square(x + d, side=s + 4) for x, d, s in zip(places, moves, sides, strict=True)]
    going_on = surely_moved(earlier, result(later), Pairs(np.arange(4), np.arange(4)))
    was, now = np.array(later, np.float32), moved_on(result(later), going_on, np.ones(4, np.float32)).xyxy
    np.testing.assert_allclose(now[:, 2:] - now[:, :2], was[:, 2:] - was[:, :2], atol=1e-4)
    centre = np.array(moves) + 2  # 4 pixels more on the far side
    squared = centre**2 + 2.0**2
    wanted = centre * squared / (squared + (0.2 * (np.array(sides) + 4)) ** 2)
    np.testing.assert_allclose(now[:, 0] - was[:, 0], wanted, rtol=1e-4)
    assert (now[:, 0] - was[:, 0])[2] > 0.75 * centre[2]


@settings(deadline=None)
@given(st.floats(-9, 9), st.floats(-9, 9), st.floats(-6, 60), st.floats(-6, 60))
def test_no_box_goes_on_farther_than_it_moved(x: float, y: float, wide: float, tall: float) -> None:
    """Boxes of the network input have sides of 0 or more, x2 - x1 + 1; on a larger frame x2 may be left of x1."""
    earlier, last = result([[90, 90, 90 + wide, 90 + tall]]), result([[90 + x, 90 + y, 90 + x + wide, 90 + y + tall]])
    found = surely_moved(earlier, last, Pairs(np.arange(1), np.arange(1)))[0]
    assert np.hypot(*found) <= np.hypot(x, y) + 1e-4


def test_what_goes_on_lies_between_what_two_steps_say() -> None:
    """By their confidences: of a box that the step before was sure of it takes more."""
    earlier = result([square(20), square(100), square(200)], [0.8, 0.2, 0.9], ids=[1, 2, 3])
    last = result([square(106), square(24), square(300)], [0.8, 0.4, 0.9], ids=[2, 1, 4])
    found = steadied(earlier, last, pair(earlier, last))
    for row, (there, here, was, now) in enumerate([(100, 106, 0.2, 0.8), (20, 24, 0.8, 0.4)]):
        weight = float(EARLIER) * was / (float(EARLIER) * was + now)
        np.testing.assert_allclose(found.xyxy[row], np.array(square(here + weight * (there - here))), rtol=1e-6)
    assert found.xyxy[2].tolist() == last.xyxy[2].tolist()
    assert found.confidence.tolist() == last.confidence.tolist()
    assert last.xyxy[0].tolist() == square(106), "the step stays as it is"


def test_a_side_that_the_frame_cuts_off_stays_there() -> None:
    """Where the step before had the box go it was cut off elsewhere, or not at all."""
    earlier, last = result([[100, 150, 149, 185], [3, 20, 52, 69]]), result([[102, 160, 151, 199], [0, 22, 49, 71]])
    found = steadied(earlier, last, BOTH)
    assert found.xyxy[0, 3] == HEIGHT - 1
    assert 150 < found.xyxy[0, 1] < 160
    assert found.xyxy[1, 0] == 0
    assert 49 < found.xyxy[1, 2] < 52


def test_what_looks_otherwise_is_hardly_there() -> None:
    kept = still_there(np.array([-1, 0, 0.2, 0.5, 1], np.float32))
    assert kept == pytest.approx([0, 0.21, 0.5, 0.88, 1], abs=0.01)


def test_boxes_of_no_confidence_stay_where_the_step_found_them() -> None:
    earlier, last = result([square(20)], [0.0]), result([square(24)], [0.0])
    assert steadied(earlier, last, Pairs(np.arange(1), np.arange(1))).xyxy.tolist() == last.xyxy.tolist()


def test_nothing_found_is_nothing_between() -> None:
    empty, some = result([]), result([square(10)])
    for before, after in ((empty, empty), (empty, some), (some, empty)):
        none = pair(before, after)
        assert len(none.before) == 0
        assert len(interpolated(before, after, none, 0.4)) == len(before) + len(after)
        assert surely_moved(before, after, none).shape == (0, 2)
        assert len(moved_on(after, np.zeros((len(after), 2), np.float32), np.ones(len(after), np.float32))) == len(
            after
        )


@settings(deadline=None)
@given(st.lists(st.floats(-1, 1), min_size=1, max_size=5))
def test_a_box_keeps_the_less_of_its_confidence_the_less_alike_it_is(likeness: list[float]) -> None:
    n = len(likeness)
    last = result([square(40 * i) for i in range(n)], [0.8] * n, ids=list(range(n)), classes=[i % 2 for i in range(n)])
    moved = np.arange(2 * n, dtype=np.float32).reshape(n, 2)
    found = moved_on(last, moved, np.array(likeness, np.float32))
    assert found.tracker_id is not None
    rows = found.tracker_id
    np.testing.assert_allclose(found.xyxy, last.xyxy[rows] + np.tile(moved, 2)[rows], atol=1e-4)
    assert found.class_id.tolist() == last.class_id[rows].tolist()
    assert (np.diff(found.confidence) <= 0).all()
    assert (np.diff(np.array(likeness)[rows]) <= 1e-6).all()
    assert ((found.confidence > 0) & (found.confidence <= 0.8 + 1e-6)).all()


def test_half_of_the_confidence_is_left_at_a_likeness_that_was_chosen() -> None:
    last = result([square(10), square(100)], [0.8, 0.8])
    found = moved_on(last, np.zeros((2, 2), np.float32), np.array([1, ALIKE], np.float32))
    np.testing.assert_allclose(found.confidence, [0.8, 0.4], rtol=0.02)
    assert found.confidence[0] == np.float32(0.8)
