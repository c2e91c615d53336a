"""Boxes of frames between two steps, and the order in which results come out."""

from __future__ import annotations

import weakref
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rdn_engine.config import Dials
from rdn_engine.results import Detections
from rdn_engine.stream import between
from rdn_engine.stream.between import FAINT, LOST, Between
from rdn_engine.stream.following import SURE, UNLIKE, Picture, followed
from rdn_engine.stream.order import FrameInfo, Role
from rdn_engine.stream.pairs import EARLIER
from tests.stream.boxes import HEIGHT, WIDTH, result, square

WAITING = Dials(look_ahead=1)
CAUSAL = Dials(look_ahead=0, interval=2)

# What the pictures show

SIDE = 2
SPOTS = np.random.default_rng(0).uniform(0, 255, (5, 5, 3)).repeat(4, 0).repeat(4, 1)
"""[20, 20, 3] of a square of 20 blocks"""


def picture(*places: tuple[int, int]) -> Picture:
    """A grey frame with the spots at some places, (x, y) in blocks."""
    colours = np.full((HEIGHT // SIDE, WIDTH // SIDE, 3), 90.0)
    for x, y in places:
        colours[y : y + 20, x : x + 20] = SPOTS[:, : max(WIDTH // SIDE - x, 0)]
    return Picture(np.rint(colours).astype(np.uint8), (SIDE, SIDE))


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
    places = [(20, 30), (26, 34), (38, 36), (50, 40), (64, 42), (76, 46)]  # in whole cells, of 2 blocks
    found = follow([picture(place) for place in places], [spots(*places[0])])
    assert [one.basis for one in found] == ["encoded", *["extrapolated"] * 5]
    for one, place in zip(found, places, strict=True):
        np.testing.assert_allclose(one.xyxy, [spots(*place)], atol=3)  # a cell is of 4
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


def test_a_box_that_jumps_for_one_step_is_followed_from_between() -> None:
    """Two steps of equal confidence; the step itself stays as it was found, what goes on does not."""
    filler, found = Between(300), []
    roles: tuple[Role, ...] = ("encoded", "between", "encoded", "between")
    for t, role in enumerate(roles):
        filler.append(info(t), role, picture((20, 30)))
        found += filler.take([result([spots(20 + 2 * t, 30)])] if role == "encoded" else [], CAUSAL)
    start, jump = found[0].xyxy[0, 0], found[2].xyxy[0, 0]
    assert jump == start + 4 * SIDE
    assert found[3].xyxy[0, 0] == pytest.approx(jump - 4 * SIDE * EARLIER / (EARLIER + 1), abs=1)


def test_a_box_goes_part_of_the_way_where_pictures_tell_little() -> None:
    """Noise over what moved: likenesses between those of something else and of a sure find."""
    noise = np.random.default_rng(1).normal(0, 1, (HEIGHT // SIDE, WIDTH // SIDE, 3))
    before, after, box = picture((20, 30)), picture((26, 30)), np.array([spots(20, 30)], np.float32)
    way = []
    for strength in (0, 80, 120, 400):
        noisy = Picture((after.colours + strength * noise).clip(0, 255).astype(np.uint8), after.side)
        moved, likeness = followed(before, noisy, box, np.zeros((1, 2), np.float32))
        way.append(moved[0, 0])
        part = float(np.clip((likeness[0] - UNLIKE) / (SURE - UNLIKE), 0, 1))
        assert moved[0, 0] == pytest.approx(part * 6 * SIDE, abs=1)
    assert way[0] == pytest.approx(6 * SIDE, abs=0.5)
    assert way[0] > way[1] > way[2] > 0
    assert way[3] == 0


def test_a_box_that_cannot_be_looked_for_goes_where_it_was_likely_to_go() -> None:
    """As wide as numbers go, so that the place of its cells is no number; the one beside it is followed."""
    widest = float(np.finfo(np.float32).max)
    boxes = np.array([[-widest, 0, widest, 40], spots(20, 30)], np.float32)
    moved, _ = followed(picture((20, 30)), picture((26, 30)), boxes, np.array([[3, 4], [0, 0]], np.float32))
    assert moved[0].tolist() == [3, 4]
    np.testing.assert_allclose(moved[1], [6 * SIDE, 0], atol=1)


def test_how_far_boxes_will_have_moved_by_the_next_step() -> None:
    filler, first = Between(300), result([spots(20, 30)], ids=[1])
    filler.append(info(0), "encoded", picture((20, 30)))
    filler.take([first], CAUSAL)
    filler.append(info(1), "between", picture((24, 32)))
    filler.take([], CAUSAL)
    assert filler.moved() is None, "no step has come"
    filler.append(info(2), "encoded", picture((28, 34)))
    moved = filler.moved()
    assert moved is not None
    assert moved.result is first
    np.testing.assert_allclose(moved.by, [[16, 8]], atol=1)
    # A still step shows the boxes of the one before it, which is the last one that a linker has seen.
    filler = Between(300)
    roles: tuple[Role, ...] = ("encoded", "still", "encoded")
    for t, role in enumerate(roles):
        filler.append(info(t), role, picture((20, 30)))
        filler.take([first] if t == 0 else [], CAUSAL)
    moved = filler.moved()
    assert moved is not None
    assert moved.result is first


def test_boxes_have_no_identity_of_before_links_were_turned_on() -> None:
    """What links them where the stream does not counts from 1 too: nobody else knows whom it means, and what the step
    lost has no number of the stream's.
    """
    shown = [picture((20, 30), (60, 30)), picture((20, 30)), picture((20, 30), (60, 30))]
    steps = [result([spots(20, 30), spots(60, 30)]), result([spots(20, 30)], ids=[2])]
    filler, found = Between(300), []
    roles: tuple[Role, ...] = ("encoded", "encoded", "between")
    for t, (role, one) in enumerate(zip(roles, shown, strict=True)):
        filler.append(info(t), role, one)
        found += filler.take(steps[t : t + 1], CAUSAL)
    np.testing.assert_allclose(found[2].xyxy, [spots(20, 30)], atol=1)
    assert found[2].tracker_id is not None
    assert found[2].tracker_id.tolist() == [2]


@pytest.mark.parametrize("name", ["Carried", "moved_on", "on_frame", "pair", "rows_of", "steadied", "surely_moved"])
def test_what_fails_is_tried_again_and_changes_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = getattr(between, name)
    boxes = [result([spots(20 + 4 * t, 30), spots(90 - 3 * t, 60)], [0.9, 0.5 + 0.04 * t], index=t) for t in range(8)]

    def results(fails_at: int) -> tuple[list[Detections], int]:
        made = 0

        def failing(*args: Any, **options: Any) -> Any:
            nonlocal made
            made += 1
            if made == fails_at:
                raise MemoryError("no room")
            return stage(*args, **options)

        monkeypatch.setattr(between, name, failing)
        filler, found = Between(300), list[Detections]()
        for t, one in enumerate(boxes):
            role: Role = "between" if t % 3 else "encoded"
            filler.append(info(t), role, picture((20 + 4 * t, 30), (90 - 3 * t, 60)))
            ready = [] if t % 3 else [one]
            try:
                found += filler.take(ready, CAUSAL)
            except MemoryError:
                found += filler.take([], CAUSAL)
        monkeypatch.setattr(between, name, stage)
        return found, made

    wanted, calls = results(0)
    assert [one.frame_index for one in wanted] == list(range(8))
    assert calls > 1
    for fails_at in range(1, calls + 1):
        for one, other in zip(results(fails_at)[0], wanted, strict=True):
            assert one.frame_index == other.frame_index
            np.testing.assert_array_equal(one.xyxy, other.xyxy)
            np.testing.assert_array_equal(one.confidence, other.confidence)


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
