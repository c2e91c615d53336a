"""Every frame is somewhere, once."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rdn_engine.serve.account import AGE_BOUNDS, Account, AgeHistogram


def test_a_frame_goes_from_inside_to_out() -> None:
    account = Account()
    account.take(doubtful=True)
    assert (account.frames().taken, account.frames().inside, account.frames().doubtful) == (1, 1, 1)
    account.pushed(True, 0)
    account.take(doubtful=False)
    account.pushed(True, 1)
    assert account.frames().inside == 2
    account.delivered(0.03, taken=True)
    account.flushed(1)
    account.delivered(None, taken=True)
    frames = account.frames()
    assert (frames.taken, frames.out, frames.inside, frames.doubtful) == (2, 2, 0, 1)
    assert account.ages().counts[AGE_BOUNDS.index(0.05)] == 1
    assert account.ages().seconds == 0.03


def test_each_loss_has_its_reason() -> None:
    account = Account()
    for accepted in (True, True, True, False, False):
        account.take(False)
        account.pushed(accepted, 0, "refused")
    account.leave_out()
    account.flushed(2)
    account.delivered(1.0, taken=False)
    account.give_up_results(1, "removed")
    account.give_up_held("failed")
    account.close(captured=13, dropped=4, reason="deadline")
    frames = account.frames()
    assert frames.dropped == {
        "source": 4, "rate": 1, "refused": 2, "failed": 1, "sink": 1, "removed": 1, "deadline": 3,
    }  # fmt: skip
    assert (frames.taken, frames.out, frames.inside) == (6, 0, 0)


def test_nothing_changes_a_closed_account() -> None:
    account = Account()
    account.take(False)
    account.pushed(True, 1)
    account.close(captured=1, dropped=0, reason="deadline")
    before = account.frames()
    account.delivered(1.0, taken=True)
    account.take(True)
    account.pushed(True, 1)
    account.leave_out()
    account.flushed(1)
    account.give_up_held("failed")
    account.give_up_results(1, "failed")
    account.close(9, 9, "removed")
    assert account.frames() == before
    assert sum(account.ages().counts) == 0


STEPS = st.lists(st.sampled_from(["accepted", "refused", "failed", "result", "out", "sink", "drop"]), max_size=60)


@given(STEPS, st.integers(0, 5), st.integers(0, 5))
def test_in_is_out_and_dropped_and_inside(steps: list[str], dropped: int, left: int) -> None:
    account = Account()
    held = undelivered = taken = 0
    for step in steps:
        if step in ("accepted", "refused", "failed"):
            account.take(False)
            taken += 1
            account.pushed(step == "accepted", 0, "refused" if step == "refused" else "failed")
            held += step == "accepted"
        elif step == "result" and held:
            account.flushed(1)
            held, undelivered = held - 1, undelivered + 1
        elif step in ("out", "sink") and undelivered:
            account.delivered(0.0, taken=step == "out")
            undelivered -= 1
        elif step == "drop" and undelivered:
            account.give_up_results(1, "removed")
            undelivered -= 1
        frames = account.frames()
        assert frames.inside == held + undelivered
        assert frames.taken == taken == frames.out + sum(frames.dropped.values()) + frames.inside
    account.close(taken + dropped + left, dropped, "removed")
    frames = account.frames()
    assert taken + dropped + left == frames.out + sum(frames.dropped.values())
    assert frames.dropped["source"] == dropped


@pytest.mark.parametrize(("part", "bound"), [(0.0, 0.01), (0.5, 0.02), (0.51, 5.0), (0.75, 5.0), (1.0, math.inf)])
def test_quantile_is_a_bound(part: float, bound: float) -> None:
    account = Account()
    for age in (0.01, 0.011, 4.0, 61.0):
        account.take(False)
        account.pushed(True, 1)
        account.delivered(age, taken=True)
    assert account.ages().quantile(part) == bound


def test_no_ages_have_no_quantile() -> None:
    assert AgeHistogram((0,) * 13, 0.0).quantile(0.99) == 0
