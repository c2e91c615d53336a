"""Results and events on their way out: each way has a queue and a thread of its own, so that nobody else waits."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

T = TypeVar("T")


class Delivery(Generic[T]):
    """Calls a function with one item after another, in order. It does not look at what the function raises: that is
    the function's own matter, and it must not raise.
    """

    def __init__(
        self, name: str, call: Callable[[T], None], bound: int, room: Callable[[], None], end: Callable[[], None]
    ) -> None:
        """Start the thread.

        Args:
            name: of the thread.
            call: with each item, in the thread.
            bound: items that may wait before `full` says so, 1 or more.
            room: called in the thread when that many no longer wait.
            end: called in the thread after the last item.
        """
        self._call, self._bound, self._room, self._end = call, bound, room, end
        self._changed = threading.Condition()
        self._items: deque[T] = deque()
        self._finished = self._dropped = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    @property
    def full(self) -> bool:
        """Whether as many items wait as may."""
        return len(self._items) >= self._bound

    def post(self, items: Iterable[T]) -> None:
        """Append items. It never waits: who posts looks at `full` before it makes more of them.

        Args:
            items: in order; after `drop` they go nowhere.
        """
        with self._changed:
            if not self._dropped:
                self._items.extend(items)
                self._changed.notify()

    def finish(self) -> None:
        """Let the thread end after what waits now."""
        with self._changed:
            self._finished = True
            self._changed.notify()

    def drop(self) -> int:
        """Give up what waits, and what may be posted later.

        Returns:
            How many items that were; one that is being delivered is not among them.
        """
        with self._changed:
            self._dropped = True
            count = len(self._items)
            self._items.clear()
            return count

    def join(self, timeout: float) -> bool:
        """Wait for the thread to end.

        Args:
            timeout: seconds.

        Returns:
            Whether it has; not so where the thread itself asks.
        """
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._items or self._finished)
                if not self._items:
                    break
                item = self._items.popleft()
                has_room = len(self._items) == self._bound - 1
            if has_room:
                self._room()
            self._call(item)
            del item
        self._end()
