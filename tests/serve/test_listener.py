"""Who is told things holds up nobody."""

from __future__ import annotations

import threading

from rdn_engine.serve.listener import WAITING, Listener
from tests.serve.doubles import WAIT


def test_a_slow_handler_loses_what_it_has_no_room_for() -> None:
    got: list[int] = []
    called, free = threading.Event(), threading.Event()

    def slow(item: int) -> None:
        called.set()
        assert free.wait(WAIT)
        got.append(item)

    listener = Listener("told", slow)
    listener.tell(0)
    assert called.wait(WAIT)
    for item in range(1, WAITING + 6):
        listener.tell(item)
    assert listener.lost == 5
    assert not listener.close(0.0)
    free.set()
    assert listener.close(WAIT)
    assert got == list(range(WAITING + 1))


def test_a_handler_that_raises_or_exits_is_told_the_rest() -> None:
    got: list[int] = []

    def raising(item: int) -> None:
        got.append(item)
        raise SystemExit(1)

    listener = Listener("told", raising)
    for item in range(3):
        listener.tell(item)
    assert listener.close(WAIT)
    assert (got, listener.lost) == ([0, 1, 2], 3)


def test_nobody_is_no_thread() -> None:
    before = threading.active_count()
    listener: Listener[int] = Listener("told", None)
    listener.tell(1)
    assert (listener.wanted, listener.lost, listener.close(0.0)) == (False, 0, True)
    assert threading.active_count() == before
