"""One video's state, and the order of the stages."""

from __future__ import annotations

import math
import statistics
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from rdn_engine import postprocess, preprocess
from rdn_engine.config import Dials, RDNConfig
from rdn_engine.errors import ConfigError, FrameError, StreamClosed
from rdn_engine.features import EncodedFrame, Float
from rdn_engine.linking import FLOOR, BoxLinker, Linkable
from rdn_engine.relation import Relation
from rdn_engine.results import Detections
from rdn_engine.window import Window

if TYPE_CHECKING:
    from rdn_engine.video import Frame

Image = NDArray[np.uint8]

STAGES = ("preprocess", "backbone", "proposals", "roi_pool", "roi_head", "window", "relation", "postprocess", "linking")

GAP_SECONDS = 2.0
"""A timestamp this far after the last one, in seconds, may be a jump."""
GAP_SPACINGS = 10.0
"""It is one where the gap is also this many times the median spacing of the latest frames."""
_SPACINGS_KEPT = 31


class EncoderLike(Protocol):
    def __call__(
        self, images: Float, num_reference: int, num_support: int, lap: Callable[[str], None]
    ) -> list[EncodedFrame]: ...


@dataclass(frozen=True)
class Stages:
    """What streams share: nothing here changes from frame to frame."""

    config: RDNConfig
    encoder: EncoderLike
    relation: Relation
    threads: int


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


class _About(NamedTuple):
    """What a result says about its frame, kept until the result is ready."""

    frame_index: int
    pts: float | None
    source_id: str


