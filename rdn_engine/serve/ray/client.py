"""A stream whose window is on a replica, and may be moved: its results say when the window began anew."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from rdn_engine.errors import AdmissionRefused, FrameError, Overloaded, RDNError, ServerUnavailable
from rdn_engine.frame import Frame, Image
from rdn_engine.plain import check
from rdn_engine.results import Detections
from rdn_engine.serve.ray.cluster import job_failed, ray_module
from rdn_engine.serve.ray.sessions import Call, Reply

_log = logging.getLogger("rdn_engine.serve")
_AGAIN_SECONDS = 0.1
"""Between two attempts while no replica answers"""


class RayStream:
    """A stream whose window is somewhere else. As `Stream`: `push` frames, `flush` at the end; one thread at a time.

    Where the window is lost, because its replica died or the router moved the session, the next frame begins another:
    `epoch` of its results is higher, and `lost` counts the frames that get no result any more.
    """

    def __init__(self, call: Callable[[Call], Reply], name: str) -> None:
        """Nothing is sent yet.

        Args:
            call: sends to the replica that has the stream; `ray_call` makes one.
            name: of the stream, unlike that of any other of the application; what results call their source.
        """
        self._call, self.name = call, name
        self._session: str | None = None
        self._number = 0  # frames in that window's stream
        self._pushed = 0
        self._waiting = 0
        self._ready: list[Detections] = []
        self._base = -1  # epoch of the window's first
        self.epoch = 0
        """Of the newest window: grows with every one that begins anew"""
        self.lost = 0
        """Frames that were taken and get no result, because their window is lost"""
        self.moves = 0
        """How often a window was lost"""

    def push(self, frame: Image | Frame, pts: float | None = None) -> list[Detections]:
        """Send the next frame.

        Args:
            frame, pts: as `Stream.push`.

        Returns:
            As `Stream.push`: the results that became ready.

        Raises:
            FrameError: for what is no image.
            Overloaded, AdmissionRefused: where the server does not take the frame, at once; the next may be taken.
            ServerUnavailable: where no replica answers in time. What became of the frame is not known, and the next
                frame begins a new window.
            RDNError: where a stage failed; the next frame begins a new window.
        """
        if not isinstance(frame, Frame):
            frame = Frame(frame, self._pushed, pts, self.name)
        return self.push_many([frame])

    def push_many(self, frames: Sequence[Image | Frame]) -> list[Detections]:
        """Send the next frames in one call, which costs little more than that of one frame.

        Args:
            frames: as `push` takes them, in order, one or more.

        Returns:
            As `push`. Where a later one of the frames is refused, those before it are taken, and their results come
            with the next frames.

        Raises:
            FrameError, Overloaded, AdmissionRefused, ServerUnavailable, RDNError: as `push`.
        """
        check(len(frames) > 0, "frames", frames, "one or more")
        given = (
            one if isinstance(one, Frame) else Frame(one, self._pushed + i, None, self.name)
            for i, one in enumerate(frames)
        )
        reply = self._call(Call(self.name, self._session, self._number, tuple(given)))
        if reply.refusal == "overloaded":
            raise _refused(reply)
        if reply.session is None or reply.began:
            self._lose()
        if reply.began:
            self._base = self.epoch = self.epoch + 1 if self._base >= 0 else 0
        self._session = reply.session
        self._number += reply.taken
        self._pushed += reply.taken
        self._waiting += reply.taken
        self._ready += self._taken(reply)
        if reply.refusal is not None:
            raise _refused(reply)
        ready, self._ready = self._ready, []
        return ready

    def flush(self) -> list[Detections]:
        """End the window.

        Returns:
            The results still to come; none where the window is lost.

        Raises:
            ServerUnavailable, Overloaded, RDNError: as `push`.
        """
        if self._session is not None:
            reply = self._call(Call(self.name, self._session, self._number, ()))
            if reply.refusal == "overloaded":
                raise _refused(reply)
            if reply.session is None:
                self._lose()
            if reply.refusal is not None:
                raise _refused(reply)
            self._ready += self._taken(reply)
        self._session, self._number = None, 0
        ready, self._ready = self._ready, []
        return ready

    def _taken(self, reply: Reply) -> list[Detections]:
        results = [replace(one, epoch=self._base + one.epoch) for one in reply.results]
        self._waiting -= len(results)
        self.epoch = max([self.epoch, *(one.epoch for one in results)])
        return results

    def _lose(self) -> None:
        """The window that there was, if any, is gone."""
        if self._session is not None:
            _log.warning("stream %s: its window is lost, and %d results with it", self.name, self._waiting)
            self.moves += 1
            self.lost += self._waiting
        self._waiting, self._session, self._number = 0, None, 0


def ray_call(app: str, name: str, *, timeout: float = 30.0) -> Callable[[Call], Reply]:
    """Send to an application of `rdn_engine.serve.ray.deployment` over its handle.

    Args:
        app: name of the application, on the cluster that this process is connected to.
        name: of the stream, which the router keeps on its replica.
        timeout: seconds for an answer, those included in which a dead replica is replaced.

    Returns:
        What `RayStream` takes.

    Raises:
        BackendUnavailable: without Ray Serve.
    """
    ray = ray_module("serve")
    handle: Any = ray.serve.get_app_handle(app).options(session_id=name)
    from ray.serve.exceptions import BackPressureError, RayServeException

    def call(one: Call) -> Reply:
        end = time.monotonic() + timeout
        while True:
            try:
                reply: Reply = handle.call.remote(one).result(timeout_s=max(end - time.monotonic(), 0.001))
                return reply
            except BackPressureError as error:
                return Reply(one.session, refusal="overloaded", message=str(error))
            except TimeoutError:
                raise ServerUnavailable(f"stream {name}: no answer in {timeout:g} s") from None
            except (ray.exceptions.RayActorError, RayServeException) as error:
                # A replica died; the frame may be in a window there, and is not in the one that takes it now.
                if time.monotonic() + _AGAIN_SECONDS > end:
                    raise ServerUnavailable(f"stream {name}: no replica answers in {timeout:g} s: {error}") from error
                time.sleep(_AGAIN_SECONDS)
            except ray.exceptions.RayError as error:
                raise job_failed(error) from error

    return call


def _refused(reply: Reply) -> RDNError:
    if reply.refusal == "overloaded":
        return Overloaded(reply.message)
    if reply.refusal == "no room":
        return AdmissionRefused(reply.message, wanted=0, left=0)
    return FrameError(reply.message) if reply.refusal == "frame" else RDNError(reply.message)
