"""When streams that failed are started again."""

from __future__ import annotations

import threading
from typing import NamedTuple

from rdn_engine.service.config import LONGEST_RESTART, StreamSettings


class _Due(NamedTuple):
    time: float
    settings: StreamSettings
    failures: int


class Restarts:
    """Streams that wait for their time. Pure but for its lock: the clock is the caller's."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._due: dict[str, _Due] = {}

    def later(self, name: str, settings: StreamSettings, failures: int, now: float) -> bool:
        """A stream has failed.

        Args:
            name: of the stream.
            settings: to start it with.
            failures: in a row, 1 or more: the delay doubles with each.
            now: seconds, of any clock.

        Returns:
            Whether it will be started again.
        """
        if not settings.restart_seconds:
            return False
        delay = min(settings.restart_seconds * 2.0 ** min(failures - 1, 60), LONGEST_RESTART)
        with self._lock:
            self._due[name] = _Due(now + delay, settings, failures)
        return True

    def due(self, now: float) -> list[tuple[str, StreamSettings, int]]:
        """Those whose time has come; they do not wait any more.

        Args:
            now: seconds, of the same clock.

        Returns:
            Name, settings and failures in a row of each.
        """
        with self._lock:
            ready = {name: one for name, one in self._due.items() if one.time <= now}
            for name in ready:
                del self._due[name]
        return [(name, one.settings, one.failures) for name, one in ready.items()]

    def cancel(self, name: str) -> bool:
        """Do not start a stream again.

        Args:
            name: of the stream.

        Returns:
            Whether it was waiting.
        """
        with self._lock:
            return self._due.pop(name, None) is not None

    def names(self) -> set[str]:
        """Of those that wait."""
        with self._lock:
            return set(self._due)

    def seconds(self, now: float) -> dict[str, float]:
        """Until those that wait are started, by name.

        Args:
            now: seconds, of the same clock.
        """
        with self._lock:
            return {name: max(one.time - now, 0.0) for name, one in self._due.items()}
