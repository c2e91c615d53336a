"""What the device backends ask of their libraries, on the emulated GPU; and on a GPU, where there is one.

Doubles of the libraries run the real graphs on its memory. ONNX Runtime and TensorRT put them on a stream, where they
run when somebody waits; torch has no such double, so it runs what its stream has and then the graph at once.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from numpy.typing import NDArray

from rdn_engine.backends import load_backend
from rdn_engine.backends.device_graph import OnHost
from rdn_engine.backends.graph import DeviceGraph
from rdn_engine.backends.onnxruntime.device import OnnxRuntimeDeviceGraph
from rdn_engine.backends.onnxruntime.session import CPU, open_session
from rdn_engine.backends.tensorrt.backend import TensorRTGraph
from rdn_engine.backends.torch.backend import TorchDeviceGraph
from rdn_engine.backends.torch.program import Program
from rdn_engine.bundle.manifest import GRAPHS
from rdn_engine.errors import BackendUnavailable, RDNError
from rdn_engine.kernels.cuda.view import View, view_of
from tests import cuda_machines
from tests.emulated_cupy import EmulatedCupy
from tests.emulated_gpu import EmulatedGpu
from tests.graph_feeds import assert_close, feeds_of

ENGINES = Path(__file__).parents[2] / "models" / "rdn_tiny" / "engines"
SINGLE_PRECISION = 1e-5


def views(arrays: Mapping[str, Any]) -> dict[str, View]:
    return {name: view_of(array) for name, array in arrays.items()}


class FakeCuda:
    """torch with the emulated GPU for a device."""

    def __init__(self, gpu: EmulatedGpu) -> None:
        self._gpu = gpu
        self.cuda = SimpleNamespace(
            MemPool=object,
            use_mem_pool=contextlib.nullcontext,
            stream=self._stream,
            ExternalStream=lambda pointer: pointer,
            current_stream=lambda: 0,
        )

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)

    @contextlib.contextmanager
    def _stream(self, pointer: int) -> Iterator[None]:
        queue = self._gpu.queues[pointer]
        queue.run_until(queue.put)
        yield

    def zeros(self, shape: Any, dtype: Any, device: str) -> torch.Tensor:
        assert device == "cuda"
        return torch.zeros(shape, dtype=dtype)

    def as_tensor(self, array: Any, device: str) -> torch.Tensor:
        return torch.from_numpy(np.asarray(SimpleNamespace(__array_interface__=array.__cuda_array_interface__)))


class SessionOnStream:
    """ONNX Runtime's on a stream of its own; the host waits unless the options of a run say that it need not."""

    def __init__(self, path: Path, gpu: EmulatedGpu, stream: int) -> None:
        self._session, self._queue = open_session(path, 1, CPU), gpu.queues[stream]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def run_with_iobinding(self, binding: Any, options: ort.RunOptions | None) -> None:
        self._queue.enqueue(lambda: self._session.run_with_iobinding(binding))
        if options is None or options.get_run_config_entry("disable_synchronize_execution_providers") != "1":
            self._queue.wait()


def onnxruntime_graph(path: Path, cupy: EmulatedCupy) -> DeviceGraph:
    stream = cupy.cuda.Stream(non_blocking=True)
    session: Any = SessionOnStream(path, cupy.gpu, stream.ptr)
    return OnnxRuntimeDeviceGraph(session, path.name, cupy, stream, ("cpu", 0))


def torch_graph(path: Path, cupy: EmulatedCupy) -> DeviceGraph:
    return TorchDeviceGraph(FakeCuda(cupy.gpu), Program(path).eval(), path.name)  # type: ignore[arg-type]


