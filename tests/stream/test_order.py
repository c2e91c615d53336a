"""Which frames are due and where an epoch begins, from sizes and timestamps alone."""

from __future__ import annotations

import math
from dataclasses import replace
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rdn_engine.capture import Capture
from rdn_engine.config import Dials
from rdn_engine.errors import FrameError
from rdn_engine.stream.order import FrameInfo, FrameOrder, seconds, span

DIALS = Dials(window=3, num_support=1, num_reference=1, advanced_ratio=1.0)


def frame(index: int, pts: float | None = None, size: tuple[int, int] = (48, 64)) -> FrameInfo:
    return FrameInfo(index, pts, "cam", *size)


def push(order: FrameOrder, info: FrameInfo, look_ahead: int) -> list[tuple[int, int, int]]:
    """Epoch, number and index of each result, as a stream asks for them."""
    found = []
    if order.begins_epoch(info):
        found += take(order, 0)
        order.begin_epoch()
    order.append(info)
    return found + take(order, look_ahead)


def take(order: FrameOrder, look_ahead: int) -> list[tuple[int, int, int]]:
    found = []
    while (due := order.due(look_ahead)) is not None:
        found.append((order.epoch, due.number, due.info.frame_index))
        order.done()
    return found


@given(st.integers(0, 4), st.lists(st.sampled_from(["frame", "wide", "back", "flush"]), max_size=30))
def test_every_frame_is_due_once_in_order_and_never_early(look_ahead: int, steps: list[str]) -> None:
    order, found, pushed, pts = FrameOrder(), [], 0, 0.0
    starts = []
    for step in steps:
        if step == "flush":
            found += take(order, 0)
            order.end_epoch()
            continue
        pts = pts - 5 if step == "back" else pts + 0.04
        info = frame(pushed, pts, (48, 96) if step == "wide" else (48, 64))
        before = order.epoch
        new = push(order, info, look_ahead)
        found += new
        if order.epoch > before or not pushed:
            starts.append(pushed)
        assert all(index <= pushed - look_ahead for epoch, _, index in new if epoch == order.epoch)
        pushed += 1
    found += take(order, 0)
    assert [index for _, _, index in found] == list(range(pushed))
    # Numbers count from each start of an epoch, and epochs count up.
    for epoch, number, index in found:
        assert index - number == starts[epoch]


def test_a_frame_stays_due_until_it_is_done() -> None:
    order = FrameOrder()
    order.append(frame(0))
    assert order.due(0) == order.due(0)
    assert order.next_result == 0
    order.done()
    assert order.due(0) is None
    assert order.next_result == order.newest + 1


def test_a_lower_look_ahead_releases_several() -> None:
    order = FrameOrder()
    for t in range(4):
        push(order, frame(t), 3)
    assert [number for _, number, _ in take(order, 1)] == [1, 2]


def test_an_epoch_without_frames_does_not_end() -> None:
    order = FrameOrder()
    order.end_epoch()
    assert not order.begins_epoch(frame(0))
    order.append(frame(0))
    order.end_epoch()
    assert order.begins_epoch(frame(1))


def test_what_is_given_up_is_due_no_more() -> None:
    order = FrameOrder()
    order.append(frame(0))
    order.abandon()
    assert order.due(0) is None
    assert order.newest == 0


@given(st.integers(0, 20), st.integers(0, 20), st.integers(0, 5), st.data())
def test_the_span_is_the_part_of_the_window_that_there_is(t: int, more: int, window: int, data: st.DataObject) -> None:
    newest = t + more
    look_ahead = data.draw(st.integers(0, window))
    dials = replace(DIALS, window=window, look_ahead=look_ahead)
    wanted = [j for j in range(t - window, t + look_ahead + 1) if 0 <= j <= newest]
    assert list(span(t, newest, dials)) == wanted


@pytest.mark.parametrize("pts", [1, 1.0, np.float32(1), np.int64(1), Fraction(2, 2), Decimal(1)])
def test_seconds_of_any_kind_of_number_are_python_floats(pts: object) -> None:
    assert type(seconds(pts)) is float
    assert seconds(pts) == 1.0
    assert seconds(None) is None


@pytest.mark.parametrize("pts", [math.nan, math.inf, "1.0", [1.0, 2.0], object()])
def test_what_is_no_time_is_refused(pts: object) -> None:
    with pytest.raises(FrameError, match=r"pts is .*; wanted finite seconds, or None"):
        seconds(pts)


def test_another_session_of_a_live_source_is_another_epoch() -> None:
    order, epochs = FrameOrder(), []
    for index, session in enumerate((0, 0, 1, 1, None, None, 2)):
        capture = None if session is None else Capture(time=1e9 + index, dropped=0, doubtful=False, session=session)
        push(order, frame(index, index / 25)._replace(capture=capture), 0)
        epochs.append(order.epoch)
    assert epochs == [0, 0, 1, 1, 2, 2, 3]
