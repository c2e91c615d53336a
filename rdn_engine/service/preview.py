"""What a stream's results look like: now and then a small picture with its boxes, for people."""

from __future__ import annotations

import io
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import PIL.Image

from rdn_engine.errors import FrameError
from rdn_engine.frame import Frame, Image, check_image
from rdn_engine.media.draw import annotate
from rdn_engine.plain import check_fields
from rdn_engine.results import Detections
from rdn_engine.service.camera import CameraChecks, CameraFlag, CheckOptions, small_grey
from rdn_engine.stream.order import aspect, position


@dataclass(frozen=True)
class PreviewOptions:
    """Of the pictures that people look at, and of the checks of a camera."""

    side: int = 640
    """Pixels of a picture's longer side at most"""
    pictures_per_second: float = 4.0
    """That are kept at most, while somebody looks"""
    idle_pictures_per_second: float = 0.2
    """That are kept at most, while nobody looks: a camera that goes dark then has a last picture"""
    checks_per_second: float = 2.0
    """Frames that the checks look at, at most, whether somebody looks or not"""
    interest_seconds: float = 10.0
    """How long after the last picture was asked for somebody is taken to look"""
    room: int = 16
    """Pictures that may wait for their results, 1 or more"""
    min_confidence: float = 0.5
    """Boxes below are not drawn"""
    quality: int = 80
    """Of the JPEG, 1..95"""
    checks: CheckOptions = field(default_factory=CheckOptions)
    """Of a dark, frozen or shifted camera"""

    def __post_init__(self) -> None:
        check_fields(
            self, "preview", side=(64, 4096), pictures_per_second=(0.01, 100), idle_pictures_per_second=(0.01, 100),
            checks_per_second=(0.01, 100),
            interest_seconds=(0.1, 1e6), room=(1, 1024), min_confidence=(0, 1), quality=(1, 95),
        )  # fmt: skip


@dataclass
class _Shown:
    """The newest picture that has its result; drawn when it is asked for."""

    image: Image
    result: Detections
    since: float
    """When it came to be the newest, seconds of the clock"""
    drawn: dict[int, bytes] = field(default_factory=dict)
    """JPEG by side, pixels"""


