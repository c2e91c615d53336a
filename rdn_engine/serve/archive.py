"""Recorded videos into a folder of results: each video's once, whole, whoever computes it and how often.

`OUTPUT/NAME.jsonl` (or `.parquet`) holds the results of a video, `OUTPUT/NAME.outcome.json` what became of it and a key
of everything that decides the results: the video's content, the model, the dials. A video whose outcome has the key is
done. The results are put there before the outcome, and the old outcome goes before them: what is interrupted, or run
twice at once, is not done, or done right.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from rdn_engine.bundle.manifest import MANIFEST
from rdn_engine.config import Dials
from rdn_engine.detector import Detector
from rdn_engine.errors import FrameError, RDNError, VideoError
from rdn_engine.frame import Frame
from rdn_engine.media.base import SourceOptions, VideoSource
from rdn_engine.media.source import open_source
from rdn_engine.plain import check_fields, from_plain
from rdn_engine.results import Detections
from rdn_engine.serve.atomic import replacing, sweep
from rdn_engine.serve.opening import DetectorOptions
from rdn_engine.serve.recordings import Recording
from rdn_engine.serve.result_files import ResultFormat, result_file
from rdn_engine.serve.segment_files import read_segment, write_segment
from rdn_engine.serve.segments import Reading, Segment, detect_segment, join
from rdn_engine.text import read_text

_RESULTS_VERSION = 1
"""Raised where the same inputs give other results or files"""
SEGMENTS = ".segments"
"""Folder, in that of the results, of what waits to be joined"""


@dataclass(frozen=True)
class Outcome:
    """What became of a video: a row of the job's result."""

    source: str
    """The video's path, as given"""
    output: str | None
    """The file of its results; None where there is none"""
    error: str | None
    """What ended it before its end; results of frames before that are kept"""
    frames: int = 0
    """Results"""
    detections: int = 0
    epochs: int = 0
    skipped: int = 0
    """Frames that were damaged"""
    doubtful: int = 0
    """Frames with a result although data was lost before them"""
    refused: int = 0
    """Frames that the model cannot read"""
    incomplete: str | None = None
    """What the video promised and did not give"""
    warnings: tuple[str, ...] = ()
    seconds: float = 0.0
    """That it took; of a video in segments their sum"""
    before: bool = False
    """Whether it was done by an earlier run"""

    @property
    def whole(self) -> bool:
        """Whether every frame of the video has a result that nothing is to be said about."""
        return not (self.error or self.incomplete or self.skipped or self.doubtful or self.refused)


@dataclass(frozen=True)
class Piece:
    """A part of a recording that one actor detects in: all of it, or a segment."""

    recording: Recording
    segment: Segment | None
    number: int = 0
    """Of the segment, from 0"""


