"""ONNX Runtime on the CPU."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnxruntime as ort
from numpy.typing import NDArray

from rdn_engine.errors import BackendUnavailable, BundleError, RDNError

_FATAL_ONLY = 4  # what fails is raised, so the library need not print it too


class OnnxRuntimeGraph:
    def __init__(self, path: Path, threads: int) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = _FATAL_ONLY
        # Idle threads that spin take the cores from the kernels and from BLAS, which run between two graphs.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        # A pattern is kept for every input shape met, and the number of proposals changes from frame to frame.
        options.enable_mem_pattern = False
        try:
            self._session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:
            # The library's exceptions have no common base of their own.
            if "NOT_IMPLEMENTED" in str(error):
                raise BackendUnavailable(
                    f"ONNX Runtime {ort.__version__} has no CPU kernel that {path.name} needs, as for bf16: {error}; a "
                    "bundle in that precision runs with backend='tensorrt' or 'tensorrt_rtx'"
                ) from error
            raise BundleError(f"ONNX Runtime {ort.__version__} cannot load {path.name}: {error}") from error
        _trim()
        self._name = path.name
        self.inputs: tuple[str, ...] = tuple(i.name for i in self._session.get_inputs())
        self.outputs: tuple[str, ...] = tuple(o.name for o in self._session.get_outputs())

    def __call__(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        try:
            results = self._session.run(list(self.outputs), dict(feeds))
        except Exception as error:
            shapes = {name: f"{a.dtype}{list(a.shape)}" for name, a in feeds.items()}
            raise RDNError(f"{self._name} failed on {shapes}: {error}") from error
        return dict(zip(self.outputs, results, strict=True))


def _trim() -> None:
    """Return to the system what reading a graph took: glibc keeps it otherwise, 180 MB for a ResNet-101."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


class OnnxRuntime:
    name = "onnxruntime"

    def __init__(self, threads: int) -> None:
        self._threads = threads

    def load(self, path: Path) -> OnnxRuntimeGraph:
        return OnnxRuntimeGraph(path, self._threads)


def open_backend(name: str, device: str, threads: int) -> OnnxRuntime:
    if device != "cpu":
        raise BackendUnavailable(f"backend {name!r} runs on device 'cpu' in this version; got device {device!r}")
    return OnnxRuntime(threads)
