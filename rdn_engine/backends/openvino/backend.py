"""Graphs through OpenVINO on the CPU, in the precision that they are written in."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import openvino
from numpy.typing import NDArray

from rdn_engine.backends.graph import Graph
from rdn_engine.backends.threads import check_threads
from rdn_engine.cpus import available_cpus
from rdn_engine.errors import BackendUnavailable, BundleError, RDNError

_HALVES = {"bf16": "BF16", "f16": "FP16"}
"""What the library calls a type, and what it says of a processor that computes in it"""


class OpenVinoGraph:
    """A compiled model. Each thread that calls it has a request of its own, made when it first calls."""

    def __init__(self, core: openvino.Core, path: Path, threads: int) -> None:
        if not path.is_file():
            raise BundleError(f"graph {str(path)!r} cannot be read: it is not there")
        try:
            model = core.read_model(path)
        except RuntimeError as error:
            raise BundleError(f"{str(path)!r} is no ONNX graph that OpenVINO reads: {_first_line(error)}") from error
        # Before it is compiled: then an output has the names of inner tensors too, in any order
        # (findings/openvino_renames_outputs.sh).
        self.inputs: tuple[str, ...] = tuple(node.get_friendly_name() for node in model.get_parameters())
        self.outputs: tuple[str, ...] = tuple(
            node.get_friendly_name().rpartition("/sink_port_")[0] for node in model.get_results()
        )
        hint = _precision(core, model, path)
        # As many calls at once as there are workers with so many threads; more wait for one another.
        streams = max(available_cpus() // threads, 1)
        config: dict[str, Any] = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": hint,
            "NUM_STREAMS": streams,
            "INFERENCE_NUM_THREADS": streams * threads,
            "ENABLE_CPU_PINNING": False,  # the cores are not its own
        }
        try:
            self._model = core.compile_model(model, "CPU", config)
        except RuntimeError as error:
            raise BackendUnavailable(f"OpenVINO does not run {str(path)!r}: {_first_line(error)}") from error
        self._name = path.name
        self._requests = threading.local()

    def __call__(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        if set(feeds) != set(self.inputs):
            raise RDNError(f"{self._name} got the inputs {sorted(feeds)}; wanted {sorted(self.inputs)}")
        request = getattr(self._requests, "request", None)
        if request is None:
            request = self._requests.request = self._model.create_infer_request()
        try:
            results = request.infer({name: np.ascontiguousarray(array) for name, array in feeds.items()})
        except (RuntimeError, TypeError) as error:
            shapes = {name: f"{a.dtype}{list(a.shape)}" for name, a in feeds.items()}
            raise RDNError(f"{self._name} failed in OpenVINO on {shapes}: {_first_line(error)}") from error
        # Copies: the request fills the same memory at its next call.
        return {name: np.array(results[port]) for name, port in zip(self.outputs, self._model.outputs, strict=True)}


class OpenVino:
    """The backend."""

    name = "openvino"

    def __init__(self, threads: int) -> None:
        check_threads(max(available_cpus() // threads, 1) * threads)
        self._threads = threads
        self._core = openvino.Core()

    def load(self, path: Path) -> Graph:
        return OpenVinoGraph(self._core, path, self._threads)

    def load_device(self, path: Path) -> Any:
        raise BackendUnavailable("backend 'openvino' is open on 'cpu'; device arrays want another backend")


def open_backend(name: str, device: str, threads: int) -> OpenVino:
    """Open OpenVINO.

    Args:
        name: `openvino`.
        device: `cpu`.
        threads: bounds the CPU threads of each call; calls of several Python threads run at once, as many as the CPUs
            have room for.

    Raises:
        BackendUnavailable: for another device, and for threads that the system refuses.
    """
    if device != "cpu":
        raise BackendUnavailable(f"backend 'openvino' runs on device 'cpu', got {device!r}; use 'onnxruntime' there")
    return OpenVino(threads)


def _precision(core: openvino.Core, model: Any, path: Path) -> str:
    """What the model computes in: float32, or the half precision that it is written in.

    Left to itself the library takes bfloat16 for float32 graphs where the processor has it, and float32 for bfloat16
    graphs where it has not, both without a word.
    """
    types: set[str] = {port.get_element_type().get_type_name() for node in model.get_ops() for port in node.outputs()}
    halves = sorted(types & set(_HALVES))
    if not halves:
        return "f32"
    able = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    for half in halves:
        if _HALVES[half] not in able:
            raise BackendUnavailable(
                f"{str(path)!r} is in {half}, which OpenVINO would compute in float32 on this processor (it has "
                f"{', '.join(sorted(able))}); use the float32 bundle"
            )
    return halves[0]


def _first_line(error: Exception) -> str:
    """Its messages go on for a page, with places in its own source."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = [line for line in lines if not line.startswith(("Exception from", "Check '"))]
    return (told or lines or [type(error).__name__])[0]
