"""Boxes of a step that are followed to the next one, to be linked to its boxes."""

from __future__ import annotations

import contextlib
import itertools
from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rdn_engine.config import WHOLE_VIDEO, Dials, LinkMethod
from rdn_engine.results import Detections
from rdn_engine.stream import carried, linking
from rdn_engine.stream import trail as trail_module
from rdn_engine.stream.between import Between
from rdn_engine.stream.following import Picture
from rdn_engine.stream.linking import BoxLinker
from rdn_engine.stream.links import MIN_IOU, MOVED_MIN_IOU, Linkable, Moved
from rdn_engine.stream.order import Role
from rdn_engine.stream.trail import FAINT, Trail, most_pictures
from tests.stream.boxes import WIDTH, result
from tests.stream.test_between import SIDE, info, picture, spots
from tests.stream.test_turning import CAPACITY, CAUSAL, crowd_detector
from tests.stream.test_turning import picture as crowd

LINKED = Dials(look_ahead=0, link="boxes", link_delay=WHOLE_VIDEO, interval=3)


def moves(places: list[tuple[int, int]], found: dict[int, Detections], late: int = 0) -> list[Moved | None]:
    """What a trail says of steps, whose boxes are known `late` frames after them."""
    trail, infos, said = Trail(), [info(t) for t in range(len(places))], []
    for t in range(len(places) + late):
        if t < len(places):
            trail.append(infos[t], "encoded" if t in found else "between", picture(places[t]))
        trail.follow()
        if t - late in found:
            said.append(trail.reach(infos[t - late], found[t - late]))
            trail.done()
    return said


@pytest.mark.parametrize("late", [0, 1, 4, 9])
def test_a_box_has_moved_as_far_as_the_frames_between_show(late: int) -> None:
    """By twice its own size, however late the boxes of a step are known."""
    places = [(20 + 7 * t, 30 + t) for t in range(7)]
    steps = {t: result([spots(*places[t])], index=t) for t in (0, 3, 6)}
    first, *others = moves(places, steps, late)
    assert first is None
    for moved, step in zip(others, (0, 3), strict=True):
        assert moved is not None
        assert moved.result is steps[step]
        np.testing.assert_allclose(moved.by, [[21 * SIDE, 3 * SIDE]], atol=3)


def test_objects_that_move_by_more_than_their_size_are_one_tube() -> None:
    """Two that cross the frame, of which the other is where the first was three steps ago."""
    places = [((10 + 6 * t, 20), (110 - 6 * t, 60)) for t in range(13)]
    linker, filler, trail, found = BoxLinker(), Between(300), Trail(), []
    for t, (one, other) in enumerate(places):
        role: Role = "between" if t % 3 else "encoded"
        now = info(t)
        filler.append(now, role)
        trail.append(now, role, picture(one, other))
        if role == "encoded":
            boxes = result([spots(*one), spots(*other)], [0.9, 0.8], index=t)
            moved = trail.reach(now, boxes)
            trail.done()
            linker.push(Linkable(boxes, np.arange(2), None), LINKED, moved)
    found = filler.take(linker.flush(LINKED), LINKED, ended=True)
    assert [r.basis for r in found[:4]] == ["encoded", "interpolated", "interpolated", "encoded"]
    for one_result, (one, other) in zip(found, places, strict=True):
        ids = one_result.tracker_id
        assert ids is not None
        assert sorted(ids.tolist()) == [1, 2]
        np.testing.assert_allclose(one_result.xyxy[ids.argsort()], [spots(*one), spots(*other)], atol=2)


def test_faint_boxes_go_as_far_as_the_one_that_they_lie_on() -> None:
    places = [(20 + 6 * t, 30) for t in range(4)]
    beside = np.array([spots(20, 30)]) + 3
    boxes = result([spots(20, 30), *beside, spots(90, 60)], [0.9, FAINT / 2, FAINT / 3])
    _, moved = moves(places, {0: boxes, 3: result([], index=3)})
    assert moved is not None
    np.testing.assert_allclose(moved.by, [[18 * SIDE, 0], [18 * SIDE, 0], [0, 0]], atol=2)


def names(before: Detections, after: Detections, moved: Moved | None, dials: Dials = LINKED) -> list[list[int]]:
    """Identities of the boxes of two steps."""
    linker = BoxLinker()
    linker.push(Linkable(before, np.arange(len(before)), None), dials)
    linker.push(Linkable(after, np.arange(len(after)), None), dials, moved)
    return [one.tracker_id.tolist() for one in linker.flush(dials) if one.tracker_id is not None]


def test_links_from_where_boxes_have_moved_want_more_overlap() -> None:
    """Boxes of which two thirds, and hardly more than half, overlap."""
    for shift, moved_links in ((10, True), (19, False)):
        before, after = (result([[x, 0, x + 39, 39]], index=x) for x in (0, shift))
        for by, linked in ((None, True), (np.zeros((1, 2), np.float32), moved_links)):
            one, other = names(before, after, None if by is None else Moved(before, by))
            assert (one == other) == linked
    assert MIN_IOU < 21 / 59 < MOVED_MIN_IOU


