"""One video's state: order, epochs, dials. Which machine its frames live on is the part of the subclasses."""

from __future__ import annotations

import math
import statistics
import time
from abc import ABC, abstractmethod
from collections import deque
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from rdn_engine.config import Dials, RDNConfig
from rdn_engine.errors import ConfigError, FrameError, StreamClosed
from rdn_engine.results import Detections

if TYPE_CHECKING:
    from rdn_engine.video import Frame

Image = NDArray[np.uint8]

STAGES = ("preprocess", "backbone", "proposals", "roi_pool", "roi_head", "window", "relation", "postprocess", "linking")

GAP_SECONDS = 2.0
"""A timestamp this far after the last one, in seconds, may be a jump."""
GAP_SPACINGS = 10.0
"""It is one where the gap is also this many times the median spacing of the latest frames."""
_SPACINGS_KEPT = 31


@dataclass
class Timings:
    """Where a stream's time went, since it was opened."""

    frames: int = 0
    """Frames encoded."""
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))
    """Wall-clock seconds of each stage, in the order they run."""
    _mark: float = field(default=0.0, init=False, repr=False)

    def start(self) -> None:
        self._mark = time.perf_counter()

    def lap(self, stage: str) -> None:
        """Everything since `start` or the last lap was `stage`."""
        now = time.perf_counter()
        self.seconds[stage] += now - self._mark
        self._mark = now


class About(NamedTuple):
    """What a result says about its frame, kept until the result is ready."""

    frame_index: int
    pts: float | None
    source_id: str


class Taken(NamedTuple):
    """A frame that was checked and encoded, and is not part of its stream yet."""

    about: About
    size: tuple[int, int]
    """height and width, pixels"""
    encoded: Any


