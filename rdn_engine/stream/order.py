"""Which frames of a video are due, and where an epoch begins: sizes and timestamps in, decisions out."""

from __future__ import annotations

import math
import operator
import statistics
from collections import deque
from typing import Literal, NamedTuple

from rdn_engine.capture import Capture
from rdn_engine.config import Dials
from rdn_engine.errors import FrameError

GAP_SECONDS = 2.0
"""A timestamp this far after the last one, in seconds, may be a jump."""
GAP_SPACINGS = 10.0
"""It is one where the gap is also this many times the median spacing of the latest frames."""
_SPACINGS_KEPT = 31
_WIDEST = 16.0


Role = Literal["encoded", "still", "between"]
"""What becomes of a frame: a step is `encoded`, or `still` where it takes what was found in the last encoded frame; a
frame `between` two steps gets its boxes from theirs"""


class FrameInfo(NamedTuple):
    """What is known of a frame before anything is computed from it."""

    frame_index: int
    """Position in its source, from 0."""
    pts: float | None
    """Seconds on the source's clock; None where the source has none."""
    source_id: str
    """What results say where the frame comes from."""
    height: int
    """Pixels."""
    width: int
    """Pixels."""
    pixel_aspect: float = 1.0
    """Width over height of a pixel, that the network is to see as square."""
    capture: Capture | None = None
    """How it was come by; None where it comes from no live source."""

    @property
    def size(self) -> tuple[int, int]:
        """(height, width), pixels."""
        return self.height, self.width

    @property
    def geometry(self) -> tuple[int, int, float]:
        """Height and width in pixels, and the aspect of a pixel: what all frames of an epoch have in common."""
        return self.height, self.width, self.pixel_aspect


class Due(NamedTuple):
    """A step whose result is to be computed now."""

    number: int
    """Among the encoded frames of its epoch, from 0; of a still one, the number of the encoded frame before it."""
    info: FrameInfo
    """What is known of it."""
    step: int
    """Its number among the steps of its epoch, from 0: the same where none is still."""
    still: bool
    """Whether it takes what was found in frame `number`."""


class FrameOrder:
    """The order of one stream's frames. It holds no pixels and computes nothing.

    A new epoch (the window starts empty again, after the old epoch's results came out) begins with the first frame
    after `end_epoch`, with a frame of another size, pixel aspect or session of a live source, with a timestamp below
    the last one, and with a gap of more than GAP_SECONDS that is also more than GAP_SPACINGS times the median spacing
    of the latest frames.

    The first frame of an epoch is a step, and so is every n-th after it; a step that is not still is encoded. Steps and
    encoded frames are numbered 0, 1, ... in each epoch. A step is due once as many later ones as the look-ahead says
    were appended; it stays due until `done` is called, so that one that failed is tried again.
    """

    def __init__(self) -> None:
        self.epoch = 0
        """How often the stream's state was reset."""
        self.newest = -1
        """Number of the last encoded frame appended; -1 before the first of an epoch."""
        self._newest_step = -1
        self._since_step = 0  # frames appended after it
        self._waiting: deque[Due] = deque()
        self._last: FrameInfo | None = None
        self._spacings: deque[float] = deque(maxlen=_SPACINGS_KEPT)
        self._ended = False

    @property
    def between(self) -> bool:
        """Whether the last frame appended is one between two steps."""
        return self._since_step > 0

    @property
    def next_result(self) -> int:
        """Number of the encoded frame whose result comes next; newest + 1 where none is to come."""
        return self._waiting[0].number if self._waiting else self.newest + 1

    def begins_epoch(self, frame: FrameInfo) -> bool:
        """Whether a frame, appended now, would be the first of another epoch.

        Args:
            frame: not appended yet.
        """
        last = self._last
        if last is None:
            return False
        if self._ended or frame.geometry != last.geometry or _session(frame) != _session(last):
            return True
        if frame.pts is None or last.pts is None:
            return False
        gap = frame.pts - last.pts
        if gap < 0:
            return True
        # Without a spacing to compare with, a long gap may be the video's own pace.
        return gap > GAP_SECONDS and bool(self._spacings) and gap > GAP_SPACINGS * statistics.median(self._spacings)

    def is_step(self, frame: FrameInfo, interval: int) -> bool:
        """Whether a frame, appended now, would be a step.

        Args:
            frame: not appended yet.
            interval: n, every how many frames one is.
        """
        return self._since_step + 1 >= interval or self._last is None or self.begins_epoch(frame)

    def begin_epoch(self) -> None:
        """Forget the frames of the epoch: the next one appended is number 0 of another."""
        self._waiting.clear()
        self._spacings.clear()
        self._last, self._ended, self.newest, self._newest_step, self._since_step = None, False, -1, -1, 0
        self.epoch += 1

    def append(self, frame: FrameInfo, role: Role = "encoded") -> None:
        """Make a frame the newest of the epoch.

        Args:
            frame: of this epoch, or the first of the one that was begun, which is encoded.
            role: what becomes of it.
        """
        if self._last is not None and frame.pts is not None and self._last.pts is not None:
            self._spacings.append(frame.pts - self._last.pts)
        self._last = frame
        if role == "between":
            self._since_step += 1
            return
        self._since_step = 0
        self._newest_step += 1
        self.newest += role == "encoded"
        self._waiting.append(Due(self.newest, frame, self._newest_step, role == "still"))

    def promote(self) -> None:
        """Make the last frame appended, which is between two steps, one that is encoded."""
        assert self._last is not None
        assert self.between, "it is a step already"
        frame, self._last = self._last, None  # its spacing is counted
        self.append(frame)

    def end_epoch(self) -> None:
        """Make the next frame the first of another epoch, where this one has any."""
        self._ended = self.newest >= 0

    def due(self, look_ahead: int) -> Due | None:
        """The oldest step whose result is still to come, if it need not wait.

        Args:
            look_ahead: L, steps, 0 or more; 0 where no more frames of this epoch will come.

        Returns:
            The step; None where none is due.
        """
        if not self._waiting or self._waiting[0].step > self._newest_step - look_ahead:
            return None
        return self._waiting[0]

    def done(self) -> None:
        """The result of the step that was due has been computed."""
        self._waiting.popleft()

    def abandon(self) -> None:
        """Give up the results that are still to come."""
        self._waiting.clear()


