"""Frames out: an annotated video."""

from __future__ import annotations

import contextlib
import numbers
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
from rdn_engine.plain import is_finite, shown

CONTAINERS = (".mp4", ".mkv", ".mov")
"""Those that keep the time of each frame, which AVI and bare H.264 do not"""

_TICKS = 60_000
"""Per second: the finest clock that MPEG-4 allows in a round number, exact for 25, 29.97, 30, 50 and 60 fps"""

_LEAST_GAP = _TICKS // 1000
"""Matroska counts milliseconds, and so does the edit list of MP4, by which a shorter video has no frame"""

_LONGEST_GAP = 3600 * _TICKS
"""MP4 and MOV hold 9.9 hours between two frames (2^31 ticks)"""

_LONGEST_SIDE = 16384
"""Pixels, of libx264; FFmpeg's MPEG-4 takes fewer, and refuses more itself"""

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
            fps: frames per second, above 0, of frames written without a time and where an epoch begins; None takes 25.
                Less than one in an hour counts as one in an hour, more than 1000 as 1000.

        Raises:
            VideoWriteError: for another container, a path that cannot be written, or another `fps`.
        """
        self.path = Path(path)
        if not is_finite(fps := 25.0 if fps is None else fps) or fps <= 0:
            raise self._refusal(f"fps is {shown(fps):.80}; wanted a finite number above 0")
        rate = Fraction(min(max(fps, _TICKS / _LONGEST_GAP), _TICKS / _LEAST_GAP)).limit_denominator(3600)
        self._clock = _Clock(round(_TICKS / rate))
        self._encoding = self._failed = self._closed = False
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
            image: uint8 [H, W, 3] RGB, with sides from 1 to 16384 (MPEG-4 takes less).
            pts: seconds on the source's clock, finite; None takes one step of `fps` after the last frame. A frame
                comes at least 1 ms after the last one. One that would come more than an hour after it comes one step of
                `fps` after it, and those behind it follow in their own time.
            epoch: grows where the source's clock begins anew (`Detections.epoch`). The first frame of an epoch comes
                one step of `fps` after the last one, whatever its time.
            pixel_aspect: width over height of a pixel when it is shown, above 0, a fraction of two numbers below 2^31;
                the first frame's holds for all.

        Raises:
            VideoWriteError: for what is no such frame, which leaves the video as it was; for a frame that cannot be
                written, and then for every later one; behind `close`.
        """
        if self._failed:
            raise self._refusal("an earlier frame was not")
        if self._closed:
            raise self._refusal("it was closed; wanted an open one for another frame")
        self._check_frame(image, pts, pixel_aspect)
        if not self._encoding:
            self._start(image.shape[0], image.shape[1], pixel_aspect)
        if image.shape[:2] != self._size:
            image = _fit(image, self._size)
        height, width = self._size
        if height % 2 or width % 2:
            image = np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        with self._writing():
            rgb = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
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
        failed, encoding, self._encoding, self._closed = self._failed, self._encoding, False, True
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
        if "\0" in str(self.path):
            raise self._refusal("its name holds a zero byte")
        folder = self.path.absolute().parent
        with self._writing():  # the name may be too long, or a folder on the way closed
            found, is_folder, is_there = folder.is_dir(), self.path.is_dir(), self.path.exists()
        if not found:
            raise self._refusal("its folder does not exist")
        if is_folder or not os.access(self.path if is_there else folder, os.W_OK):
            raise self._refusal("it is a folder, or permission is denied")

    def _check_frame(self, image: Image, pts: float | None, pixel_aspect: Fraction) -> None:
        """Before FFmpeg sees any of it."""
        shape = image.shape if isinstance(image, np.ndarray) and image.dtype == np.uint8 else ()
        if len(shape) != 3 or shape[2] != 3 or not 1 <= min(shape[:2]) <= max(shape[:2]) <= _LONGEST_SIDE:
            kind = getattr(image, "dtype", type(image).__name__)
            wanted = f"uint8 [H, W, 3] with sides of 1..{_LONGEST_SIDE} pixels"
            raise self._refusal(f"a frame is {kind} {getattr(image, 'shape', '')}; wanted {wanted}")
        if pts is not None and not is_finite(pts):
            raise self._refusal(f"pts is {shown(pts):.80}; wanted finite seconds, or None")
        aspect = pixel_aspect if isinstance(pixel_aspect, numbers.Rational) else Fraction()
        if not 0 < aspect.numerator < 2**31 or aspect.denominator >= 2**31:
            raise self._refusal(
                f"pixel_aspect is {shown(pixel_aspect):.80}; wanted a Fraction of numbers in 1..2^31 - 1"
            )

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
        self._epoch: int | None = None
        self._offset = 0

    def tick(self, pts: float | None, epoch: int) -> int:
        """The next frame's; 0 for the first."""
        tick = self._next
        if pts is not None:
            source = round(Fraction(float(pts)) * _TICKS)
            if epoch != self._epoch or source + self._offset - self._floor >= _LONGEST_GAP:
                self._epoch, self._offset = epoch, self._next - source
            tick = max(source + self._offset, self._floor)
        self._next, self._floor = tick + self._step, tick + _LEAST_GAP
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
