"""What every source of frames is: read once, closed when left, damage counted."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import Literal, Self

from rdn_engine.errors import VideoError
from rdn_engine.frame import Frame
from rdn_engine.plain import check_fields

TIMEOUT_SECONDS = 10.0
"""How long a network source may be silent by default."""

_log = logging.getLogger("rdn_engine.media")


@dataclass(frozen=True)
class SourceOptions:
    """How a source is read. What does not concern a source changes nothing in it."""

    timeout: float = TIMEOUT_SECONDS
    """Seconds, 0.001 or more, that a source on the network may be silent before it is given up"""
    video_stream: int | None = None
    """Which of several video streams, from 0 in the order of the file; None takes the default one"""
    deinterlace: bool = False
    """Make whole pictures of interlaced ones, one each (FFmpeg's bwdif)"""
    square_pixels: bool = False
    """Have the network see an anamorphic video as it is shown; pictures and boxes stay in stored pixels"""
    rtsp_over: Literal["tcp", "udp"] = "tcp"
    """What carries the pictures of an `rtsp://` address: UDP is a little sooner and loses packets"""
    camera_size: tuple[int, int] | None = None
    """Width and height in pixels that a video device is asked for; it may give the nearest that it has"""
    camera_fps: float | None = None
    """Frames per second that a video device is asked for, 0.1..1000"""
    camera_format: str | None = None
    """How a video device is to code its pictures, as FFmpeg names it: `mjpeg`, `yuyv422`, `h264`"""

    def __post_init__(self) -> None:
        """Check every value.

        Raises:
            ConfigError: says which is of another type or out of its range.
        """
        check_fields(
            self, "options", timeout=(1e-3, 1e6), video_stream=(0, 1e6), camera_size=(1, 2**15), camera_fps=(0.1, 1000)
        )


class VideoSource(ABC):
    """An iterable of `Frame`, and a context manager. It is read once: a second iteration raises `VideoError`.

    One frame is held at a time. Leaving the context, or the end of the iteration, closes what was opened. A frame that
    the decoder found damaged is skipped and counted. One that was only predicted from it comes as decoded, and is
    counted as doubtful, as are those after data that a container lost. Damage that neither container nor decoder
    notices goes unseen (CABAC, the arithmetic coding of H.264, has no check of its own).
    """

    def __init__(
        self, source_id: str, frames_hint: int | None, fps: float | None, files: tuple[Path, ...] = ()
    ) -> None:
        self.source_id = source_id
        """What frames say where they come from, without credentials"""
        self.files = files
        """The files that are read, so that nobody writes over them; empty for an address"""
        self.frames_hint = frames_hint
        """About how many frames will come, where the source says so; for progress bars"""
        self.fps = fps
        """Mean frames per second; None for images"""
        self.skipped = 0
        """Damaged frames met and left out so far"""
        self.doubtful = 0
        """Frames given so far although data was lost since the last key frame: what they show may be patched"""
        self.lost_packets = 0
        """RTP packets that never came, of a source over UDP; 0 where the transport says nothing of it"""
        self.pixel_aspect = Fraction(1)
        """Width over height of a pixel when it is shown; 1 where pixels are square or nothing is known"""
        self.warnings: list[str] = []
        """What a user should know of this source, one sentence each, in the order it was found; logged as well"""
        self.incomplete: str | None = None
        """Once the source has ended: what it promised and did not give; None where nothing is missing"""
        self._delivered = 0
        self._started = False
        self._closed = False
        self._reading = False
        self._lock = Lock()  # of the two above

    def __iter__(self) -> Iterator[Frame]:
        if self._started:
            raise VideoError(f"{self.source_id} was read or closed already; open it again to read it from the start")
        self._started = True
        return self._read()

    def _read(self) -> Iterator[Frame]:
        frames = self._frames()
        try:
            while (frame := self._next(frames)) is not None:
                self._delivered += 1
                yield frame
        finally:
            self.close()
        if self._delivered == 0:
            raise VideoError(f"{self.source_id}: no frame could be decoded ({self.skipped} damaged)")

    def _next(self, frames: Iterator[Frame]) -> Frame | None:
        with self._lock:
            closed = self._closed
            self._reading = not closed
        if closed:
            raise VideoError(f"{self.source_id} was closed after {self._delivered} frames; wanted an open source")
        try:
            return next(frames, None)
        finally:
            with self._lock:
                self._reading = False
                closed = self._closed
            if closed:
                self._release()

    def _warn(self, message: str) -> None:
        """Say something about this source, once."""
        if message not in self.warnings:
            self.warnings.append(message)
            _log.warning("%s: %s", self.source_id, message)

    @abstractmethod
    def _frames(self) -> Iterator[Frame]: ...

    def close(self) -> None:
        """Release the source; calling it again does nothing. Where another thread is reading a frame, that thread
        releases it once it has the frame: a decoder that loses its file meanwhile would end the process.
        """
        self._started = True
        with self._lock:
            if self._closed:
                return
            self._closed = True
            if self._reading:
                return
        self._release()

    def _release(self) -> None:  # noqa: B027  some have nothing open
        """Close what was opened; called once, and while nothing is read."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def reason(error: Exception) -> str:
    """Why PyAV or the system failed, without the address, which may hold credentials.

    Args:
        error: what was raised.
    """
    return getattr(error, "strerror", None) or type(error).__name__