class Stream(ABC):
    """One video: frames go in with `push`, each comes out once, in order, L frames later (with linking L + D). One
    thread at a time.

    A new epoch (the window starts empty again, after the old epoch's results came out) begins with the first frame
    after `flush`, with a frame of another size, with a timestamp below the last one, and with a gap of more than
    GAP_SECONDS that is also more than GAP_SPACINGS times the median spacing of the latest frames.
    """

    def __init__(self, config: RDNConfig, dials: Dials, capacity: Dials, source_id: str) -> None:
        self._config = config
        self._capacity = capacity
        self._check_dials(dials)
        self._dials = dials
        self._source_id = source_id
        self._pending: deque[About] = deque(maxlen=capacity.window + 1)
        self._next = 0  # number, in the epoch, of the frame whose result comes next
        self._size: tuple[int, int] | None = None
        self._last_pts: float | None = None
        self._spacings: deque[float] = deque(maxlen=_SPACINGS_KEPT)
        self._ended = False
        self._closed = False
        self.epoch = 0
        """How often the stream's state was reset."""
        self.accepted = 0
        """Frames pushed that are images."""
        self.rejected = 0
        """Frames that raised FrameError."""
        self.timings = Timings()

    @property
    def dials(self) -> Dials:
        """Settings in effect. Setting them is checked against the capacity (ConfigError) and takes effect from the
        next result; num_reference (N) above its old value from the next frame pushed. After a lower look-ahead or
        link_delay, the next push returns several results; another `link` ends the tubes that there are.
        """
        return self._dials

    @dials.setter
    def dials(self, dials: Dials) -> None:
        self._check_dials(dials)
        self._dials = dials

    @property
    @abstractmethod
    def nbytes(self) -> int:
        """Bytes that this stream holds: fixed when it is opened. With linking, D + 1 results and their links on top."""

    @abstractmethod
    def push(self, frame: Image | Frame, pts: float | None = None) -> list[Detections]:
        """Take the next frame, uint8 [H, W, 3] RGB; returns the results that became ready.

        That is frame t - L's for frame t, linked t - L - D's, and before it the rest of the old epoch's where this
        frame begins a new one.
        pts: seconds, None where unknown; a Frame brings its own. `frame_index` of the result is the Frame's, else how
        many frames the stream accepted before. Raises FrameError, which leaves the stream as it was; StreamClosed.
        """

    @abstractmethod
    def flush(self) -> list[Detections]:
        """The results still to come, by the edge rule for what follows the last frame; ends the epoch."""

    def close(self) -> None:
        """Give up what is pending. `push` and `flush` raise StreamClosed from now on."""
        self._closed = True
        self._pending.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # What a machine does

    @property
    @abstractmethod
    def _newest(self) -> int:
        """Number, in the epoch, of the last frame appended; -1 before the first."""

    @abstractmethod
    def _check(self, image: Any) -> tuple[Any, tuple[int, int]]:
        """What `_encode` takes, and its height and width; FrameError otherwise."""

    @abstractmethod
    def _encode(self, image: Any, size: tuple[int, int]) -> Any:
        """Whatever of a frame can fail, before anything that a result looks at has changed."""

    @abstractmethod
    def _append(self, encoded: Any) -> None: ...

    @abstractmethod
    def _result(self, t: int, about: About) -> None:
        """Compute the result of frame t, and keep it until it is taken."""

    @abstractmethod
    def _forget(self) -> None:
        """Another epoch begins: the next frame appended is number 0."""

    def _end_epoch(self) -> None:  # noqa: B027
        """All results of the epoch were computed; its frames stay until the next one begins."""

    # The order of frames

    def _take(self, frame: Any, pts: float | None) -> Taken:
        """The first half of a push: what is wrong with a frame is found here, and nothing is appended yet."""
        self._check_open()
        image, about = _unpack(frame, About(self.accepted, pts, self._source_id))
        try:
            image, size = self._check(image)
            about = about._replace(pts=_seconds(about.pts))
        except FrameError:
            self.rejected += 1
            raise
        # What lower dials released, or what failed before, comes first: the queue has room for T + 1 frames, no more.
        self._emit(self._newest - self._dials.frames_ahead)
        return Taken(about, size, self._encode(image, size))

    def _add(self, taken: Taken) -> None:
        """The second half: the frame becomes the newest, and results are computed."""
        pts = taken.about.pts
        if self._begins_epoch(taken.size, pts):
            self._emit(self._newest)
            self._end_epoch()
            self._forget()
            self._spacings.clear()
            self._last_pts, self._next, self._ended = None, 0, False
            self.epoch += 1
        if pts is not None and self._last_pts is not None:
            self._spacings.append(pts - self._last_pts)
        self._size, self._last_pts = taken.size, pts
        self._append(taken.encoded)
        self._pending.append(taken.about)
        self.accepted += 1
        self._emit(self._newest - self._dials.frames_ahead)

    def _finish(self) -> None:
        """The results still to come; ends the epoch."""
        self._check_open()
        self._emit(self._newest)
        self._end_epoch()
        self._ended = self._newest >= 0

    def _emit(self, upto: int) -> None:
        """Compute the results of the frames of this epoch up to number `upto` that are still to come."""
        while self._next <= upto:
            self._result(self._next, self._pending[0])
            self._pending.popleft()
            self._next += 1

    def _begins_epoch(self, size: tuple[int, int], pts: float | None) -> bool:
        if self._size is None:
            return False
        if self._ended or size != self._size:
            return True
        if pts is None or self._last_pts is None:
            return False
        gap = pts - self._last_pts
        if gap < 0:
            return True
        # Without a spacing to compare with, a long gap may be the video's own pace.
        return gap > GAP_SECONDS and bool(self._spacings) and gap > GAP_SPACINGS * statistics.median(self._spacings)

    def _check_dials(self, dials: Dials) -> None:
        for name, symbol in (("window", "T"), ("num_support", "K"), ("num_reference", "N")):
            got, limit = getattr(dials, name), getattr(self._capacity, name)
            if got > limit:
                raise ConfigError(
                    f"{name} ({symbol}) is {got}; this stream has room for {limit}: open it with "
                    f"open_stream(dials, capacity=Dials({name}={got}, ...))"
                )

    def _check_open(self) -> None:
        if self._closed:
            raise StreamClosed("this stream was closed; open another with Detector.open_stream")


def _seconds(pts: object) -> float | None:
    """A Python float, whatever kind of number came: results are written as JSON."""
    if pts is None:
        return None
    try:
        seconds = float(pts)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        seconds = math.nan
    if isinstance(pts, str) or not math.isfinite(seconds):
        raise FrameError(f"pts is {pts!r}; wanted finite seconds, or None")
    return seconds


def _unpack(frame: object, about: About) -> tuple[object, About]:
    """The image, and what its result will say: a Frame's own word, else `about`."""
    if isinstance(frame, np.ndarray):
        return frame, about
    # Here, because the module brings the video library, which pushing arrays does not need.
    from rdn_engine.video import Frame

    if not isinstance(frame, Frame):
        return frame, about
    return frame.image, About(frame.index, frame.pts, frame.source_id)
