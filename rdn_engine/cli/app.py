"""The command line: predict, info, verify, build. Parses, calls, prints; computes nothing itself."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from rdn_engine.backends.graph import BackendName, Device
from rdn_engine.bundle.directory import Bundle
from rdn_engine.cli.run import Run
from rdn_engine.cli.tables import agreement_rows, dial_table, graph_table, new_table, print_summary, print_tables
from rdn_engine.config import Dials, Edges, LinkMethod, Sampling
from rdn_engine.detector import Detector, RelationPrecision
from rdn_engine.errors import BackendUnavailable, BundleError, ConfigError, FrameError, RDNError, VideoError
from rdn_engine.host.runtime import Executor
from rdn_engine.host.window import Window
from rdn_engine.media.source import open_source

OTHER_ERROR, USAGE, BAD_INPUT, BAD_BUNDLE, NO_BACKEND, MISMATCH, INTERRUPTED = 1, 2, 3, 4, 5, 6, 130
_EXIT_CODES: tuple[tuple[type[Exception], int], ...] = (
    (ConfigError, USAGE),
    (VideoError, BAD_INPUT),
    (FrameError, BAD_INPUT),
    (BundleError, BAD_BUNDLE),
    (BackendUnavailable, NO_BACKEND),
    (RDNError, OTHER_ERROR),
    (OSError, OTHER_ERROR),
)
_CODES_HELP = (
    "Exit codes: 0 done; 1 another error (a file that cannot be written); 2 wrong usage or a dial out of range; "
    "3 bad input; 4 bad engine directory; 5 backend or device not available; 6 verify found a mismatch; "
    "130 interrupted, what was written so far is kept."
)

app = typer.Typer(
    name="rdn-engine",
    help="Video object detection with Relation Distillation Networks.",
    epilog=_CODES_HELP,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

EnginesArgument = Annotated[Path, typer.Argument(metavar="DIR", help="Engine directory, as export writes it.")]
BackendOption = Annotated[BackendName, typer.Option(help="What runs the graphs.")]
DeviceOption = Annotated[Device, typer.Option(help="Where they run.")]


@app.command(epilog=_CODES_HELP)
def predict(
    source: Annotated[str, typer.Argument(help="A video, an address, an image, a folder of images, or a quoted glob.")],
    engines: Annotated[Path, typer.Option(metavar="DIR", help="Engine directory.")],
    output: Annotated[Path | None, typer.Option(help="JSON lines, one a frame; docs/jsonl.md.")] = None,
    save_video: Annotated[Path | None, typer.Option(help="Annotated video.")] = None,
    threshold: Annotated[float | None, typer.Option(help="Keep detections above this confidence, in [0, 1).")] = None,
    draw_threshold: Annotated[float, typer.Option(help="Draw detections from this confidence on, in [0, 1].")] = 0.3,
    window: Annotated[int | None, typer.Option(help="T: frames on each side.")] = None,
    look_ahead: Annotated[int | None, typer.Option(help="L: frames that results may wait for, 0..T.")] = None,
    support: Annotated[int | None, typer.Option(help="K: support proposals of each frame.")] = None,
    reference: Annotated[int | None, typer.Option(help="N: proposals classified on each frame, at least K.")] = None,
    ratio: Annotated[float | None, typer.Option(help="r: part of the support that is refined, in (0, 1].")] = None,
    sampling: Annotated[Sampling | None, typer.Option(help="How the refined part is chosen.")] = None,
    edges: Annotated[Edges | None, typer.Option(help="What the window holds beyond the ends of the video.")] = None,
    link: Annotated[bool, typer.Option("--link", help="Link boxes along the video: identities, rescoring.")] = False,
    link_by: Annotated[LinkMethod | None, typer.Option(help="What links them; relations by default.")] = None,
    link_delay: Annotated[int | None, typer.Option(help="D: frames that linked results may wait.")] = None,
    executor: Annotated[Executor, typer.Option(help="Who runs the relation stage.")] = "fused",
    relation_precision: Annotated[
        RelationPrecision, typer.Option(help="Of its products: bfloat16 on the CPU (AVX512-BF16), float16 on a GPU.")
    ] = "float32",
    backend: BackendOption = "onnxruntime",
    device: DeviceOption = "cpu",
    threads: Annotated[int | None, typer.Option(help="CPU threads; all that this process may use by default.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress and no summary.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Summary as JSON on stdout, and nothing else there.")] = False,
) -> None:
    """Detect in every frame of SOURCE. Dials that are not given are the model's own."""
    with _exit_codes():
        if not 0.0 <= draw_threshold <= 1.0:
            raise ConfigError(f"draw-threshold is {draw_threshold:g}; wanted a confidence in [0, 1]")
        if output is not None and save_video is not None and output.resolve() == save_video.resolve():
            raise ConfigError(f"--output and --save-video are both {output}; wanted two different files")
        with open_source(source) as video:
            _keep_source([path for path in (output, save_video) if path is not None], source, video.files)
            detector = Detector.from_pretrained(
                engines,
                backend=backend,
                device=device,
                threads=threads,
                executor=executor,
                relation_precision=relation_precision,
            )
            given = {"window": window, "look_ahead": look_ahead, "num_support": support, "num_reference": reference,
                     "advanced_ratio": ratio, "sampling": sampling, "edges": edges,
                     "score_threshold": threshold, "link": link_by, "link_delay": link_delay}  # fmt: skip
            dials = _turn(detector.config.dials, {k: v for k, v in given.items() if v is not None}, link)
            with detector.open_stream(dials, source_id=video.source_id) as stream:
                run = Run(stream, video, draw_threshold)
                run.process(output, save_video, show_progress=not quiet and sys.stderr.isatty())
        summary = run.summary(output, save_video)
        if as_json:
            print(json.dumps(summary))
        elif not quiet:
            print_summary(summary)
        if run.interrupted:
            _say("interrupted; the results so far are kept")
            raise typer.Exit(INTERRUPTED)
        if run.error is not None:
            raise run.error


