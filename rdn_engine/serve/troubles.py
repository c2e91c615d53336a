"""What goes wrong again and again is said once, and its end once."""

from __future__ import annotations

import threading

from rdn_engine.serve.events import Events
from rdn_engine.serve.snapshot import Trouble

CALM = 25
"""Good ones in a row that end a trouble: what fails every other time is one trouble, not one each time"""


class Troubles:
    """The troubles that a stream is in. Any thread may report."""

    def __init__(self, stream: str, events: Events) -> None:
        """stream: its name, in the events."""
        self._stream, self._events = stream, events
        self._lock = threading.Lock()
        self._good: dict[Trouble, int] = {}

    @property
    def now(self) -> tuple[Trouble, ...]:
        """Those that have begun and are not over, in the order they began."""
        with self._lock:
            return tuple(self._good)

    def bad(self, trouble: Trouble, message: str, error: BaseException | None = None) -> None:
        """It happened; an event, where that is news.

        Args:
            trouble: what.
            message, error: of the event.
        """
        with self._lock:
            news = trouble not in self._good
            self._good[trouble] = 0
        if news:
            self._events.say(trouble, self._stream, message, error)

    def good(self, *troubles: Trouble, calm: int = CALM) -> None:
        """It could have happened and did not; an event, where it is over.

        Args:
            troubles: what.
            calm: good ones in a row that end them.
        """
        if not self._good:
            return
        over: list[Trouble] = []
        with self._lock:
            for trouble in troubles:
                if trouble in self._good:
                    self._good[trouble] += 1
                    if self._good[trouble] >= calm:
                        del self._good[trouble]
                        over.append(trouble)
        if over:
            self._events.say("recovered", self._stream, f"over: {', '.join(over)}")
