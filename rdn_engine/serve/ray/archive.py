"""Recorded videos on Ray Data: a block is a video, or a segment of a long one, and an actor has one detector.

Ray plays a block again when its actor dies: a video is computed once more from its start, and its results take the
place of what was there. A video whose actors die again and again, as one does that crashes a decoder, is given up with
an error after ATTEMPTS.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from rdn_engine.bundle.directory import Bundle
from rdn_engine.errors import ConfigError, VideoError
from rdn_engine.media.source import open_source
from rdn_engine.plain import check, from_plain
from rdn_engine.serve.archive import Archive, Outcome, Piece
from rdn_engine.serve.ray.cluster import job_failed, ray_module
from rdn_engine.serve.recordings import Recording
from rdn_engine.serve.result_files import check_format
from rdn_engine.serve.segments import check_splits, split

ATTEMPTS = 3
"""How often a video is begun whose process dies"""
_IN_FLIGHT = 2
"""Blocks that an actor has: the one it works on, and the next, so that it need not wait for it"""


def detect_archive(
    ray: Any,
    archive: Archive,
    videos: Sequence[Recording],
    *,
    workers: int | None = None,
    segment_frames: int | None = None,
) -> Iterator[Outcome]:
    """Detect in videos on a cluster.

    Args:
        ray: of `cluster`.
        archive: the job. Its folders are those of the actors too, and `threads` CPUs, by default 1, are an actor's.
        videos: each of another name.
        workers: actors; None takes as many as the cluster has CPUs for.
        segment_frames: length of a segment, frames; None leaves videos whole.

    Returns:
        What became of each video, as it is known: first of those that an earlier run did, then as they end.

    Raises:
        ConfigError: for a job whose videos cannot be split.
        BundleError, BackendUnavailable: for a model or a format that cannot be had.
        RDNError: where the job ends as a whole.
    """
    threads = archive.options.threads or 1
    archive = replace(archive, options=replace(archive.options, threads=threads))
    config = Bundle.open(archive.engines).config
    check_format(archive.form)
    check(workers is None or workers >= 1, "workers", workers, "1 or more")
    if archive.options.backend == "auto":
        raise ConfigError("backend is 'auto', which each actor would choose for itself; wanted a name")
    if segment_frames is not None:
        check(segment_frames >= 1, "segment-frames", segment_frames, "1 or more")
        check_splits(config, archive.dials, archive.options.device)
    if archive.options.device == "cpu":
        archive.open_detector()  # what is wrong with it is said here, and not by actors one after another
    archive.sweep()
    pieces: list[Piece] = []
    for video in videos:
        before = archive.done(video)
        if before is not None:
            yield before
        else:
            pieces += _pieces(archive, video, segment_frames)
    if pieces:
        if workers is None:
            workers = max(1, int(ray.cluster_resources().get("CPU", 1)) // threads)
        try:
            yield from _outcomes(ray, archive, pieces, min(workers, len(pieces)), threads)
        except (ray.exceptions.RayError, RuntimeError) as error:
            raise job_failed(error) from error
        finally:
            archive.sweep()


def _outcomes(ray: Any, archive: Archive, pieces: list[Piece], workers: int, threads: int) -> Iterator[Outcome]:
    """Pieces through actors; the last one of a video's brings a task that joins them."""
    _settle(ray)
    attempts = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(_Attempts).remote()
    blocks = ray.data.from_items([{"place": i} for i in range(len(pieces))], override_num_blocks=len(pieces))
    rows = blocks.map(
        _Actor,
        fn_constructor_args=(archive, pieces, attempts, Path.cwd()),
        compute=ray.data.ActorPoolStrategy(size=workers, max_tasks_in_flight_per_actor=_IN_FLIGHT),
        num_cpus=threads,
        num_gpus=1 if archive.options.device == "cuda" else None,
    )
    join = ray.remote(num_cpus=1)(_join)
    all_of: dict[str, list[Piece]] = {}
    for piece in pieces:
        all_of.setdefault(piece.recording.name, []).append(piece)
    left = {name: {one.number for one in own} for name, own in all_of.items()}
    joining: list[Any] = []
    for row in rows.iter_rows():
        piece = pieces[row["place"]]
        name = piece.recording.name
        numbers = left.get(name)
        if numbers is None:  # its video has an outcome already
            continue
        if row["outcome"]:
            del left[name]
            yield from_plain(Outcome, json.loads(row["outcome"]), "outcome")
        else:
            numbers.discard(piece.number)
            if not numbers:
                del left[name]
                joining.append(join.remote(archive, Path.cwd(), all_of[name]))
        done, joining = ray.wait(joining, num_returns=len(joining), timeout=0) if joining else ([], [])
        yield from ray.get(done)
    yield from (ray.get(one) for one in joining)


class _Attempts:
    """Which processes began which piece; one for all actors, which outlives them."""

    def __init__(self) -> None:
        self._processes: dict[int, list[int]] = {}

    def begin(self, place: int, process: int) -> list[int]:
        """Those that began it before, and did not live to end it."""
        before = self._processes.setdefault(place, [])
        self._processes[place] = [*before, process]
        return before

    def end(self, place: int) -> None:
        self._processes.pop(place, None)


class _Actor:
    """A detector, and what is done with it."""

    def __init__(self, archive: Archive, pieces: list[Piece], attempts: Any, folder: Path) -> None:
        os.chdir(folder)  # where relative names begin
        self._archive, self._pieces, self._attempts = archive, pieces, attempts
        self._get = ray_module().get
        self._detector = archive.open_detector()

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        place = row["place"]
        piece = self._pieces[place]
        before = self._get(self._attempts.begin.remote(place, os.getpid()))
        if len(before) >= ATTEMPTS:
            processes = ", ".join(map(str, before))
            why = f"processes {processes} ended while they detected in it"
            outcome: Outcome | None = self._archive.failed(piece.recording, why)
        else:
            outcome = self._archive.detect_piece(self._detector, piece)
        self._attempts.end.remote(place)
        return {"place": place, "outcome": "" if outcome is None else json.dumps(asdict(outcome))}


def _join(archive: Archive, folder: Path, pieces: list[Piece]) -> Outcome:
    os.chdir(folder)
    return archive.join_pieces(pieces)


def _pieces(archive: Archive, video: Recording, segment_frames: int | None) -> list[Piece]:
    whole = [Piece(video, None)]
    if segment_frames is None:
        return whole
    try:
        with open_source(video.path, archive.source) as source:
            segments = split(source.frames_hint, segment_frames)
    except (VideoError, OSError):  # its row says why
        return whole
    return [Piece(video, one, i) for i, one in enumerate(segments)] if len(segments) > 1 else whole


def _settle(ray: Any) -> None:
    """Ray Data says nothing of its own on the terminal, and leaves the cores to the detectors."""
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    # A thread beside every block would read the process's memory map at once and every second (Ray 2.60.0), 4 ms each.
    context.memory_usage_poll_interval_s = None
