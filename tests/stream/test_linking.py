"""Box linking against the search through every path, and what a delay may and may not change."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rdn_engine import Detections
from rdn_engine.config import WHOLE_VIDEO, Dials, LinkMethod
from rdn_engine.kernels import cpu
from rdn_engine.results import NOBODY
from rdn_engine.stream.linking import PAST, BoxLinker
from rdn_engine.stream.links import Linkable, Moved
from tests.reference_linking import Box, best_paths, link_video

METHODS: tuple[LinkMethod, ...] = ("relations", "boxes", "seq_nms")
PROPOSALS, SUPPORTS = 6, 4


def index(*values: int) -> cpu.Index:
    return np.array(values, np.int64)


def frame(
    t: int, boxes: Sequence[Sequence[float]], scores: Sequence[float], classes: Sequence[int] | None = None
) -> Linkable:
    """Boxes in the order given, box i from proposal i, without relations."""
    n = len(boxes)
    found = Detections(
        xyxy=np.array(boxes, np.float32).reshape(-1, 4),
        confidence=np.array(scores, np.float32),
        class_id=np.zeros(n, np.int64) if classes is None else index(*classes),
        tracker_id=None,
        class_names=("cat", "dog"),
        frame_index=t,
        pts=None,
        source_id="",
        height=100,
        width=100,
        pool_fill=1,
        lookahead=0,
        epoch=0,
    )
    return Linkable(found, np.arange(n), None)


@st.composite
def videos(draw: st.DrawFn, most_frames: int = 4, most_boxes: int = 3) -> list[Linkable]:
    """Crowded, so that many links are possible; frames may be empty, of few supports, or without relations."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    frames = []
    for t in range(draw(st.integers(1, most_frames))):
        n = draw(st.integers(0, most_boxes))
        corner = rng.uniform(0, 12, (n, 2))
        boxes = np.concatenate([corner, corner + rng.uniform(12, 24, (n, 2))], 1)
        scores = np.sort(rng.uniform(0.001, 1, n))[::-1]
        made = frame(t, boxes.tolist(), scores.tolist(), rng.integers(0, 2, n).tolist())
        supports = draw(st.none() | st.integers(0, SUPPORTS))
        # Far larger than weights are, so that they decide.
        omega = None if supports is None else rng.uniform(0, 1, (PROPOSALS, supports)).astype(np.float32)
        frames.append(made._replace(proposal=rng.integers(0, PROPOSALS, n), omega=omega))
    return frames


def linked(frames: Sequence[Linkable], method: LinkMethod, delay: int, threshold: float = 0.0) -> list[Detections]:
    linker, dials = BoxLinker(), by(method, delay, threshold)
    found = [r for f in frames for r in linker.push(f, dials)]
    return found + linker.flush(dials)


def by(method: LinkMethod, delay: int, threshold: float = 0.0) -> Dials:
    return Dials(link=method, link_delay=delay, score_threshold=threshold)


def identity(found: Detections) -> list[int]:
    assert found.tracker_id is not None
    return found.tracker_id.tolist()


def same(a: Sequence[Detections], b: Sequence[Detections]) -> None:
    for one, other in zip(a, b, strict=True):
        for name in ("xyxy", "confidence", "class_id", "tracker_id"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


# The search


@settings(deadline=None, max_examples=150)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=4), st.data())
def test_paths_are_those_of_the_search_through_every_path(sizes: list[int], data: st.DataObject) -> None:
    """Scores of few and exact values, so that ties are many and sums the same in any order."""
    boxes: list[Box] = [(t, i) for t, n in enumerate(sizes) for i in range(n)]
    number = {box: k for k, box in enumerate(boxes)}
    some = st.integers(1, 4).map(lambda n: n / 4)
    value = {box: data.draw(st.integers(0, 2)) / 4 for box in boxes}
    link = {
        (one, other): data.draw(some)
        for one in boxes
        for other in boxes
        if other[0] == one[0] + 1 and data.draw(st.booleans())
    }
    pairs = [(a, b) for a in boxes for b in boxes if a[0] == b[0] and a < b and data.draw(st.integers(0, 3)) == 0]
    rivals = {box: {b for pair in pairs if box in pair for b in pair if b != box} for box in boxes}
    into = [sorted(one for one, other in link if other == box) for box in boxes]
    path, count = cpu.link_paths(
        value=np.array([value[box] for box in boxes], np.float64),
        link_start=np.cumsum([0, *map(len, into)]),
        source=index(*(number[one] for ones in into for one in ones)),
        score=np.array([link[one, box] for ones, box in zip(into, boxes, strict=True) for one in ones], np.float64),
        rival_start=np.cumsum([0, *(len(rivals[box]) for box in boxes)]),
        rival=index(*(number[b] for box in boxes for b in sorted(rivals[box]))),
    )
    wanted = best_paths(set(boxes), lambda a, b: link.get((a, b)), value.__getitem__, rivals.__getitem__)
    assert count == len(wanted)
    assert {tuple(box for box in boxes if path[number[box]] == k) for k in range(count)} == set(wanted)
    assert (path == -1).sum() == len(boxes) - sum(map(len, wanted))


