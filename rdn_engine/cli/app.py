"""The command line: what `rdn-engine --help` lists. Parses, calls, prints; computes nothing."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

import typer

from rdn_engine.bundle.directory import Bundle
from rdn_engine.cli.calibrate import calibrate
from rdn_engine.cli.discreet import DiscreetGroup
from rdn_engine.cli.evaluate import evaluate
from rdn_engine.cli.exits import CODES_HELP, MISMATCH, OTHER_ERROR, RUN_CODES_HELP, exit_codes
from rdn_engine.cli.export_triton import export_triton
from rdn_engine.cli.options import BackendOption, DeviceOption, EnginesArgument
from rdn_engine.cli.predict import predict
from rdn_engine.cli.progress import spinner
from rdn_engine.cli.service import run
from rdn_engine.cli.streams import emit, open_streams, say
from rdn_engine.cli.tables import agreement_rows, dial_table, graph_table, model_rows, new_table, tables_text
from rdn_engine.cli.tune import tune
from rdn_engine.config import RDNConfig
from rdn_engine.errors import BackendUnavailable
from rdn_engine.host.memory import stream_nbytes
from rdn_engine.kernels.cpu import RingPrecision
from rdn_engine.version import version

app = typer.Typer(
    name="rdn-engine",
    cls=DiscreetGroup,
    help="Video object detection with Relation Distillation Networks.",
    epilog=CODES_HELP,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command(epilog=CODES_HELP)(predict)
app.command(epilog=CODES_HELP)(evaluate)
app.command(epilog=CODES_HELP)(calibrate)
app.command(epilog=CODES_HELP)(tune)
app.command(epilog=RUN_CODES_HELP)(run)
app.command(epilog=CODES_HELP)(export_triton)


def _print_version(asked: bool) -> None:
    if asked:
        with exit_codes():
            emit(f"rdn-engine {version()}\n")
        raise typer.Exit


@app.callback()
def _options(
    asked: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Say which one this is.")
    ] = False,
) -> None:
    """Video object detection with Relation Distillation Networks."""


@app.command(epilog=CODES_HELP)
def info(engines: EnginesArgument) -> None:
    """What an engine directory holds. Its checksums are verified first."""
    with exit_codes():
        bundle = Bundle.open(engines)
        manifest, config = bundle.manifest, bundle.config
        facts = new_table("model", "")
        for name, value in {
            "name": manifest.name,
            "classes": f"{len(config.class_names)}: {', '.join(config.class_names)}",
            **model_rows(config),
            "precision": f"{manifest.precision}, opset {manifest.opset}",
            **agreement_rows(manifest),
            "parameters": ", ".join(f"{k} {v:,}" for k, v in manifest.parameters.items()),
            "source": ", ".join(f"{k} {v}" for k, v in manifest.source.items()),
            "written with": ", ".join(f"{k} {v}" for k, v in manifest.producers.items()),
            "memory per stream": _memory(config),
            "checksums": f"{len(manifest.files)} files, all as recorded",
        }.items():
            facts.add_row(name, value)
        emit(tables_text(facts, graph_table(bundle), dial_table(config)))


def _memory(config: RDNConfig) -> str:
    whole, half = (stream_nbytes(config, config.dials, ring) / 2**20 for ring in get_args(RingPrecision))
    narrower = "" if config.alone or config.cosine_score else f", {half:.1f} with ring_precision float16"
    return f"{whole:.1f} MiB with the dials below{narrower}"


@app.command(epilog=CODES_HELP)
def verify(
    engines: EnginesArgument,
    backend: BackendOption = "onnxruntime",
    device: DeviceOption = "cpu",
    threads: Annotated[int, typer.Option(help="CPU threads.")] = 1,
) -> None:
    """Recompute the golden results on this machine, stage by stage, with both executors."""
    from rdn_engine.verify import TIE_ALLOWANCE
    from rdn_engine.verify import verify as verify_bundle

    with exit_codes():
        reports = verify_bundle(engines, backend=backend, device=device, threads=threads)
        table = new_table("stage", "executor", "largest difference", "tolerance", "")
        for r in reports:
            table.add_row(
                r.stage, r.executor, f"{r.difference:.2e}", f"{r.tolerance:.2e}", "pass" if r.passed else "FAIL"
            )
        emit(tables_text(table))
        failed = sum(not r.passed for r in reports)
        if failed:
            say(f"{failed} of {len(reports)} comparisons are outside their tolerance")
            raise typer.Exit(MISMATCH)
        emit(f"pass: each stage from stored inputs; of boxes and detections {TIE_ALLOWANCE:.0%} may differ by a tie\n")


@app.command(epilog=CODES_HELP)
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

    with exit_codes():
        bundle = Bundle.open(engines)
        if backend not in ("tensorrt", "tensorrt_rtx"):
            raise BackendUnavailable(f"backend {backend!r} compiles nothing; `predict` runs {engines} as it is")
        limits = Limits.of(bundle.config, batch=batch, size=frame_size(size) if size else None,
                           proposals=proposals, support=support, window=window, ratio=ratio)  # fmt: skip
        table = new_table("graph", "plan", "")
        with spinner() as report:
            for role, path, built in build_plans(backend, bundle, limits, report, plugin=relation == "plugin"):
                table.add_row(role, str(path), "built" if built else "was there")
        emit(tables_text(table))


def main() -> None:
    """Entry point of `rdn-engine`."""
    open_streams()
    try:
        app()
    except OSError as error:  # of what prints help
        say(f"stdout: {error.strerror}")
        raise SystemExit(OTHER_ERROR) from None
