"""`rdn-engine export-triton`: a model repository for Triton Inference Server."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rdn_engine.backends.graph import BackendChoice
from rdn_engine.cli.exits import exit_codes
from rdn_engine.cli.options import DeviceOption, EnginesArgument
from rdn_engine.cli.streams import emit
from rdn_engine.dials_file import DialsFile, read_dials_file
from rdn_engine.serve.triton.export import export_triton as write
from rdn_engine.serve.triton.options import TritonOptions

_DEFAULT = TritonOptions()


def export_triton(
    engines: EnginesArgument,
    output: Annotated[Path, typer.Option(metavar="DIR", help="The repository; other models in it stay.")],
    name: Annotated[str, typer.Option(help="Of the model, as clients call it.")] = "rdn",
    max_streams: Annotated[
        int, typer.Option(help="Streams that one instance takes; another one is refused.")
    ] = _DEFAULT.max_streams,
    idle_seconds: Annotated[
        float, typer.Option(help="A stream without a request for this long is forgotten.")
    ] = _DEFAULT.idle_seconds,
    byte_budget: Annotated[int | None, typer.Option(help="Bytes that streams of an instance may hold.")] = None,
    max_batch: Annotated[int, typer.Option(help="Frames of several streams in one call.")] = _DEFAULT.max_batch,
    instances: Annotated[int, typer.Option(help="Processes with the model.")] = _DEFAULT.instances,
    dials_file: Annotated[
        Path | None,
        typer.Option(
            "--dials", metavar="FILE", help="Dials and options of `tune --output`; what is given beside it goes before."
        ),
    ] = None,
    backend: Annotated[
        BackendChoice | None,
        typer.Option(help="What runs the graphs, onnxruntime by default; auto measures once which is fastest."),
    ] = None,
    device: DeviceOption = _DEFAULT.device,
    threads: Annotated[int | None, typer.Option(help="CPU threads of an instance; all by default.")] = None,
    warm_up: Annotated[int, typer.Option(help="Rounds before the model is ready.")] = _DEFAULT.warm_up,
) -> None:
    """Write a model repository that serves DIR on Triton Inference Server (docs/triton.md)."""
    with exit_codes():
        filed = DialsFile() if dials_file is None else read_dials_file(dials_file)
        filed.check_bundle(engines)
        given = {name: value for name, value in (("backend", backend), ("threads", threads)) if value is not None}
        options = TritonOptions(
            max_streams=max_streams,
            idle_seconds=idle_seconds,
            byte_budget=byte_budget,
            max_batch=max_batch,
            instances=instances,
            device=device,
            dials=filed.dials,
            warm_up=warm_up,
            **{**filed.options, **given},
        )
        folder = write(engines, output, options, name=name)
        emit(f"{folder} is written; to serve it: tritonserver --model-repository={output}\n")
