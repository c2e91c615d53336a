"""A stream whose window is on a server (`serve.sessions`): what it gets says when that window began anew."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Sequence
from dataclasses import replace
from types import TracebackType
from typing import Protocol, Self

from rdn_engine.errors import AdmissionRefused, FrameError, Overloaded, RDNError, ServerUnavailable
from rdn_engine.frame import Frame, Image
from rdn_engine.plain import LONGEST_WAIT, check, is_finite
from rdn_engine.results import Detections
from rdn_engine.serve.sessions import Reply, Request

_log = logging.getLogger("rdn_engine.serve")
_AGAIN_SECONDS = 0.1
"""Between two attempts while no server answers"""
_CLOSE_SECONDS = 1.0
"""That `close` waits for a server that is not there; it forgets the stream by itself"""
_NOT_TAKEN = AdmissionRefused, FrameError, Overloaded
"""What says that a frame is in no window"""


class Transport(Protocol):
    """The way of one stream's requests to the server that has its window."""

    many: bool
    """Whether a request may have several frames"""

    def send(self, request: Request, seconds: float) -> Reply:
        """One attempt. A request may be sent again: a server that has its frames sees that by their number.

        Args:
            request: of the stream.
            seconds: to wait for the reply.

        Raises:
            ServerUnavailable: for no reply in time; another attempt may have one.
            RDNError: for an answer that is none of a `Sessions`.
        """

    def close(self) -> None:
        """End the connection."""


class RemoteStream:
    """One video: frames go in with `push`, results come out in order, as of `Stream`. One thread at a time.

    Where the server has lost the window, because it was started again, gave up a stream that was idle, or a router went
    to another server, the next frame begins another: `epoch` of its results is higher, and `lost` counts the frames
    that get no result any more.
    """

    def __init__(self, transport: Transport, name: str, *, timeout: float) -> None:
        """Nothing is sent yet.

        Args:
            transport: to the server; `serve.triton.client` and `serve.ray.client` make one.
            name: of the stream, unlike that of any other of the server; what results call their source.
            timeout: seconds that a call may take, those in which a server is started again included.

        Raises:
            ConfigError: for a timeout out of its range.
        """
        check(is_finite(timeout) and 0 < timeout <= LONGEST_WAIT, "timeout", timeout, f"seconds, 0..{LONGEST_WAIT:g}")
        self._transport, self.name, self._timeout = transport, name, timeout
        self._session: int | None = None
        self._number = 0  # frames in that window's stream
        self._pushed = 0
        self._waiting = 0
        self._ready: list[Detections] = []
        self._base = -1  # epoch of the window's first
        self.epoch = 0
        """Of the newest window: grows with every one that begins anew"""
        self.lost = 0
        """Frames without a result: those that a lost window had, and those of which nobody knows whether it had them"""
        self.windows_lost = 0

    def push(self, frame: Image | Frame, pts: float | None = None) -> list[Detections]:
        """Send the next frame.

        Args:
            frame, pts: as `Stream.push`.

        Returns:
            As `Stream.push`: the results that became ready.

        Raises:
            FrameError: for what is no image; the window is as it was.
            AdmissionRefused: the server has no room for the stream; the next push asks again.
            Overloaded: the server has no time for the frame; the window is as it was, and the next push may be taken.
            ServerUnavailable: no server answers in time. What became of the frame is not known, and it gets no result;
                where it is in the window, the next push begins another.
            RDNError: a stage failed there. The next push begins a new window.
        """
        return self.push_many([frame if isinstance(frame, Frame) else Frame(frame, self._pushed, pts, self.name)])

    def push_many(self, frames: Sequence[Image | Frame]) -> list[Detections]:
        """Send the next frames, in one call where the server takes several: it costs little more than that of one.

        Args:
            frames: as `push` takes them, in order, one or more.

        Returns:
            As `push`. Where a later one of the frames is refused, those before it are taken, and their results come
            with the next frames.

        Raises:
            FrameError, AdmissionRefused, Overloaded, ServerUnavailable, RDNError: as `push`.
        """
        check(len(frames) > 0, "frames", frames, "one or more")
        given = [
            one if isinstance(one, Frame) else Frame(one, self._pushed + i, None, self.name)
            for i, one in enumerate(frames)
        ]
        for part in [given] if self._transport.many else [[one] for one in given]:
            self._ask(tuple(part))
        return self._taken()

    def flush(self) -> list[Detections]:
        """End the window.

        Returns:
            The results still to come; none where the window is lost, which `lost` says.

        Raises:
            ServerUnavailable, RDNError: as `push`.
        """
        if self._session is not None:
            self._ask(end=True)
        self._session, self._number = None, 0
        return self._taken()

    def close(self) -> None:
        """Give up the window without its results, and the connection."""
        with contextlib.suppress(RDNError):
            if self._session is not None:
                self._transport.send(Request(self.name, end=True), min(self._timeout, _CLOSE_SECONDS))
        self._session = None
        self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _ask(self, frames: tuple[Frame, ...] = (), *, end: bool = False) -> None:
        """Send, and learn from the reply which window there is now."""
        request = Request(self.name, self._session, self._number, frames, end)
        try:
            reply = self._send(request)
        except RDNError:
            # If they are in the window, it counts more frames there than this side does, and is not gone on with.
            self.lost += len(frames)
            raise
        if reply.session != self._session:
            self._lose()
            self._session = reply.session
            if reply.session is not None:
                self._base = self.epoch = self.epoch + 1 if self._base >= 0 else 0
        results = [replace(one, epoch=self._base + one.epoch) for one in reply.results]
        self._number += reply.taken
        self._pushed += reply.taken
        self._waiting += reply.taken - len(results)
        self._ready += results
        self.epoch = max([self.epoch, *(one.epoch for one in results)])
        if reply.error is not None:
            self.lost += 0 if isinstance(reply.error, _NOT_TAKEN) else len(frames)
            raise reply.error

    def _send(self, request: Request) -> Reply:
        end = time.monotonic() + self._timeout
        while True:
            try:
                return self._transport.send(request, max(end - time.monotonic(), 1e-3))
            except ServerUnavailable:
                if time.monotonic() + _AGAIN_SECONDS >= end:
                    raise
                time.sleep(_AGAIN_SECONDS)

    def _taken(self) -> list[Detections]:
        ready, self._ready = self._ready, []
        return ready

    def _lose(self) -> None:
        """The window that there was, if any, is gone."""
        if self._session is not None:
            _log.warning("stream %s: its window is lost, and %d results with it", self.name, self._waiting)
            self.windows_lost += 1
            self.lost += self._waiting
        self._waiting = self._number = 0