@app.command(epilog=_CODES_HELP)
def info(engines: EnginesArgument) -> None:
    """What an engine directory holds. Its checksums are verified first."""
    with _exit_codes():
        bundle = Bundle.open(engines)
        manifest, config = bundle.manifest, bundle.config
        facts = new_table("model", "")
        roi, relation, stages = config.roi, config.relation, f"{config.relation.num_basic} basic"
        for name, value in {
            "name": manifest.name,
            "classes": f"{len(config.class_names)}: {', '.join(config.class_names)}",
            "backbone": f"{config.backbone.name}, width {config.backbone.width:g}",
            "RoI": f"{roi.pooling} {roi.size}x{roi.size}",
            "relation": f"{stages}{' + advanced' if relation.advanced else ''}, {relation.heads} heads of "
            f"{relation.head_dim}",
            "input": f"shorter side {config.input.shorter_side}, longer at most {config.input.longer_side}, "
            f"{config.input.channel_order}",
            "precision": f"{manifest.precision}, opset {manifest.opset}",
            **agreement_rows(manifest),
            "parameters": ", ".join(f"{k} {v:,}" for k, v in manifest.parameters.items()),
            "source": ", ".join(f"{k} {v}" for k, v in manifest.source.items()),
            "written with": ", ".join(f"{k} {v}" for k, v in manifest.producers.items()),
            "memory per stream": f"{Window(relation, config.dials).nbytes / 2**20:.1f} MiB with the dials below",
            "checksums": f"{len(manifest.files)} files, all as recorded",
        }.items():
            facts.add_row(name, value)
        print_tables(facts, graph_table(bundle), dial_table(config))


@app.command(epilog=_CODES_HELP)
def verify(
    engines: EnginesArgument,
    backend: BackendOption = "onnxruntime",
    device: DeviceOption = "cpu",
    threads: Annotated[int, typer.Option(help="CPU threads.")] = 1,
) -> None:
    """Recompute the golden results on this machine, stage by stage, with both executors."""
    from rdn_engine.verify import TIE_ALLOWANCE
    from rdn_engine.verify import verify as verify_bundle

    with _exit_codes():
        reports = verify_bundle(engines, backend=backend, device=device, threads=threads)
        table = new_table("stage", "executor", "largest difference", "tolerance", "")
        for r in reports:
            table.add_row(
                r.stage, r.executor, f"{r.difference:.2e}", f"{r.tolerance:.2e}", "pass" if r.passed else "FAIL"
            )
        print_tables(table)
        failed = sum(not r.passed for r in reports)
        if failed:
            _say(f"{failed} of {len(reports)} comparisons are outside their tolerance")
            raise typer.Exit(MISMATCH)
        print(f"pass: each stage from stored inputs; of boxes and detections {TIE_ALLOWANCE:.0%} may differ by a tie")


