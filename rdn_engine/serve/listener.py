"""A function of the application that is told things, from a thread of its own: slow or failing, it holds up nobody."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from rdn_engine.serve.delivery import Delivery

T = TypeVar("T")
WAITING = 1024
"""Items that may wait for a slow function; those that come then are counted as lost"""


class Listener(Generic[T]):
    """Hands items to one function, in order."""

    def __init__(self, name: str, handler: Callable[[T], None] | None) -> None:
        """Start the thread, where there is somebody to tell.

        Args:
            name: of the thread.
            handler: takes the items; None lets them go.
        """
        self._handler = handler
        self._lost = 0
        self._lock = threading.Lock()
        self._delivery = None if handler is None else Delivery(name, self._call, WAITING, _nothing, _nothing)

    @property
    def wanted(self) -> bool:
        """Whether anybody is told: what is told need not be made otherwise."""
        return self._delivery is not None

    @property
    def lost(self) -> int:
        """Items that the handler did not get, because it was too slow, or that it raised at."""
        return self._lost

    def tell(self, item: T) -> None:
        """Hand over an item. It never waits.

        Args:
            item: for the handler.
        """
        if self._delivery is None:
            return
        if self._delivery.full:
            self._count_lost()
        else:
            self._delivery.post([item])

    def close(self, timeout: float) -> bool:
        """Hand out what waits.

        Args:
            timeout: seconds that the handler has for it.

        Returns:
            Whether it was enough.
        """
        if self._delivery is None:
            return True
        self._delivery.finish()
        return self._delivery.join(timeout)

    def _call(self, item: T) -> None:
        assert self._handler is not None
        try:
            self._handler(item)
        except BaseException:  # sys.exit() too: it would end this thread, and nothing would be told any more
            self._count_lost()

    def _count_lost(self) -> None:
        with self._lock:
            self._lost += 1


def _nothing() -> None:
    pass
