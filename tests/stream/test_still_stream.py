"""The dial `still` of a stream on the host: which frames take what was found in the one before, and when."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from rdn_engine import Detector
from tests.fakes import DIALS, FakeEncoder, FakeRelation, fake_detector, image
from tests.stream.moving import bases, indices, large, lefts, moving_detector, steady, surely


def still_detector() -> tuple[Detector, FakeEncoder, FakeRelation]:
    return fake_detector()


def test_a_frame_like_the_last_encoded_one_takes_what_was_found_there() -> None:
    detector, encoder, relation = still_detector()
    with detector.open_stream(replace(DIALS, look_ahead=0, still=2.0)) as stream:
        results = [r for level in (10, 11, 12, 11, 60, 60) for r in stream.push(image(level))]
    assert bases(results) == ["encoded", "still", "still", "still", "encoded", "still"]
    assert len(encoder.asked) == len(relation.levels) == 2
    assert indices(results) == list(range(6))
    for of, like in ((1, 0), (2, 0), (3, 0), (5, 4)):
        assert np.array_equal(results[of].xyxy, results[like].xyxy)
        assert np.array_equal(results[of].confidence, results[like].confidence)


def test_what_creeps_is_compared_with_the_encoded_frame_and_not_with_the_one_before() -> None:
    detector, _, _ = still_detector()
    with detector.open_stream(replace(DIALS, look_ahead=0, still=2.0, still_run=100)) as stream:
        results = [r for level in range(12) for r in stream.push(image(level))]
    assert [r.frame_index for r in results if r.encoded] == [0, 3, 6, 9]


def test_no_more_than_m_in_a_row_are_still() -> None:
    detector, _, _ = still_detector()
    with detector.open_stream(replace(DIALS, look_ahead=0, still=2.0, still_run=3)) as stream:
        results = [r for _ in range(10) for r in stream.push(image(9))]
    assert [r.frame_index for r in results if r.encoded] == [0, 4, 8]


def test_still_frames_hold_no_result_up() -> None:
    """Look-ahead counts them: a result is never more than L steps late, and what is still comes with its encoded
    frame's."""
    detector, _, relation = still_detector()
    with detector.open_stream(replace(DIALS, look_ahead=2, still=2.0, still_run=100)) as stream:
        came = [indices(stream.push(image(level))) for level in (0, 50, 50, 50, 50, 100, 150)]
    assert came == [[], [], [0], [1, 2, 3], [4], [], []]
    # Nothing newer than itself was encoded when the second frame was due; `replicate` lets it stand for the still ones.
    assert relation.levels == [0, 50]
    assert {level: set(counts) for level, counts in relation.windows[1].items()} == {0: {2.0}, 50: {3.0}}


def test_linked_still_frames_hold_no_result_up() -> None:
    detector, _, _ = still_detector()
    dials = replace(DIALS, look_ahead=0, link="boxes", link_delay=2, still=2.0, still_run=100)
    with detector.open_stream(dials) as stream:
        came = [indices(stream.push(image(level))) for level in (0, 50, 50, 50, 50)]
        results = stream.flush()
    assert came == [[], [], [0], [1, 2, 3], [4]]
    assert results == []


def test_turned_dials_end_what_is_still() -> None:
    detector, _, _ = still_detector()
    with detector.open_stream(replace(DIALS, look_ahead=0, still=2.0)) as stream:
        results = stream.push(image(5)) + stream.push(image(5))
        stream.dials = replace(stream.dials, score_threshold=0.99)
        results += stream.push(image(5)) + stream.push(image(5))
    assert bases(results) == ["encoded", "still", "encoded", "still"]
    assert [len(r) > 0 for r in results] == [True, True, False, False]


def test_an_epoch_begins_with_an_encoded_frame() -> None:
    detector, _, _ = still_detector()
    with detector.open_stream(replace(DIALS, look_ahead=0, still=2.0)) as stream:
        results = stream.push(image(5)) + stream.push(image(5)) + stream.flush() + stream.push(image(5))
        results += stream.push(image(5, 32, 32))
    assert bases(results) == ["encoded", "still", "encoded", "encoded"]


def test_a_still_step_ends_the_motion_of_the_frames_between() -> None:
    detector, _, _ = moving_detector()
    dials = replace(DIALS, interval=2, look_ahead=0, still=0.5)
    with detector.open_stream(dials) as stream:
        results = [r for level in (0, 1, 2, 3, 2, 2, 2) for r in stream.push(large(level))]
    assert bases(results) == ["encoded", "extrapolated", "encoded", "extrapolated", "still", "extrapolated", "still"]
    assert lefts(results) == pytest.approx([0, 0, 2, steady(2, 0) + surely(results[2], 2), 2, 2, 2], abs=1e-4)
