"""The windows that a server keeps for streams of its clients, none of which is ever taken for another.

A stream's window is state. A router may send the stream's next frame to a server that does not have it, a server may
give the window up or be started again, an answer may be lost and nobody knows whether the frame was taken. So each
window has a number of its own, its session, that the client repeats with every request, and it counts its frames. A
frame that comes with another session, or out of its turn, begins a new window, and the reply says so: no window ever
holds frames that its client does not know to be there.

How a request comes here is the part of Triton (`serve.triton.model`) and of Ray Serve (`serve.ray.deployment`).
"""

from __future__ import annotations

import os
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from rdn_engine.config import Dials
from rdn_engine.detector import Detector
from rdn_engine.errors import AdmissionRefused, FrameError, RDNError
from rdn_engine.frame import Frame
from rdn_engine.results import Detections
from rdn_engine.serve.admission import MemoryBudget, StreamCost, stream_cost
from rdn_engine.serve.options import StreamOptions
from rdn_engine.stream.base import Stream

_CHANCE_BITS = 40
_NO_QUEUE = StreamOptions(results=1)  # a request waits for its results itself


@dataclass(frozen=True)
class Request:
    """What a client sends of one stream: its next frames, its end, both, or neither to keep its window."""

    stream: str | int
    """Its name, unlike that of any other of the server; the number 5 is another one than the text '5'"""
    session: int | None = None
    """Of the window that the client knows; None gives up whatever there is"""
    number: int = 0
    """How many frames the client knows to be in that window's stream"""
    frames: tuple[Frame, ...] = ()
    end: bool = False
    """Whether the stream ends behind these frames"""


@dataclass(frozen=True)
class Reply:
    """What becomes of a request."""

    session: int | None
    """Of the window that has the frames, above 0: another one than the request's began with them. None where no window
    has them"""
    taken: int = 0
    """How many of the frames are in the window"""
    results: tuple[Detections, ...] = ()
    """Those that became ready, as of `Stream.push`, and at the end of `Stream.flush`"""
    error: RDNError | None = None
    """Why the next frame was not taken"""


@dataclass
class _Window:
    stream: Stream
    session: int
    used: float


