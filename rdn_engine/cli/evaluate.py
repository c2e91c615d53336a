"""`rdn-engine evaluate`: files of results against annotations."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rdn_engine.cli.exits import exit_codes
from rdn_engine.cli.streams import emit, say
from rdn_engine.cli.tables import tables_text
from rdn_engine.errors import BackendUnavailable, ConfigError

if TYPE_CHECKING:
    from rdn_engine.evaluation.annotated import Annotated as Annotations
    from rdn_engine.evaluation.join import Joined
    from rdn_engine.results import Detections

LEAST = 0.05
"""Confidence: results without any box at or below it were cut by a threshold, and their AP is too low."""


def evaluate(
    results: Annotated[list[Path], typer.Argument(metavar="RESULTS...", help="JSON lines of `predict --output`.")],
    data: Annotated[Path, typer.Option(metavar="FILE", help="CocoVID annotations; docs/datasets.md.")],
    video: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SOURCE=NAME",
            help="The video of the annotations that a source is, where its name does not say it; may be repeated.",
        ),
    ] = None,
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="A frame without a line is one in which nothing was found.")
    ] = False,
    trace: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="Trace of `predict --trace`, for streaming AP and delays; may be repeated."),
    ] = None,
    fps: Annotated[
        float | None, typer.Option(help="Of the camera that a trace is replayed for; the frames' own times by default.")
    ] = None,
    output: Annotated[Path | None, typer.Option(metavar="FILE", help="The figures as JSON.")] = None,
    plots: Annotated[Path | None, typer.Option(metavar="DIR", help="Pictures of them (matplotlib).")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The figures as JSON on stdout, no table.")] = False,
) -> None:
    """How good RESULTS are, in the protocols of docs/evaluation.md. Wants faster-coco-eval, and no torch."""
    with exit_codes():
        if fps is not None and not 0 < fps < float("inf"):
            raise ConfigError(f"fps is {fps:g}; wanted above 0")
        if fps is not None and not trace:
            raise ConfigError("--fps is given without --trace; wanted the traces that it is the rate of")
        check_library()
        figures = _figures(results, data, pairs(video or []), trace or [], fps, plots, allow_missing=allow_missing)
        text = json.dumps(figures, indent=2, allow_nan=False) + "\n"
        if output is not None:
            output.write_text(text, encoding="utf-8")
        if as_json:
            emit(text)
        else:
            from rdn_engine.evaluation.table import result_table

            emit(tables_text(result_table(figures)))


def _figures(
    results: Sequence[Path],
    data: Path,
    named: dict[str, str],
    traces: Sequence[Path],
    fps: float | None,
    plots: Path | None,
    *,
    allow_missing: bool,
) -> dict[str, Any]:
    from rdn_engine.evaluation.annotated import Annotated as Annotations
    from rdn_engine.evaluation.coco_vid import read_dataset
    from rdn_engine.evaluation.join import join
    from rdn_engine.evaluation.lines import read_lines
    from rdn_engine.evaluation.score import precision_recall, score

    annotated = Annotations(data.name, read_dataset(data))
    joined = join(read_lines(results), annotated.dataset, named, allow_missing=allow_missing)
    names = tuple(annotated.dataset.class_names)
    look_ahead = _frames_waited([placed.result for placed in joined.placed])
    figures = {
        "results": {
            "files": [str(path) for path in results],
            "unannotated": sum(placed.frame is None for placed in joined.placed),
            "missing": joined.absent,
        },
        **score(joined.found, annotated, names, look_ahead),
    }
    least = min((float(p.result.confidence.min()) for p in joined.placed if len(p.result)), default=0.0)
    if least > LEAST:
        say(f"warning: no confidence is below {least:.3f}; AP wants every box: predict without --threshold")
    if traces:
        figures["streaming"] = _streaming(joined, annotated, traces, fps)
    if plots is not None:
        _draw(figures, precision_recall(joined.found, annotated, names), plots)
    return figures


def _frames_waited(results: Sequence[Detections]) -> int:
    """The longest look-ahead in frames: results quote it in steps, of which an interval has one every n frames.

    Args:
        results: of each source, in order.
    """
    longest, behind = 0, 1
    for result in results:
        behind = 1 if result.basis in ("encoded", "still") else behind + 1
        longest = max(longest, behind)
    return longest * max(result.lookahead for result in results)


def _streaming(joined: Joined, annotated: Annotations, traces: Sequence[Path], fps: float | None) -> dict[str, Any]:
    from rdn_engine.evaluation.streaming import streaming
    from rdn_engine.evaluation.trace import Moments, read_trace, replay

    runs = [read_trace(path) for path in traces]
    moments: Moments = {}
    for run in runs:
        moments |= replay(run, fps)
    work = [push.ms for run in runs for push in run if push.frame_index is not None]
    return {"fps": fps, **streaming(joined, annotated, moments, work)}


def _draw(figures: dict[str, Any], curves: dict[str, Any], directory: Path) -> None:
    try:
        from rdn_engine.evaluation.plots import draw
    except ImportError as error:
        raise BackendUnavailable(f"--plots needs matplotlib ({error}); pip install matplotlib") from error
    draw(figures, curves, directory)


def check_library() -> None:
    """Raise BackendUnavailable without what computes AP."""
    try:
        import faster_coco_eval  # noqa: F401
    except ImportError as error:
        raise BackendUnavailable(f"evaluate needs faster-coco-eval ({error}); pip install faster-coco-eval") from error


def pairs(given: Sequence[str]) -> dict[str, str]:
    """Sources and the names of their videos, split at the last sign: addresses have more of them than names.

    Args:
        given: SOURCE=NAME each.

    Raises:
        ConfigError: for anything else.
    """
    named: dict[str, str] = {}
    for pair in given:
        source, sign, name = pair.rpartition("=")
        if not sign or not source or not name:
            raise ConfigError(f"--video is {pair!r}; wanted SOURCE=NAME")
        named[source] = name
    return named
