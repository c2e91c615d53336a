"""Objects that are lost and come back: who they are, and what a gap may not change."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rdn_engine import Detections
from rdn_engine.config import WHOLE_VIDEO, Dials, LinkMethod
from rdn_engine.evaluation.boxes import iou
from rdn_engine.results import NOBODY
from rdn_engine.stream.identity import CLEAR, DOUBLE, FAINT, MOST_LOST, SURE, looks_of
from rdn_engine.stream.linking import BoxLinker
from rdn_engine.stream.links import Linkable
from tests.stream.test_linking import METHODS, frame, identity, same, videos

HOME = [10.0, 10.0, 30.0, 30.0]
DELAYS = (0, 2, WHOLE_VIDEO)
EMPTY = frame(0, [], [])


def by(gap: int, delay: int = 0, method: LinkMethod = "boxes", threshold: float = 0.0) -> Dials:
    return Dials(link=method, link_delay=delay, link_gap=gap, score_threshold=threshold)


def linked(frames: Sequence[Linkable], dials: Dials) -> list[Detections]:
    linker = BoxLinker()
    return [r for f in frames for r in linker.push(f, dials)] + linker.flush(dials)


def moved(box: Sequence[float], x: float, y: float = 0.0) -> list[float]:
    return [box[0] + x, box[1] + y, box[2] + x, box[3] + y]


def there(*boxes: Sequence[float], features: Sequence[Sequence[float]] | None = None, score: float = 0.9) -> Linkable:
    made = frame(0, boxes, [score] * len(boxes))
    return made if features is None else made._replace(features=np.array(features, np.float32))


def names(frames: Sequence[Linkable], dials: Dials) -> list[list[int]]:
    """Identities of each frame, in the order in which its boxes were given"""
    order = []
    for given_frame, result in zip(frames, linked(frames, dials), strict=True):
        rows = [int(np.flatnonzero((result.xyxy == box).all(1))[0]) for box in given_frame.found.xyxy]
        order.append([identity(result)[row] for row in rows])
    return order


@pytest.mark.parametrize("delay", DELAYS)
@pytest.mark.parametrize(("lost", "gap", "kept"), [(1, 1, True), (5, 5, True), (6, 5, False), (1, 0, False)])
def test_an_object_that_is_lost_for_up_to_g_frames_keeps_its_identity(
    lost: int, gap: int, kept: bool, delay: int
) -> None:
    frames = [*[there(HOME)] * 3, *[EMPTY] * lost, *[there(HOME)] * 2]
    before, *_, after = names(frames, by(gap, delay))
    assert (before == after) == kept


def test_an_object_comes_back_where_its_way_leads() -> None:
    """5 pixels a frame: after a gap of 9 it is two and a half boxes farther on, and not where it was."""
    way = [there(moved(HOME, 5.0 * t)) for t in range(8)]
    gap = [EMPTY] * 9
    assert names([*way, *gap, there(moved(HOME, 5.0 * 16))], by(9))[-1] == [1]
    assert names([*way, *gap, there(moved(HOME, 5.0 * 7))], by(9))[-1] != [1]
    still = [there(HOME)] * 8
    assert names([*still, *gap, there(moved(HOME, 5.0 * 9))], by(9))[-1] != [1]


def test_another_class_or_size_is_another_object() -> None:
    dog = frame(0, [HOME], [0.9], [1])
    large = there([0.0, 0.0, 45.0, 45.0])
    for other in (dog, large):
        assert names([there(HOME), EMPTY, other], by(5)) == [[1], [], [2]]


def test_features_tell_two_that_come_back_in_each_others_place() -> None:
    left, right = HOME, moved(HOME, 24)
    between = moved(HOME, 12, 7), moved(HOME, 12, -7)  # as far from the one place as from the other
    one, two = [1.0, 0.5, 0.0], [0.5, 1.0, 0.0]
    before = there(left, right, features=[one, two])
    frames = [before, before, *[EMPTY] * 12]
    assert names([*frames, there(*between, features=[one, two])], by(20))[-1] == [1, 2]
    assert names([*frames, there(*between, features=[two, one])], by(20))[-1] == [2, 1]


def test_looks_say_which_of_two_came_back_and_no_more() -> None:
    """Behind what hid it an object may look different: its place says that it is the same."""
    seen, other = there(HOME, features=[[3.0, 0.0]]), there(HOME, features=[[0.0, 1.0]])
    none = there(HOME)._replace(features=np.zeros((0, 2), np.float32))
    for later in (other, there(HOME), none):
        assert names([seen, EMPTY, later], by(5)) == [[1], [], [1]]
        assert names([seen, later], by(5)) == [[1], [1]]


def test_features_of_the_last_sighting_count_however_long_ago() -> None:
    """And of those that were lost since, each its own."""
    one, two = [1.0, 0.2, 0.0], [0.2, 1.0, 0.0]
    left, right = HOME, moved(HOME, 24)
    between = moved(HOME, 12, 7), moved(HOME, 12, -7)
    frames = [there(left, right, features=[one, two]), there(right, features=[two]), *[EMPTY] * 8]
    assert names([*frames, there(*between, features=[two, one])], by(20))[-1] == [2, 1]
    assert names([*frames, there(*between, features=[one, two])], by(20))[-1] == [1, 2]


def test_a_box_that_its_tube_alone_makes_sure_is_no_sighting() -> None:
    """The object is hidden, its tube goes on over weak boxes to somewhere else; there it comes back where it was."""
    astray = [frame(0, [moved(HOME, 5.0 * t)], [FAINT]) for t in range(1, 7)]
    frames = [*[there(HOME)] * 8, *astray, there(HOME)]
    found = names(frames, by(10))
    assert all(result.confidence[0] > SURE for result in linked(frames, by(10))[8:14])
    assert found[8:] == [*[[NOBODY]] * 6, [1]]
    # As strong boxes, they would have been the object.
    strong = [there(moved(HOME, 5.0 * t)) for t in range(1, 7)]
    assert names([*[there(HOME)] * 8, *strong, there(HOME)], by(10))[-1] == [2]


def test_a_new_object_has_been_seen_clearly() -> None:
    """A guess keeps its tube's identity, and nothing comes back as it."""
    for score, after in ((CLEAR - 0.05, 2), (CLEAR + 0.05, 1)):
        assert names([there(HOME, score=score), EMPTY, there(HOME)], by(5)) == [[1], [], [after]]


