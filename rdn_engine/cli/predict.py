"""`rdn-engine predict`: a source through a detector, into JSON lines and an annotated video."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from rdn_engine.backends.graph import BackendChoice
from rdn_engine.bundle.directory import Bundle
from rdn_engine.cli.archive import RayOptions, predict_archive
from rdn_engine.cli.exits import exit_codes, leave
from rdn_engine.cli.lines import STDOUT
from rdn_engine.cli.options import DeviceOption
from rdn_engine.cli.run import Run
from rdn_engine.cli.signals import Interrupts
from rdn_engine.cli.streams import check_stdin, emit, say, tell
from rdn_engine.cli.tables import summary_table, tables_text
from rdn_engine.config import Dials, Edges, LinkMethod, Sampling
from rdn_engine.detector import RelationPrecision
from rdn_engine.dials_file import DialsFile, read_dials_file
from rdn_engine.errors import ConfigError, VideoError
from rdn_engine.host.runtime import Executor
from rdn_engine.kernels.cpu import RingPrecision
from rdn_engine.media.address import without_credentials
from rdn_engine.media.base import TIMEOUT_SECONDS, SourceOptions, VideoSource
from rdn_engine.media.given import given_value
from rdn_engine.media.playlist import file_key, files_read
from rdn_engine.media.source import open_source
from rdn_engine.serve.archive import Archive
from rdn_engine.serve.opening import DetectorOptions
from rdn_engine.serve.recordings import Recording, recordings
from rdn_engine.serve.result_files import ResultFormat


def predict(
    source: Annotated[
        str,
        typer.Argument(
            help="A video, an address, an image, a folder of images, a quoted glob of images or of videos, - for "
            "stdin; env:NAME or @FILE where a variable or a file holds it, which keeps a password out of the list of "
            "processes."
        ),
    ],
    engines: Annotated[Path, typer.Option(metavar="DIR", help="Engine directory.")],
    output: Annotated[
        Path | None,
        typer.Option(help="JSON lines, one a frame; - for stdout; docs/jsonl.md. Of many videos the folder of them."),
    ] = None,
    trace: Annotated[
        Path | None, typer.Option(help="JSON lines of how long each frame took, for `evaluate --trace`.")
    ] = None,
    save_video: Annotated[Path | None, typer.Option(help="Annotated video: .mp4, .mkv, .mov.")] = None,
    threshold: Annotated[float | None, typer.Option(help="Keep detections above this confidence, in [0, 1).")] = None,
    draw_threshold: Annotated[float, typer.Option(help="Draw detections from this confidence on, in [0, 1].")] = 0.3,
    window: Annotated[int | None, typer.Option(help="T: encoded frames on each side.")] = None,
    look_ahead: Annotated[int | None, typer.Option(help="L: steps that results may wait for, 0..T.")] = None,
    support: Annotated[int | None, typer.Option(help="K: support proposals of each frame.")] = None,
    reference: Annotated[int | None, typer.Option(help="N: proposals classified on each frame, at least K.")] = None,
    ratio: Annotated[float | None, typer.Option(help="r: part of the support that is refined, in (0, 1].")] = None,
    sampling: Annotated[Sampling | None, typer.Option(help="How the refined part is chosen.")] = None,
    edges: Annotated[Edges | None, typer.Option(help="What the window holds beyond the ends of the video.")] = None,
    link: Annotated[
        bool, typer.Option("--link", help="Link boxes along the video: identities, rescoring. Takes no value.")
    ] = False,
    link_by: Annotated[LinkMethod | None, typer.Option(help="What links them; relations by default.")] = None,
    link_delay: Annotated[
        int | None, typer.Option(help="With --link: D, the steps that results may wait; 0 for none.")
    ] = None,
    link_gap: Annotated[
        int | None,
        typer.Option(
            help="G: steps that an object may be lost and keep its identity; 0 for none. Boxes without one have "
            "tracker_id -1 then, and are drawn in grey."
        ),
    ] = None,
    interval: Annotated[
        int | None, typer.Option(help="n: every n-th frame is a step, encoded; boxes move between (docs/interval.md).")
    ] = None,
    still: Annotated[
        float | None,
        typer.Option(help="Encode no frame that changed by at most so many grey levels, 0..255; 0 is off."),
    ] = None,
    still_run: Annotated[int | None, typer.Option(help="m: still frames in a row at most.")] = None,
    dials_file: Annotated[
        Path | None,
        typer.Option(
            "--dials", metavar="FILE", help="Dials and options of `tune --output`; what is given beside it goes before."
        ),
    ] = None,
    executor: Annotated[Executor, typer.Option(help="Who runs the relation stage.")] = "fused",
    relation_precision: Annotated[
        RelationPrecision | None,
        typer.Option(help="Of its products: float32 by default; bfloat16 on the CPU (AVX512-BF16), float16 on a GPU."),
    ] = None,
    ring_precision: Annotated[
        RingPrecision | None,
        typer.Option(help="Of what the window keeps: float32 by default; float16 takes about half the memory."),
    ] = None,
    backend: Annotated[
        BackendChoice | None,
        typer.Option(help="What runs the graphs, onnxruntime by default; auto measures once which is fastest."),
    ] = None,
    device: DeviceOption = "cpu",
    threads: Annotated[int | None, typer.Option(help="CPU threads; all that this process may use by default.")] = None,
    timeout: Annotated[
        float, typer.Option(metavar="SECONDS", help="How long a network source may be silent.")
    ] = TIMEOUT_SECONDS,
    video_stream: Annotated[
        int | None, typer.Option(metavar="N", help="Which of several video streams, from 0; the default one else.")
    ] = None,
    deinterlace: Annotated[bool, typer.Option("--deinterlace", help="Make whole pictures of interlaced ones.")] = False,
    square_pixels: Annotated[
        bool,
        typer.Option("--square-pixels", help="Detect in an anamorphic video as it is shown; boxes stay as stored."),
    ] = False,
    rtsp_over: Annotated[Literal["tcp", "udp"], typer.Option(help="What carries the pictures of RTSP.")] = "tcp",
    ray: Annotated[
        str | None,
        typer.Option(
            metavar="[ADDRESS]",
            help="Many videos: on Ray (docs/scale.md), at HOST:PORT or auto; on this machine by default.",
        ),
    ] = None,
    workers: Annotated[int | None, typer.Option(help="Processes of --ray; as its CPUs allow by default.")] = None,
    segment_frames: Annotated[
        int | None, typer.Option(help="Of --ray: cut longer videos into segments of so many frames.")
    ] = None,
    result_format: Annotated[
        ResultFormat, typer.Option("--format", help="Many videos: what the files of results are.")
    ] = "jsonl",
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit code 7 where input is incomplete or frames have no result.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress, no summary; warnings and errors only.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Summary as JSON on stdout, and nothing else there.")] = False,
) -> None:
    """Detect in every frame of SOURCE. Dials that are not given are the model's own."""
    with exit_codes(), Interrupts() as interrupts, contextlib.ExitStack() as stack:
        if not 0.0 <= draw_threshold <= 1.0:
            raise ConfigError(f"draw-threshold is {draw_threshold:g}; wanted a confidence in [0, 1]")
        _check_outputs(output, save_video, trace, as_json)
        stack.enter_context(_warnings_said())
        named = given_value(source)
        check_stdin(named)
        filed = DialsFile() if dials_file is None else read_dials_file(dials_file)
        filed.check_bundle(engines)
        chosen = {"backend": backend, "threads": threads, "relation_precision": relation_precision,
                  "ring_precision": ring_precision}  # fmt: skip
        options = DetectorOptions(device=device, executor=executor, **{**filed.options, **_given(chosen)})
        reading = SourceOptions(timeout, video_stream, deinterlace, square_pixels, rtsp_over)
        given = {"window": window, "look_ahead": look_ahead, "num_support": support, "num_reference": reference,
                 "advanced_ratio": ratio, "sampling": sampling, "edges": edges,
                 "score_threshold": threshold, "link": link_by, "link_delay": link_delay,
                 "link_gap": link_gap, "interval": interval, "still": still, "still_run": still_run}  # fmt: skip
        given = _given(given)
        show_progress = not quiet and sys.stderr is not None and sys.stderr.isatty()
        if ray is None and (workers is not None or segment_frames is not None):
            raise ConfigError("--workers or --segment-frames is given without --ray; wanted --ray too")
        on_ray = None if ray is None else RayOptions(ray, workers, segment_frames)
        many = recordings(named)
        if many is None and on_ray is not None:
            many = [_one_recording(named)]
        if many is not None:
            folder = _check_archive(output, save_video, trace)
            dials = Bundle.open(engines).config.dials.turned(filed.dials)
            dials = dials.turned(_linked(dials, given, link))
            archive = Archive(engines.absolute(), folder.absolute(), dials, options, reading, result_format)
            predict_archive(archive, many, on_ray, interrupts, show_progress=show_progress, as_json=as_json,
                            quiet=quiet, strict=strict)  # fmt: skip
            return
        if result_format != "jsonl":
            raise ConfigError(
                f"--format is {result_format}; of one video the results are JSON lines, unless with --ray"
            )
        video = stack.enter_context(open_source(named, reading))
        _keep_source([path for path in (output, save_video, trace) if path is not None], named, video)
        detector = options.open(engines)
        dials = detector.config.dials.turned(filed.dials)
        dials = dials.turned(_linked(dials, given, link))
        stream = stack.enter_context(detector.open_stream(dials, source_id=video.source_id))
        run = Run(stream, video, draw_threshold, interrupts)
        run.process(output, save_video, show_progress, trace)
        summary = {"backend": detector.backend, **run.summary(output, save_video)}
        if as_json:
            emit(json.dumps(summary) + "\n")
        elif not quiet:
            (tell if output == STDOUT else emit)(tables_text(summary_table(summary)))
        if interrupts.number is None and run.error is not None:
            raise run.error
        not_whole = video.incomplete or video.skipped or video.doubtful or stream.rejected
        leave(interrupts, strict and bool(not_whole))