class Preview:
    """The small pictures of one stream. Each method from any thread; `see` and `show` each in order."""

    def __init__(
        self, name: str, *, clock: Callable[[], float] = time.monotonic, options: PreviewOptions | None = None
    ) -> None:
        """Nothing has been seen, and nobody looks.

        Args:
            name: of the stream.
            clock: seconds, of any beginning.
            options: None for the defaults.
        """
        self.name = name
        self._clock = clock
        self._options = options or PreviewOptions()
        self._lock = threading.Lock()
        self._drawing = threading.Lock()
        """Held while a picture is drawn, so that several people who look cost no more than one"""
        self._checking = threading.Lock()
        self._checks = CameraChecks(self._options.checks)
        self._waiting: deque[tuple[int, Image]] = deque()
        """Positions in the source and small pictures of frames whose results are still to come"""
        self._shown: _Shown | None = None
        self._interest = self._next_check = self._next_picture = -float("inf")

    @property
    def flags(self) -> tuple[CameraFlag, ...]:
        """What is wrong with the camera now."""
        with self._checking:
            return self._checks.flags

    def accept_view(self) -> None:
        """Take what the camera shows from now on as right: it is no longer shifted."""
        with self._checking:
            self._checks.accept_view()

    def see(self, frame: Frame) -> None:
        """Look at a frame that is about to be detected on. Of most frames nothing is read.

        Args:
            frame: as the stream gets it; what the stream will refuse is passed over.
        """
        now = self._clock()
        check, keep = now >= self._next_check, now >= self._next_picture
        if not (check or keep) or not _is_image(frame):
            return
        if check:
            self._next_check = now + 1 / self._options.checks_per_second
            grey = small_grey(frame.image)
            with self._checking:
                self._checks.see(grey, now)
        if not keep:
            return
        with self._lock:
            if self._waiting and frame.index <= self._waiting[-1][0]:
                self._waiting.clear()  # the source counts anew, and results of what was before have come
            if len(self._waiting) >= self._options.room:
                return  # the oldest one is nearest to its result
        options = self._options
        rate = options.pictures_per_second if now < self._interest else options.idle_pictures_per_second
        self._next_picture = now + 1 / rate
        small = shrink(frame.image, frame.pixel_aspect, self._options.side)
        with self._lock:
            self._waiting.append((frame.index, small))

    def show(self, result: Detections) -> None:
        """Take the result of a frame.

        Args:
            result: of this stream, in order.
        """
        now = self._clock()
        with self._lock:
            # Results come in order: what is older than this one was refused, or given up, and gets none.
            while self._waiting and self._waiting[0][0] < result.frame_index:
                self._waiting.popleft()
            if self._waiting and self._waiting[0][0] == result.frame_index:
                self._shown = _Shown(self._waiting.popleft()[1], result, now)
            elif self._shown is not None and now - self._shown.since > self._options.interest_seconds:
                self._shown = None  # results go on, and an old picture beside them would be taken for new

    def jpeg(self, side: int | None = None) -> bytes | None:
        """The newest picture with its detections drawn. Asking is what makes pictures be kept for a while.

        It draws and encodes, some milliseconds, in the thread that asks: not in one that must not wait.

        Args:
            side: pixels of the longer side at most, of what a tile of a page needs; None for that of the options.
                Rounded up to a quarter or a half of that, so that few sizes are drawn.

        Returns:
            A JPEG; None where there is no picture yet.
        """
        now = self._clock()
        with self._lock:
            if now >= self._interest:
                self._next_picture = now  # not when the next one is due for nobody
            self._interest = now + self._options.interest_seconds
            shown = self._shown
        if shown is None:
            return None
        whole = self._options.side
        wanted = next((part for part in (whole // 4, whole // 2) if side is not None and side <= part), whole)
        with self._drawing:
            if wanted not in shown.drawn:
                shown.drawn[wanted] = _encoded(
                    draw(shrink(shown.image, 1.0, wanted), shown.result, self._options.min_confidence),
                    self._options.quality,
                )
            return shown.drawn[wanted]


def _is_image(frame: Frame) -> bool:
    try:
        check_image(frame.image)
        position(frame.index)
        aspect(frame.pixel_aspect)
    except FrameError:
        return False
    return True


def shrink(image: Image, pixel_aspect: float, side: int) -> Image:
    """A small copy of a picture as it is to be shown, with square pixels.

    Args:
        image: uint8 [H, W, 3] RGB.
        pixel_aspect: width over height of its pixels.
        side: pixels of the longer side at most.

    Returns:
        uint8 [h, w, 3] RGB.
    """
    height, width = image.shape[:2]
    shown = width * pixel_aspect
    scale = min(1.0, side / max(height, shown))
    size = max(1, round(shown * scale)), max(1, round(height * scale))
    if size == (width, height):
        return image.copy()  # the frame is the caller's, and may be written to
    resampled = PIL.Image.fromarray(image).resize(size, PIL.Image.Resampling.BILINEAR, reducing_gap=1.0)
    return np.asarray(resampled)


def draw(small: Image, result: Detections, min_confidence: float) -> Image:
    """Detections on a small copy of their frame.

    Args:
        small: uint8 [h, w, 3] RGB, of the whole frame.
        result: with boxes in pixels of the frame.
        min_confidence: in 0..1; boxes below are not drawn.

    Returns:
        uint8 [h, w, 3] RGB.
    """
    across, down = small.shape[1] / result.width, small.shape[0] / result.height
    boxes = result.xyxy * np.array([across, down, across, down], np.float32)
    return annotate(small, replace(result, xyxy=boxes), min_confidence)


def _encoded(image: Image, quality: int) -> bytes:
    buffer = io.BytesIO()
    PIL.Image.fromarray(image).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()
