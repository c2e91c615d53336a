"""One stream of a service while it runs: its settings, its picture, and the way of its results."""

from __future__ import annotations

import logging
import threading
import time
from concurrent.futures import Future
from dataclasses import replace
from typing import Any

from rdn_engine.config import Dials
from rdn_engine.errors import StreamClosed
from rdn_engine.frame import Frame
from rdn_engine.media.live import LiveSource
from rdn_engine.plain import check
from rdn_engine.results import Detections
from rdn_engine.serve.served import ServedStream
from rdn_engine.service.config import RESTART_SECONDS, StreamSettings
from rdn_engine.service.outputs import Output, OutputCounts
from rdn_engine.service.preview import Preview

_log = logging.getLogger("rdn_engine.service")


class RunningStream:
    """`see` is called with each frame by a worker, `deliver` with each result by the stream's own thread."""

    def __init__(
        self,
        name: str,
        settings: StreamSettings,
        dials: Dials,
        capacity: Dials,
        failures: int,
        outputs: dict[str, Output],
        *,
        live: bool,
    ) -> None:
        """Nothing runs yet.

        Args:
            name: of the stream.
            settings: that it was started with.
            dials: that it was started with.
            capacity: what they may be turned up to.
            failures: in a row, of the streams of this name before.
            outputs: that get its results, by name.
            live: whether its source is none that comes to an end, as a file does.
        """
        self.name, self.settings, self.failures, self.outputs = name, settings, failures, outputs
        self._capacity, self._live = capacity, live
        self.dials = dials
        """As asked for last and not refused; a latency budget may have lowered them"""
        self._pending: list[tuple[Future[None], Dials, StreamSettings]] = []
        """Dials that are not in effect yet, with what was so before them"""
        self.turning = threading.Lock()
        """Held while the dials are changed"""
        self.preview = Preview(name, options=settings.preview)
        """Its last pictures"""
        self.stream: ServedStream | None = None
        """Of the scheduler; None until it was added"""
        self.removed = False
        """Whether it was asked to end: then it is not started again, whatever else it ends of"""
        self._blind = False
        self._flags: tuple[str, ...] | None = None
        self._counts: dict[str, OutputCounts] | None = None
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

    def turn(self, given: dict[str, Any], timeout: float) -> bool:
        """Change the dials, and keep them for whoever starts it again.

        Args:
            given: those that change.
            timeout: seconds to wait until they are in effect.

        Returns:
            Whether they are.

        Raises:
            AdmissionRefused, ConfigError, StreamClosed: as `ServedStream.set_dials`.
        """
        with self.turning:
            self._settle()
            dials, room = self.dials.turned(given), self._capacity
            for name in ("window", "num_support", "num_reference"):
                got, most = getattr(dials, name), getattr(room, name)
                check(got <= most, f"dials.{name}", got, f"at most {most}: more wants a stream added with `capacity`")
            asked = self.served.ask_dials(dials)
            try:
                asked.result(timeout)
                in_effect = True
            except TimeoutError:
                in_effect = False
                self._pending.append((asked, self.dials, self.settings))
            self.dials = dials
            self.settings = replace(
                self.settings,
                dials={**self.settings.dials, **given},
                capacity={name: getattr(room, name) for name in ("window", "num_support", "num_reference")},
            )
        return in_effect

    def _settle(self) -> None:
        """Take back the dials that were refused after nobody waited for them any more."""
        while self._pending and self._pending[0][0].done():
            asked, dials, settings = self._pending.pop(0)
            # Dials that a stream ended before are those that it is started again with.
            refused = asked.exception() is not None and not isinstance(asked.exception(), StreamClosed)
            if refused and self._pending:  # the later ones stand on what these would have stood on
                later, _, _ = self._pending[0]
                self._pending[0] = (later, dials, settings)
            elif refused:
                self.dials, self.settings = dials, settings

    def again(self) -> StreamSettings:
        """What it is to be started again with: with the dials that were asked for last."""
        with self.turning:
            self._settle()
        if self.settings.restart_seconds is not None:
            return self.settings
        return replace(self.settings, restart_seconds=RESTART_SECONDS if self._live else 0)

    def retire(self) -> None:
        """It has ended: what is shown of it from now on is what is so now, and its pictures go."""
        self._flags = self.preview.flags
        self._counts = {name: output.forget(self.name) for name, output in self.outputs.items()}
        self.preview = Preview(self.name, options=self.settings.preview)

    @property
    def flags(self) -> tuple[str, ...]:
        """What is wrong with its pictures."""
        return self.preview.flags if self._flags is None else self._flags

    def counts(self) -> dict[str, OutputCounts]:
        """What its outputs have done with its results, by name; of one that has ended, until then."""
        none = OutputCounts()  # before its first result
        if self._counts is not None:
            return self._counts
        return {name: output.counts().get(self.name, none) for name, output in self.outputs.items()}

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