def _given(options: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _one_recording(source: str) -> Recording:
    if not os.path.isfile(source):
        raise VideoError(f"{without_credentials(source)} is no file; wanted a video, or a glob of videos, for --ray")
    return Recording(source, Path(source).name)


def _check_archive(output: Path | None, save_video: Path | None, trace: Path | None) -> Path:
    """The folder of the results of many videos."""
    for name, path in (("--save-video", save_video), ("--trace", trace)):
        if path is not None:
            raise ConfigError(f"{name} is {path}; wanted it with one video alone, and without --ray")
    if output is None or output == STDOUT:
        got = "not given" if output is None else output
        raise ConfigError(f"--output is {got}; wanted the folder of the results of many videos")
    if output.exists() and not output.is_dir():
        raise ConfigError(f"--output {output} is a file; wanted the folder of the results of many videos")
    return output


def _check_outputs(output: Path | None, save_video: Path | None, trace: Path | None, as_json: bool) -> None:
    given = {"--output": output, "--save-video": save_video, "--trace": trace}
    files = {name: path for name, path in given.items() if path is not None}
    for (name, path), (other, its) in combinations(files.items(), 2):
        if _is_same(path, its):
            raise ConfigError(f"{name} and {other} are both {path}; wanted two different files")
    if trace == STDOUT:
        raise ConfigError("--trace is -, stdout; wanted a file")
    if output == STDOUT and as_json:
        raise ConfigError("--output - and --json both want stdout; wanted a file for one of them")
    if sys.stdout is None and (output == STDOUT or as_json):
        raise ConfigError("stdout is closed; wanted it open, for the lines or the summary")


@contextlib.contextmanager
def _warnings_said() -> Iterator[None]:
    """What the package logs as a warning, as a line on stderr, when it is found."""
    log, handler = logging.getLogger("rdn_engine"), _Said(logging.WARNING)
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)


class _Said(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        say(f"warning: {record.getMessage()}")


def _keep_source(outputs: list[Path], source: str, video: VideoSource) -> None:
    """Refuse, before anything is opened for writing, an output that would overwrite what is read."""
    there = [path for path in outputs if os.path.exists(path) and path != STDOUT]
    keys = {file_key(file) for file in files_read(source, video.files)} if there else set()
    for path in there:
        if file_key(path) in keys or any(_is_same(path, file) for file in video.files):
            raise ConfigError(f"{path} is a file of the source {video.source_id}; wanted another name for the output")


def _is_same(path: Path, other: Path) -> bool:
    """Whether what is written to one goes to the other: the same name, or two names of one file."""
    key = file_key(path)
    return os.path.realpath(path) == os.path.realpath(other) or (key is not None and key == file_key(other))


def _linked(dials: Dials, given: dict[str, Any], link: bool) -> dict[str, Any]:
    """What was given, with what `--link` means."""
    if link and dials.link == "off":
        return {"link": "relations", **given}
    if not link and dials.link == "off" and not given.keys().isdisjoint(("link", "link_delay", "link_gap")):
        raise ConfigError("--link-by, --link-delay or --link-gap is given without --link; wanted --link too")
    return given
