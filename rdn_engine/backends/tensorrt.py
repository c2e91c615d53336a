"""TensorRT and TensorRT-RTX on a GPU: a plan for each graph, built on this machine and kept; docs/gpu.md."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rdn_engine.backends.plans import Limits, Machine, PlanCache, PlanKey, graph_hash
from rdn_engine.backends.tensorrt_library import Library, Report
from rdn_engine.bundle import Bundle, Manifest
from rdn_engine.errors import BackendUnavailable, BundleError, RDNError

if TYPE_CHECKING:
    import tensorrt as trt


class PlanBuilder:
    """Compiles graphs with one of the two libraries. TensorRT wants the GPU at hand, TensorRT-RTX none."""

    def __init__(self, name: str, cache: PlanCache | None = None) -> None:
        self.library = Library(name)
        self.machine = Machine(name, self.library.version, "any" if name == "tensorrt_rtx" else _gpu_name(name))
        self.cache = cache or PlanCache()

    def build(self, path: Path, limits: Limits, report: Report = lambda step: None) -> tuple[Path, bool]:
        """The file of the plan, and whether it was built now. Raises BundleError where the graph cannot be compiled."""
        graph = _graph(path)
        key = PlanKey(self.machine, graph_hash(graph), limits)
        if self.cache.has(key):
            return self.cache.directory / key.file, False
        return self.cache.store(key, self.compile(graph, path.name, limits, report)), True

    def compile(self, graph: bytes, name: str, limits: Limits, report: Report = lambda step: None) -> bytes:
        timings = self.cache.timings(self.machine)
        plan, measured = self.library.compile(graph, name, limits, timings, report)
        if measured != timings:
            self.cache.keep_timings(self.machine, measured)
        return plan


def build_plans(
    name: str, bundle: Bundle, limits: Limits, report: Report = lambda step: None
) -> list[tuple[str, Path, bool]]:
    """Role, file of the plan and whether it was built now, of every graph. Raises BackendUnavailable or BundleError."""
    builder = PlanBuilder(name)
    return [(role, *builder.build(bundle.path(role), limits, report)) for role in bundle.manifest.graphs]


class TensorRT:
    """Backend: loads the plan that was built last for a graph, or builds one for the dials of the model."""

    def __init__(self, name: str, cache: PlanCache | None = None) -> None:
        self.name = name
        self._builder = PlanBuilder(name, cache)
        self._cupy = _cupy(name)

    def load(self, path: Path) -> TensorRTGraph:
        """path: a graph beside its manifest. Raises BundleError where it cannot be compiled."""
        graph = _graph(path)
        builder = self._builder
        key = builder.cache.newest(builder.machine, graph_hash(graph))
        if key is None:
            limits = Limits.of(Manifest.read(path.parent).config)
            key = PlanKey(builder.machine, graph_hash(graph), limits)
        limits = key.limits
        return builder.cache.obtain(
            key, lambda: builder.compile(graph, path.name, limits), lambda plan: self._open(plan, path.name)
        )

    def _open(self, plan: bytes, name: str) -> TensorRTGraph | None:
        if TYPE_CHECKING:
            import tensorrt as trt
        else:
            trt = self._builder.library.module
        runtime = trt.Runtime(self._builder.library.logger)
        engine = runtime.deserialize_cuda_engine(plan)
        if engine is None:
            return None
        context = engine.create_execution_context()
        if context is None:
            said = self._builder.library.said()
            raise BackendUnavailable(f"{self.name} cannot start {name} on {self._builder.machine.gpu}: {said}")
        return TensorRTGraph(self._builder.library, runtime, engine, context, name, self._cupy)


class TensorRTGraph:
    """A plan on the current device. Calls from several threads run one after the other."""

    def __init__(
        self,
        library: Library,
        runtime: trt.Runtime,
        engine: trt.ICudaEngine,
        context: trt.IExecutionContext,
        name: str,
        cupy: Any,
    ) -> None:
        if TYPE_CHECKING:
            import tensorrt as trt
        else:
            trt = library.module
        self._library, self._name, self._cupy = library, name, cupy
        # The runtime outlives the engine and the engine its context, in whatever order they are let go.
        self._runtime, self._engine, self._context = runtime, engine, context
        names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
        given = {n for n in names if engine.get_tensor_mode(n) == trt.TensorIOMode.INPUT}
        self.inputs: tuple[str, ...] = tuple(n for n in names if n in given)
        self.outputs: tuple[str, ...] = tuple(n for n in names if n not in given)
        self._dtypes = {n: np.dtype(trt.nptype(engine.get_tensor_dtype(n))) for n in names}
        self._bounds = {n: _bounds(engine, n) for n in self.inputs}
        self._lock = threading.Lock()
        self._device = cupy.cuda.Device()
        self._stream = cupy.cuda.Stream(non_blocking=True)
        self._done = cupy.cuda.Event(disable_timing=True)

    def __call__(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
        """Every input by name -> every output by name.

        Arrays of numpy are copied, and numpy comes back when all is done. Where an input is on the device (anything
        that cupy.asarray takes without a copy) all outputs are cupy arrays, in order on cupy's current stream.
        """
        if set(feeds) != set(self.inputs):
            raise RDNError(f"{self._name} got the inputs {sorted(feeds)}; wanted {sorted(self.inputs)}")
        on_host = all(isinstance(array, np.ndarray) for array in feeds.values())
        cupy = self._cupy
        with self._device:
            stream = self._stream if on_host else cupy.cuda.get_current_stream()
            with stream:
                found = self._enqueue({n: self._input(n, feeds[n]) for n in self.inputs}, stream)
                return {n: cupy.asnumpy(a, stream=stream) for n, a in found.items()} if on_host else found

    def _input(self, name: str, array: Any) -> Any:
        placed = self._cupy.ascontiguousarray(self._cupy.asarray(array, self._dtypes[name]))
        low, high = self._bounds[name]
        fits = placed.ndim == len(low) and all(a <= s <= b for a, s, b in zip(low, placed.shape, high, strict=True))
        if not fits:
            raise RDNError(
                f"{self._name}: {name} has shape {list(placed.shape)}; this plan takes {list(low)} to {list(high)}. "
                "`rdn-engine build` makes one for other sizes (--batch, --size, --proposals, --support, --window)"
            )
        return placed

    def _enqueue(self, arrays: dict[str, Any], stream: Any) -> dict[str, Any]:
        context = self._context
        with self._lock:
            # All calls share the context's memory, on whatever stream they are.
            stream.wait_event(self._done)
            ready = all(context.set_input_shape(n, list(a.shape)) for n, a in arrays.items())
            if not ready or context.infer_shapes():
                raise self._failed("takes no inputs of these shapes", arrays)
            found = {n: self._cupy.empty(tuple(context.get_tensor_shape(n)), self._dtypes[n]) for n in self.outputs}
            placed = all(context.set_tensor_address(n, a.data.ptr) for n, a in (arrays | found).items())
            if not placed or not context.execute_async_v3(stream.ptr):
                raise self._failed("failed", arrays)
            self._done.record(stream)
        return found

    def _failed(self, what: str, arrays: dict[str, Any]) -> RDNError:
        shapes = {name: f"{a.dtype}{list(a.shape)}" for name, a in arrays.items()}
        return RDNError(f"{self._name} {what} in {self._library.name}: {shapes}: {self._library.said()}")


def open_backend(name: str, device: str, threads: int) -> TensorRT:
    if device != "cuda":
        raise BackendUnavailable(f"backend {name!r} runs on device 'cuda'; got device {device!r}")
    return TensorRT(name)


def _bounds(engine: trt.ICudaEngine, name: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    shapes = [tuple(shape) for shape in engine.get_tensor_profile_shape(name, 0)]
    return shapes[0], shapes[2]


def _graph(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BundleError(f"{str(path)!r} cannot be read: {error.strerror}") from error


def _cupy(name: str) -> Any:
    try:
        import cupy

        count = cupy.cuda.runtime.getDeviceCount()
    except ImportError as error:
        raise BackendUnavailable(
            f"backend {name!r} wants cupy for its arrays on the device ({error}); pip install rdn-engine[gpu]"
        ) from error
    except Exception as error:
        # CUDARuntimeError, whose module may be what failed.
        raise BackendUnavailable(f"backend {name!r} finds no CUDA device: {error}") from error
    if not count:
        raise BackendUnavailable(f"backend {name!r} finds no CUDA device; wanted one or more")
    return cupy


def _gpu_name(name: str) -> str:
    cupy = _cupy(name)
    told = cupy.cuda.runtime.getDeviceProperties(cupy.cuda.Device().id)
    return f"{told['name'].decode()}, sm_{told['major']}{told['minor']}, {told['multiProcessorCount']} multiprocessors"
