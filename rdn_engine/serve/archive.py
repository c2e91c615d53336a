"""Recorded videos into a folder of results: each video's once, whole, whoever computes it and how often.

`OUTPUT/NAME.jsonl` (or `.parquet`) holds the results of a video, `OUTPUT/NAME.outcome.json` what became of it and a key
of everything that decides the results: the video's content, the model, the dials. A video whose outcome has the key is
done. The results are put there before the outcome, and the old outcome goes before them. An outcome also says how large
and how old its results are, and its video was before it was read. So what is interrupted, run twice at once, or changed
meanwhile is not done, or done right.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from rdn_engine.bundle.manifest import MANIFEST
from rdn_engine.config import Dials
from rdn_engine.detector import Detector
from rdn_engine.errors import FrameError, RDNError, ResultError, VideoError
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
from rdn_engine.serve.segments import Reading, Segment, SegmentResult, detect_segment, join
from rdn_engine.text import read_text

_RESULTS_VERSION = 2
"""Raised where the same inputs give other results or files"""
_OF_FILES = ("video_stream", "deinterlace", "square_pixels")
"""Options of sources that change how a file is read"""
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
    encoded: int = 0
    """Of frames that were encoded"""
    detections: int = 0
    per_class: dict[str, int] = field(default_factory=dict)
    """Class name -> detections, most first"""
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

    @functools.cached_property
    def _bundle(self) -> str:
        """SHA-256 of the manifest, which has those of all files of the bundle; of one job, whatever becomes of it."""
        return hashlib.sha256((self.engines / MANIFEST).read_bytes()).hexdigest()

    def open_detector(self) -> Detector:
        """Load the model.

        Raises:
            BundleError, BackendUnavailable, ConfigError: as `Detector.from_pretrained`.
        """
        return self.options.open(self.engines)

    def done(self, recording: Recording) -> Outcome | None:
        """The outcome of an earlier run, where it stands and the video has the size and the time that it had then. What
        that run left of segments goes.

        Args:
            recording: one of the job's.
        """
        record = self._read_record(recording)
        if record is None or record.video is None or record.video != _stamp_of(recording.path):
            return None
        before = self._if_of(recording, record, record.sha256)
        if before is not None:
            self._remove_segments(recording, record.sha256)
        return before

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
            sha256 = _digest(piece.recording.path, _Stamp.of(piece.recording.path))
            place = self._piece_path(piece, sha256)
            if not place.exists() and not self._is_done(piece.recording, sha256):
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

        def work(sha256: str) -> tuple[Outcome, _Stamp]:
            readings: list[Reading] = []

            def each() -> Iterable[SegmentResult]:
                for piece in pieces:
                    path = self._piece_path(piece, sha256)
                    try:
                        segment = read_segment(path)
                    except ResultError:
                        path.unlink(missing_ok=True)  # the next run makes it again
                        raise
                    readings.append(segment.reading)
                    yield segment

            return self._write(recording, join(each(), self.dials), lambda: _whole_of(readings))

        return self._guarded(recording, work)

    def sweep(self) -> None:
        """Remove what processes that were killed left in the folder of results."""
        sweep(self.output)
        with suppress(OSError):  # none, or segments that still wait
            (self.output / SEGMENTS).rmdir()

    def failed(self, recording: Recording, why: str) -> Outcome:
        """An outcome of a video that nobody else records.

        Args:
            recording: the video.
            why: in words.
        """
        outcome = Outcome(recording.path, None, why)
        with suppress(OSError):
            self._result_path(recording).unlink(missing_ok=True)
            self._record(recording, _Record(self._key(""), "", None, None, outcome))
        return outcome

    def _guarded(self, recording: Recording, work: Callable[[str], tuple[Outcome, _Stamp]]) -> Outcome:
        """What becomes of a video, whatever happens: the job's other videos go on."""
        began = time.perf_counter()
        sha256 = ""
        video = results = None
        try:
            video = _Stamp.of(recording.path)
            sha256 = _digest(recording.path, video)
            record = self._read_record(recording)
            before = None if record is None else self._if_of(recording, record, sha256)
            if record is not None and before is not None:
                self._record(recording, replace(record, video=video))
                self._remove_segments(recording, sha256)
                return before
            self._outcome_path(recording).unlink(missing_ok=True)
            outcome, results = work(sha256)
        except Exception as error:  # of a decoder, of a backend, of a disk: one video's
            with suppress(OSError):
                self._result_path(recording).unlink(missing_ok=True)
            outcome = Outcome(recording.path, None, _why(error))
        outcome = replace(outcome, seconds=round(time.perf_counter() - began, 3))
        try:
            self._record(recording, _Record(self._key(sha256), sha256, video, results, outcome))
        except OSError as error:
            return Outcome(recording.path, None, _why(error), seconds=outcome.seconds)
        if outcome.output is not None:
            # Not before the outcome stands, for who joins the same at once.
            self._remove_segments(recording, sha256)
        return outcome

    def _whole(
        self, detector: Detector, recording: Recording, each: Callable[[VideoSource], Iterable[Frame]]
    ) -> tuple[Outcome, _Stamp]:
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

    def _write(
        self, recording: Recording, results: Iterable[Detections], reading: Callable[[], Reading]
    ) -> tuple[Outcome, _Stamp]:
        path = self._result_path(recording)
        with result_file(path, self.form) as file:
            file.write(results)
            read = reading()
            if not file.frames:
                raise VideoError(read.error or f"{recording.path}: no frame has a result")
        outcome = Outcome(
            recording.path,
            str(path),
            frames=file.frames,
            encoded=file.encoded,
            detections=file.per_class.total(),
            per_class=dict(file.per_class.most_common()),
            epochs=file.epochs,
            **vars(read),
        )
        return outcome, _Stamp.of(path)

    def _open(self, recording: Recording) -> VideoSource:
        return open_source(recording.path, self.source)

    def _is_done(self, recording: Recording, sha256: str) -> bool:
        record = self._read_record(recording)
        return record is not None and self._if_of(recording, record, sha256) is not None

    def _if_of(self, recording: Recording, record: _Record, sha256: str) -> Outcome | None:
        path, outcome = self._result_path(recording), record.outcome
        if outcome.error is not None or record.key != self._key(sha256):
            return None
        if record.results is None or record.results != _stamp_of(path):
            return None
        return replace(outcome, source=recording.path, output=str(path), before=True)

    def _read_record(self, recording: Recording) -> _Record | None:
        try:
            data = json.loads(read_text(self._outcome_path(recording)))
            return from_plain(_Record, data, "outcome")
        except (OSError, ValueError, RecursionError, RDNError):
            # None yet, or one that this version does not know: it is made again.
            return None

    def _record(self, recording: Recording, record: _Record) -> None:
        with replacing(self._outcome_path(recording)) as place:
            place.write_text(json.dumps(asdict(record), indent=1) + "\n", encoding="utf-8")

    def _key(self, sha256: str) -> str:
        """Of everything that decides the results of a video. The threads do not, nor how a network is read."""
        decides = {
            "results": _RESULTS_VERSION,
            "video": sha256,
            "bundle": self._bundle,
            "dials": vars(self.dials),
            "options": vars(replace(self.options, threads=None)),
            "source": {name: getattr(self.source, name) for name in _OF_FILES},
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
        # Results name their video as it was given.
        given = hashlib.sha256(os.fsencode(piece.recording.path)).hexdigest()
        return self._segments_path(piece.recording, sha256) / given / f"{piece.segment.first}-{end}.npz"

    def _segments_path(self, recording: Recording, sha256: str) -> Path:
        # Another video of the same content has segments of its own, for these go when this one is done.
        own = hashlib.sha256(os.fsencode(f"{self._key(sha256)} {recording.name}"))
        return self.output / SEGMENTS / own.hexdigest()

    def _remove_segments(self, recording: Recording, sha256: str) -> None:
        """Those of every length of a video that is done."""
        shutil.rmtree(self._segments_path(recording, sha256), ignore_errors=True)


@dataclass(frozen=True)
class _Stamp:
    """What tells a file from what it was, without reading it."""

    size: int
    mtime_ns: int

    @classmethod
    def of(cls, path: str | Path) -> _Stamp:
        status = os.stat(path)
        return cls(status.st_size, status.st_mtime_ns)


@dataclass(frozen=True)
class _Record:
    """What stands in the file of an outcome."""

    key: str
    sha256: str
    """Of the video"""
    video: _Stamp | None
    """Before it was read; None where it is not there"""
    results: _Stamp | None
    """Once they were there; None where there are none"""
    outcome: Outcome

    def __post_init__(self) -> None:
        check_fields(self, "outcome")


def _why(error: Exception) -> str:
    return str(error) if isinstance(error, (RDNError, OSError)) else f"{type(error).__name__}: {error}"


def _whole_of(readings: Sequence[Reading]) -> Reading:
    """Of a video, from its segments': the last one read it to its end."""
    errors = [one.error for one in readings if one.error is not None]
    return replace(readings[-1], refused=sum(one.refused for one in readings), error=errors[0] if errors else None)


def _stamp_of(path: str | Path) -> _Stamp | None:
    try:
        return _Stamp.of(path)
    except OSError:
        return None


@functools.lru_cache(maxsize=1024)
def _digest(path: str, stamp: _Stamp) -> str:
    """SHA-256 of a file that may be large, once as long as it does not change."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
