"""A queue with a thread of its own."""

from __future__ import annotations

import threading

from rdn_engine.serve.delivery import Delivery
from tests.serve.doubles import WAIT


class Taker:
    """Takes items once it is let."""

    def __init__(self, bound: int = 2) -> None:
        self.got: list[int] = []
        self.free, self.called = threading.Event(), threading.Event()
        self.rooms = self.ends = 0
        self.delivery: Delivery[int] = Delivery("taker", self.take, bound, self.room, self.end)

    def take(self, item: int) -> None:
        self.called.set()
        assert self.free.wait(WAIT)
        self.got.append(item)

    def room(self) -> None:
        self.rooms += 1

    def end(self) -> None:
        self.ends += 1


def test_items_come_in_order_and_then_the_end() -> None:
    taker = Taker()
    taker.free.set()
    taker.delivery.post(range(5))
    taker.delivery.post([5])
    taker.delivery.finish()
    assert taker.delivery.join(WAIT)
    assert (taker.got, taker.ends) == ([0, 1, 2, 3, 4, 5], 1)


def test_who_fills_it_hears_once_when_there_is_room_again() -> None:
    taker = Taker(bound=2)
    taker.delivery.post([0])
    assert taker.called.wait(WAIT)
    assert not taker.delivery.full
    taker.delivery.post([1, 2, 3, 4])
    assert taker.delivery.full
    before = taker.rooms
    taker.free.set()
    taker.delivery.finish()
    assert taker.delivery.join(WAIT)
    assert (taker.got, taker.rooms - before) == ([0, 1, 2, 3, 4], 1)


def test_what_is_dropped_does_not_come_nor_what_follows() -> None:
    taker = Taker()
    taker.delivery.post([0])
    assert taker.called.wait(WAIT)
    taker.delivery.post([1, 2])
    assert taker.delivery.drop() == 2
    taker.delivery.post([3])
    assert not taker.delivery.full
    taker.free.set()
    taker.delivery.finish()
    assert taker.delivery.join(WAIT)
    assert (taker.got, taker.ends) == ([0], 1)


def test_join_says_when_somebody_still_takes() -> None:
    taker = Taker()
    taker.delivery.post([0])
    taker.delivery.finish()
    assert not taker.delivery.join(0.0)
    taker.free.set()
    assert taker.delivery.join(WAIT)