@pytest.mark.parametrize("link", ["boxes", "seq_nms"])
def test_a_box_that_overlaps_itself_is_linked_whatever_was_said_of_it(link: LinkMethod) -> None:
    """It hardly moved, and was followed to a faint box beside it."""
    before = result([[0, 0, 39, 39]], [0.9])
    after = result([[4, 0, 43, 39], [30, 0, 69, 39]], [0.9, 0.3], index=1)
    moved = Moved(before, np.array([[30, 0]], np.float32))
    one, other = names(before, after, moved, replace(LINKED, link=link))
    assert other[0] == one[0], "the best comes first"
    assert other[1] != one[0]


def test_what_is_said_of_another_frame_is_not_used() -> None:
    before, after, other = (result([[x, 50, x + 39, 89]], index=x) for x in (30, 130, 230))
    for said, linked in ((before, True), (other, False)):
        one, two = names(before, after, Moved(said, np.array([[100, 0]], np.float32)))
        assert (one == two) == linked


def test_a_step_that_was_not_seen_to_come_says_nothing_and_takes_no_frame_away() -> None:
    trail, infos = Trail(), [info(t) for t in range(3)]
    assert trail.reach(infos[0], result([spots(20, 30)])) is None
    trail.done()
    trail.append(infos[1], "encoded", picture((23, 30)))
    trail.append(infos[2], "encoded", picture((26, 30)))
    assert trail.reach(infos[0], result([spots(20, 30)])) is None
    trail.done()
    assert trail.reach(infos[1], result([spots(23, 30)], index=1)) is None
    trail.done()
    moved = trail.reach(infos[2], result([spots(26, 30)], index=2))
    assert moved is not None
    np.testing.assert_allclose(moved.by, [[3 * SIDE, 0]], atol=1)


def test_a_frame_that_turns_out_to_be_the_last_is_a_step_to_which_boxes_were_followed() -> None:
    """It came as one between two steps, and is encoded after all."""
    trail, infos = Trail(), [info(t) for t in range(2)]
    trail.append(infos[0], "encoded", picture((20, 30)))
    assert trail.reach(infos[0], result([spots(20, 30)])) is None
    trail.done()
    trail.append(infos[1], "between", picture((26, 30)))
    moved = trail.reach(infos[1], result([spots(26, 30)], index=1))
    trail.done()
    assert moved is not None
    np.testing.assert_allclose(moved.by, [[6 * SIDE, 0]], atol=1)
    assert trail.pictures == 0


@pytest.mark.parametrize("ahead", [0, 2])
@pytest.mark.parametrize(("module", "name"), [(carried, "followed"), (trail_module, "pair"), (linking, "linked")])
def test_what_fails_once_is_tried_again(
    module: ModuleType, name: str, ahead: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stage finds no memory for its second call: a frame that was not accepted comes again, and no link is lost."""
    stage, dials = getattr(module, name), replace(CAUSAL, look_ahead=ahead, link="boxes", link_delay=1)

    def results(fails_at: int) -> list[Detections]:
        calls = itertools.count(1)

        def failing(*args: Any) -> Any:
            if next(calls) == fails_at:
                raise MemoryError("no room")
            return stage(*args)

        monkeypatch.setattr(module, name, failing)
        with crowd_detector([3]).open_stream(dials, capacity=CAPACITY) as stream:
            found: list[Detections] = []
            while stream.accepted < 9:
                with contextlib.suppress(MemoryError):
                    found += stream.push(crowd(stream.accepted))
            while len(found) < 9:
                with contextlib.suppress(MemoryError):
                    found += stream.flush()
        assert next(calls) > fails_at
        return found

    for one, other in zip(results(2), results(0), strict=True):
        assert one.frame_index == other.frame_index
        np.testing.assert_array_equal(one.xyxy, other.xyxy)
        np.testing.assert_array_equal(one.tracker_id, other.tracker_id)


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 4), st.integers(0, 3), st.lists(st.booleans(), min_size=1, max_size=12))
def test_no_more_pictures_are_held_than_said(interval: int, ahead: int, still: list[bool]) -> None:
    """Results of a step come when L steps have come behind it, still ones included. As many where none is still."""
    dials = replace(LINKED, interval=interval, look_ahead=ahead)
    blank = Picture(np.zeros((6, 8, 3), np.uint8), (SIDE, SIDE))
    trail, steps, most = Trail(), [], 0
    for t in range(interval * len(still)):
        now = info(t)
        step = t % interval == 0
        role: Role = "between" if not step else "still" if t and still[t // interval] else "encoded"
        trail.append(now, role, blank)
        most = max(most, trail.pictures)
        if step:
            steps.append((now, role))
            if len(steps) > ahead:
                due, kind = steps[-ahead - 1]
                if kind == "encoded":
                    trail.reach(due, result([], index=due.frame_index))
                    trail.done()
        trail.follow()
    assert most <= most_pictures(dials)
    if len(still) > ahead + 1 and not any(still):
        assert most == most_pictures(dials)
    trail.clear()
    assert trail.pictures == 0


def test_a_box_that_leaves_the_frame_is_linked_by_what_is_left_of_it() -> None:
    before, after = (result([[x, 20, WIDTH - 1, 59]], index=t) for t, x in enumerate((WIDTH - 40, WIDTH - 10)))
    one, other = names(before, after, Moved(before, np.array([[30, 0]], np.float32)))
    assert one == other
