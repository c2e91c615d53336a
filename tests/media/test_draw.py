"""Where the labels of an annotated frame stand."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from rdn_engine.media.draw import _covered, _places

FRAME = (340, 256)
LABEL = (60.0, 15.0)


def places(*boxes: tuple[float, float, float, float], frame: tuple[int, int] = FRAME) -> list[tuple[float, float]]:
    return _places(np.array(boxes, np.float32).reshape(-1, 4), [LABEL] * len(boxes), frame)


def covered(corners: list[tuple[float, float]]) -> float:
    """Pixels of all labels that lie in others too."""
    rectangles = np.array([(x, y, x + LABEL[0], y + LABEL[1]) for x, y in corners])
    return float(_covered(rectangles, rectangles).sum() - len(corners) * LABEL[0] * LABEL[1])


def test_a_label_stands_above_its_box_or_where_there_is_room() -> None:
    assert places((100, 80, 200, 180)) == [(100, 65)]
    assert places((100, 5, 200, 100)) == [(100, 101)], "below"
    assert places((100, 5, 200, 250)) == [(100, 5)], "inside"
    assert places((300, 80, 339, 180)) == [(280, 65)], "moved to the left"
    assert places() == []


def test_the_first_keeps_its_place_and_others_give_way() -> None:
    box = (100, 80, 200, 180)
    found = places(*[box] * 6)
    assert found == [(100, 65), (100, 181), (100, 80), (100, 166), (201, 80), (40, 80)]
    assert covered(found) == 0
    assert covered(places(*[box] * 30)) > 0, "there is no room for so many"


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 12), st.integers(0, 2**32 - 1))
def test_labels_lie_inside_the_frame_and_cover_no_more_than_above_each_box(n: int, seed: int) -> None:
    corner = np.random.default_rng(seed).uniform(20, (280, 200), (n, 2))
    found = places(*(tuple(box) for box in np.hstack([corner, corner + 30]).tolist()))
    assert all(0 <= x <= FRAME[0] - LABEL[0] and 0 <= y <= FRAME[1] - LABEL[1] for x, y in found)
    alone = [places(tuple(box))[0] for box in np.hstack([corner, corner + 30]).tolist()]
    assert covered(found) <= covered(alone)


def test_a_label_wider_than_the_frame_begins_at_its_edge() -> None:
    assert places((5, 30, 12, 40), frame=(40, 60)) == [(0, 15)]
