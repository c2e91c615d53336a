"""Whose turn it is: one turn each, first come first served."""

from __future__ import annotations

import threading
from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")


class RunQueue(Generic[T]):
    """Items that have something to do, each in at most one place: waiting for its turn, or having it.

    An item that wants another turn goes behind all that wait. So one that wakes has its turn after at most one turn of
    each other item, however much the others have to do.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._order: deque[T] = deque()
        self._waiting: set[T] = set()
        self._running: set[T] = set()
        self._woken: set[T] = set()
        self._closed = False

    def wake(self, item: T) -> None:
        """Give an item a turn, once more after the one it has now; where it waits for one already nothing changes.

        Args:
            item: hashable.
        """
        with self._changed:
            if item in self._running:
                self._woken.add(item)
            else:
                self._append(item)

    def take(self, timeout: float | None) -> T | None:
        """Begin the next turn.

        Args:
            timeout: seconds to wait for one; None waits until there is one or the queue is closed.

        Returns:
            Whose turn it is, until `done`; None where there is none in time, or the queue is closed.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: self._order or self._closed, timeout) or self._closed:
                return None
            item = self._order.popleft()
            self._waiting.discard(item)
            self._running.add(item)
            return item

    def done(self, item: T, more: bool) -> None:
        """End a turn.

        Args:
            item: whose it was.
            more: whether it wants another one.
        """
        with self._changed:
            self._running.discard(item)
            if more or item in self._woken:
                self._woken.discard(item)
                self._append(item)

    def close(self) -> None:
        """No more turns; whoever waits in `take` comes back."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _append(self, item: T) -> None:
        if item not in self._waiting and not self._closed:
            self._waiting.add(item)
            self._order.append(item)
            self._changed.notify()
