"""Boxes of frames between two steps, and the order in which results come out."""

from __future__ import annotations

import weakref
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rdn_engine.config import Dials
from rdn_engine.results import NOBODY, Detections
from rdn_engine.stream.between import FAINT, LOST, Between
from rdn_engine.stream.following import Picture
from rdn_engine.stream.order import FrameInfo, Role
from rdn_engine.stream.pairs import ALIKE, Pairs, interpolated, moved_on, pair, surely_moved

WIDTH, HEIGHT = 320, 200
WAITING = Dials(look_ahead=1)
CAUSAL = Dials(look_ahead=0, interval=2)
BOTH = Pairs(np.arange(2), np.arange(2))


def result(
    boxes: list[list[float]],
    confidence: list[float] | None = None,
    classes: list[int] | None = None,
    ids: list[int] | None = None,
    index: int = 0,
) -> Detections:
    n = len(boxes)
    return Detections(
        class_names=("cat", "dog"), frame_index=index, pts=None, source_id="", height=HEIGHT, width=WIDTH, pool_fill=1,
        lookahead=0, epoch=0,
        xyxy=np.array(boxes, np.float32).reshape(-1, 4),
        confidence=np.array([0.9 - 0.1 * i for i in range(n)] if confidence is None else confidence, np.float32),
        class_id=np.array([0] * n if classes is None else classes, np.int64),
        tracker_id=None if ids is None else np.array(ids, np.int64),
    )  # fmt: skip


def square(x: float, y: float = 50, side: float = 20) -> list[float]:
    return [x, y, x + side - 1, y + side - 1]


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


# What the pictures show

SIDE = 2
SPOTS = np.random.default_rng(0).uniform(0, 255, (5, 5, 3)).repeat(4, 0).repeat(4, 1)
"""[20, 20, 3] of a square of 20 blocks"""