class FakeContext:
    """Of TensorRT: runs the graph in ONNX Runtime on what stands at the addresses."""

    def __init__(self, path: Path, gpu: EmulatedGpu) -> None:
        self._graph, self._gpu = load_backend("onnxruntime", "cpu", 1).load(path), gpu
        self._inputs: dict[str, Any] = {}
        self._addresses: dict[str, int] = {}
        self._dtypes = {v.name: onnx.helper.tensor_dtype_to_np_dtype(v.type.tensor_type.elem_type)
                        for v in (*onnx.load(path).graph.input, *onnx.load(path).graph.output)}  # fmt: skip
        self._shapes: dict[str, Any] = {}

    def set_input_shape(self, name: str, shape: list[int]) -> bool:
        self._shapes[name] = tuple(shape)
        return True

    def infer_shapes(self) -> list[str]:
        missing = [name for name in self._graph.inputs if name not in self._shapes]
        if not missing:
            zeros = {n: np.zeros(self._shapes[n], self._dtypes[n]) for n in self._graph.inputs}
            self._shapes |= {name: array.shape for name, array in self._graph(zeros).items()}
        return missing

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self._shapes[name]

    def set_tensor_address(self, name: str, pointer: int) -> bool:
        self._addresses[name] = pointer
        return pointer != 0

    def execute_async_v3(self, stream: int) -> bool:
        assert set(self._addresses) == set(self._shapes)  # an output without an address is an error there
        arrays = {name: self._at(name) for name in self._shapes}

        def work() -> None:
            for name, array in self._graph({n: arrays[n] for n in self._graph.inputs}).items():
                arrays[name][...] = array

        self._gpu.queues[stream].enqueue(work)
        return True

    def _at(self, name: str) -> NDArray[Any]:
        shape, dtype = self._shapes[name], np.dtype(self._dtypes[name])
        memory = (ctypes.c_byte * (int(np.prod(shape)) * dtype.itemsize)).from_address(self._addresses[name])
        return np.frombuffer(memory, dtype).reshape(shape)


def tensorrt_graph(path: Path, cupy: EmulatedCupy) -> TensorRTGraph:
    graph = onnx.load(path).graph
    values = {v.name: v for v in (*graph.input, *graph.output)}
    engine = SimpleNamespace(
        num_io_tensors=len(values),
        get_tensor_name=lambda i: list(values)[i],
        get_tensor_mode=lambda n: "input" if n in {v.name for v in graph.input} else "output",
        get_tensor_dtype=lambda n: values[n].type.tensor_type.elem_type,
        get_tensor_profile_shape=lambda n, _: [
            [d.dim_value or size for d in values[n].type.tensor_type.shape.dim] for size in (1, 32, 128)
        ],
    )
    library: Any = SimpleNamespace(
        name="tensorrt",
        module=SimpleNamespace(
            TensorIOMode=SimpleNamespace(INPUT="input"), nptype=onnx.helper.tensor_dtype_to_np_dtype
        ),
        start=lambda engine: FakeContext(path, cupy.gpu),
        capturable=lambda context, stream: True,
        said=lambda: "it gave no reason",
    )
    return TensorRTGraph(library, None, engine, path.name, cupy)  # type: ignore[arg-type]


MAKERS = {"onnxruntime": onnxruntime_graph, "torch": torch_graph, "tensorrt": tensorrt_graph}


@pytest.fixture
def cupy() -> EmulatedCupy:
    return EmulatedCupy(EmulatedGpu())


@pytest.mark.parametrize("role", GRAPHS)
@pytest.mark.parametrize("name", MAKERS)
def test_a_bound_graph_fills_the_callers_arrays(name: str, role: str, cupy: EmulatedCupy) -> None:
    path, queue = ENGINES / GRAPHS[role], cupy.gpu.queue()
    graph = MAKERS[name](path, cupy)
    plain = load_backend("onnxruntime", "cpu", 1).load(path)
    assert (graph.inputs, graph.outputs) == (plain.inputs, plain.outputs)
    feeds = feeds_of(path)
    bound = graph.bind({n: a.shape for n, a in feeds.items()})
    assert {n: (s.shape, s.dtype) for n, s in bound.inputs.items()} == {n: (a.shape, a.dtype) for n, a in feeds.items()}
    given = {n: cupy.asarray(a) for n, a in feeds.items()}
    found = {n: cupy.empty(s.shape, s.dtype) for n, s in bound.outputs.items()}
    for seed in (0, 1):  # the same memory again, as a captured graph does
        wanted = plain(feeds_of(path, seed=seed))
        for n, array in feeds_of(path, seed=seed).items():
            given[n][...] = array
        bound.run(views(given), views(found), queue.ptr)
        queue.wait()
        assert_close({n: np.asarray(a) for n, a in found.items()}, wanted, SINGLE_PRECISION)


