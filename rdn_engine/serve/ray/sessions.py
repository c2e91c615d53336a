"""The windows of the sessions that one replica of Ray Serve holds, none of which is ever taken for another.

A stream's window is state, and a router may send a stream's next frame to a replica that does not have it. Each window
therefore has a name of its own, its session, that the client repeats with every frame, and counts its frames. A frame
that comes with another session, or out of its turn, begins a new window, and the reply says so: no window ever holds
frames that its client does not know to be there.
"""

from __future__ import annotations

import os
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from rdn_engine.config import Dials
from rdn_engine.detector import Detector
from rdn_engine.errors import FrameError, RDNError
from rdn_engine.frame import Frame
from rdn_engine.results import Detections
from rdn_engine.serve.admission import MemoryBudget, StreamCost, stream_cost
from rdn_engine.serve.options import StreamOptions
from rdn_engine.stream.base import Stream

Refusal = Literal["overloaded", "no room", "frame", "failed"]


@dataclass(frozen=True)
class Call:
    """What a client sends with its next frames, or without any at the end of its stream."""

    name: str
    """Of the stream"""
    session: str | None
    """Of the window that it knows; None where it knows of none"""
    number: int
    """How many frames it knows to be in that window's stream"""
    frames: tuple[Frame, ...]


@dataclass(frozen=True)
class Reply:
    """What a replica says to a call."""

    session: str | None
    """Of the window that has the frames; None where no window has them"""
    began: bool = False
    """Whether that window began with these frames, without any before them"""
    taken: int = 0
    """How many of the frames are in the window"""
    results: tuple[Detections, ...] = ()
    """Those that became ready, as of `Stream.push`"""
    refusal: Refusal | None = None
    """Why the next frame was not taken; the window, where there is one, is as it was before it"""
    message: str = ""


@dataclass
class _Open:
    stream: Stream
    session: str
    used: float


class Sessions:
    """Windows by the name of their stream. One thread at a time."""

    def __init__(
        self,
        detector: Detector[Any, Any],
        dials: Dials,
        *,
        byte_budget: int | None = None,
        idle_seconds: float = 60.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """No stream yet.

        Args:
            detector: of the replica.
            dials: of every stream.
            byte_budget: of all windows, bytes; None for no bound.
            idle_seconds: after which a window that nobody uses goes.
            clock: seconds.
        """
        self._detector, self._dials, self._clock = detector, dials, clock
        self._idle_seconds = idle_seconds
        self._budget = MemoryBudget(byte_budget)
        self._cost: StreamCost | None = None
        self._streams: OrderedDict[str, _Open] = OrderedDict()  # the one used longest ago first

    def __len__(self) -> int:
        return len(self._streams)

    @property
    def nbytes(self) -> int:
        """Bytes that the windows may hold."""
        return self._budget.taken

    def call(self, call: Call) -> Reply:
        """Take frames, or the end of a stream.

        Args:
            call: of a client.

        Returns:
            What became of it; no failure of a stream is raised.
        """
        self._reap()
        one = self._streams.get(call.name)
        known = one is not None and one.session == call.session and one.stream.accepted == call.number
        if not call.frames:
            return self._end(call, one if known else None)
        if not known:
            self._drop(call.name)
            try:
                one = self._open(call.name)
            except RDNError as error:
                return Reply(None, refusal="no room", message=str(error))
        assert one is not None
        one.used = self._clock()
        self._streams.move_to_end(call.name)
        results: list[Detections] = []
        for taken, frame in enumerate(call.frames):
            try:
                results += one.stream.push(frame)
            except FrameError as error:
                if not known and not taken:
                    self._drop(call.name)
                    return Reply(None, refusal="frame", message=str(error))
                return Reply(one.session, not known, taken, tuple(results), "frame", str(error))
            except RDNError as error:
                # What the window holds of the frame is not known.
                self._drop(call.name)
                return Reply(None, refusal="failed", message=str(error))
        return Reply(one.session, not known, len(call.frames), tuple(results))

    def _end(self, call: Call, one: _Open | None) -> Reply:
        if one is None:
            return Reply(None)
        try:
            return Reply(one.session, results=tuple(one.stream.flush()))
        except RDNError as error:
            return Reply(None, refusal="failed", message=str(error))
        finally:
            self._drop(call.name)

    def _open(self, name: str) -> _Open:
        if self._cost is None:
            with self._detector.open_stream(self._dials) as stream:
                config = self._detector.config
                self._cost = stream_cost(
                    stream,
                    self._dials,
                    config.detection.max_detections,
                    StreamOptions(),
                    features=config.relation.dim,
                )
        self._budget.reserve(name, self._cost)
        try:
            stream = self._detector.open_stream(self._dials, source_id=name)
        except BaseException:
            self._budget.release(name)
            raise
        one = self._streams[name] = _Open(stream, f"{os.getpid()}-{uuid.uuid4().hex}", self._clock())
        return one

    def _drop(self, name: str) -> None:
        one = self._streams.pop(name, None)
        if one is not None:
            one.stream.close()
            self._budget.release(name)

    def _reap(self) -> None:
        """Windows that nobody uses go, those used longest ago first."""
        before = self._clock() - self._idle_seconds
        while self._streams and next(iter(self._streams.values())).used < before:
            self._drop(next(iter(self._streams)))