@dataclass(frozen=True)
class Archive:
    """A job: what is computed of each video, and where its results go. Pickled, it is what an actor is told."""

    engines: Path
    """Engine directory, as the actors find it"""
    output: Path
    """Folder of the results, which all actors share"""
    dials: Dials
    options: DetectorOptions = field(default_factory=DetectorOptions)
    source: SourceOptions = field(default_factory=SourceOptions)
    form: ResultFormat = "jsonl"

    def open_detector(self) -> Detector:
        """Load the model.

        Raises:
            BundleError, BackendUnavailable, ConfigError: as `Detector.from_pretrained`.
        """
        return self.options.open(self.engines)

    def done(self, recording: Recording) -> Outcome | None:
        """The outcome of an earlier run, where it stands and the video has the size and the time that it had then.

        Args:
            recording: one of the job's.
        """
        try:
            status = os.stat(recording.path)
        except OSError:
            return None
        record = self._read_record(recording)
        if record is None or (record.size, record.mtime_ns) != (status.st_size, status.st_mtime_ns):
            return None
        return self._if_of(recording, record, record.sha256)

    def detect(
        self, detector: Detector, recording: Recording, each: Callable[[VideoSource], Iterable[Frame]] = iter
    ) -> Outcome:
        """Detect in a video, unless that is done.

        Args:
            detector: of `open_detector`.
            recording: the video.
            each: gives the frames of an open video, for a caller who wants to break off between two.

        Returns:
            What became of it. No failure of a video is raised; one with an error is tried again by the next run.
        """
        return self._guarded(recording, lambda sha256: self._whole(detector, recording, each))

    def detect_piece(self, detector: Detector, piece: Piece) -> Outcome | None:
        """Detect in a piece of a video.

        Args:
            detector: of `open_detector`.
            piece: all of the video, or a segment, whose results wait in a file until `join_pieces`.

        Returns:
            As `detect`; None for a segment that was found, or that needs none because its video is done.
        """
        if piece.segment is None:
            return self.detect(detector, piece.recording)
        try:
            sha256 = _digest(piece.recording.path)
            place = self._piece_path(piece, sha256)
            if self._before(piece.recording, sha256) is None and not place.exists():
                found = detect_segment(detector, self.dials, lambda: self._open(piece.recording), piece.segment)
                write_segment(place, found)
        except Exception as error:
            return self.failed(piece.recording, _why(error))
        return None

    def join_pieces(self, pieces: Sequence[Piece]) -> Outcome:
        """Make the results of a video of what was found in its segments.

        Args:
            pieces: all of one video, in order, after `detect_piece` of each.

        Returns:
            As `detect`.
        """
        recording = pieces[0].recording

        def joined(sha256: str) -> Outcome:
            paths = [self._piece_path(piece, sha256) for piece in pieces]
            readings: list[Reading] = []

            def each() -> Iterable[Any]:
                for path in paths:
                    segment = read_segment(path)
                    readings.append(segment.reading)
                    yield segment

            outcome = self._write(recording, join(each(), self.dials), lambda: _whole_of(readings))
            for path in paths:
                path.unlink(missing_ok=True)
            return outcome

        return self._guarded(recording, joined)

    def sweep(self) -> None:
        """Remove what processes that were killed left in the folder of results, before or after all work on it."""
        sweep(self.output)

    def failed(self, recording: Recording, why: str) -> Outcome:
        """An outcome of a video that nobody else records.

        Args:
            recording: the video.
            why: in words.
        """
        outcome = Outcome(recording.path, None, why)
        with suppress(OSError):
            self._result_path(recording).unlink(missing_ok=True)
            self._record(recording, "", outcome)
        return outcome

    def _guarded(self, recording: Recording, work: Callable[[str], Outcome]) -> Outcome:
        """What becomes of a video, whatever happens: the job's other videos go on."""
        began = time.perf_counter()
        sha256 = ""
        try:
            sha256 = _digest(recording.path)
            if (before := self._before(recording, sha256)) is not None:
                self._record(recording, sha256, replace(before, before=False))
                return before
            self._outcome_path(recording).unlink(missing_ok=True)
            outcome = work(sha256)
        except Exception as error:  # of a decoder, of a backend, of a disk: one video's
            with suppress(OSError):
                self._result_path(recording).unlink(missing_ok=True)
            outcome = Outcome(recording.path, None, _why(error))
        outcome = replace(outcome, seconds=round(time.perf_counter() - began, 3))
        try:
            self._record(recording, sha256, outcome)
        except OSError as error:
            return Outcome(recording.path, None, _why(error), seconds=outcome.seconds)
        return outcome

    def _whole(
        self, detector: Detector, recording: Recording, each: Callable[[VideoSource], Iterable[Frame]]
    ) -> Outcome:
        with self._open(recording) as video, detector.open_stream(self.dials) as stream:
            refusal: FrameError | None = None
            error: VideoError | None = None

            def results() -> Iterable[Detections]:
                nonlocal refusal, error
                try:
                    for frame in each(video):
                        try:
                            yield from stream.push(frame)
                        except FrameError as refused:
                            refusal = refusal or refused
                except VideoError as ended:
                    error = ended
                yield from stream.flush()
                if not stream.accepted and error is None and refusal is not None:
                    raise refusal

            return self._write(
                recording,
                results(),
                lambda: Reading(
                    video.skipped,
                    video.doubtful,
                    stream.rejected,
                    video.incomplete,
                    tuple(video.warnings),
                    None if error is None else str(error),
                ),
            )

    def _write(self, recording: Recording, results: Iterable[Detections], reading: Callable[[], Reading]) -> Outcome:
        path = self._result_path(recording)
        with result_file(path, self.form) as file:
            file.write(results)
            read = reading()
            if not file.frames:
                raise VideoError(read.error or f"{recording.path}: no frame has a result")
        return Outcome(
            recording.path, str(path), frames=file.frames, detections=file.detections, epochs=file.epochs, **vars(read)
        )

    def _open(self, recording: Recording) -> VideoSource:
        return open_source(recording.path, self.source)

    def _before(self, recording: Recording, sha256: str) -> Outcome | None:
        record = self._read_record(recording)
        return None if record is None else self._if_of(recording, record, sha256)

    def _if_of(self, recording: Recording, record: _Record, sha256: str) -> Outcome | None:
        path, outcome = self._result_path(recording), record.outcome
        if outcome.error is not None or record.key != self._key(sha256) or not path.is_file():
            return None
        return replace(outcome, source=recording.path, output=str(path), before=True)

    def _read_record(self, recording: Recording) -> _Record | None:
        try:
            data = json.loads(read_text(self._outcome_path(recording)))
            return from_plain(_Record, data, "outcome")
        except (OSError, ValueError, RDNError):  # none yet, or one that this version does not know: it is made again
            return None

    def _record(self, recording: Recording, sha256: str, outcome: Outcome) -> None:
        try:
            status = os.stat(recording.path)
            size, mtime = status.st_size, status.st_mtime_ns
        except OSError:
            size = mtime = 0
        record = _Record(self._key(sha256), sha256, size, mtime, outcome)
        with replacing(self._outcome_path(recording)) as place:
            place.write_text(json.dumps(asdict(record), indent=1) + "\n", encoding="utf-8")

    def _key(self, sha256: str) -> str:
        """Of everything that decides the results of a video. The threads do not."""
        decides = {
            "results": _RESULTS_VERSION,
            "video": sha256,
            "bundle": _manifest_digest(self.engines),
            "dials": vars(self.dials),
            "options": vars(replace(self.options, threads=None)),
            "source": vars(self.source),
            "form": self.form,
        }
        return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()

    def _result_path(self, recording: Recording) -> Path:
        return self.output / f"{recording.name}.{self.form}"

    def _outcome_path(self, recording: Recording) -> Path:
        return self.output / f"{recording.name}.outcome.json"

    def _piece_path(self, piece: Piece, sha256: str) -> Path:
        assert piece.segment is not None
        end = "end" if piece.segment.stop is None else piece.segment.stop
        return self.output / SEGMENTS / self._key(sha256) / f"{piece.segment.first}-{end}.npz"


@dataclass(frozen=True)
class _Record:
    """What stands in the file of an outcome."""

    key: str
    sha256: str
    """Of the video"""
    size: int
    mtime_ns: int
    outcome: Outcome

    def __post_init__(self) -> None:
        check_fields(self, "outcome")


def _why(error: Exception) -> str:
    return str(error) if isinstance(error, (RDNError, OSError)) else f"{type(error).__name__}: {error}"


def _whole_of(readings: Sequence[Reading]) -> Reading:
    """Of a video, from its segments': the last one read it to its end."""
    errors = [one.error for one in readings if one.error is not None]
    return replace(readings[-1], refused=sum(one.refused for one in readings), error=errors[0] if errors else None)


def _digest(path: str) -> str:
    """SHA-256 of a file that may be large, once as long as it does not change."""
    status = os.stat(path)
    return _digest_of(path, status.st_size, status.st_mtime_ns)


@functools.lru_cache(maxsize=1024)
def _digest_of(path: str, size: int, mtime_ns: int) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@functools.lru_cache(maxsize=8)
def _manifest_digest(engines: Path) -> str:
    """Of the manifest, which has those of all files of the bundle."""
    return hashlib.sha256((engines / MANIFEST).read_bytes()).hexdigest()
