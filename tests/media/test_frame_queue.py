"""Frames between two threads: taken or counted, never both."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rdn_engine.capture import Capture
from rdn_engine.frame import Frame
from rdn_engine.media.frame_queue import FrameQueue, Policy

IMAGE = np.zeros((16, 16, 3), np.uint8)


def frame(index: int) -> Frame:
    return Frame(IMAGE, index, None, "cam", capture=Capture(time=index, dropped=0, doubtful=False, session=0))


def dropped(taken: Frame | None) -> int:
    assert taken is not None
    assert taken.capture is not None
    return taken.capture.dropped


@given(st.sampled_from(["drop_oldest", "drop_latest"]), st.integers(1, 4), st.lists(st.booleans(), max_size=60))
def test_every_frame_is_taken_or_said_to_be_dropped(policy: Policy, room: int, steps: list[bool]) -> None:
    """True puts a frame, False takes one: numbers that come out and drops between them make all that went in."""
    queue, put, said = FrameQueue(room, policy), 0, 0
    numbers: list[int] = []
    for step in steps:
        if step:
            queue.put(frame(put))
            put += 1
        elif (taken := queue.get(0)) is not None:
            said += dropped(taken)
            assert taken.index == said + len(numbers)
            numbers.append(taken.index)
        assert len(queue) <= room
    assert put == len(numbers) + queue.dropped + len(queue)
    assert numbers == sorted(set(numbers))


@pytest.mark.parametrize(("policy", "kept", "gaps"), [("drop_oldest", [3, 4], [3, 0]), ("drop_latest", [0, 1], [0, 0])])
def test_policies_keep_the_newest_or_the_oldest(policy: Policy, kept: list[int], gaps: list[int]) -> None:
    queue = FrameQueue(2, policy)
    for index in range(5):
        queue.put(frame(index))
    found = [queue.get(0), queue.get(0)]
    assert [one.index for one in found if one is not None] == kept
    assert [dropped(one) for one in found] == gaps
    queue.put(frame(5))
    assert dropped(queue.get(0)) == (0 if policy == "drop_oldest" else 3)
    assert queue.dropped == 3


def test_wait_drops_nothing_and_holds_the_writer_back() -> None:
    queue, came = FrameQueue(2, "wait"), []
    writer = threading.Thread(target=lambda: [queue.put(frame(index)) for index in range(50)], daemon=True)
    writer.start()
    while len(came) < 50:
        taken = queue.get(10)
        assert taken is not None
        came.append((taken.index, dropped(taken)))
    writer.join(10)
    assert came == [(index, 0) for index in range(50)]
    assert queue.dropped == 0


def test_close_frees_a_writer_that_waits() -> None:
    queue = FrameQueue(1, "wait")
    queue.put(frame(0))
    writer = threading.Thread(target=queue.put, args=(frame(1),), daemon=True)
    writer.start()
    queue.close(drop=False)
    writer.join(10)
    assert not writer.is_alive()
    taken = queue.get()
    assert taken is not None
    assert taken.index == 0
    assert (queue.get(), queue.dropped) == (None, 1)


def test_close_may_drop_what_waits_and_frees_a_reader() -> None:
    queue = FrameQueue(4, "drop_oldest")
    found: list[Frame | None] = []
    reader = threading.Thread(target=lambda: found.append(queue.get()), daemon=True)
    reader.start()
    queue.close(drop=True)
    reader.join(10)
    assert found == [None]
    queue = FrameQueue(4, "drop_oldest")
    for index in range(3):
        queue.put(frame(index))
    queue.close(drop=True)
    assert (queue.get(), queue.dropped) == (None, 3)