def picture(*places: tuple[int, int]) -> Picture:
    """A grey frame with the spots at some places, (x, y) in blocks."""
    colours = np.full((HEIGHT // SIDE, WIDTH // SIDE, 3), 90.0)
    for x, y in places:
        colours[y : y + 20, x : x + 20] = SPOTS[:, : max(WIDTH // SIDE - x, 0)]
    return Picture(colours.astype(np.float32), (SIDE, SIDE))


def spots(x: int, y: int) -> list[float]:
    """Their box on the frame."""
    return square(x * SIDE, y * SIDE, 20 * SIDE)


def follow(pictures: list[Picture | None], boxes: list[list[float]], dials: Dials = CAUSAL) -> list[Detections]:
    """The results of a step and of the frames behind it."""
    filler, found = Between(300), []
    for t, one in enumerate(pictures):
        filler.append(info(t), "between" if t else "encoded", one)
        found += filler.take([] if t else [result(boxes, index=t)], dials)
    return found


def test_a_box_goes_where_the_picture_shows_what_it_held() -> None:
    """Of the first step already, and on and on: at a speed that takes it far beyond what is searched at once."""
    places = [(20, 30), (26, 33), (37, 36), (50, 39), (63, 42), (76, 46)]
    found = follow([picture(place) for place in places], [spots(*places[0])])
    assert [one.basis for one in found] == ["encoded", *["extrapolated"] * 5]
    for one, place in zip(found, places, strict=True):
        np.testing.assert_allclose(one.xyxy, [spots(*place)], atol=1)
        np.testing.assert_allclose(one.confidence, [0.9], rtol=0.05)


def test_two_that_look_alike_are_followed_to_the_nearest() -> None:
    found = follow([picture((20, 30), (60, 30)), picture((24, 30), (55, 30))], [spots(20, 30), spots(60, 30)])
    np.testing.assert_allclose(found[1].xyxy, [spots(24, 30), spots(55, 30)], atol=1)


def test_faint_boxes_are_not_looked_for() -> None:
    filler = Between(300)
    filler.append(info(0), "encoded", picture((20, 30), (60, 30)))
    filler.append(info(1), "between", picture((24, 30), (55, 30)))
    boxes = result([spots(20, 30), spots(60, 30)], [0.9, FAINT / 2])
    _, found = filler.take([boxes], CAUSAL)
    np.testing.assert_allclose(found.xyxy, [spots(24, 30), spots(60, 30)], atol=1)
    np.testing.assert_allclose(found.confidence, [0.9, FAINT / 2], rtol=1e-2)


def test_a_faint_box_goes_with_the_one_that_it_overlaps_most() -> None:
    filler = Between(300)
    filler.append(info(0), "encoded", picture((20, 30), (60, 30)))
    filler.append(info(1), "between", picture((24, 30), (55, 30)))
    beside = [square(20 * SIDE + 4, 30 * SIDE, 40), square(60 * SIDE, 30 * SIDE + 4, 40), square(280, 2, 40)]
    boxes = result(
        [spots(20, 30), spots(60, 30), *beside], [0.9, 0.8, FAINT / 2, FAINT / 3, FAINT / 4], classes=[0, 0, 1, 1, 0]
    )
    _, found = filler.take([boxes], CAUSAL)
    moved = np.array(beside) + np.array([[8, 0, 8, 0], [-10, 0, -10, 0], [0, 0, 0, 0]])
    np.testing.assert_allclose(found.xyxy, [spots(24, 30), spots(55, 30), *moved], atol=1)


def test_what_a_step_lost_is_looked_for_by_what_it_held_before() -> None:
    """A box that the second step does not show, and that is there again behind it, where it went on to."""
    for kept, ids in ((0.9, None), (0.9, [4]), (FAINT / 2, None)):
        filler, found = Between(300), []
        roles: list[Role] = ["encoded", "between", "encoded", "between", "encoded", "between"]
        shown = (picture((20, 30)), picture((26, 30)), picture(), picture((38, 30)), picture(), picture((50, 30)))
        for t, (role, one) in enumerate(zip(roles, shown, strict=True)):
            filler.append(info(t), role, one)
            boxes = result(
                [spots(20, 30)] if t == 0 else [], [kept] if t == 0 else [], ids=ids if t == 0 or ids is None else []
            )
            found += filler.take([boxes] if role == "encoded" else [], CAUSAL)
        assert [len(one) for one in found] == [1, 1, 0, int(kept > FAINT), 0, 0]
        assert (found[1].tracker_id is None) == (ids is None)
        if kept > FAINT:
            np.testing.assert_allclose(found[3].xyxy, [spots(38, 30)], atol=1)
            np.testing.assert_allclose(found[3].confidence, [LOST * kept], rtol=0.05)
            assert found[3].tracker_id is None if ids is None else found[3].tracker_id.tolist() == ids


def test_a_box_is_worth_what_the_steps_before_say() -> None:
    """The better half of 0.9 and 0.3 is 0.9, and a half of that and of 0.3 is 0.6; links say so themselves."""
    for ids, wanted in ((None, 0.6), ([4], 0.3)):
        filler, found = Between(300), []
        roles: list[Role] = ["encoded", "between", "encoded", "between"]
        # So far in two frames that the boxes of the two steps do not overlap: they belong together nevertheless.
        for t, (role, place) in enumerate(zip(roles, (20, 30, 40, 50), strict=True)):
            filler.append(info(t), role, picture((place, 30)))
            ready = [result([spots(place, 30)], [0.9 if t == 0 else 0.3], ids=ids)] if role == "encoded" else []
            found += filler.take(ready, CAUSAL)
        np.testing.assert_allclose(found[2].confidence, [0.3], rtol=1e-6)
        np.testing.assert_allclose(found[3].confidence, [wanted], rtol=1e-2)
        np.testing.assert_allclose(found[3].xyxy, [spots(50, 30)], atol=1)


def test_how_far_boxes_will_have_moved_by_the_next_step() -> None:
    filler = Between(300)
    filler.append(info(0), "encoded", picture((20, 30)))
    filler.take([result([spots(20, 30)])], CAUSAL)
    filler.append(info(1), "between", picture((23, 31)))
    filler.take([], CAUSAL)
    assert filler.moved() is None, "no step has come"
    filler.append(info(2), "encoded", picture((26, 32)))
    moved = filler.moved()
    assert moved is not None
    np.testing.assert_allclose(moved, [[12, 4]], atol=1)


def test_what_is_hidden_or_has_left_is_doubted() -> None:
    hidden = follow([picture((20, 30)), picture()], [spots(20, 30)])[1]
    np.testing.assert_allclose(hidden.xyxy, [spots(20, 30)], atol=1e-3)
    assert hidden.confidence[0] < 0.3 * 0.9
    gone = follow([picture((x, 30)) for x in (130, 136, 143, 150, 157, 164)], [spots(130, 30)])
    assert gone[1].confidence[0] > 0.6
    assert gone[-1].confidence.max(initial=0) < 0.3


def test_without_a_picture_boxes_go_on_as_they_did() -> None:
    for pictures in ([None, picture((26, 33))], [picture((20, 30)), None]):
        found = follow(pictures, [spots(20, 30)])[1]
        assert (found.xyxy.tolist(), found.confidence.tolist()) == ([spots(20, 30)], pytest.approx([0.9]))


def test_the_next_step_begins_anew() -> None:
    filler, found = Between(300), []
    roles: list[Role] = ["encoded", "between", "encoded", "between"]
    for t, (role, place) in enumerate(zip(roles, (20, 26, 32, 34), strict=True)):
        filler.append(info(t), role, picture((place, 30)))
        ready = [result([spots(place, 30)], index=t)] if role == "encoded" else []
        found += filler.take(ready, CAUSAL)
    np.testing.assert_allclose(found[3].xyxy, [spots(34, 30)], atol=1)


class Seen(np.ndarray):
    """An array that tells whether somebody holds it."""


@pytest.mark.parametrize("ended", [False, True])
def test_no_more_pictures_are_held_than_of_the_last_two_steps_and_of_the_frame_that_comes(ended: bool) -> None:
    """As `HostStream.skipping_nbytes` counts them."""
    filler, seen = Between(300), []
    roles: list[Role] = ["encoded", "encoded", "between", "between", "between", "encoded", "between", "encoded"]
    for t, role in enumerate(roles):
        colours = picture((20 + t, 30)).colours.view(Seen)
        seen.append(weakref.ref(colours))
        filler.append(info(t), role, Picture(colours, (SIDE, SIDE)))
        del colours
        assert sum(one() is not None for one in seen) <= 3
        # Of another place each time, so that each step has lost what the one before it showed.
        filler.take([result([spots(20 + 40 * (t % 3), 30)], index=t)] if role == "encoded" else [], CAUSAL)
        assert sum(one() is not None for one in seen) <= 2
    filler.take([], CAUSAL, ended=ended)
    assert sum(one() is not None for one in seen) == (0 if ended else 2)


def test_a_time_as_short_as_a_number_can_be_moves_boxes_no_faster() -> None:
    filler, found = Between(300), []
    for t, (when, place) in enumerate([(0.0, 20), (5e-324, 24), (2.0, 28)]):
        filler.append(info(t, when), "between" if t else "encoded", picture((place, 30)))
        found += filler.take([] if t else [result([spots(20, 30)])], CAUSAL)
    np.testing.assert_allclose(found[2].xyxy, [spots(28, 30)], atol=1)


# The order


def info(t: int, pts: float | None = None) -> FrameInfo:
    return FrameInfo(t, pts, "cam", HEIGHT, WIDTH)


ROLES = st.lists(st.sampled_from(["encoded", "still", "between"]), max_size=20).map(lambda rest: ["encoded", *rest])


@settings(deadline=None)
@given(ROLES, st.integers(0, 3), st.booleans())
def test_every_frame_has_one_result_in_order(roles: list[Role], late: int, waits: bool) -> None:
    """Results of encoded frames come `late` encoded frames late; those of the others as soon as they can."""
    filler, waiting, found = Between(300), [], []
    dials = WAITING if waits else CAUSAL
    for t, role in enumerate(roles):
        filler.append(info(t), role)
        if role == "encoded":
            waiting.append(result([square(t)], index=t))
        ready = waiting[: len(waiting) - late]
        waiting = waiting[len(ready) :]
        found += filler.take(ready, dials)
        if not waits and not late:
            assert len(found) == t + 1
    found += filler.take(waiting, dials, ended=True)
    assert [r.frame_index for r in found] == list(range(len(roles)))
    for role, one in zip(roles, found, strict=True):
        assert one.basis == role if role != "between" else one.basis in ("interpolated", "extrapolated")


def test_a_stalled_clock_carries_boxes_no_farther_than_they_were_seen_to_move() -> None:
    filler = Between(300)
    found = []
    for t, (when, role) in enumerate([(0.0, "encoded"), (1.0, "encoded"), (50.0, "between")]):
        filler.append(info(t, when), role)  # type: ignore[arg-type]
        found += filler.take([result([square(10 + 4 * t)], index=t)] if role == "encoded" else [], CAUSAL)
    # 4 pixels, a fifth of the side: half of that may be jitter.
    assert found[2].xyxy[0, 0] == pytest.approx(14 + 2)


@pytest.mark.parametrize(("places", "dials", "wanted"), [((0, 100, 5), WAITING, 12.0), ((0, 5, 1), CAUSAL, 16.0)])
def test_places_that_do_not_go_up_tell_nothing(places: tuple[int, ...], dials: Dials, wanted: float) -> None:
    """Frames of a source that numbers them by name, say."""
    roles: list[Role] = ["encoded", "between", "encoded"] if dials is WAITING else ["encoded", "encoded", "between"]
    filler, found = Between(300), []
    for t, (place, role) in enumerate(zip(places, roles, strict=True)):
        filler.append(info(place), role)
        ready = [result([square(10 if t == 0 else 14)])] if role == "encoded" else []
        found += filler.take(ready, dials)
    [between] = [one for one in found if one.basis in ("interpolated", "extrapolated")]
    assert between.xyxy[0, 0] == pytest.approx(wanted, abs=0.01)  # half of 4 pixels may be jitter
    assert 0 < between.confidence[0] <= 1


def test_an_epoch_forgets_how_boxes_moved() -> None:
    filler = Between(300)
    for t in range(2):
        filler.append(info(t), "encoded")
        filler.take([result([square(10 + 4 * t)], index=t)], CAUSAL, ended=t == 1)
    filler.append(info(2), "encoded")
    filler.append(info(3), "between")
    [_, between] = filler.take([result([square(30)], index=2)], CAUSAL)
    assert between.xyxy[0, 0] == 30


def test_what_faded_below_the_threshold_is_not_given_out_and_no_more_than_the_most() -> None:
    before = result([square(10), square(100), square(200)], [0.9, 0.8, 0.3])
    after = result([square(12), square(102)], [0.9, 0.8])
    for dials, most, wanted in (
        (WAITING, 300, [0.9, 0.8, 0.15]),
        (replace(WAITING, score_threshold=0.2), 300, [0.9, 0.8]),
        (WAITING, 1, [0.9]),
    ):
        filler = Between(most)
        for t, role in enumerate(("encoded", "between", "encoded")):
            filler.append(info(t), role)  # type: ignore[arg-type]
        [_, between, _] = filler.take([before, after], dials)
        np.testing.assert_allclose(between.confidence, wanted, atol=1e-6)


def test_a_threshold_that_was_raised_holds_for_what_goes_on() -> None:
    filler = Between(300)
    for t, role in enumerate(("encoded", "between")):
        filler.append(info(t), role)  # type: ignore[arg-type]
    [first] = filler.take([result([square(10), square(100)], [0.9, 0.3])], WAITING)
    [second] = filler.take([], replace(CAUSAL, score_threshold=0.5))
    assert (len(first), len(second), second.basis) == (2, 1, "extrapolated")