@pytest.mark.parametrize("name", MAKERS)
def test_only_what_is_asked_for_is_filled(name: str, cupy: EmulatedCupy) -> None:
    path, queue = ENGINES / GRAPHS["roi_head"], cupy.gpu.queue()
    bound = MAKERS[name](path, cupy).bind({n: a.shape for n, a in feeds_of(path).items()})
    given = {n: cupy.asarray(a) for n, a in feeds_of(path).items()}
    keys = cupy.empty(bound.outputs["keys"].shape, np.float32)
    for _ in range(2):
        bound.run(views(given), views({"keys": keys}), queue.ptr)
    queue.wait()
    wanted = load_backend("onnxruntime", "cpu", 1).load(path)(feeds_of(path))
    assert np.abs(np.asarray(keys) - wanted["keys"]).max() <= 1e-5


@pytest.mark.parametrize("others_first", [False, True])
@pytest.mark.parametrize("name", MAKERS)
def test_work_is_in_order_with_the_callers_stream(name: str, others_first: bool) -> None:
    """What the stream does before fills the inputs, what it does after reads the outputs and uses all memory anew.
    Streams that nobody put in order run as late or as early as can be.
    """
    cupy = EmulatedCupy(EmulatedGpu(others_first=others_first))
    path, queue = ENGINES / GRAPHS["backbone"], cupy.gpu.queue()
    feeds = feeds_of(path)
    bound = MAKERS[name](path, cupy).bind({n: a.shape for n, a in feeds.items()})
    given = {n: cupy.empty(s.shape, s.dtype) for n, s in bound.inputs.items()}
    found = {n: cupy.empty(s.shape, s.dtype) for n, s in bound.outputs.items()}
    got = {n: np.empty(s.shape, s.dtype) for n, s in bound.outputs.items()}
    waits = cupy.gpu.waits
    for n, array in feeds.items():
        queue.copy(given[n], array)
    bound.run(views(given), views(found), queue.ptr)
    for n, array in found.items():
        queue.copy(got[n], array)
    queue.enqueue(lambda: [array.fill(0) for array in (*given.values(), *found.values())] and None)
    assert cupy.gpu.waits == waits, "the host need not wait"
    queue.wait()
    assert_close(got, load_backend("onnxruntime", "cpu", 1).load(path)(feeds), SINGLE_PRECISION)
    assert bound.capturable == (name != "onnxruntime")


@pytest.mark.parametrize("name", MAKERS)
def test_wrong_arrays_are_refused_before_anything_runs(name: str, cupy: EmulatedCupy) -> None:
    path, queue = ENGINES / GRAPHS["roi_head"], cupy.gpu.queue()
    graph, feeds = MAKERS[name](path, cupy), feeds_of(path)
    with pytest.raises(RDNError, match=r"roi_head\.onnx got the inputs \['pooled'\]; wanted"):
        graph.bind({"pooled": feeds["pooled"].shape})
    bound = graph.bind({n: a.shape for n, a in feeds.items()})
    given = {n: cupy.asarray(a) for n, a in feeds.items()}
    found = {n: cupy.empty(s.shape, s.dtype) for n, s in bound.outputs.items()}
    one, many = np.zeros(1, np.int32), np.arange(3)
    for wrong in ({"support": one}, {"support": many}, {"other": many}):
        arrays = given | {n: cupy.asarray(a) for n, a in wrong.items()}
        with pytest.raises(RDNError, match=r"roi_head\.onnx got .* wanted .*'support': 'int64 \[4\]'"):
            bound.run(views(arrays), views(found), queue.ptr)
    with pytest.raises(RDNError, match=r"wanted .*'keys': 'float32"):
        bound.run(views(given), views(found | {"key": cupy.asarray(np.zeros(1, np.float32))}), queue.ptr)
    for each in cupy.gpu.queues.values():
        each.wait()
    assert all(np.isnan(array).all() for array in found.values())


