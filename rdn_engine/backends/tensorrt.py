"""TensorRT and TensorRT-RTX: not in this version; the module says what a machine would need and what to use instead."""

from __future__ import annotations

import importlib.util
from typing import NoReturn

from rdn_engine.errors import BackendUnavailable

_LIBRARY = {"tensorrt": "tensorrt", "tensorrt_rtx": "tensorrt_rtx"}


def open_backend(name: str, device: str, threads: int) -> NoReturn:
    library = _LIBRARY[name]
    found = "installed" if importlib.util.find_spec(library) is not None else "not installed"
    raise BackendUnavailable(
        f"backend {name!r} (device {device!r}) is missing from this build of rdn_engine: it holds no TensorRT "
        f"plugins and no engine loader; the Python package {library!r} is {found} here. "
        "Use backend='onnxruntime', device='cpu'"
    )
