"""ONNX Runtime's CUDA provider on arrays of the device, without a copy to the host.

A session belongs to one stream for life, so it has one of its own, which events put in order with the caller's: weights
are there once, and nothing waits on the host. Its own CUDA graphs stay off; the provider allocates while it runs, so a
caller may not capture it either.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from rdn_engine.backends.device_graph import OnHost, Shapes, check_shapes, check_views, load_cupy
from rdn_engine.backends.graph import Graph, TensorSpec
from rdn_engine.backends.onnxruntime.session import Providers, open_session
from rdn_engine.errors import BackendUnavailable, RDNError
from rdn_engine.kernels.cuda.view import View

PROVIDER = "CUDAExecutionProvider"

_DTYPES: dict[str, np.dtype[Any]] = {
    "tensor(float)": np.dtype(np.float32),
    "tensor(float16)": np.dtype(np.float16),
    "tensor(int64)": np.dtype(np.int64),
}


class OnnxRuntimeCuda:
    """The backend on the current device."""

    name = "onnxruntime"

    def __init__(self, threads: int, cupy: Any) -> None:
        self._threads, self._cupy = threads, cupy

    def load(self, path: Path) -> Graph:
        return OnHost(self.load_device(path), self._cupy)

    def load_device(self, path: Path) -> OnnxRuntimeDeviceGraph:
        stream = self._cupy.cuda.Stream(non_blocking=True)
        device = self._cupy.cuda.Device().id
        options = {
            "device_id": str(device),
            "user_compute_stream": str(stream.ptr),
            "enable_cuda_graph": "0",
            # A bundle in float32 says so: TensorFloat-32 has the mantissa of float16.
            "use_tf32": "0",
        }
        providers: Providers = [(PROVIDER, options), "CPUExecutionProvider"]
        session = open_session(path, self._threads, providers)
        if session.get_providers()[0] != PROVIDER:
            # It goes on without where a library is missing, and says so on stderr only.
            raise BackendUnavailable(
                f"ONNX Runtime {ort.__version__} cannot start its CUDA provider; wanted CUDA and cuDNN of the versions "
                "it was built for: pip install 'onnxruntime-gpu[cuda,cudnn]'"
            )
        return OnnxRuntimeDeviceGraph(session, path.name, self._cupy, stream, ("cuda", device))


class OnnxRuntimeDeviceGraph:
    """A session on a device, with a stream of its own; its calls come one after the other."""

    def __init__(
        self, session: ort.InferenceSession, name: str, cupy: Any, stream: Any, place: tuple[str, int]
    ) -> None:
        """Read the names and types of the session.

        Args:
            session: of the graph, on the CUDA provider.
            name: of the graph, for messages.
            cupy: the module.
            stream: cupy's, the one that the session works on.
            place: device and its number, as IOBinding names them.
        """
        self.session, self.name, self.cupy, self.stream, self.place = session, name, cupy, stream, place
        self.given = {i.name: _DTYPES[i.type] for i in session.get_inputs()}
        self.made = {o.name: _DTYPES[o.type] for o in session.get_outputs()}
        self.inputs, self.outputs = tuple(self.given), tuple(self.made)
        self.lock = threading.Lock()
        self.options = ort.RunOptions()
        self.options.add_run_config_entry("disable_synchronize_execution_providers", "1")

    def bind(self, shapes: Shapes) -> OnnxRuntimeBound:
        check_shapes(self.name, self.inputs, shapes)
        return OnnxRuntimeBound(self, shapes)


class OnnxRuntimeBound:
    """A session at one shape. It may not be captured, because the provider allocates while it runs."""

    capturable = False

    def __init__(self, graph: OnnxRuntimeDeviceGraph, shapes: Shapes) -> None:
        self._graph = graph
        event = graph.cupy.cuda.Event
        self._before, self._after = event(disable_timing=True), event(disable_timing=True)
        self.inputs = {n: TensorSpec(tuple(shapes[n]), dtype) for n, dtype in graph.given.items()}
        self.outputs = self._try()

    def _try(self) -> dict[str, TensorSpec]:
        """Run once on zeros, waiting, which tells the shapes of the outputs and lets cuDNN choose its algorithms."""
        graph = self._graph
        with graph.lock, graph.stream:
            zeros = {n: graph.cupy.zeros(spec.shape, spec.dtype) for n, spec in self.inputs.items()}
            graph.stream.synchronize()
            binding = graph.session.io_binding()
            for name, array in zeros.items():
                self._bind(binding.bind_input, name, self.inputs[name], array.data.ptr)
            for name in graph.outputs:
                binding.bind_output(name, *graph.place)
            self._run(binding, None)
            found = binding.get_outputs()
            return {
                name: TensorSpec(tuple(value.shape()), dtype)
                for (name, dtype), value in zip(graph.made.items(), found, strict=True)
            }

    def run(self, feeds: Mapping[str, View], outputs: Mapping[str, View], stream: int) -> None:
        graph = self._graph
        check_views(graph.name, self.inputs, feeds)
        check_views(graph.name, self.outputs, outputs, some=True)
        binding = graph.session.io_binding()
        for name, view in feeds.items():
            self._bind(binding.bind_input, name, self.inputs[name], view.pointer)
        for name, view in outputs.items():
            self._bind(binding.bind_output, name, self.outputs[name], view.pointer)
        caller = graph.cupy.cuda.ExternalStream(stream)
        with graph.lock:
            self._before.record(caller)
            graph.stream.wait_event(self._before)
            self._run(binding, graph.options)
            self._after.record(graph.stream)
        caller.wait_event(self._after)

    def _bind(self, bind: Any, name: str, spec: TensorSpec, pointer: int) -> None:
        bind(name, *self._graph.place, spec.dtype.type, spec.shape, pointer)

    def _run(self, binding: Any, options: ort.RunOptions | None) -> None:
        try:
            self._graph.session.run_with_iobinding(binding, options)
        except Exception as error:
            # No narrower class: findings/onnxruntime_errors_have_no_base.sh
            shapes = {name: list(spec.shape) for name, spec in self.inputs.items()}
            raise RDNError(f"{self._graph.name} failed in ONNX Runtime on {shapes}: {error}") from error


def open_cuda(threads: int) -> OnnxRuntimeCuda:
    """Open ONNX Runtime for the current device.

    Args:
        threads: bounds the CPU threads of each call.

    Raises:
        BackendUnavailable: without the CUDA provider, without cupy or without a device.
    """
    found = ort.get_available_providers()
    if PROVIDER not in found:
        raise BackendUnavailable(
            f"ONNX Runtime {ort.__version__} has no CUDA provider here, only {', '.join(found)}; "
            "pip install onnxruntime-gpu, without onnxruntime beside it, or use device='cpu'"
        )
    return OnnxRuntimeCuda(threads, load_cupy("onnxruntime"))
