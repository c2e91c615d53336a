"""`rdn-engine export-triton`: a model repository for Triton Inference Server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from rdn_engine.cli.exits import exit_codes
from rdn_engine.cli.options import ChoiceOption, DeviceOption, EnginesArgument
from rdn_engine.cli.streams import emit
from rdn_engine.errors import ConfigError
from rdn_engine.serve.triton.export import export_triton as write
from rdn_engine.serve.triton.options import TritonOptions

_DEFAULT = TritonOptions()


def export_triton(
    engines: EnginesArgument,
    output: Annotated[Path, typer.Option(metavar="DIR", help="The repository; other models in it stay.")],
    name: Annotated[str, typer.Option(help="Of the model, as clients call it.")] = "rdn",
    max_sequences: Annotated[
        int, typer.Option(help="Streams that one instance takes; another one is refused.")
    ] = _DEFAULT.max_sequences,
    idle_seconds: Annotated[
        float, typer.Option(help="A stream without a request for this long is forgotten.")
    ] = _DEFAULT.idle_seconds,
    byte_budget: Annotated[int | None, typer.Option(help="Bytes that streams of an instance may hold.")] = None,
    max_batch: Annotated[int, typer.Option(help="Frames of several streams in one call.")] = _DEFAULT.max_batch,
    instances: Annotated[int, typer.Option(help="Processes with the model.")] = _DEFAULT.instances,
    threads: Annotated[int | None, typer.Option(help="CPU threads of an instance; all by default.")] = None,
    backend: ChoiceOption = _DEFAULT.backend,
    device: DeviceOption = _DEFAULT.device,
    dials: Annotated[str, typer.Option(metavar="JSON", help="Of every stream, as '{\"look_ahead\": 2}'.")] = "{}",
    warm_up: Annotated[int, typer.Option(help="Rounds before the model is ready.")] = _DEFAULT.warm_up,
) -> None:
    """Write a model repository that serves DIR on Triton Inference Server (docs/triton.md)."""
    with exit_codes():
        try:
            turned = json.loads(dials)
        except ValueError as error:
            raise ConfigError(f"dials is {dials!r}, which is no JSON ({error}); wanted such as '{{}}'") from None
        options = TritonOptions(
            max_sequences=max_sequences,
            idle_seconds=idle_seconds,
            byte_budget=byte_budget,
            max_batch=max_batch,
            instances=instances,
            backend=backend,
            device=device,
            threads=threads,
            dials=turned,
            warm_up=warm_up,
        )
        folder = write(engines, output, options, name=name)
        emit(f"{folder}: tritonserver --model-repository={output}\n")
