"""One stream of a service while it runs: its settings, its picture, and the way of its results."""

from __future__ import annotations

import logging
import threading
import time

from rdn_engine.config import Dials
from rdn_engine.frame import Frame
from rdn_engine.media.live import LiveSource
from rdn_engine.results import Detections
from rdn_engine.serve.served import ServedStream
from rdn_engine.service.config import StreamSettings
from rdn_engine.service.outputs import Output
from rdn_engine.service.preview import Preview

_log = logging.getLogger("rdn_engine.service")


class RunningStream:
    """`see` is called with each frame by a worker, `deliver` with each result by the stream's own thread."""

    def __init__(
        self, name: str, settings: StreamSettings, dials: Dials, failures: int, outputs: dict[str, Output]
    ) -> None:
        """Nothing runs yet.

        Args:
            name: of the stream.
            settings: that it was started with.
            dials: that it was started with.
            failures: in a row, of the streams of this name before.
            outputs: that get its results, by name.
        """
        self.name, self.settings, self.failures, self.outputs = name, settings, failures, outputs
        self.dials = dials
        """As asked for last; a latency budget may have lowered them"""
        self.turning = threading.Lock()
        """Held while the dials are changed"""
        self.preview = Preview(name, options=settings.preview)
        """Its last pictures"""
        self.stream: ServedStream | None = None
        """Of the scheduler; None until it was added"""
        self.removed = False
        """Whether it was asked to end: then it is not started again, whatever else it ends of"""
        self._blind = False
        self._source: LiveSource | None = None

    def reading(self, source: LiveSource) -> LiveSource:
        """Take note of what the stream is read from.

        Args:
            source: its own.

        Returns:
            The same.
        """
        self._source = source
        return source

    @property
    def source_error(self) -> str | None:
        """Why the source gives no frames, without credentials; None while they come."""
        error = None if self._source is None else self._source.error
        return None if error is None else str(error)

    @property
    def served(self) -> ServedStream:
        """Of the scheduler.

        Raises:
            KeyError: before it was added.
        """
        if self.stream is None:
            raise KeyError(self.name)
        return self.stream

    def see(self, frame: Frame) -> None:
        """A frame goes into the stream.

        Args:
            frame: which is not changed.
        """
        try:
            self.preview.see(frame)
        except Exception:  # a picture for people must cost no frame
            self._log_once()

    def deliver(self, result: Detections) -> None:
        """A result comes out of the stream. It waits here while an output that loses nothing has no room.

        Args:
            result: in order.
        """
        try:
            self.preview.show(result)
        except Exception:
            self._log_once()
        arrived = None if result.capture is None else result.capture.clock
        age = None if arrived is None else round(max(time.monotonic() - arrived, 0.0), 6)
        line = {"stream": self.name, "age": age, **result.to_dict()}
        for output in self.outputs.values():
            output.put(self.name, line)

    def _log_once(self) -> None:
        if not self._blind:
            self._blind = True
            _log.exception("stream %r: its picture cannot be made", self.name)
