"""What goes wrong again and again is said once, and its end once."""

from __future__ import annotations

import threading
from typing import Literal

Trouble = Literal["refused", "failing", "sink_failing", "sink_full"]

CALM = 25
"""Good ones in a row that end a trouble: what fails every other time is one trouble, not one each time"""


class Troubles:
    """The troubles that a stream is in. Any thread may ask."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._good: dict[Trouble, int] = {}

    def bad(self, trouble: Trouble) -> bool:
        """It happened.

        Args:
            trouble: what.

        Returns:
            Whether that is news.
        """
        with self._lock:
            news = trouble not in self._good
            self._good[trouble] = 0
            return news

    def good(self, *troubles: Trouble) -> list[Trouble]:
        """It could have happened, and did not.

        Args:
            troubles: what.

        Returns:
            Those that are over now.
        """
        over: list[Trouble] = []
        if not self._good:
            return over
        with self._lock:
            for trouble in troubles:
                if trouble in self._good:
                    self._good[trouble] += 1
                    if self._good[trouble] >= CALM:
                        del self._good[trouble]
                        over.append(trouble)
        return over