def test_a_plan_says_which_sizes_it_takes(cupy: EmulatedCupy) -> None:
    graph = tensorrt_graph(ENGINES / GRAPHS["backbone"], cupy)
    with pytest.raises(RDNError, match=r"image has shape \[1, 3, 64, 200\]; this plan takes \[1, 3, 1, 1\] to"):
        graph.bind({"image": (1, 3, 64, 200)})
    graph.library.start = lambda engine: None  # type: ignore[method-assign]
    with pytest.raises(BackendUnavailable, match=r"tensorrt cannot start backbone\.onnx: it gave no reason"):
        graph.bind({"image": (1, 3, 64, 96)})


def test_behind_numpy_a_device_graph_is_bound_once_for_each_shape(cupy: EmulatedCupy) -> None:
    path = ENGINES / GRAPHS["roi_head"]
    graph = onnxruntime_graph(path, cupy)
    binds: list[Any] = []
    original = graph.bind
    graph.bind = lambda shapes: binds.append(shapes) or original(shapes)  # type: ignore[method-assign, func-returns-value]
    behind, plain = OnHost(graph, cupy), load_backend("onnxruntime", "cpu", 1).load(path)
    for rows in (7, 7, 5, 7):
        feeds = feeds_of(path, {"rows": rows})
        assert_close(behind(feeds), plain(feeds), 0.0)
    assert len(binds) == 3


# On a GPU


def installed() -> list[str]:
    """Backends that could run there; what is not installed is not skipped, because it was never asked for."""
    found = ["torch"]
    if "CUDAExecutionProvider" in ort.get_available_providers():
        found.append("onnxruntime")
    return found + [name for name in ("tensorrt", "tensorrt_rtx") if importlib.util.find_spec(name)]


@pytest.mark.parametrize("role", GRAPHS)
@pytest.mark.parametrize("name", installed())
def test_on_a_gpu_a_bound_graph_is_right_and_replays(name: Any, role: str) -> None:
    missing = cuda_machines.gpu_missing()
    if missing is not None:
        pytest.skip(f"needs a GPU: {missing}")
    import cupy

    path, stream = ENGINES / GRAPHS[role], cupy.cuda.Stream(non_blocking=True)
    plain, feeds = load_backend("onnxruntime", "cpu", 1).load(path), feeds_of(path)
    bound = load_backend(name, "cuda", 1).load_device(path).bind({n: a.shape for n, a in feeds.items()})
    with stream:
        given = {n: cupy.asarray(a) for n, a in feeds.items()}
        found = {n: cupy.zeros(s.shape, s.dtype) for n, s in bound.outputs.items()}

        def check(seed: int, run: Any) -> None:
            for n, array in feeds_of(path, seed=seed).items():
                given[n].set(array, stream=stream)
            run()
            got = {n: cupy.asnumpy(a, stream=stream) for n, a in found.items()}
            assert_close(got, plain(feeds_of(path, seed=seed)), 1e-3)

        def run() -> None:
            bound.run(views(given), views(found), stream.ptr)

        check(0, run)
        check(1, run)
        if bound.capturable:
            stream.begin_capture()
            run()
            captured = stream.end_capture()
            for seed in (2, 3):
                check(seed, lambda: captured.launch(stream))