def test_one_that_comes_back_is_one_of_two_that_were_lost() -> None:
    near, far = HOME, moved(HOME, 40)
    frames = [there(near, far), EMPTY, there(moved(HOME, 2)), there(moved(HOME, 2), moved(HOME, 38))]
    assert names(frames, by(5)) == [[1, 2], [], [1], [1, 2]]


def test_a_double_is_nobody_and_goes_on_as_its_object() -> None:
    """Two boxes on one object; where the better one ends, the other is the object."""
    double, farther = moved(HOME, 9), moved(HOME, 12)
    both, left = frame(0, [HOME, double], [0.9, 0.5]), frame(0, [farther], [0.9])
    # Too far for a link to the object's box, near enough for one to the double's.
    assert names([both, both, left], by(0)) == [[1, 2], [1, 2], [2]]
    assert names([both, both, left], by(5)) == [[1, NOBODY], [1, NOBODY], [1]]


def test_two_that_take_turns_in_being_surer_are_one_identity() -> None:
    other = moved(HOME, 9)
    one_surer, other_surer = frame(0, [HOME, other], [0.9, 0.6]), frame(0, [HOME, other], [0.6, 0.9])
    frames = [*[one_surer] * 6, *[other_surer, one_surer] * 3]
    assert names(frames, by(0)) == [[1, 2]] * 12
    assert names(frames, by(5)) == [*[[1, NOBODY]] * 6, *[[NOBODY, 1], [1, NOBODY]] * 3]


def test_a_box_of_another_class_is_no_double() -> None:
    both = frame(0, [HOME, moved(HOME, 2)], [0.9, 0.8], [0, 1])
    assert names([both, both], by(5)) == [[1, 2]] * 2


def test_a_weak_box_goes_on_as_its_tube_until_its_object_is_seen_elsewhere() -> None:
    """The object moves on by more than its links reach, what stays behind is a shadow of it."""
    seen, shadow = there(HOME, score=CLEAR + 0.01), frame(0, [HOME], [FAINT + 0.01])
    frames = [seen, shadow, shadow]
    assert all(result.confidence[0] < SURE for result in linked(frames, by(5))[1:])
    assert names(frames, by(5)) == [[1], [1], [1]]
    gone = frame(0, [moved(HOME, 0, 12), HOME], [0.9, FAINT + 0.01])
    first, second, third = names([seen, seen, gone], by(5))
    assert first == second == [1]
    assert third[0] == 1
    assert third[1] not in (0, 1, NOBODY)


