"""One pass of a source through a stream into files, counted and timed: what `rdn-engine predict` does."""

from __future__ import annotations

import contextlib
import resource
import time
from collections import Counter, deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rdn_engine.cli.lines import Lines
from rdn_engine.cli.progress import progress_bar
from rdn_engine.cli.signals import Interrupted, Interrupts
from rdn_engine.cli.streams import say
from rdn_engine.errors import FrameError, RDNError, VideoError, VideoWriteError
from rdn_engine.evaluation.trace import Push
from rdn_engine.frame import Frame
from rdn_engine.media.base import VideoSource
from rdn_engine.media.writer import VideoWriter
from rdn_engine.results import Detections
from rdn_engine.stream.base import Stream


class Run:
    """One pass of a source through a stream, into the files asked for."""

    def __init__(self, stream: Stream, video: VideoSource, draw_threshold: float, interrupts: Interrupts) -> None:
        """Get ready for one pass.

        Args:
            stream: open, with its dials.
            video: open, not read yet.
            draw_threshold: in 0..1; boxes below this confidence are not drawn.
            interrupts: what breaks the pass off.
        """
        self._stream = stream
        self._video = video
        self._draw_threshold = draw_threshold
        self._interrupts = interrupts
        self._lines: Lines | None = None
        self._trace: Lines | None = None
        self._writer: VideoWriter | None = None
        self._waiting: deque[Frame] = deque()
        """Frames to draw on, kept until their result is there; at most L + 1, with linking L + D + 1"""
        self._refusal: FrameError | None = None
        """The first one; those that follow are counted"""
        self._warnings: list[str] = []
        self._results = self._of_encoded = 0
        self._per_class: Counter[str] = Counter()
        self._identities: int | None = None  # they are numbered as they are given out; None without links
        self._steady = _Steady(stream)
        self._every_frame = stream.dials.every_frame
        self.interrupted = False
        """Whether a signal ended the pass"""
        self.error: RDNError | None = None
        """What ended the source or the annotated video early, after the results so far were written"""

    def process(
        self, output: Path | None, save_video: Path | None, show_progress: bool, trace: Path | None = None
    ) -> None:
        """Write a JSON line and an annotated frame for every result, as results come.

        A source that ends badly, or in which no frame is an image, leaves its error in `error`, a signal sets
        `interrupted`. Either way the pending results come out and what was written is whole. An annotated video that
        cannot be written any more leaves its error too, and the lines go on.

        Args:
            output: file of the lines (docs/jsonl.md), `-` for stdout; None writes none.
            save_video: file of the annotated frames; None writes none.
            show_progress: on stderr.
            trace: file of a line for every push, with its milliseconds; None writes none.

        Raises:
            VideoWriteError: for a video that cannot be begun, and without lines for one that cannot be written.
            OSError: for lines that cannot be written.
            StdoutClosed: for lines that nobody reads any more.
        """
        with contextlib.ExitStack() as stack:
            # The writer first: it may refuse its name, and opening the lines empties a file that was there.
            if save_video:
                self._writer = VideoWriter(save_video, self._video.fps)
                stack.callback(self._finish_video)
            if output:
                self._lines = stack.enter_context(Lines(output))
            if trace:
                self._trace = stack.enter_context(Lines(trace))
            self._interrupts.patient = True
            try:
                self._read(show_progress)
            except Interrupted:
                self.interrupted = True
            except VideoWriteError:
                raise
            except VideoError as error:
                self.error = error
            began = time.perf_counter()
            results = self._stream.flush()
            self._note(None, began, results)
            self._take(results)
        if not self._stream.accepted and self.error is None and self._refusal is not None:
            refused = f"{self._video.source_id}: every frame was refused ({self._stream.rejected})"
            self.error = FrameError(f"{refused}; the first: {self._refusal}")

    def _read(self, show_progress: bool) -> None:
        with progress_bar(show_progress) as progress, contextlib.closing(self._interrupts.each(self._video)) as frames:
            task = progress.add_task("", total=self._video.frames_hint, memory="")
            for frame in frames:
                if self._writer is not None:
                    self._waiting.append(frame)
                self._take(self._push(frame))
                progress.update(task, advance=1, memory=f"peak {_peak_memory() / 2**20:.0f} MiB")

    def _take(self, results: list[Detections]) -> None:
        for result in results:
            self._count(result)
            if self._lines is not None:
                self._lines.write(result.to_dict())
            if self._writer is not None:
                self._draw(self._writer, result)

    def _push(self, frame: Frame) -> list[Detections]:
        began = time.perf_counter()
        try:
            results = self._stream.push(frame)
        except FrameError as error:
            self._refuse(frame, error)
            if self._waiting:
                self._waiting.pop()
            return []
        self._note(frame, began, results)
        self._steady.mark()
        return results

    def _note(self, frame: Frame | None, began: float, results: list[Detections]) -> None:
        if self._trace is not None:
            ms = 1e3 * (time.perf_counter() - began)
            source, index, pts = ("", None, None) if frame is None else (frame.source_id, frame.index, frame.pts)
            self._trace.write(Push(source, index, pts, ms, tuple(result.frame_index for result in results)).to_dict())

    def _refuse(self, frame: Frame, error: FrameError) -> None:
        """A frame that was refused is counted, like a damaged one; why is said of the first."""
        if self._refusal is None:
            self._refusal = error
            # An image has a name of its own.
            which = f"frame {frame.index}" if frame.source_id == self._video.source_id else frame.source_id
            self._warnings.append(f"{which} was refused, as others like it will be: {error}")
            say(f"warning: {self._video.source_id}: {self._warnings[-1]}")

    def _count(self, result: Detections) -> None:
        self._results += 1
        self._of_encoded += result.encoded
        self._per_class.update(result.class_names[c] for c in result.class_id)
        if result.tracker_id is not None:
            self._identities = max(self._identities or 0, int(result.tracker_id.max(initial=0)))

    def _draw(self, writer: VideoWriter, result: Detections) -> None:
        from rdn_engine.media.draw import annotate

        frame = self._waiting.popleft()
        try:
            drawn = annotate(frame.image, result, self._draw_threshold)
            writer.write(drawn, frame.pts, result.epoch, self._video.pixel_aspect)
        except VideoWriteError as error:
            if self._lines is None:
                raise
            say(f"{error}; the lines go on")
            self.error, self._writer = error, None
            self._waiting.clear()
            writer.close()

    def _finish_video(self) -> None:
        try:
            if self._writer is not None:
                self._writer.close()
        except VideoWriteError as error:
            self.error = error

    def summary(self, output: Path | None, save_video: Path | None) -> dict[str, Any]:
        """What the pass did, as plain numbers and strings for people and for `--json`.

        Args:
            output, save_video: as `process` got them.

        Returns:
            Counts of frames, detections and identities (None without links), `steady_ms_per_frame` (milliseconds of
            each stage, over all frames, of which `steady_encoded` were encoded) and memory in bytes. `every_frame` says
            that the dials leave no frame out of the encoder.
        """
        return {
            "source": self._video.source_id,
            "frames": self._results,
            "encoded": self._of_encoded,
            "every_frame": self._every_frame,
            "skipped": self._video.skipped,
            "doubtful": self._video.doubtful,
            "refused": self._stream.rejected,
            "epochs": self._stream.epoch + 1,
            "detections": self._per_class.total(),
            "per_class": dict(self._per_class.most_common()),
            "identities": self._identities,
            **self._steady.summary(),
            "stream_bytes": self._stream.nbytes,
            "peak_memory_bytes": _peak_memory(),
            "output": str(output) if output else None,
            "video": str(save_video) if save_video else None,
            "interrupted": self.interrupted,
            "incomplete": self._video.incomplete,
            "warnings": [*self._video.warnings, *self._warnings],
            "error": None if self.error is None else str(self.error),
        }


