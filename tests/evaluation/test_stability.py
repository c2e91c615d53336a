"""Fragments and jitter by hand; identities of linked results."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from rdn_engine.evaluation.score import NOT_LINKED, score
from rdn_engine.results import NOBODY
from tests.evaluation_cases import NAMES, as_found, as_videos
from tests.reference_evaluation import Box, Detection

PLACE = (20.0, 20.0, 39.0, 59.0)  # 20 x 40 pixels


def still(frames):
    return [Box(t, 0, PLACE, False, 7) for t in range(frames)]


def scored(boxes, detections, tracks=None):
    found = as_found(detections)
    if tracks is not None:
        for frame, ids in tracks.items():
            found[frame] = SimpleNamespace(**vars(found[frame]), tracker_id=np.array(ids, np.int64))
    return score(found, as_videos(boxes), NAMES, 0)


def test_a_perfect_detector_is_steady():
    boxes = still(6)
    result = scored(boxes, [Detection(b.frame, 0, b.xyxy, 0.9) for b in boxes])["stability"]
    assert [result[name] for name in ("fragments", "centre", "shape")] == [0, 0, 0]
    assert (result["instances"], result["instances_found"]) == (1, 1)


def test_fragments_and_jitter_by_hand():
    """Found, lost, found, found over five steps; the centre swings by 2 pixels, then the width by half."""
    boxes = still(6)
    shifts = {0: 2, 2: -2, 3: 2, 5: -2}
    found = [Detection(t, 0, (20 + s, 20, 39 + s, 59), 0.9) for t, s in shifts.items()]
    result = scored(boxes, found)["stability"]
    assert result["fragments"] == pytest.approx(4 / 5)
    assert result["centre"] == pytest.approx(2 / 20)
    assert result["shape"] == pytest.approx(0)
    wide = [Detection(t, 0, (20, 20, 39 + 10 * (t % 2), 59), 0.9) for t in range(6)]
    result = scored(boxes, wide)["stability"]
    assert result["fragments"] == 0
    assert result["centre"] == pytest.approx(0.25 / 2)
    assert result["shape"] == pytest.approx((np.sqrt(1.5) - 1) / 2 + 0.5 / 2)


def test_an_object_of_one_frame_tells_nothing():
    result = scored([Box(0, 0, PLACE, False, 7)], [Detection(0, 0, PLACE, 0.9)])["stability"]
    assert (result["fragments"], result["centre"], result["instances"]) == (None, None, 0)


def test_lasting_identities_are_perfect_and_a_switch_is_counted():
    boxes = still(6) + [Box(t, 0, (60, 60, 79, 79), False, 8) for t in range(6)]
    found = sorted([Detection(b.frame, 0, b.xyxy, 0.9) for b in boxes], key=lambda d: d.frame)
    same = scored(boxes, found, {t: [3, 4] for t in range(6)})["tracking"]
    assert [same[name] for name in ("HOTA", "IDF1", "MOTA", "switches")] == pytest.approx([100, 100, 100, 0])
    broken = scored(boxes, found, {t: [3, 4] if t < 3 else [3, 5] for t in range(6)})["tracking"]
    assert broken["switches"] == 1
    assert broken["IDF1"] == pytest.approx(100 * 2 * 9 / (12 + 12))
    assert broken["DetA"] == pytest.approx(100)
    assert broken["AssA"] == pytest.approx(100 * (1 + 0.5) / 2)


def test_results_that_were_not_linked_have_no_identities():
    boxes = still(3)
    found = [Detection(b.frame, 0, b.xyxy, 0.9) for b in boxes]
    assert scored(boxes, found)["tracking"]["absent"] == NOT_LINKED


def test_linked_results_in_which_no_box_has_an_identity_lack_every_one():
    boxes = still(3)
    found = [Detection(b.frame, 0, b.xyxy, 0.9) for b in boxes]
    result = scored(boxes, found, {t: [NOBODY] for t in range(3)})["tracking"]
    assert [result[name] for name in ("HOTA", "IDF1", "MOTA", "switches")] == [0, 0, 0, 0]