def test_memory_is_bounded() -> None:
    """Every frame has objects of its own, all of which may come back."""
    linker, held = BoxLinker(), []
    for t in range(60):
        boxes = [moved(HOME, 100.0 * k, 1000.0 * t) for k in range(8)]
        linker.push(there(*boxes, features=np.eye(8).tolist()), by(4000))
        held.append(linker.nbytes)
    assert max(held) == max(held[: MOST_LOST // 8 + 2])
    linker.flush(by(4000))
    assert linker.nbytes == 0


def test_those_that_were_lost_first_are_given_up_first() -> None:
    homes = [moved(HOME, 100.0 * k) for k in range(MOST_LOST + 1)]
    frames = [there(homes[0]), EMPTY, there(*homes[1:]), EMPTY]
    assert names([*frames, there(homes[0])], by(50))[-1] == [MOST_LOST + 2]
    assert names([*frames, there(homes[1])], by(50))[-1] == [2]


def test_turning_the_dial_on_or_off_ends_tubes_and_numbers_go_on() -> None:
    linker, results = BoxLinker(), []
    for gap in (0, 0, 3, 3, 4, 0):
        results += linker.push(there(HOME), by(gap))
    results += linker.flush(by(0))
    assert [identity(r) for r in results] == [[1], [1], [2], [2], [2], [3]]


def with_features(frames: Sequence[Linkable], seed: int) -> list[Linkable]:
    rng = np.random.default_rng(seed)
    return [f._replace(features=rng.normal(1, 1, (min(len(f.found), 2), 4)).astype(np.float32)) for f in frames]


@settings(deadline=None, max_examples=100)
@given(
    videos(most_frames=8), st.sampled_from(METHODS), st.integers(0, 8), st.integers(1, 5), st.integers(0, 9),
    st.booleans(),
)  # fmt: skip
def test_a_gap_changes_identities_alone(
    frames: list[Linkable], method: LinkMethod, delay: int, gap: int, seed: int, featured: bool
) -> None:
    """Boxes and confidences stay; an identity is one box of a frame, and of one class.

    Nobody's are those that were detected faintly, and those that a better one, which is somebody's, overlaps.
    """
    frames = with_features(frames, seed) if featured else frames
    dials = Dials(link=method, link_delay=delay, link_gap=gap, score_threshold=0.0)
    results = linked(frames, dials)
    plain = linked(frames, replace(dials, link_gap=0))
    labels: dict[int, int] = {}
    for given_frame, one, other in zip(frames, results, plain, strict=True):
        for name in ("xyxy", "confidence", "class_id"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
        ids = np.array(identity(one), np.int64)
        somebody = ids != NOBODY
        assert len(set(ids[somebody].tolist())) == somebody.sum()
        assert min(ids[somebody], default=1) >= 1
        named = zip(ids[somebody].tolist(), one.class_id[somebody].tolist(), strict=True)
        assert all(labels.setdefault(i, c) == c for i, c in named)
        detected = dict(zip(map(tuple, given_frame.found.xyxy.tolist()), given_frame.found.confidence, strict=True))
        rival = iou(one.xyxy.astype(np.float64), one.xyxy.astype(np.float64)) > DOUBLE
        rival &= one.class_id[:, None] == one.class_id
        for row, box in enumerate(one.xyxy.tolist()):  # best first
            free = detected[tuple(box)] > FAINT and not (rival[row] & somebody)[:row].any()
            assert somebody[row] == free


@settings(deadline=None, max_examples=60)
@given(videos(most_frames=6), st.sampled_from(METHODS), st.integers(0, 3), st.integers(0, 9))
def test_a_delay_beyond_the_video_gives_the_whole_videos_identities(
    frames: list[Linkable], method: LinkMethod, more: int, seed: int
) -> None:
    frames = with_features(frames, seed)
    same(linked(frames, by(3, len(frames) + more, method)), linked(frames, by(3, WHOLE_VIDEO, method)))


def test_looks_have_length_one() -> None:
    features = np.array([[3.0, 4.0], [0.0, 0.0], [0.0, -2.0]], np.float32)
    np.testing.assert_allclose(looks_of(features), [[0.6, 0.8], [0, 0], [0, -1]], atol=1e-7)