def test_a_long_crowd_takes_each_box_once() -> None:
    """Every box may follow every box of the frame before: paths are repaired again and again."""
    n, frames = 8, 60
    rng = np.random.default_rng(0)
    boxes = n * frames
    start = np.cumsum([0, *([0] * n), *([n] * (boxes - n))])
    source = np.concatenate([np.arange(n) + n * (k // n) for k in range(boxes - n)])
    score = rng.uniform(1, 2, len(source))
    none = np.zeros(boxes + 1, np.int64)
    path, count = cpu.link_paths(
        value=np.zeros(boxes), link_start=start, source=source, score=score, rival_start=none, rival=index()
    )
    assert count == n
    by_frame = path.reshape(frames, n)
    assert all(sorted(row) == list(range(n)) for row in by_frame.tolist())
    where = np.argsort(by_frame, 1)  # [frames, paths] row of each path's box
    gains = np.zeros(n)
    for t in range(1, frames):
        links = score[(t - 1) * n * n : t * n * n].reshape(n, n)
        gains += links[where[t], where[t - 1]]
    assert (np.diff(gains) <= 1e-9).all()
    forward = np.zeros(n)
    for t in range(1, frames):
        forward = (forward + score[(t - 1) * n * n : t * n * n].reshape(n, n)).max(1)
    assert gains[0] == pytest.approx(forward.max())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"link_start": index(0, 0, 2)}, "link_start must ascend from 0 to 1"),
        ({"link_start": index(0, 1)}, r"link_start \[n \+ 1 = 3\]"),
        ({"source": index(1)}, "sources of box 1 must ascend and be smaller than it, got 1"),
        ({"source": index(-1)}, "got -1"),
        ({"score": np.array([np.nan])}, "score must be finite"),
        ({"value": np.array([0.0, np.inf])}, "value must be finite"),
        ({"rival_start": index(0, 0, 1), "rival": index(2)}, r"rival must lie in 0\.\.1, got 2"),
    ],
)
def test_what_is_no_graph_of_links_is_refused(change: dict[str, cpu.Index], message: str) -> None:
    none = np.zeros(3, np.int64)
    good = {"value": np.zeros(2), "link_start": index(0, 0, 1), "source": index(0), "score": np.ones(1),
            "rival_start": none, "rival": index()}  # fmt: skip
    assert cpu.link_paths(**good)[1] == 1
    with pytest.raises(ValueError, match=message):
        cpu.link_paths(**(good | change))


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 8)), max_size=30), st.booleans())
def test_means_of_groups(rows: list[tuple[int, int]], better_half: bool) -> None:
    scores = [[s / 8 for g, s in rows if g == group] for group in range(5)]
    means = []
    for group in scores:
        kept = sorted(group, reverse=True)[: (len(group) + 1) // 2 if better_half else len(group)]
        means.append(sum(kept) / len(kept) if kept else 0.0)
    groups, flat = index(*(g for g, _ in rows)), np.array([s / 8 for _, s in rows], np.float32)
    assert cpu.group_means(groups, flat, groups=5, better_half=better_half).tolist() == pytest.approx(means, abs=1e-12)
    with pytest.raises(ValueError, match=r"group must lie in 0\.\.4, got 5"):
        cpu.group_means(index(5), np.ones(1, np.float32), groups=5, better_half=better_half)


# Whole videos


@settings(deadline=None, max_examples=150)
@given(videos(), st.sampled_from(METHODS))
def test_a_whole_video_is_linked_as_the_reference_does(frames: list[Linkable], method: LinkMethod) -> None:
    wanted = link_video(frames, method)
    results = linked(frames, method, WHOLE_VIDEO)
    number_of: dict[int, int] = {}
    for t, result in enumerate(results):
        assert (np.diff(result.confidence) <= 0).all()
        assert result.tracker_id is not None
        rows = [int(np.flatnonzero((frames[t].found.xyxy == box).all(1))[0]) for box in result.xyxy]
        assert set(rows) == {i for f, i in wanted if f == t}
        for row, confidence, tracker in zip(rows, result.confidence, result.tracker_id.tolist(), strict=True):
            number, score = wanted[t, row]
            assert confidence == pytest.approx(score, abs=1e-6)
            assert number_of.setdefault(tracker, number) == number
    assert len(set(number_of.values())) == len(number_of)
    assert sorted(number_of) == list(range(1, len(number_of) + 1))


def test_relations_decide_between_equal_boxes_and_only_for_supports() -> None:
    """One box moves on to one of two that overlap it alike; the first is the one without relations."""
    before = frame(0, [[10, 10, 30, 30]], [0.9])
    after = frame(1, [[4, 10, 24, 30], [16, 10, 36, 30]], [0.5, 0.5])
    omega = np.array([[0.0, 0.2]], np.float32)

    def follower(omega: cpu.Float | None, method: LinkMethod = "relations") -> float:
        one, two = linked([before._replace(omega=omega), after], method, WHOLE_VIDEO)
        return float(two.xyxy[identity(two).index(identity(one)[0]), 0])

    assert follower(None) == follower(omega[:, :1]) == follower(omega[:, :0]) == 4
    assert follower(omega) == 16
    assert follower(omega, "boxes") == 4


def test_confidence_is_the_mean_of_the_score_and_the_better_half_of_its_path() -> None:
    box = [10.0, 10.0, 30.0, 30.0]
    scores = [0.9, 0.1, 0.6, 0.3, 0.2]
    results = linked([frame(t, [box], [s]) for t, s in enumerate(scores)], "relations", WHOLE_VIDEO)
    half = (0.9 + 0.6 + 0.3) / 3
    assert [r.confidence[0] for r in results] == pytest.approx([(s + half) / 2 for s in scores])
    mean = linked([frame(t, [box], [s]) for t, s in enumerate(scores)], "seq_nms", WHOLE_VIDEO)
    assert [r.confidence[0] for r in mean] == pytest.approx([sum(scores) / 5] * 5)


def test_a_box_that_nothing_is_linked_to_keeps_its_confidence() -> None:
    """Alone in its class, its frame or its place."""
    left, right = [0.0, 0.0, 20.0, 20.0], [60.0, 60.0, 90.0, 90.0]
    frames = [frame(0, [left], [0.7]), frame(1, [left, right], [0.6, 0.5], [1, 0]), frame(2, [], []),
              frame(3, [right], [0.4], [0])]  # fmt: skip
    results = linked(frames, "relations", WHOLE_VIDEO)
    for f, result in zip(frames, results, strict=True):
        np.testing.assert_array_equal(result.confidence, f.found.confidence)
    assert [identity(r) for r in results] == [[1], [2, 3], [], [4]]


def test_seq_nms_drops_the_rivals_of_its_paths() -> None:
    box, near = [0.0, 0.0, 20.0, 20.0], [0.0, 0.0, 20.0, 8.0]
    results = linked([frame(t, [near, box], [0.8, 0.7]) for t in range(3)], "seq_nms", 0)
    assert [len(r) for r in results] == [1, 1, 1]
    assert [r.xyxy[0, 3] for r in results] == [8, 8, 8]


# A bounded delay


@settings(deadline=None, max_examples=80)
@given(videos(most_frames=6), st.sampled_from(METHODS), st.integers(0, 3))
def test_a_delay_beyond_the_video_gives_the_whole_videos_result(
    frames: list[Linkable], method: LinkMethod, more: int
) -> None:
    same(linked(frames, method, len(frames) + more), linked(frames, method, WHOLE_VIDEO))


@settings(deadline=None, max_examples=80)
@given(videos(most_frames=8), st.sampled_from(METHODS), st.integers(0, 8))
def test_every_frame_comes_once_in_time_with_lasting_identities(
    frames: list[Linkable], method: LinkMethod, delay: int
) -> None:
    linker, results = BoxLinker(), []
    for t, f in enumerate(frames):
        ready = linker.push(f, by(method, delay))
        assert [r.frame_index for r in ready] == ([t - delay] if t >= delay else [])
        results += ready
    results += linker.flush(by(method, delay))
    assert [r.frame_index for r in results] == list(range(len(frames)))
    seen: dict[int, tuple[int, int]] = {}  # identity -> last frame, class
    for t, result in enumerate(results):
        assert result.tracker_id is not None
        assert len(set(result.tracker_id.tolist())) == len(result)
        assert ((result.confidence > 0) & (result.confidence <= 1)).all()
        for tracker, label in zip(result.tracker_id.tolist(), result.class_id.tolist(), strict=True):
            assert seen.get(tracker, (t - 1, label)) == (t - 1, label)
            seen[tracker] = t, label
        if method != "seq_nms":
            assert len(result) == len(frames[t].found)


def test_what_was_given_out_weighs_on() -> None:
    """The gain of the tube so far decides who goes on, and its latest scores count in its mean."""
    scores = [0.9, 0.8, 0.2, 0.1, 0.3]
    results = linked([frame(t, [[10, 10, 30, 30]], [s]) for t, s in enumerate(scores)], "boxes", 0)
    assert [identity(r) for r in results] == [[1]] * 5
    assert results[-1].confidence[0] == pytest.approx((0.3 + (0.9 + 0.8 + 0.3) / 3) / 2)
    old, new = [0.0, 0.0, 20.0, 20.0], [12.0, 0.0, 32.0, 20.0]
    between = [6.0, 0.0, 26.0, 20.0]
    frames = [frame(0, [old], [0.5]), frame(1, [old], [0.5]), frame(2, [new, old], [0.9, 0.5])]
    [*_, last] = linked([*frames, frame(3, [between], [1])], "boxes", 0)
    assert identity(last) == [1]


def test_a_rival_that_left_leads_nowhere() -> None:
    """What stands where the rival stood begins a tube of its own."""
    strong, rival = [0.0, 0.0, 20.0, 20.0], [10.0, 0.0, 30.0, 20.0]
    frames = [frame(0, [strong, rival], [0.9, 0.8]), frame(1, [rival], [0.7])]
    one, two = linked(frames, "seq_nms", 0)
    assert (one.xyxy[:, 0].tolist(), identity(one)) == ([0], [1])
    assert (two.xyxy[:, 0].tolist(), identity(two)) == ([10], [2])
    assert two.confidence[0] == pytest.approx(0.7)


def test_links_go_from_where_the_boxes_of_the_frame_before_have_moved_to() -> None:
    here, there = [10.0, 10.0, 30.0, 30.0], [60.0, 10.0, 80.0, 30.0]
    linker = BoxLinker()
    [first] = linker.push(frame(0, [here], [0.9]), by("boxes", 0))
    [second] = linker.push(frame(1, [there], [0.9]), by("boxes", 0), Moved(first, np.array([[50, 0]], np.float32)))
    assert identity(first) == identity(second) == [1]


@pytest.mark.parametrize("between", ["given", "waits", "passed"])
def test_what_boxes_of_an_earlier_frame_moved_by_moves_no_others(between: str) -> None:
    """Of as many, so that nothing else tells them apart."""
    here, there = [10.0, 10.0, 30.0, 30.0], [60.0, 10.0, 80.0, 30.0]
    moved = np.array([[50, 0]], np.float32)
    linker = BoxLinker()
    results = linker.push(frame(0, [here], [0.9]), by("boxes", 0))
    [first] = results
    dials = by("boxes", 1 if between == "waits" else 0)
    if between == "passed":
        results += linker.push(frame(1, [here], [0.9]), replace(dials, link="off"))
        results += linker.push(frame(2, [here], [0.9]), dials)
    else:
        results += linker.push(frame(1, [here], [0.9]), dials)
    results += linker.push(frame(3, [here], [0.9]), dials, Moved(first, moved))
    results += linker.push(frame(4, [there], [0.9]), dials, Moved(first, moved))
    results += linker.flush(dials)
    before, same, other = (identity(one) for one in results[-3:])
    assert before == same
    assert same != other


def test_memory_does_not_grow_with_the_video() -> None:
    """Boxes that stay, one that flickers; the bytes held are those of D + 1 frames from there on."""
    boxes = [[20.0 * i, 0.0, 20.0 * i + 15, 15.0] for i in range(5)]
    linker, held = BoxLinker(), []
    for t in range(4 * PAST):
        n = 5 - t % 2
        for _ in linker.push(frame(t, boxes[:n], [0.9 - 0.1 * i for i in range(n)]), by("relations", 3)):
            pass
        held.append(linker.nbytes)
    assert max(held[PAST:]) == max(held[: PAST // 2])
    results = linker.flush(by("relations", 3))
    assert [r.frame_index for r in results] == [4 * PAST - 3, 4 * PAST - 2, 4 * PAST - 1]
    # The fifth box is there every other frame, each time as a new tube.
    assert all(set(identity(r)) >= {1, 2, 3, 4} for r in results)


def test_a_lower_delay_gives_out_at_once() -> None:
    linker = BoxLinker()
    frames = [frame(t, [[0, 0, 20, 20]], [0.5]) for t in range(6)]
    assert [r for f in frames[:5] for r in linker.push(f, by("boxes", 9))] == []
    ready = linker.push(frames[5], by("boxes", 1))
    assert [r.frame_index for r in ready] == [0, 1, 2, 3, 4]


def test_another_method_and_a_flush_end_all_tubes_and_numbers_go_on() -> None:
    linker = BoxLinker()
    frames = [frame(t, [[0, 0, 20, 20]], [0.5]) for t in range(4)]
    results = linker.push(frames[0], by("boxes", 1))
    results += linker.push(frames[1], by("relations", 1))
    results += linker.flush(by("relations", 1))
    assert linker.nbytes == 0
    results += linker.push(frames[2], by("relations", 1)) + linker.push(frames[3], by("relations", 1))
    results += linker.flush(by("relations", 1))
    assert [identity(r) for r in results] == [[1], [2], [3], [3]]


def test_threshold_applies_after_rescoring() -> None:
    box = [0.0, 0.0, 20.0, 20.0]
    frames = [frame(0, [box], [0.9]), frame(1, [box], [0.2]), frame(2, [], []), frame(3, [box], [0.3])]
    results = linked(frames, "boxes", WHOLE_VIDEO, threshold=0.5)
    assert [len(r) for r in results] == [1, 1, 0, 0]
    assert results[1].confidence[0] == pytest.approx(0.55)


@settings(deadline=None, max_examples=100)
@given(videos(most_frames=6, most_boxes=5), st.integers(0, 4), st.integers(0, 2), st.sampled_from(METHODS))
def test_identities_are_numbered_as_they_are_given_out(
    frames: list[Linkable], delay: int, gap: int, method: LinkMethod
) -> None:
    """Boxes at or below the threshold use up no numbers, and who is who does not depend on it."""
    every, some = BoxLinker(), BoxLinker()
    dials = replace(by(method, delay), link_gap=gap)
    fewer = replace(dials, score_threshold=0.5)
    all_found = [r for f in frames for r in every.push(f, dials)] + every.flush(dials)
    found = [r for f in frames for r in some.push(f, fewer)] + some.flush(fewer)
    number: dict[int, int] = {}
    for whole, part in zip(all_found, found, strict=True):
        kept = np.array(identity(whole), np.int64)[whole.confidence > 0.5].tolist()
        assert [name == NOBODY for name in kept] == [name == NOBODY for name in identity(part)]
        assert all(number.setdefault(a, b) == b for a, b in zip(kept, identity(part), strict=True) if a != NOBODY)
    assert sorted(number.values()) == list(range(1, len(number) + 1))


@pytest.mark.parametrize("gap", [0, 2])
def test_numbers_of_identities_that_are_gone_are_forgotten(gap: int) -> None:
    linker, dials = BoxLinker(), replace(by("boxes", 1), link_gap=gap)
    numbers = []
    for t in range(60):  # an object that stays, and one that is another in every frame
        x = 100 + 30 * (t % 20)
        boxes = [[0, 0, 20, 20], [x, 0, x + 20, 20], [0, 50, 20, 70]]
        numbers += [identity(r) for r in linker.push(frame(t, boxes, [0.9, 0.8, 0.01 if t % 2 else 0.9]), dials)]
        assert len(linker._numbers._known) <= 12
    assert {one[0] for one in numbers} == {1}
    assert max(map(max, numbers)) <= 2 * 60


def test_results_keep_what_they_say_of_their_frame() -> None:
    made = frame(7, [[0, 0, 20, 20]], [0.5])
    made = made._replace(found=replace(made.found, pts=1.5, source_id="cam", epoch=3))
    [result] = linked([made], "relations", 0)
    assert (result.frame_index, result.pts, result.source_id, result.epoch, result.pool_fill) == (7, 1.5, "cam", 3, 1)
