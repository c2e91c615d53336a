"""A source that shows each frame to somebody as it is taken."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rdn_engine.frame import Frame
from rdn_engine.serve.source import FrameSource


class WatchedSource:
    """Has the face of the source that it holds."""

    def __init__(self, source: FrameSource, see: Callable[[Frame], None]) -> None:
        """Take a source, not started.

        Args:
            source: of one stream.
            see: called with each frame, by whoever takes it; must not raise.
        """
        self._source, self._see = source, see

    def get(self, timeout: float | None) -> Frame | None:
        """As the source's.

        Args:
            timeout: seconds.
        """
        frame = self._source.get(timeout)
        if frame is not None:
            self._see(frame)
        return frame

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)
