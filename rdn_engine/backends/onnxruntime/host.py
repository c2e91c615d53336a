"""ONNX Runtime on the CPU, and on a GPU where its CUDA provider is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from rdn_engine.backends.graph import Graph
from rdn_engine.backends.onnxruntime.session import CPU, open_session
from rdn_engine.errors import BackendUnavailable, RDNError

if TYPE_CHECKING:
    from rdn_engine.backends.onnxruntime.device import OnnxRuntimeCuda


class OnnxRuntimeGraph:
    """A session on the CPU."""

    def __init__(self, path: Path, threads: int) -> None:
        self._session = open_session(path, threads, CPU)
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


class OnnxRuntime:
    """The backend on the CPU."""

    name = "onnxruntime"

    def __init__(self, threads: int) -> None:
        self._threads = threads

    def load(self, path: Path) -> Graph:
        return OnnxRuntimeGraph(path, self._threads)

    def load_device(self, path: Path) -> Any:
        raise BackendUnavailable("backend 'onnxruntime' is open on 'cpu'; device arrays want device 'cuda'")


def open_backend(name: str, device: str, threads: int) -> OnnxRuntime | OnnxRuntimeCuda:
    """Open ONNX Runtime.

    Args:
        name: `onnxruntime`.
        device: `cpu` or `cuda`.
        threads: bounds the CPU threads of each call.

    Raises:
        BackendUnavailable: for `cuda` without ONNX Runtime's CUDA provider, without cupy or without a device.
    """
    if device == "cpu":
        return OnnxRuntime(threads)
    from rdn_engine.backends.onnxruntime.device import open_cuda

    return open_cuda(threads)
