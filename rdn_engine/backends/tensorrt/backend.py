"""TensorRT and TensorRT-RTX on a GPU: a plan for each graph, built on this machine and kept; docs/gpu.md."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rdn_engine.backends.device_graph import OnHost, Shapes, check_shapes, check_views, load_cupy
from rdn_engine.backends.graph import TensorSpec
from rdn_engine.backends.tensorrt.library import Library, Report
from rdn_engine.backends.tensorrt.plans import Limits, Machine, PlanCache, PlanKey, graph_hash
from rdn_engine.backends.tensorrt.plugin_graph import relation_with_plugin
from rdn_engine.bundle.directory import Bundle
from rdn_engine.bundle.manifest import Manifest
from rdn_engine.errors import BackendUnavailable, BundleError, RDNError
from rdn_engine.kernels.cuda.view import View

if TYPE_CHECKING:
    import tensorrt as trt


class PlanBuilder:
    """Compiles graphs with one of the two libraries. TensorRT wants the GPU at hand, TensorRT-RTX none.

    `library` compiles, `machine` is what its plans are tied to, `cache` keeps them.
    """

    def __init__(self, name: str, cache: PlanCache | None = None) -> None:
        """Load the library and ask for the machine.

        Args:
            name: `tensorrt` or `tensorrt_rtx`.
            cache: of plans; None takes the user's.

        Raises:
            BackendUnavailable: without the library, or with one that is too old; for `tensorrt` without a GPU too.
        """
        self.library = Library(name)
        self.machine = Machine(name, self.library.version, "any" if name == "tensorrt_rtx" else _gpu_name(name))
        self.cache = cache or PlanCache()

    def build(self, path: Path, limits: Limits, report: Report = lambda step: None) -> tuple[Path, bool]:
        """Compile a graph into the cache, unless its plan is there.

        Args:
            path: an ONNX file.
            limits: largest sizes that the plan takes.
            report: is called with a line of text at each step.

        Returns:
            The file of the plan, and whether it was built now.

        Raises:
            BundleError: where the graph cannot be read or compiled.
        """
        graph = _graph(path)
        return self._build(PlanKey(self.machine, graph_hash(graph), limits), graph, path.name, report)

    def build_with_plugin(
        self, bundle: Bundle, limits: Limits, report: Report = lambda step: None
    ) -> tuple[Path, bool]:
        """As `build`, of the relation graph with each module a plugin; under the name of the bundle's own relation
        graph.

        Args:
            bundle: whose files were checked.
            limits: largest sizes that the plan takes.
            report: is called with a line of text at each step.

        Returns:
            The file of the plan, and whether it was built now.

        Raises:
            BackendUnavailable: where this build has no plugin.
            BundleError: where the graph cannot be read or compiled.
            ConfigError: for a model without relation modules.
        """
        if not self.library.plugin:
            raise BackendUnavailable(
                f"this build of rdn_engine has no relation plugin for {self.library.name}; build it with RDN_CUDA=on "
                "and TENSORRT_ROOT, the folder of TensorRT"
            )
        key = PlanKey(self.machine, graph_hash(_graph(bundle.path("relation"))), limits, self.library.plugin)
        return self._build(key, plugin_graph(bundle), "relation, of plugins", report)

    def _build(self, key: PlanKey, graph: bytes, name: str, report: Report) -> tuple[Path, bool]:
        if self.cache.has(key):
            return self.cache.directory / key.file, False
        return self.cache.store(key, self.compile(graph, name, key.limits, report)), True

    def compile(self, graph: bytes, name: str, limits: Limits, report: Report = lambda step: None) -> bytes:
        """Compile a graph, whether or not its plan is there, and keep what was measured on the way.

        Args:
            graph: contents of an ONNX file.
            name: of the graph, for messages.
            limits: largest sizes that the plan takes.
            report: is called with a line of text at each step.

        Returns:
            The plan.

        Raises:
            BundleError: where the graph cannot be compiled.
        """
        timings = self.cache.timings(self.machine)
        plan, measured = self.library.compile(graph, name, limits, timings, report)
        if measured != timings:
            self.cache.keep_timings(self.machine, measured)
        return plan


def build_plans(
    name: str, bundle: Bundle, limits: Limits, report: Report = lambda step: None, *, plugin: bool = False
) -> list[tuple[str, Path, bool]]:
    """Compile every graph of a bundle into the user's cache, unless its plan is there.

    Args:
        name: `tensorrt` or `tensorrt_rtx`.
        bundle: whose files were checked.
        limits: largest sizes that the plans take.
        report: is called with a line of text at each step.
        plugin: whether the modules of the relation graph become plugins.

    Returns:
        Role, file of the plan and whether it was built now, of every graph.

    Raises:
        BackendUnavailable: without the library, the GPU or the plugin that is wanted.
        BundleError: where a graph cannot be compiled.
        ConfigError: with `plugin`, for a model without relation modules.
    """
    if bundle.config.attached is not None:
        raise BackendUnavailable(f"an attached detector runs on ONNX Runtime on the CPU only; got {name}")
    builder = PlanBuilder(name)

    def build(role: str) -> tuple[Path, bool]:
        if plugin and role == "relation":
            return builder.build_with_plugin(bundle, limits, report)
        return builder.build(bundle.path(role), limits, report)

    return [(role, *build(role)) for role in bundle.manifest.graphs]


def plugin_graph(bundle: Bundle) -> bytes:
    """The relation graph of a bundle with each module a plugin; as `relation_with_plugin`.

    Args:
        bundle: whose files were checked.
    """
    return relation_with_plugin(bundle.config, bundle.arrays("weights"))


class TensorRT:
    """Backend: loads the plan that was built last for a graph, or builds one for the dials of the model."""

    def __init__(self, name: str, cache: PlanCache | None = None) -> None:
        self.name = name
        self._builder = PlanBuilder(name, cache)
        self._cupy = load_cupy(name)

    def load(self, path: Path) -> OnHost:
        """As `Backend.load`, one call at a time, for checks.

        Args:
            path: a graph beside its manifest.
        """
        return OnHost(self.load_device(path), self._cupy)

    def load_device(self, path: Path) -> TensorRTGraph:
        """As `Backend.load_device`. The first use of a graph builds its plan, which may take minutes.

        Args:
            path: a graph beside its manifest, which gives the limits of a plan that is built now.

        Raises:
            BundleError: where the graph or its manifest cannot be read, or the graph not compiled.
            BackendUnavailable: where a plan that was built now does not load.
        """
        graph = _graph(path)
        builder = self._builder
        key = builder.cache.newest(builder.machine, graph_hash(graph), builder.library.plugin)
        if key is None:
            limits = Limits.of(Manifest.read(path.parent).config)
            key = PlanKey(builder.machine, graph_hash(graph), limits)
        limits, plugin = key.limits, key.plugin

        def compile_() -> bytes:
            again = plugin_graph(Bundle.open(path.parent)) if plugin else graph
            return builder.compile(again, path.name, limits)

        return builder.cache.obtain(key, compile_, lambda plan: self._open(plan, path.name))

    def _open(self, plan: bytes, name: str) -> TensorRTGraph | None:
        if TYPE_CHECKING:
            import tensorrt as trt
        else:
            trt = self._builder.library.module
        runtime = trt.Runtime(self._builder.library.logger)
        engine = runtime.deserialize_cuda_engine(plan)
        return None if engine is None else TensorRTGraph(self._builder.library, runtime, engine, name, self._cupy)


class TensorRTGraph:
    """A plan on the current device: one engine, and a context with memory of its own for each `bind`."""

    def __init__(self, library: Library, runtime: trt.Runtime, engine: trt.ICudaEngine, name: str, cupy: Any) -> None:
        if TYPE_CHECKING:
            import tensorrt as trt
        else:
            trt = library.module
        self.library, self.name, self.cupy = library, name, cupy
        # The runtime outlives the engine and the engine its contexts, in whatever order they are let go.
        self._runtime, self._engine = runtime, engine
        names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
        given = {n for n in names if engine.get_tensor_mode(n) == trt.TensorIOMode.INPUT}
        self.inputs: tuple[str, ...] = tuple(n for n in names if n in given)
        self.outputs: tuple[str, ...] = tuple(n for n in names if n not in given)
        self.dtypes = {n: np.dtype(trt.nptype(engine.get_tensor_dtype(n))) for n in names}
        self._bounds = {n: _bounds(engine, n) for n in self.inputs}

    def bind(self, shapes: Shapes) -> TensorRTBound:
        check_shapes(self.name, self.inputs, shapes)
        for name, shape in shapes.items():
            low, high = self._bounds[name]
            if len(shape) != len(low) or not all(a <= s <= b for a, s, b in zip(low, shape, high, strict=True)):
                raise RDNError(
                    f"{self.name}: {name} has shape {list(shape)}; this plan takes {list(low)} to {list(high)}. "
                    "`rdn-engine build` makes one for other sizes (--batch, --size, --proposals, --support, --window)"
                )
        context = self.library.start(self._engine)
        if context is None:
            raise BackendUnavailable(f"{self.library.name} cannot start {self.name}: {self.library.said()}")
        return TensorRTBound(self, context, shapes)


class TensorRTBound:
    """An execution context at one shape. `run` only enqueues; TensorRT wants one run before a capture."""

    def __init__(self, graph: TensorRTGraph, context: trt.IExecutionContext, shapes: Shapes) -> None:
        self._graph, self._context = graph, context
        ready = all(context.set_input_shape(name, list(shape)) for name, shape in shapes.items())
        try:
            missing = context.infer_shapes()
        except RuntimeError as error:
            raise self._failed(f"takes no inputs of these shapes ({error})", shapes) from error
        if not ready or missing:
            raise self._failed("takes no inputs of these shapes", shapes)
        self.inputs = {n: TensorSpec(tuple(shapes[n]), graph.dtypes[n]) for n in graph.inputs}
        self.outputs = {n: TensorSpec(tuple(context.get_tensor_shape(n)), graph.dtypes[n]) for n in graph.outputs}
        self.capturable = graph.library.capturable(context, graph.cupy.cuda.get_current_stream().ptr)
        self._unasked: dict[str, Any] = {}

    def run(self, feeds: Mapping[str, View], outputs: Mapping[str, View], stream: int) -> None:
        check_views(self._graph.name, self.inputs, feeds)
        check_views(self._graph.name, self.outputs, outputs, some=True)
        placed = {name: view.pointer for name, view in (*feeds.items(), *outputs.items())}
        placed |= {name: self._place(name) for name in self.outputs if name not in outputs}
        context = self._context
        addressed = all(context.set_tensor_address(name, pointer) for name, pointer in placed.items())
        if not addressed or not context.execute_async_v3(stream):
            raise self._failed("failed", {name: view.shape for name, view in feeds.items()})

    def _place(self, name: str) -> int:
        """Memory for an output that nobody asked for, which TensorRT writes all the same."""
        if name not in self._unasked:
            spec = self.outputs[name]
            self._unasked[name] = self._graph.cupy.empty(spec.shape, spec.dtype)
        return int(self._unasked[name].data.ptr)

    def _failed(self, what: str, shapes: Shapes) -> RDNError:
        library = self._graph.library
        named = {name: list(shape) for name, shape in shapes.items()}
        return RDNError(f"{self._graph.name} {what} in {library.name}: {named}: {library.said()}")


def open_backend(name: str, device: str, threads: int) -> TensorRT:
    """Open TensorRT for the current device.

    Args:
        name: `tensorrt` or `tensorrt_rtx`.
        device: `cuda`.
        threads: not used; nothing of a call runs on the CPU.

    Raises:
        BackendUnavailable: for device `cpu`; without the library, cupy or a device.
    """
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


def _gpu_name(name: str) -> str:
    cupy = load_cupy(name)
    told = cupy.cuda.runtime.getDeviceProperties(cupy.cuda.Device().id)
    return f"{told['name'].decode()}, sm_{told['major']}{told['minor']}, {told['multiProcessorCount']} multiprocessors"
