"""TensorRT or TensorRT-RTX, loaded and checked; its messages as text; an ONNX graph compiled to a plan.

The two have the same bindings under two names. `trt` stands for either; types are checked against TensorRT's.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import re
from collections import deque
from collections.abc import Callable
from types import ModuleType
from typing import TYPE_CHECKING, Any, SupportsInt

from rdn_engine.backends.tensorrt.plans import Limits
from rdn_engine.backends.tensorrt.plugin_graph import LIBRARY
from rdn_engine.errors import BackendUnavailable, BundleError

if TYPE_CHECKING:
    import tensorrt as trt

OLDEST = {"tensorrt": (10, 16), "tensorrt_rtx": (1, 4)}
_MODULES = {"tensorrt": ("tensorrt", "tensorrt_bindings"), "tensorrt_rtx": ("tensorrt_rtx", "tensorrt_rtx_bindings")}
_INSTALL = {
    "tensorrt": "pip install tensorrt-cu13, from NVIDIA's index",
    "tensorrt_rtx": "pip install tensorrt-rtx-cu13-libs tensorrt-rtx-cu13-bindings",
}
_LINES = 20  # of the library's last messages

Report = Callable[[str], None]


class Library:
    """One of the two libraries. `module` has its names, `logger` collects what it says."""

    def __init__(self, name: str) -> None:
        """Load the library and check its version.

        Args:
            name: `tensorrt` or `tensorrt_rtx`.

        Raises:
            BackendUnavailable: without the library, with one older than OLDEST, or with a plugin that it does not load.
        """
        self.name = name
        self.module = _import(name)
        self.version = str(self.module.__version__)
        found = tuple(int(part) for part in re.findall(r"\d+", self.version)[:2])
        if found < OLDEST[name]:
            wanted = ".".join(map(str, OLDEST[name]))
            raise BackendUnavailable(f"{name} is {self.version} here; wanted {wanted} or newer: {_INSTALL[name]}")
        self._messages: deque[str] = deque(maxlen=_LINES)
        self.logger = _logger(self.module, self._messages)
        self.plugin = _load_plugin(name)
        """SHA-256 of the relation plugin; empty where this build has none"""

    def said(self) -> str:
        """The errors since the last time, on one line."""
        text = " | ".join(self._messages)
        self._messages.clear()
        return text or "it gave no reason"

    def compile(self, graph: bytes, name: str, limits: Limits, timings: bytes, report: Report) -> tuple[bytes, bytes]:
        """Compile a graph.

        Args:
            graph: contents of an ONNX file.
            name: of the graph, for messages.
            limits: sizes of the axes that the graph leaves open.
            timings: what an earlier build measured; empty for none.
            report: is called with a line of text at each step.

        Returns:
            The plan, and what was measured on the way, with `timings`; the latter is empty for TensorRT-RTX.

        Raises:
            BundleError: for a graph that the library cannot parse or compile.
        """
        if TYPE_CHECKING:
            import tensorrt as trt
        else:
            trt = self.module
        builder = trt.Builder(self.logger)
        network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
        parser = trt.OnnxParser(network, self.logger)
        if not parser.parse(graph):
            errors = [parser.get_error(i) for i in range(parser.num_errors)]
            reasons = [f"{e.node_operator()} {e.node_name()!r}: {e.desc()}" for e in errors]
            raise BundleError(f"{self.name} {self.version} cannot parse {name}: {'; '.join(reasons) or self.said()}")
        config = builder.create_builder_config()
        config.progress_monitor = _monitor(trt, name, report)
        # On by default: products of float32 would have the mantissa of float16.
        config.clear_flag(trt.BuilderFlag.TF32)
        if self.name == "tensorrt_rtx":
            config.set_flag(self.module.BuilderFlag.REQUIRE_USER_ALLOCATION)  # what a capture wants there
        profile = builder.create_optimization_profile()
        for i in range(network.num_inputs):
            self._set_range(profile, network.get_input(i), name, limits)
        if config.add_optimization_profile(profile) < 0:
            raise BundleError(f"{self.name} {self.version} refuses the sizes of {name}: {self.said()}")
        # TensorRT-RTX chooses its kernels when a plan is loaded, and measures nothing here.
        measured = None if self.name == "tensorrt_rtx" else _measured(config, timings)
        plan = builder.build_serialized_network(network, config)
        if plan is None:
            raise BundleError(f"{self.name} {self.version} cannot compile {name}: {self.said()}")
        return bytes(plan), b"" if measured is None else bytes(measured.serialize())

    def start(self, engine: trt.ICudaEngine) -> trt.IExecutionContext | None:
        """Make a context of an engine, with memory of its own.

        Args:
            engine: of the library.

        Returns:
            The context; None where the device has no memory left.
        """
        if self.name != "tensorrt_rtx":
            return engine.create_execution_context()
        config: Any = engine.create_runtime_config()
        # It compiles kernels for a shape in the background otherwise, and a captured graph would keep the first ones.
        eager = self.module.DynamicShapesKernelSpecializationStrategy.EAGER
        config.dynamic_shapes_kernel_specialization_strategy = eager
        return engine.create_execution_context(config)

    def capturable(self, context: Any, stream: int) -> bool:
        """Whether a run of a context may be captured in a CUDA graph.

        TensorRT's own plans always, because our graphs have no shape that depends on values.

        Args:
            context: whose input shapes are set.
            stream: address of a cudaStream_t.
        """
        return self.name != "tensorrt_rtx" or bool(context.is_stream_capturable(stream))

    def _set_range(self, profile: trt.IOptimizationProfile, tensor: trt.ITensor, name: str, limits: Limits) -> None:
        shape, ranges = list(tensor.shape), limits.ranges()
        if -1 not in shape:
            return
        sizes = []
        for axis, size in enumerate(shape):
            named = tensor.get_dimension_name(axis)
            if size == -1 and named not in ranges:
                raise BundleError(f"{name}: axis {axis} of {tensor.name} is called {named!r}; wanted {sorted(ranges)}")
            sizes.append(ranges[named] if size == -1 else (size, size, size))
        low, likely, high = (list(part) for part in zip(*sizes, strict=True))
        profile.set_shape(tensor.name, low, likely, high)


def _measured(config: trt.IBuilderConfig, timings: bytes) -> trt.ITimingCache:
    """Earlier measurements as far as they are of this machine, for the build to use and to add to."""
    measured = config.create_timing_cache(timings)
    if not config.set_timing_cache(measured, False):
        measured = config.create_timing_cache(b"")
        config.set_timing_cache(measured, False)
    return measured


def _import(name: str) -> ModuleType:
    reasons = []
    for module in _MODULES[name]:
        try:
            return importlib.import_module(module)
        # A package without its libraries, or with those of another CUDA, ends in any of these.
        except (ImportError, OSError, RuntimeError, AttributeError) as error:
            reasons.append(f"{module}: {error}")
    raise BackendUnavailable(
        f"backend {name!r} cannot be loaded ({'; '.join(reasons)}); {_INSTALL[name]}, or use backend='onnxruntime'"
    )


@functools.cache
def _load_plugin(name: str) -> str:
    """Once a process: a second time TensorRT refuses what it has. SHA-256; empty where there is none for it."""
    if name != "tensorrt" or not LIBRARY.exists():
        return ""
    if TYPE_CHECKING:
        import tensorrt as trt
    else:
        trt = _import(name)
    if trt.get_plugin_registry().load_library(str(LIBRARY)) is None:
        raise BackendUnavailable(
            f"{name} {trt.__version__} cannot load {LIBRARY.name}; wanted one that was built for its version: "
            "TENSORRT_ROOT"
        )
    return hashlib.sha256(LIBRARY.read_bytes()).hexdigest()


def _logger(module: Any, messages: deque[str]) -> trt.ILogger:
    if TYPE_CHECKING:
        import tensorrt as trt
    else:
        trt = module
    kept = trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR

    class Log(trt.ILogger):  # type: ignore[misc, unused-ignore]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: trt.ILogger.Severity, msg: str) -> None:
            if severity in kept:
                messages.append(msg.strip())

    return Log()


def _monitor(module: Any, name: str, report: Report) -> trt.IProgressMonitor:
    """Reports steps of the outermost phase; an exception of `report`, as Ctrl-C, ends the build."""
    if TYPE_CHECKING:
        import tensorrt as trt
    else:
        trt = module

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc, unused-ignore]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self._steps: dict[str, int] = {}

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: SupportsInt) -> None:
            if not parent_phase:
                self._steps[phase_name] = int(num_steps)
                report(f"{name}: {phase_name}")

        def step_complete(self, phase_name: str, step: SupportsInt) -> bool:
            if phase_name in self._steps:
                report(f"{name}: {phase_name}, {int(step) + 1} of {self._steps[phase_name]}")
            return True

        def phase_finish(self, phase_name: str) -> None:
            self._steps.pop(phase_name, None)

    return Monitor()
