"""Who waits has its turn after at most one turn of each other."""

from __future__ import annotations

import threading

from hypothesis import given
from hypothesis import strategies as st

from rdn_engine.serve.run_queue import RunQueue
from tests.serve.doubles import WAIT


def test_first_come_first_served() -> None:
    turns: RunQueue[str] = RunQueue()
    for item in ("a", "b", "a", "c"):
        turns.wake(item)
    assert [turns.take(0), turns.take(0), turns.take(0), turns.take(0)] == ["a", "b", "c", None]


def test_one_that_runs_has_no_second_turn_at_once() -> None:
    turns: RunQueue[str] = RunQueue()
    turns.wake("a")
    assert turns.take(0) == "a"
    turns.wake("a")
    turns.wake("b")
    assert turns.take(0) == "b"
    assert turns.take(0) is None
    turns.done("a", more=False)
    assert turns.take(0) == "a"
    turns.done("a", more=False)
    assert turns.take(0) is None


STEPS = st.lists(st.tuples(st.sampled_from("wd"), st.integers(0, 4), st.booleans()), min_size=40, max_size=120)


@given(STEPS, st.integers(1, 3))
def test_nobody_waits_more_than_a_round(steps: list[tuple[str, int, bool]], workers: int) -> None:
    turns: RunQueue[int] = RunQueue()
    running: list[int] = []
    since: dict[int, list[int]] = {}  # turns that began while an item waited
    for what, item, more in steps:
        if what == "w":
            turns.wake(item)
            if item not in running:
                since.setdefault(item, [])
        elif running:
            ended = running.pop(item % len(running))
            turns.done(ended, more)
            if more:
                since.setdefault(ended, [])
        while len(running) < workers and (begun := turns.take(0)) is not None:
            assert begun not in running
            seen = since.pop(begun, [])
            assert len(set(seen)) == len(seen), f"{begun} waited while another had two turns: {seen}"
            for others in since.values():
                others.append(begun)
            running.append(begun)


def test_who_waits_comes_back_when_it_is_closed() -> None:
    turns: RunQueue[str] = RunQueue()
    got: list[str | None] = []
    thread = threading.Thread(target=lambda: got.append(turns.take(None)))
    thread.start()
    turns.close()
    thread.join(WAIT)
    assert got == [None]
    turns.wake("a")
    assert turns.take(0) is None
