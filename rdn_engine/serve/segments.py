"""A long video in segments, each detected on its own, whose joined results are those of the unsplit video to the bit.

A segment reads the video from its start, as no container's seek is exact, and so knows epochs and frame numbers as the
unsplit stream does. It begins to detect a few frames early. The window of a frame reaches T frames back. Running sums
of the advanced stage begin when a frame enters the window, up to T + L results earlier, and their windows reach T back
again: so 2 T + L frames, and one more for the links to the segment's first frame. Sums are made in the order of the
ring's slots; so a segment begins at a multiple of the 2 T + 2 slots. Behind its end it wants L frames.

Links join neighbouring frames, and each segment makes its own. Tubes run through the whole video, and are found in one
pass over the joined frames.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from rdn_engine.backends.graph import Device
from rdn_engine.config import Dials, RDNConfig
from rdn_engine.detector import Detector
from rdn_engine.errors import ConfigError, FrameError, VideoError
from rdn_engine.frame import Frame, check_image
from rdn_engine.media.base import VideoSource
from rdn_engine.results import Detections
from rdn_engine.stream.base import Stream
from rdn_engine.stream.linking import BoxLinker
from rdn_engine.stream.links import Linkable, LinkedFrame, Moved, linked
from rdn_engine.stream.order import FrameInfo, FrameOrder

MOST_SEGMENTS = 1024
"""Of one video, whose container may say that it has any number of frames"""


@dataclass(frozen=True)
class Segment:
    """Frames of a video, by their `index`."""

    first: int
    stop: int | None
    """One past the last; None for the rest of the video"""


@dataclass(frozen=True)
class Reading:
    """What became of a source while it was read."""

    skipped: int
    doubtful: int
    refused: int
    """Frames that the model cannot read; of a segment its own alone"""
    incomplete: str | None
    warnings: tuple[str, ...]
    error: str | None
    """What ended it before its end"""


@dataclass(frozen=True)
class SegmentResult:
    """What a segment found."""

    frames: tuple[LinkedFrame, ...]
    """Its frames in order, not linked, with what links them; without links where the dials have none"""
    reading: Reading


def split(frames: int | None, length: int) -> tuple[Segment, ...]:
    """Cut a video.

    Args:
        frames: about how many it has; None where that is not known.
        length: of a segment, frames, 1 or more; they are longer where there would be more than MOST_SEGMENTS.

    Returns:
        Segments in order, the last of which has no end; one where the video is no longer than that.
    """
    frames = frames or 0
    length = max(length, -(-frames // MOST_SEGMENTS))
    count = max(1, round(frames / length))
    return tuple(Segment(i * length, None if i == count - 1 else (i + 1) * length) for i in range(count))


def check_splits(config: RDNConfig, dials: Dials, device: Device) -> None:
    """Check that segments of a video give what the whole gives, to the bit.

    Args:
        config: of the model.
        dials: of the stream.
        device: that it runs on.

    Raises:
        ConfigError: says what has a memory without an end.
    """
    wanted = "; such a video is not split: leave --segment-frames out"
    if not dials.every_frame:
        raise ConfigError(
            f"interval is {dials.interval}, still {dials.still:g}: what a frame gets depends on all before it{wanted}"
        )
    if config.cosine_score:
        raise ConfigError(f"the model's attention is cosine_score, which averages with earlier results{wanted}")
    if config.relation.advanced and dials.sampling == "global":
        raise ConfigError(f"sampling is 'global', whose running sums come and go with the frames before{wanted}")
    if device != "cpu":
        raise ConfigError(f"device is {device!r}, whose window is not known to be the same from any frame on{wanted}")


def lead_frames(dials: Dials) -> int:
    """How many frames before a segment decide its results: 2 T + L + 1.

    Args:
        dials: with T and L.
    """
    return 2 * dials.window + dials.frames_ahead + 1


def detect_segment(
    detector: Detector, dials: Dials, open_video: Callable[[], VideoSource], segment: Segment
) -> SegmentResult:
    """Detect in the frames of a segment.

    Args:
        detector: on the CPU; the dials were checked by `check_splits`.
        dials: of the whole video.
        open_video: opens it, each time from the start.
        segment: which frames.

    Raises:
        VideoError: where the video cannot be opened. One that ends badly is the result's `reading.error`.
    """
    early = lead_frames(dials)
    while True:
        with open_video() as video:
            one = _Pass(detector, dials, segment, early)
            if one.run(video):
                return SegmentResult(tuple(one.frames), one.reading)
        # Frames were damaged in front of the segment, so that too few of them were in reach.
        early *= 2


def join(segments: Iterable[SegmentResult], dials: Dials) -> Iterator[Detections]:
    """The results of the whole video.

    Args:
        segments: of one video, in order, none missing.
        dials: of the whole video.
    """
    linker, epoch = BoxLinker(), 0
    for frame in (frame for segment in segments for frame in segment.frames):
        if dials.link == "off":
            yield frame.found
            continue
        if frame.found.epoch != epoch:
            yield from linker.flush(dials)
        epoch = frame.found.epoch
        yield from linker.push_linked(frame, dials)
    yield from linker.flush(dials)


class _Recorder(BoxLinker):
    """Makes the links of each frame and keeps them; gives every frame out as it is."""

    def __init__(self) -> None:
        super().__init__()
        self._before: Linkable | None = None
        self.made: deque[LinkedFrame] = deque()

    def push(self, frame: Linkable, dials: Dials, moved: Moved | None = None) -> list[Detections]:
        if dials.link != "off":
            self.made.append(linked(self._before, frame, dials.link))
            self._before = frame._replace(features=None)
        return [frame.found]

    def flush(self, dials: Dials) -> list[Detections]:
        self._before = None
        return []


class _Pass:
    """One reading of the video."""

    def __init__(self, detector: Detector, dials: Dials, segment: Segment, early: int) -> None:
        self._detector, self._dials, self._segment = detector, dials, segment
        self._begin_at = segment.first - early
        self._order = FrameOrder()
        self._stream: Stream | None = None
        self._recorder = _Recorder()
        self._begun = 0, 0  # epoch and number of the stream's first frame
        self._waiting: deque[tuple[int, float | None]] = deque()  # index and time of frames without a result
        self._reached = False
        self._refused = 0
        self.frames: list[LinkedFrame] = []
        self.reading = Reading(0, 0, 0, None, (), None)

    def run(self, video: VideoSource) -> bool:
        """Whether enough frames were seen before the segment's first."""
        error = None
        try:
            for frame in video:
                if self._is_over(frame):
                    break
                if not self._take(frame):
                    return False
            else:
                self._flush()
        except VideoError as raised:
            error = str(raised)
            self._flush()
        if self._stream is not None:
            self._stream.close()
        self.reading = Reading(
            video.skipped, video.doubtful, self._refused, video.incomplete, tuple(video.warnings), error
        )
        return True

    def _is_over(self, frame: Frame) -> bool:
        stop = self._segment.stop
        return stop is not None and frame.index >= stop and not any(index < stop for index, _ in self._waiting)

    def _take(self, frame: Frame) -> bool:
        try:
            height, width = check_image(frame.image).shape[:2]
        except FrameError:
            self._refused += self._wants(frame.index)
            return True
        info = FrameInfo(frame.index, frame.pts, frame.source_id, height, width, frame.pixel_aspect)
        if self._order.begins_epoch(info):
            self._flush()
            self._order.begin_epoch()
        self._order.append(info)
        if self._stream is None and self._is_begin(frame.index):
            self._stream = self._detector.open_stream(self._dials)
            self._stream.linker = self._recorder
            self._begun = self._order.epoch, self._order.newest
        if not self._reached and frame.index >= self._segment.first:
            self._reached = True
            if not self._is_warm():
                return False
        if self._stream is not None:
            self._waiting.append((frame.index, frame.pts))
            # Epochs are begun here, by all times of the video, of which the stream sees a part.
            self._keep(self._stream.push(replace(frame, pts=None)))
        return True

    def _is_begin(self, index: int) -> bool:
        """Whether the stream begins with this frame: the last one early enough in a slot 0 of the ring."""
        slots = 2 * self._dials.window + 2
        return index + slots > self._begin_at and self._order.newest % slots == 0

    def _is_warm(self) -> bool:
        if self._stream is None:
            return False
        epoch, number = self._begun
        return epoch < self._order.epoch or number == 0 or self._order.newest - number >= lead_frames(self._dials)

    def _flush(self) -> None:
        if self._stream is not None:
            self._keep(self._stream.flush())

    def _keep(self, results: list[Detections]) -> None:
        none = np.zeros(0, np.int64)
        for found in results:
            index, pts = self._waiting.popleft()
            frame = LinkedFrame(found, none, none, np.zeros(0), np.zeros(0), none, none, None)
            if self._recorder.made:
                frame = self._recorder.made.popleft()
            if self._wants(index):
                found = replace(found, pts=pts, epoch=found.epoch + self._begun[0])
                self.frames.append(replace(frame, found=found))

    def _wants(self, index: int) -> bool:
        return index >= self._segment.first and (self._segment.stop is None or index < self._segment.stop)
