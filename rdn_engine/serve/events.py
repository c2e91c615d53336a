"""What a scheduler says of its streams while they run."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from rdn_engine.serve.listener import Listener
from rdn_engine.serve.snapshot import StreamSnapshot, Trouble

EventKind = Literal["added", "dials", "dials_refused", "lowered", "restored", Trouble, "recovered", "ended"]


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
    final: StreamSnapshot | None = field(default=None, repr=False)
    """Of `ended`: the whole account of the stream, which nothing changes any more"""


class Events:
    """Makes events, and hands them to one handler."""

    def __init__(self, handler: Callable[[Event], None] | None) -> None:
        """handler: takes the events; None lets them go."""
        self._listener = Listener("rdn-events", handler)

    @property
    def lost(self) -> int:
        """Events that the handler did not get, because it was too slow, or that it raised at."""
        return self._listener.lost

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
        self._listener.tell(Event(kind, stream, time.time(), message, error, final))

    def close(self, timeout: float) -> bool:
        """Hand out what waits.

        Args:
            timeout: seconds that the handler has for it.

        Returns:
            Whether it was enough.
        """
        return self._listener.close(timeout)