@app.command(epilog=_CODES_HELP)
def build(
    engines: EnginesArgument,
    backend: BackendOption = "tensorrt",
    batch: Annotated[int, typer.Option(help="Frames of several streams at once.")] = 1,
    size: Annotated[str | None, typer.Option(metavar="HEIGHTxWIDTH", help="Frames of the video, to tune for.")] = None,
    proposals: Annotated[
        int | None, typer.Option(help="Largest N; the model's own by default, as for K, T, r.")
    ] = None,
    support: Annotated[int | None, typer.Option(help="Largest K.")] = None,
    window: Annotated[int | None, typer.Option(help="Largest T.")] = None,
    ratio: Annotated[float | None, typer.Option(help="Largest r.")] = None,
    relation: Annotated[
        Literal["graph", "plugin"], typer.Option(help="Modules of the relation graph: as they are, or one plugin each.")
    ] = "graph",
) -> None:
    """Compile the graphs of DIR for this machine, into the cache that `--backend tensorrt` reads (docs/gpu.md)."""
    from rdn_engine.backends.tensorrt.backend import build_plans
    from rdn_engine.backends.tensorrt.plans import Limits, frame_size

    with _exit_codes():
        bundle = Bundle.open(engines)
        if backend not in ("tensorrt", "tensorrt_rtx"):
            raise BackendUnavailable(f"backend {backend!r} compiles nothing; `predict` runs {engines} as it is")
        limits = Limits.of(bundle.config, batch=batch, size=frame_size(size) if size else None,
                           proposals=proposals, support=support, window=window, ratio=ratio)  # fmt: skip
        table = new_table("graph", "plan", "")
        with _progress() as report:
            for role, path, built in build_plans(backend, bundle, limits, report, plugin=relation == "plugin"):
                table.add_row(role, str(path), "built" if built else "was there")
        print_tables(table)


def main() -> None:
    """Entry point of `rdn-engine`."""
    app()


@contextlib.contextmanager
def _exit_codes() -> Iterator[None]:
    """Every error that is expected becomes one line on stderr and its exit code."""
    try:
        yield
    except KeyboardInterrupt:
        _say("interrupted")
        raise typer.Exit(INTERRUPTED) from None
    except (RDNError, OSError) as error:
        _say(" ".join(str(error).split()))
        raise typer.Exit(next(code for kind, code in _EXIT_CODES if isinstance(error, kind))) from None


@contextlib.contextmanager
def _progress() -> Iterator[Callable[[str], None]]:
    """A line on the terminal that says what is done now."""
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=None)
        yield lambda step: progress.update(task, description=step)


def _keep_source(outputs: list[Path], source: str, files: tuple[Path, ...]) -> None:
    """Refuse, before anything is opened for writing, an output that would overwrite what is read."""
    if not outputs:
        return
    read = {path.resolve() for path in (Path(source), *files)}
    for path in outputs:
        if path.resolve() in read:
            raise ConfigError(f"{path} is a file of the source {source}; wanted another name for the output")


def _say(message: str) -> None:
    print(f"rdn-engine: {message}", file=sys.stderr)


def _turn(dials: Dials, given: dict[str, Any], link: bool) -> Dials:
    """A smaller window takes the model's look-ahead with it, and a smaller N its K, unless they were given too."""
    if link and dials.link == "off":
        given.setdefault("link", "relations")
    elif not link and dials.link == "off" and not given.keys().isdisjoint(("link", "link_delay")):
        raise ConfigError("--link-by or --link-delay is given without --link; wanted --link too")
    if dials.look_ahead is not None and "window" in given and "look_ahead" not in given:
        given["look_ahead"] = min(dials.look_ahead, given["window"])
    if "num_reference" in given and "num_support" not in given:
        given["num_support"] = min(dials.num_support, given["num_reference"])
    return dataclasses.replace(dials, **given)


if __name__ == "__main__":
    main()
