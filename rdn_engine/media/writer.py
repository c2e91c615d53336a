"""Frames out: an annotated video."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Self

import av
import numpy as np
from av.video.stream import VideoStream

from rdn_engine.errors import VideoError
from rdn_engine.frame import Image
from rdn_engine.media.base import reason

CONTAINERS = (".mp4", ".mkv", ".avi", ".mov")


class VideoWriter:
    """Writes RGB frames as H.264 where this build of PyAV has libx264, else as MPEG-4. Use it as a context manager.

    The first frame sets the size, later ones of another size are scaled into it with their aspect kept. An odd side
    gains one repeated row or column, as 4:2:0 needs even sides.
    """

    TICKS = 60_000
    """Per second: the finest clock that MPEG-4 allows in a round number, exact for 25, 29.97, 30, 50 and 60 fps"""

    def __init__(self, path: str | Path, fps: float | None = None) -> None:
        """Make the file. Its suffix says the container; without one it is MP4.

        Args:
            path: of a file, which is overwritten.
            fps: frames per second, of frames written without a time; None takes 25.

        Raises:
            VideoError: for a path that cannot be written, or a container that does not hold the codec.
        """
        self.path = Path(path)
        self._rate = Fraction(fps or 25.0).limit_denominator(1001)
        self._last_pts = -1
        self._encoding = False
        self._size = (0, 0)
        if not self.path.absolute().parent.is_dir():
            raise VideoError(f"{self.path} cannot be written: its folder does not exist")
        try:
            self._container = av.open(f"file:{self.path}", mode="w", format=None if self.path.suffix else "mp4")
        except (av.FFmpegError, OSError, ValueError) as error:
            raise self._refusal(error) from None
        codec = "libx264" if "libx264" in av.codecs_available else "mpeg4"
        try:
            # Here and not with the first frame, so that a container that cannot hold it is refused before any work.
            stream = self._container.add_stream(codec, rate=self._rate)
        except (av.FFmpegError, OSError, ValueError) as error:
            self._container.close()
            raise self._refusal(error) from None
        assert isinstance(stream, VideoStream)
        self._stream = stream

    def write(self, image: Image, pts: float | None = None) -> None:
        """Append a frame.

        Args:
            image: uint8 [H, W, 3] RGB.
            pts: seconds; None takes one step of `fps` after the last frame. A time that is not later than the last one
                is put right after it.

        Raises:
            VideoError: for a first frame that the container or the codec refuses.
        """
        height, width = image.shape[:2]
        if not self._encoding:
            self._start(height, width)
        if (height, width) != self._size:
            image = _fit(image, self._size)
        padding = ((0, self._size[0] % 2), (0, self._size[1] % 2), (0, 0))
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(np.pad(image, padding, mode="edge")), format="rgb24")
        step = max(1, round(self.TICKS / self._rate))
        wanted = round(pts * self.TICKS) if pts is not None else self._last_pts + step if self._last_pts >= 0 else 0
        self._last_pts = max(wanted, self._last_pts + 1)
        frame.pts, frame.time_base = self._last_pts, Fraction(1, self.TICKS)
        self._container.mux(self._stream.encode(frame))

    def close(self) -> None:
        """Finish the file; calling it again does nothing."""
        if self._encoding:
            self._container.mux(self._stream.encode())
            self._encoding = False
        self._container.close()

    def _start(self, height: int, width: int) -> None:
        stream = self._stream
        stream.width, stream.height, stream.pix_fmt = width + width % 2, height + height % 2, "yuv420p"
        stream.codec_context.time_base = Fraction(1, self.TICKS)
        try:
            self._container.start_encoding()
        except (av.FFmpegError, OSError, ValueError) as error:
            raise self._refusal(error) from None
        self._encoding, self._size = True, (height, width)

    def _refusal(self, error: Exception) -> VideoError:
        # A ValueError is about the container (FFmpeg's own invalid argument is one too); PyAV's say why only as text.
        why = reason(error) if isinstance(error, (av.FFmpegError, OSError)) else str(error)
        hint = f"; containers that work are {', '.join(CONTAINERS)}" if isinstance(error, ValueError) else ""
        return VideoError(f"{self.path} cannot be written: {why}{hint}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _fit(image: Image, size: tuple[int, int]) -> Image:
    """Scaled to fit into (height, width), centred on black."""
    height, width = image.shape[:2]
    scale = min(size[0] / height, size[1] / width)
    h, w = max(1, round(height * scale)), max(1, round(width * scale))
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
    top, left = (size[0] - h) // 2, (size[1] - w) // 2
    canvas = np.zeros((*size, 3), np.uint8)
    canvas[top : top + h, left : left + w] = frame.to_ndarray(format="rgb24", width=w, height=h)
    return canvas
