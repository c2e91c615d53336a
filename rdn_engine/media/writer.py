"""Frames out: an annotated video."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Self

import av
import numpy as np
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc, VideoReformatter
from av.video.stream import VideoStream

from rdn_engine.errors import VideoWriteError
from rdn_engine.frame import Image
from rdn_engine.media.base import reason
from rdn_engine.media.picture import is_hd

CONTAINERS = (".mp4", ".mkv", ".mov")
"""Those that keep the time of each frame, which AVI and bare H.264 do not"""

_TICKS = 60_000
"""Per second: the finest clock that MPEG-4 allows in a round number, exact for 25, 29.97, 30, 50 and 60 fps"""

_BT709, _BT601 = (Colorspace.ITU709, 1), (Colorspace.ITU601, 6)
"""A matrix as the scaler calls it, and its number in H.264 (ITU-T H.273, table 4)"""


class VideoWriter:
    """Writes RGB frames as H.264 where this build of PyAV has libx264, else as MPEG-4. Use it as a context manager.

    The first frame sets the size, later ones of another size are scaled into it with their aspect kept. An odd side
    gains one repeated row or column, as 4:2:0 needs even sides. Colours are limited range, by the matrix of BT.709 for
    HD and of BT.601 below, and tagged so. The video starts at 0, whatever the source's clock says.
    """

    def __init__(self, path: str | Path, fps: float | None = None) -> None:
        """Make the file. Its suffix says the container.

        Args:
            path: of a file, which is overwritten; .mp4, .mkv or .mov.
            fps: frames per second, of frames written without a time and where an epoch begins; None takes 25.

        Raises:
            VideoWriteError: for another container, or a path that cannot be written.
        """
        self.path = Path(path)
        rate = Fraction(fps or 25.0).limit_denominator(1001)
        self._clock = _Clock(max(1, round(_TICKS / rate)))
        self._encoding = self._failed = False
        self._size = (0, 0)
        self._matrix = _BT601
        self._scaler = VideoReformatter()
        """Kept, as setting one up takes longer than a frame does"""
        self._check_path()
        with self._writing():
            self._container = av.open(f"file:{self.path}", mode="w")
            codec = "libx264" if "libx264" in av.codecs_available else "mpeg4"
            stream = self._container.add_stream(codec, rate=rate)
        assert isinstance(stream, VideoStream)
        self._stream = stream

    def write(
        self, image: Image, pts: float | None = None, epoch: int = 0, pixel_aspect: Fraction = Fraction(1)
    ) -> None:
        """Append a frame.

        Args:
            image: uint8 [H, W, 3] RGB.
            pts: seconds on the source's clock; None takes one step of `fps` after the last frame. A time that is not
                later than the last one of its epoch is put right after it.
            epoch: grows where the source's clock begins anew (`Detections.epoch`). The first frame of an epoch comes
                one step of `fps` after the last one, whatever its time.
            pixel_aspect: width over height of a pixel when it is shown; the first frame's holds for all.

        Raises:
            VideoWriteError: for a frame that cannot be written, and for every later one.
        """
        if self._failed:
            raise self._refusal("an earlier frame was not")
        if not self._encoding:
            self._start(image.shape[0], image.shape[1], pixel_aspect)
        if image.shape[:2] != self._size:
            image = _fit(image, self._size)
        height, width = self._size
        if height % 2 or width % 2:
            image = np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        rgb = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
        with self._writing():
            # Said here: an encoder that is given RGB converts by BT.601 (findings/pyav_colour_tag_converts_nothing.sh).
            matrix, limited = self._matrix[0], ColorRange.MPEG
            frame = self._scaler.reformat(rgb, format="yuv420p", dst_colorspace=matrix, dst_color_range=limited)
            frame.pts, frame.time_base = self._clock.tick(pts, epoch), Fraction(1, _TICKS)
            self._container.mux(self._stream.encode(frame))

    def close(self) -> None:
        """Finish the file; calling it again does nothing.

        Raises:
            VideoWriteError: where the last frames or the index cannot be written, unless `write` said so before.
        """
        failed, encoding, self._encoding = self._failed, self._encoding, False
        try:
            with self._writing():
                if encoding and not failed:
                    self._container.mux(self._stream.encode())
        finally:
            with contextlib.suppress(VideoWriteError) if self._failed else contextlib.nullcontext(), self._writing():
                self._container.close()

    def _check_path(self) -> None:
        """Before any work is done: the file itself is opened with the first frame."""
        if self.path.suffix.lower() not in CONTAINERS:
            raise self._refusal(f"wanted a name that ends with {', '.join(CONTAINERS)}, which keep each frame's time")
        folder = self.path.absolute().parent
        if not folder.is_dir():
            raise self._refusal("its folder does not exist")
        if self.path.is_dir() or not os.access(self.path if self.path.exists() else folder, os.W_OK):
            raise self._refusal("it is a folder, or permission is denied")

    def _start(self, height: int, width: int, pixel_aspect: Fraction) -> None:
        stream, context = self._stream, self._stream.codec_context
        stream.width, stream.height, stream.pix_fmt = width + width % 2, height + height % 2, "yuv420p"
        context.time_base, context.sample_aspect_ratio = Fraction(1, _TICKS), pixel_aspect
        self._matrix = _BT709 if is_hd(height, width) else _BT601
        context.colorspace, context.color_range = self._matrix[1], ColorRange.MPEG
        context.color_primaries, context.color_trc = ColorPrimaries.BT709, ColorTrc.BT709
        with self._writing():
            self._container.start_encoding()
        self._encoding, self._size = True, (height, width)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Around what FFmpeg does with the file. After a failure it may crash on another packet, so there is none."""
        try:
            yield
        except (av.FFmpegError, OSError, ValueError) as error:
            self._failed = True
            raise self._refusal(reason(error) if isinstance(error, OSError) else str(error)) from None

    def _refusal(self, why: str) -> VideoWriteError:
        return VideoWriteError(f"{self.path} cannot be written: {why}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Clock:
    """Ticks of the annotated video from seconds of its source."""

    def __init__(self, step: int) -> None:
        self._step = step
        self._next, self._floor = 0, 0
        self._epoch = 0
        self._offset: int | None = None

    def tick(self, pts: float | None, epoch: int) -> int:
        """The next frame's; 0 for the first."""
        tick = self._next
        if pts is not None:
            source = round(pts * _TICKS)
            if self._offset is None or epoch != self._epoch:
                self._epoch, self._offset = epoch, self._next - source
            tick = max(source + self._offset, self._floor)
        self._next, self._floor = tick + self._step, tick + 1
        return tick


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
