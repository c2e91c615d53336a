"""A linker that fails is tried again: what comes out is what would have come out."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest

from rdn_engine import Detections
from rdn_engine.config import Dials
from rdn_engine.stream import linking
from rdn_engine.stream.identity import Identities
from rdn_engine.stream.linking import BoxLinker, Numbers
from rdn_engine.stream.links import Linkable, Moved
from tests.stream.boxes import result, square

STILL_STEP = 5
"""A step that shows what the one before it shows"""

STAGES = ((linking, "linked"), (linking, "_search"), (linking, "_result"), (BoxLinker, "_path_means"),
          (BoxLinker, "_go_on"), (Identities, "step"), (Identities, "copy"), (Numbers, "keep"))  # fmt: skip


def frames() -> Iterator[Linkable]:
    """Three objects that pass each other, the second of which is away for two frames, and a fourth."""
    for t in range(9):
        boxes = [square(20 + 6 * t), square(90 - 6 * t), square(150, 80 + 4 * t), *[square(250)] * (t > 3)]
        confidence = [0.9, 0.6, 0.8, 0.7][: len(boxes)]
        rows = [row for row in range(len(boxes)) if row != 1 or t not in (3, 4)]
        found = result([boxes[row] for row in rows], [confidence[row] for row in rows], index=t)
        yield Linkable(found, np.arange(len(found)), None, np.eye(4, dtype=np.float32)[rows])


def turned(t: int) -> Dials:
    """A delay that is lowered, which lets several frames out at once, and a gap that is not 0 from some frame on."""
    delay, gap = (0, 0) if t < 2 else (3, 0) if t < 5 else (3, 4) if t < 7 else (0, 4)
    return Dials(link="boxes", link_delay=delay, link_gap=gap, score_threshold=0.1)


def linked(fails_at: int, owner: Any, name: str, patch: pytest.MonkeyPatch) -> tuple[list[Detections], int]:
    """What comes out where a call of a stage fails, and how many calls there were."""
    calls, stage = itertools.count(1), getattr(owner, name)
    made = 0

    def failing(*args: Any) -> Any:
        nonlocal made
        made = next(calls)
        if made == fails_at:
            raise MemoryError("no room")
        return stage(*args)

    patch.setattr(owner, name, failing)
    linker, found = BoxLinker(), list[Detections]()

    def tried(call: Callable[[], list[Detections]]) -> None:
        with contextlib.suppress(MemoryError):
            found.extend(call())
            return
        found.extend(call())

    before = None
    for t, frame in enumerate(frames()):
        dials = turned(t)
        moved = None if before is None else Moved(before, np.zeros((len(before), 2), np.float32))
        tried(partial(linker.push, frame, dials, moved))
        if t == STILL_STEP:
            tried(partial(linker.pass_over, dials))
        before = frame.found
    tried(partial(linker.flush, dials))
    patch.setattr(owner, name, stage)
    return found, made


@pytest.mark.parametrize(("owner", "name"), STAGES, ids=[name for _, name in STAGES])
def test_what_fails_is_tried_again_and_nothing_is_lost_or_comes_twice(
    owner: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted, calls = linked(0, owner, name, monkeypatch)
    assert [one.frame_index for one in wanted] == list(range(9))
    assert calls > 1
    for fails_at in range(1, calls + 1):
        found, _ = linked(fails_at, owner, name, monkeypatch)
        assert len(found) == len(wanted)
        for one, other in zip(found, wanted, strict=True):
            assert one.frame_index == other.frame_index
            np.testing.assert_array_equal(one.xyxy, other.xyxy)
            np.testing.assert_array_equal(one.confidence, other.confidence)
            np.testing.assert_array_equal(one.tracker_id, other.tracker_id)