class Stream:
    """One video: frames go in with `push`, each comes out once, in order, L frames later (with linking L + D). One
    thread at a time.

    A new epoch (the window starts empty again, after the old epoch's results came out) begins with the first frame
    after `flush`, with a frame of another size, with a timestamp below the last one, and with a gap of more than
    GAP_SECONDS that is also more than GAP_SPACINGS times the median spacing of the latest frames.
    """

    def __init__(self, stages: Stages, dials: Dials, capacity: Dials, source_id: str) -> None:
        self._stages = stages
        self._capacity = capacity
        self._check_capacity(dials)
        self._dials = dials
        self._source_id = source_id
        self._window = Window(stages.config.relation, capacity)
        self._linker = BoxLinker()
        self._pending: deque[_About] = deque(maxlen=capacity.window + 1)
        self._ready: list[Detections] = []
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
        self._check_capacity(dials)
        self._dials = dials

    @property
    def nbytes(self) -> int:
        """Bytes that this stream holds: fixed when it is opened. With linking, D + 1 results and their links on top."""
        return self._window.nbytes

    def push(self, frame: Image | Frame, pts: float | None = None) -> list[Detections]:
        """Take the next frame, uint8 [H, W, 3] RGB; returns the results that became ready.

        That is frame t - L's for frame t, linked t - L - D's, and before it the rest of the old epoch's where this
        frame begins a new one.
        pts: seconds, None where unknown; a Frame brings its own. `frame_index` of the result is the Frame's, else how
        many frames the stream accepted before. Raises FrameError, which leaves the stream as it was; StreamClosed.
        """
        self._check_open()
        array, about = _unpack(frame, _About(self.accepted, pts, self._source_id))
        try:
            image = preprocess.check_image(array)
            about = about._replace(pts=_seconds(about.pts))
        except FrameError:
            self.rejected += 1
            raise
        # What lower dials released, or what failed before, comes first: the queue has room for T + 1 frames, no more.
        self._emit(self._window.newest - self._dials.frames_ahead)
        encoded = self._encode(image)
        pts = about.pts
        size = image.shape[:2]
        if self._begins_epoch(size, pts):
            self._emit(self._window.newest)
            self._unlink()
            self._reset()
        if pts is not None and self._last_pts is not None:
            self._spacings.append(pts - self._last_pts)
        self._size, self._last_pts = size, pts
        self.timings.start()
        newest = self._window.append(encoded)
        self.timings.lap("window")
        self._pending.append(about)
        self.accepted += 1
        self._emit(newest - self._dials.frames_ahead)
        return self._take_ready()

    def flush(self) -> list[Detections]:
        """The results still to come, by the edge rule for what follows the last frame; ends the epoch."""
        self._check_open()
        self._emit(self._window.newest)
        self._unlink()
        self._ended = self._window.newest >= 0
        return self._take_ready()

    def close(self) -> None:
        """Give up what is pending. `push` and `flush` raise StreamClosed from now on."""
        self._closed = True
        self._pending.clear()
        self._ready.clear()
        self._linker = BoxLinker()

    def __enter__(self) -> Stream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _encode(self, image: Image) -> EncodedFrame:
        stages, dials = self._stages, self._dials
        self.timings.start()
        network = preprocess.network_input(image, stages.config.input, stages.threads)
        self.timings.lap("preprocess")
        # The support role keeps its capacity, so that K can be turned up without a gap in the window.
        num_support = self._capacity.num_support
        num_reference = max(dials.num_reference, num_support)
        (encoded,) = stages.encoder(network[None], num_reference, num_support, self.timings.lap)
        self.timings.frames += 1
        return encoded

    def _emit(self, upto: int) -> None:
        """Compute the results of the frames of this epoch up to number `upto` that are still to come."""
        while self._next <= upto:
            result = self._result(self._next, self._pending[0])
            self._pending.popleft()
            self._next += 1
            self._link(result)

    def _link(self, result: Linkable) -> None:
        """What becomes ready with the next frame's result, which itself may have to wait."""
        dials = self._dials
        if dials.link == "off":
            self._unlink()
            self._ready.append(result.found)
        else:
            self._ready += self._linker.push(result, dials.link, dials.link_delay, dials.score_threshold)
        self.timings.lap("linking")

    def _unlink(self) -> None:
        """What waits for links is ready, and all tubes end."""
        self._ready += self._linker.flush(self._dials.score_threshold)

    def _result(self, t: int, about: _About) -> Linkable:
        stages, dials, window, timings = self._stages, self._dials, self._window, self.timings
        assert self._size is not None
        timings.start()
        reference = window.reference(t, dials.num_reference)
        pool = window.pool(t, dials)
        timings.lap("window")
        asked = window.support_rows(t + 1, t, dials) if dials.link == "relations" else None
        output = stages.relation(reference.boxes, reference.features, reference.query, pool, asked)
        timings.lap("relation")
        config = stages.config
        found = postprocess.detections(
            output,
            reference.boxes,
            config.input.network_size(*self._size),
            self._size,
            config.detection,
            dials.score_threshold if dials.link == "off" else min(dials.score_threshold, FLOOR),
            stages.threads,
        )
        timings.lap("postprocess")
        detections = Detections(
            xyxy=found.xyxy,
            confidence=found.confidence,
            class_id=found.class_id,
            tracker_id=None,
            class_names=config.class_names,
            frame_index=about.frame_index,
            pts=about.pts,
            source_id=about.source_id,
            height=self._size[0],
            width=self._size[1],
            pool_fill=len(window.span(t, dials)),
            lookahead=dials.frames_ahead,
            epoch=self.epoch,
        )
        return Linkable(detections, found.proposal, output.omega)

    def _take_ready(self) -> list[Detections]:
        ready, self._ready = self._ready, []
        return ready

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

    def _reset(self) -> None:
        self._window.reset()
        self._spacings.clear()
        self._last_pts = None
        self._next = 0
        self._ended = False
        self.epoch += 1

    def _check_capacity(self, dials: Dials) -> None:
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


def _unpack(frame: object, about: _About) -> tuple[object, _About]:
    """The image, and what its result will say: a Frame's own word, else `about`."""
    if isinstance(frame, np.ndarray):
        return frame, about
    # Here, because the module brings the video library, which pushing arrays does not need.
    from rdn_engine.video import Frame

    if not isinstance(frame, Frame):
        return frame, about
    return frame.image, _About(frame.index, frame.pts, frame.source_id)
