"""`rdn-engine predict` of many videos: each into a file of its own, in this process or on Ray."""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import typer

from rdn_engine.cli.exits import BAD_INPUT, leave
from rdn_engine.cli.progress import videos_bar
from rdn_engine.cli.signals import Interrupted, Interrupts
from rdn_engine.cli.streams import emit, say
from rdn_engine.cli.tables import archive_table, tables_text
from rdn_engine.serve.archive import Archive, Outcome
from rdn_engine.serve.recordings import Recording
from rdn_engine.serve.result_files import check_format


@dataclass(frozen=True)
class RayOptions:
    """Where Ray is, and how the work is cut."""

    address: str
    workers: int | None
    segment_frames: int | None


def predict_archive(
    archive: Archive,
    videos: Sequence[Recording],
    ray: RayOptions | None,
    interrupts: Interrupts,
    *,
    show_progress: bool,
    as_json: bool,
    quiet: bool,
    strict: bool,
) -> None:
    """Detect in videos, say on stderr what is wrong with any, and print what became of all.

    Args:
        archive: the job.
        videos: of it.
        ray: None for this process.
        interrupts: what breaks it off; whole files stay, and the next run goes on behind them.
        show_progress: on stderr.
        as_json: the summary is JSON.
        quiet: there is none.
        strict: input that is not whole is an exit code.

    Raises:
        RDNError: for what concerns the whole job.
        typer.Exit: with a code of docs/jsonl.md, where there is one.
    """
    outcomes: list[Outcome] = []
    with contextlib.suppress(Interrupted), contextlib.ExitStack() as stack:
        if ray is None:
            results = _here(archive, videos, interrupts)
        else:
            results = stack.enter_context(_on_ray(archive, videos, ray, interrupts))
        interrupts.patient = True
        progress = stack.enter_context(videos_bar(show_progress))
        task = progress.add_task("", total=len(videos), frames=0)
        for outcome in results:
            outcomes.append(outcome)
            # In this process sources have said their warnings already.
            warnings = () if ray is None or outcome.before else outcome.warnings
            for said in filter(None, (outcome.error, outcome.incomplete, *warnings)):
                say(said if outcome.source in said else f"{outcome.source}: {said}")
            progress.update(task, advance=1, frames=sum(one.frames for one in outcomes))
    summary = summary_of(archive, outcomes, interrupted=interrupts.number is not None)
    if as_json:
        emit(json.dumps(summary) + "\n")
    elif not quiet:
        emit(tables_text(archive_table(summary)))
    if interrupts.number is None and summary["errors"]:
        raise typer.Exit(BAD_INPUT)
    leave(interrupts, strict and not all(one.whole for one in outcomes))


def summary_of(archive: Archive, outcomes: Sequence[Outcome], *, interrupted: bool) -> dict[str, Any]:
    """What the job did, as plain numbers and strings.

    Args:
        archive: the job.
        outcomes: of its videos.
        interrupted: whether it was broken off.
    """
    per_class: Counter[str] = Counter()
    for one in outcomes:
        per_class.update(one.per_class)
    return {
        "output": str(archive.output),
        "done": sum(one.error is None and not one.before for one in outcomes),
        "done before": sum(one.before for one in outcomes),
        "errors": sum(one.error is not None for one in outcomes),
        "frames": sum(one.frames for one in outcomes),
        "encoded": sum(one.encoded for one in outcomes),
        "every_frame": archive.dials.every_frame,
        "detections": per_class.total(),
        "per_class": dict(per_class.most_common()),
        "interrupted": interrupted,
        "videos": [asdict(one) for one in outcomes],
    }


def _here(archive: Archive, videos: Sequence[Recording], interrupts: Interrupts) -> Iterator[Outcome]:
    check_format(archive.form)
    detector = archive.open_detector()
    archive.sweep()
    for video in videos:
        yield archive.done(video) or archive.detect(detector, video, interrupts.each)
    archive.sweep()


@contextlib.contextmanager
def _on_ray(
    archive: Archive, videos: Sequence[Recording], ray: RayOptions, interrupts: Interrupts
) -> Iterator[Iterator[Outcome]]:
    from rdn_engine.serve.ray.archive import detect_archive
    from rdn_engine.serve.ray.cluster import cluster

    with cluster(ray.address) as connected:
        rows = detect_archive(connected, archive, videos, workers=ray.workers, segment_frames=ray.segment_frames)
        with interrupts.raising():
            yield rows
    archive.sweep()