def span(number: int, newest: int, dials: Dials) -> range:
    """Numbers of the encoded frames that there are in the window t-T..t+L of frame t = `number`.

    Args:
        number: of the reference frame among the encoded ones of its epoch, 0..newest.
        newest: number of the last encoded frame appended.
        dials: with T and L of the window.

    Returns:
        Their numbers in the epoch, 1 to T + L + 1 of them.
    """
    return range(max(number - dials.window, 0), min(number + dials.frames_ahead, newest) + 1)


def position(index: object) -> int:
    """A frame's number as a Python int, whatever kind of whole number came: results are written as JSON.

    Args:
        index: position in the source.

    Returns:
        The same number.

    Raises:
        FrameError: for what is no whole number, or below 0.
    """
    try:
        number = operator.index(index)  # type: ignore[arg-type]
    except TypeError:
        number = -1
    if number < 0:
        raise FrameError(f"index is {index!r}; wanted the frame's position in its source, a whole number from 0")
    return number


def source_name(source_id: object) -> str:
    """What a frame says it comes from.

    Args:
        source_id: a path or an address.

    Returns:
        The same text.

    Raises:
        FrameError: for what is no text.
    """
    if not isinstance(source_id, str):
        raise FrameError(f"source_id is {source_id!r}; wanted text, such as str(path)")
    return source_id


def aspect(value: object) -> float:
    """The shape of a frame's pixels.

    Args:
        value: width over height.

    Returns:
        The same as a Python float.

    Raises:
        FrameError: for what is no number in 1/16..16.
    """
    number = _number(value)
    if not 1 / _WIDEST <= number <= _WIDEST:
        raise FrameError(f"pixel_aspect is {value!r}; wanted width over height in 1/{_WIDEST:g}..{_WIDEST:g}")
    return number


def seconds(pts: object) -> float | None:
    """A timestamp as a Python float, whatever kind of number came: results are written as JSON.

    Args:
        pts: seconds on the source's clock; None where unknown.

    Returns:
        The same seconds; None for None.

    Raises:
        FrameError: for what is no finite number, and not None.
    """
    if pts is None:
        return None
    value = _number(pts)
    if not math.isfinite(value):
        raise FrameError(f"pts is {pts!r}; wanted finite seconds, or None")
    return value


def _session(frame: FrameInfo) -> int | None:
    return None if frame.capture is None else frame.capture.session


def _number(value: object) -> float:
    """NaN for what is no number."""
    try:
        return math.nan if isinstance(value, str) else float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return math.nan
