"""Torch as a runtime: not in this version, because the runtime is torch-free; the module says so and what to use."""

from __future__ import annotations

from typing import NoReturn

from rdn_engine.errors import BackendUnavailable


def open_backend(name: str, device: str, threads: int) -> NoReturn:
    raise BackendUnavailable(
        f"backend {name!r} (device {device!r}) is missing from this build of rdn_engine: a bundle holds ONNX "
        "graphs, which torch cannot load. Use backend='onnxruntime', or the torch model it was exported from"
    )