class Sessions:
    """Windows by the name of their stream. One thread at a time."""

    def __init__(
        self,
        detector: Detector[Any, Any],
        dials: Dials,
        *,
        max_streams: int | None = None,
        byte_budget: int | None = None,
        idle_seconds: float = 60.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """No stream yet.

        Args:
            detector: of all of them.
            dials: of every stream.
            max_streams: that may have a window at once; None for no bound.
            byte_budget: of all windows, bytes; None for no bound.
            idle_seconds: after which a window that nobody uses goes.
            clock: seconds.

        Raises:
            ConfigError: for dials that the model does not have, or that no live stream can have.
            AdmissionRefused: where the byte budget has no room for one stream.
        """
        self._detector, self._dials, self._clock = detector, dials, clock
        self._max_streams, self._idle_seconds = max_streams, idle_seconds
        self._budget = MemoryBudget(byte_budget)
        self._windows: OrderedDict[str | int, _Window] = OrderedDict()  # the one used longest ago first
        self._cost = self._cost_of_one()
        self._budget.reserve("one", self._cost)
        self._budget.release("one")

    def __len__(self) -> int:
        return len(self._windows)

    @property
    def nbytes(self) -> int:
        """Bytes that the windows may hold."""
        return self._budget.taken

    def step(self, requests: Sequence[Request]) -> list[Reply]:
        """Answer requests, the frames of their streams encoded together where that is faster.

        Args:
            requests: in order. Of a stream that has several, one is answered after the other.

        Returns:
            A reply to each; no failure of a stream is raised, and none is another's. Its error is
            a FrameError for a frame that is no image: the window is as it was before the frame;
            an AdmissionRefused, where there is no room for the stream, those that end in the same step included: it has
            no window;
            an RDNError where a stage failed: what the window holds of the frame is not known, and the stream has none.
        """
        replies: dict[int, Reply] = {}
        left = dict(enumerate(requests))
        while left:
            turn: dict[str | int, int] = {}  # of each stream the first
            for place, request in left.items():
                turn.setdefault(request.stream, place)
            places = list(turn.values())
            answered = dict(zip(places, self._round([left[place] for place in places]), strict=True))
            refused = {place for place, reply in answered.items() if isinstance(reply.error, AdmissionRefused)}
            if all(left[place].stream in self._windows for place in answered.keys() - refused):
                refused.clear()  # none has ended beside them, whose place they could have
            left = {place: request for place, request in left.items() if place not in answered or place in refused}
            replies |= answered
        return [replies[place] for place in range(len(requests))]

    def warm_up(self, rounds: int, streams: int) -> None:
        """Push empty pictures through streams, and end them: memory is allocated, ways to encode are compared.

        Args:
            rounds: frames of each.
            streams: at once.

        Raises:
            RDNError: where a stage fails.
        """
        given = self._detector.config.input
        picture = np.zeros((given.shorter_side, given.longer_side, 3), np.uint8)
        opened = [self._detector.open_stream(self._dials) for _ in range(streams)]
        for _ in range(rounds):
            for found in self._detector.push_each(opened, [picture] * streams):
                if isinstance(found, Exception):
                    raise found
        for stream in opened:
            stream.flush()
            stream.close()

    def close(self) -> None:
        """Give up every window."""
        for name in list(self._windows):
            self._drop(name)

    def _round(self, requests: Sequence[Request]) -> list[Reply]:
        """Answer requests of different streams."""
        now = self._clock()
        self._expire(now)
        replies = [self._find(request, now) for request in requests]
        for nth in range(max(len(request.frames) for request in requests)):
            given = [i for i, one in enumerate(requests) if nth < len(one.frames) and replies[i].error is None]
            streams = [self._windows[requests[i].stream].stream for i in given]
            ready = self._detector.push_each(streams, [requests[i].frames[nth] for i in given])
            for i, found in zip(given, ready, strict=True):
                replies[i] = self._pushed(requests[i].stream, replies[i], found)
        return [self._end(one, reply) if one.end else reply for one, reply in zip(requests, replies, strict=True)]

    def _find(self, request: Request, now: float) -> Reply:
        """The window that a request goes on with, or, where it has frames, begins."""
        window = self._windows.get(request.stream)
        if window is not None and (window.session, window.stream.accepted) == (request.session, request.number):
            window.used = now
            self._windows.move_to_end(request.stream)
            return Reply(window.session)
        if request.frames or request.session is None:
            self._drop(request.stream)
        if not request.frames:
            return Reply(None)
        try:
            return Reply(self._admit(request.stream, now))
        except Exception as error:
            return Reply(None, error=_typed(error))

    def _admit(self, name: str | int, now: float) -> int:
        """A new window; its session."""
        if self._max_streams is not None and len(self._windows) >= self._max_streams:
            raise AdmissionRefused(
                f"stream {name!r} is one more than the {self._max_streams} that may be open: end one, or try again "
                f"after {self._idle_seconds:g} s, when idle ones are forgotten",
                wanted=self._cost.total,
                left=0,
            )
        self._budget.reserve(name, self._cost)
        try:
            stream = self._detector.open_stream(self._dials, source_id=str(name))
        except BaseException:
            self._budget.release(name)
            raise
        session = os.getpid() << _CHANCE_BITS | secrets.randbits(_CHANCE_BITS)
        self._windows[name] = _Window(stream, session, now)
        return session

    def _pushed(self, name: str | int, reply: Reply, found: list[Detections] | Exception) -> Reply:
        if not isinstance(found, Exception):
            return replace(reply, taken=reply.taken + 1, results=(*reply.results, *found))
        if isinstance(found, FrameError) and self._windows[name].stream.accepted:
            return replace(reply, error=found)
        self._drop(name)
        return Reply(None, error=_typed(found))

    def _end(self, request: Request, reply: Reply) -> Reply:
        if reply.session is None:
            return reply
        try:
            if reply.error is None:
                rest = self._windows[request.stream].stream.flush()
                reply = replace(reply, results=(*reply.results, *rest))
        except Exception as error:
            reply = Reply(None, error=_typed(error))
        self._drop(request.stream)
        return reply

    def _cost_of_one(self) -> StreamCost:
        config = self._detector.config
        features = 0 if config.alone or config.cosine_score else config.relation.dim
        with self._detector.open_stream(self._dials) as stream:
            most_boxes = config.detection.max_detections
            cost = stream_cost(stream, self._dials, most_boxes, _NO_QUEUE, features=features)
        return replace(cost, thread=0)

    def _expire(self, now: float) -> None:
        """Windows that nobody uses go."""
        for name, window in list(self._windows.items()):
            if now - window.used < self._idle_seconds:
                return
            self._drop(name)

    def _drop(self, name: str | int) -> None:
        window = self._windows.pop(name, None)
        if window is not None:
            window.stream.close()
            self._budget.release(name)


def process_of(session: int) -> int:
    """The process that has a window, on its machine. The rest of a session is chance: no two servers have the same.

    Args:
        session: of a reply.
    """
    return session >> _CHANCE_BITS


def _typed(error: Exception) -> RDNError:
    """An error that a client can be told: those of libraries need not be there."""
    return error if isinstance(error, RDNError) else RDNError(f"{type(error).__name__}: {error}")
