"""What a scheduler says of its streams while they run."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from rdn_engine.serve.delivery import Delivery
from rdn_engine.serve.snapshot import StreamSnapshot

Trouble = Literal["source_down", "source_stuck", "refused", "failing", "sink_failing", "sink_full"]
"""What may go on from frame to frame"""
EventKind = Literal["added", "dials", "lowered", "restored", Trouble, "recovered", "ended"]
WAITING = 1024
"""Events that may wait for a slow handler; those that come then are counted as lost"""


@dataclass(frozen=True)
class Event:
    """Something that happened to one stream. Of a Trouble only the first time is an event, and then its end."""

    kind: EventKind
    """docs/production.md says what each means, and what to do"""
    stream: str
    """Its name"""
    time: float
    """Wall clock, seconds since 1970"""
    message: str
    """For people, one line"""
    error: BaseException | None = None
    """What was raised, where that is the cause"""
    final: StreamSnapshot | None = None
    """Of `ended`: the whole account of the stream, which nothing changes any more"""


class Events:
    """Hands events to one handler, in order, from a thread of its own: a slow or failing handler holds up nobody."""

    def __init__(self, handler: Callable[[Event], None] | None) -> None:
        """handler: takes the events; None lets them go."""
        self._handler = handler
        self._lost = 0
        self._lock = threading.Lock()
        self._delivery = None if handler is None else Delivery("rdn-events", self._call, WAITING, _nothing, _nothing)

    @property
    def lost(self) -> int:
        """Events that the handler did not get, because it was too slow, or that it raised at."""
        return self._lost

    def say(
        self,
        kind: EventKind,
        stream: str,
        message: str,
        error: BaseException | None = None,
        final: StreamSnapshot | None = None,
    ) -> None:
        """Something happened.

        Args:
            kind, stream, message, error, final: as Event has them.
        """
        if self._delivery is None:
            return
        if self._delivery.full:
            self._count_lost()
        else:
            self._delivery.post([Event(kind, stream, time.time(), message, error, final)])

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

    def _call(self, event: Event) -> None:
        assert self._handler is not None
        try:
            self._handler(event)
        except BaseException:  # sys.exit() too: it would end this thread, and no event would come any more
            self._count_lost()

    def _count_lost(self) -> None:
        with self._lock:
            self._lost += 1


def _nothing() -> None:
    pass