class _Steady:
    """Mean seconds a frame of each stage, over the frames pushed once the window is full and before the last flush.

    The window counts encoded frames, the mean all: with an interval of n most of the work is every n-th frame's.
    """

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._full = stream.dials.window + stream.dials.frames_ahead + 1
        self._encoded = 0
        self._start: _Mark | None = None
        self._end: _Mark | None = None

    def mark(self) -> None:
        timings = self._stream.timings
        self._end = _Mark(self._stream.accepted, timings.frames, dict(timings.seconds))
        # A video shorter than the window has no steady frames proper: all but its first one, which warms up, serve.
        encoded = timings.frames
        if encoded != self._encoded and encoded in (1, self._full):
            self._start = self._end
        self._encoded = encoded

    def summary(self) -> dict[str, Any]:
        start, end = self._start, self._end
        frames = end.frames - start.frames if start and end else 0
        if not (start and end and frames):
            return {"steady_frames": 0, "steady_encoded": 0, "steady_ms_per_frame": {}}
        stages = {name: (s - start.seconds[name]) * 1e3 / frames for name, s in end.seconds.items()}
        total = sum(stages.values())
        asked = [*(name for name in stages if self._asked_for(name)), "total"]
        rounded = {name: round(ms, 3) for name, ms in (stages | {"total": total}).items() if name in asked}
        return {
            "steady_frames": frames,
            "steady_encoded": end.encoded - start.encoded,
            "steady_ms_per_frame": rounded,
        }

    def _asked_for(self, stage: str) -> bool:
        """Whether the dials want the stage; one that they do not takes microseconds, which tell nothing."""
        dials = self._stream.dials
        if stage == "linking":
            return dials.link != "off"
        if stage == "between":
            return not dials.every_frame
        return stage != "still" or dials.still > 0


@dataclass(frozen=True)
class _Mark:
    """What a stream had done at a time."""

    frames: int
    encoded: int
    seconds: dict[str, float]
    """Stage -> seconds"""


def _peak_memory() -> int:
    """Bytes that this process held at most; Linux counts KiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
