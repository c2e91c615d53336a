"""Backends: torch against ONNX Runtime on the CPU; and what the device backends ask of their libraries, on fakes.

The fakes run the real graphs where they can (ONNX Runtime and torch on host memory that claims to be a device's), and
watch what is asked of streams. That it works on a GPU is not shown here.
"""

from __future__ import annotations

import builtins
import ctypes
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from fake_cupy import FakeCupy, nothing, put, views
from numpy.typing import NDArray

from export.graphs import describe, export_graph
from export.half import Half, convert
from export.int8 import quantize
from rdn_engine import Detector
from rdn_engine.backends import DeviceGraph, device_graph, load_backend
from rdn_engine.backends.device_graph import OnHost
from rdn_engine.backends.onnxruntime import open_session
from rdn_engine.backends.onnxruntime_cuda import OnnxRuntimeDeviceGraph
from rdn_engine.backends.tensorrt import TensorRTGraph
from rdn_engine.backends.torch import TorchDeviceGraph
from rdn_engine.backends.torch_program import Program
from rdn_engine.bundle import GRAPHS, Bundle
from rdn_engine.config import BackboneConfig, RelationConfig
from rdn_engine.errors import BackendUnavailable, BundleError, RDNError
from rdn_engine.verify import verify
from training.data.synthetic import SyntheticVideos
from training.model.rdn import RDN

ENGINES = Path(__file__).parents[1] / "models" / "rdn_tiny" / "engines"
SINGLE_PRECISION, HALF = 1e-5, {"fp16": 2.0**-8, "bf16": 2.0**-5}


def feeds_of(path: Path, sizes: dict[str, int] | None = None, seed: int = 0) -> dict[str, NDArray[Any]]:
    rng, feeds = np.random.default_rng(seed), {}
    sizes = {"batch": 1, "height": 64, "width": 96, "support_rows": 4} | (sizes or {})
    for value in onnx.load(path).graph.input:
        kind = value.type.tensor_type
        shape = [d.dim_value or sizes.get(d.dim_param, 7) for d in kind.shape.dim]
        feeds[value.name] = rng.standard_normal(shape, np.float32)
        if value.name.endswith("boxes"):
            corner = rng.uniform(0, 100, (shape[0], 2))
            feeds[value.name] = np.float32(np.concatenate([corner, corner + rng.uniform(10, 50, corner.shape)], 1))
        if kind.elem_type == onnx.TensorProto.INT64:
            feeds[value.name] = np.arange(shape[0])[::-1].copy()
    return feeds


def assert_close(got: dict[str, Any], wanted: dict[str, Any], tolerance: float) -> None:
    assert list(got) == list(wanted)
    for name, exact in wanted.items():
        assert (got[name].shape, got[name].dtype) == (exact.shape, exact.dtype), name
        assert np.abs(got[name] - exact).max() <= tolerance * np.abs(exact).max(), name


# torch on the CPU


@pytest.mark.parametrize("sizes", [{}, {"rows": 1, "support_rows": 1, "supports": 1, "advanced": 1, "batch": 2}])
@pytest.mark.parametrize("role", GRAPHS)
def test_torch_computes_what_onnx_runtime_computes(role: str, sizes: dict[str, int]) -> None:
    path = ENGINES / GRAPHS[role]
    feeds = feeds_of(path, sizes)
    ours, theirs = (load_backend(name, "cpu", 1).load(path) for name in ("torch", "onnxruntime"))
    assert (ours.inputs, ours.outputs) == (theirs.inputs, theirs.outputs)
    assert_close(ours(feeds), theirs(feeds), SINGLE_PRECISION)


@pytest.mark.parametrize("role", GRAPHS)
@pytest.mark.parametrize("half", ["fp16", "bf16"])
def test_torch_runs_half_precision(role: str, half: Half, tmp_path: Path) -> None:
    path = tmp_path / GRAPHS[role]
    onnx.save(convert(onnx.load(ENGINES / GRAPHS[role]), half), path)
    feeds = feeds_of(ENGINES / GRAPHS[role])
    got = load_backend("torch", "cpu", 1).load(path)(feeds)
    exact = load_backend("onnxruntime", "cpu", 1).load(ENGINES / GRAPHS[role])(feeds)
    assert_close(got, exact, HALF[half])
    assert any(np.abs(got[name] - wanted).max() > 2.0**-20 for name, wanted in exact.items())


def test_torch_runs_a_model_of_another_kind(tmp_path: Path) -> None:
    """Group norms, which stay in the graph, and no basic module; rdn_tiny has all the rest."""
    relation = RelationConfig(dim=32, heads=2, num_basic=0)
    backbone = BackboneConfig("resnet18", width=0.25, norm="group")
    torch.manual_seed(0)
    model = RDN(replace(Bundle.open(ENGINES).config, backbone=backbone, relation=relation)).eval()
    for role, graph in describe(model).items():
        path = tmp_path / GRAPHS[role]
        export_graph(graph, role, path)
        feeds = feeds_of(path)
        ours, theirs = (load_backend(name, "cpu", 1).load(path)(feeds) for name in ("torch", "onnxruntime"))
        assert_close(ours, theirs, 5e-5)


@pytest.mark.parametrize("pads", [[1, 1, 1, 1], [0, 2, 1, 1]])
def test_torch_runs_grouped_convolutions_with_any_padding(pads: list[int], tmp_path: Path) -> None:
    helper, kind, rng = onnx.helper, onnx.TensorProto.FLOAT, np.random.default_rng(0)
    shape = ["batch", 8, "height", "width"]
    weight = onnx.numpy_helper.from_array(rng.standard_normal((8, 2, 3, 3), np.float32), "w")
    node = helper.make_node("Conv", ["x", "w"], ["y"], pads=pads, group=4, strides=[2, 1], dilations=[1, 2])
    values = [helper.make_tensor_value_info(name, kind, shape) for name in "xy"]
    graph = helper.make_graph([node], "grouped", values[:1], values[1:], [weight])
    path = tmp_path / "grouped.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    ours, theirs = (load_backend(name, "cpu", 1).load(path)(feeds_of(path)) for name in ("torch", "onnxruntime"))
    assert_close(ours, theirs, SINGLE_PRECISION)


def test_a_detector_runs_in_torch() -> None:
    assert [r for r in verify(ENGINES, backend="torch") if not r.passed] == []
    frames = SyntheticVideos("elsewhere", num_videos=1, num_frames=3)[0].frames
    found = [Detector.from_pretrained(ENGINES, backend=b, threads=1).predict(frames) for b in ("torch", "onnxruntime")]
    assert sum(len(d) for d in found[0]) > 3
    for ours, theirs in zip(*found, strict=True):
        assert len(ours) == len(theirs)
        np.testing.assert_allclose(ours.xyxy, theirs.xyxy, atol=0.05)
        np.testing.assert_allclose(ours.confidence, theirs.confidence, atol=1e-3)


def test_what_torch_does_not_run_is_said(tmp_path: Path) -> None:
    backend = load_backend("torch", "cpu", 1)
    from export.calibration import CalibrationFrames

    frames = CalibrationFrames(list(SyntheticVideos("calibration", num_videos=1, num_frames=1)[0].frames), [])
    quantize(ENGINES, tmp_path, Bundle.open(ENGINES).config, frames, lambda step: None)
    with pytest.raises(BackendUnavailable, match=r"backbone\.onnx has DequantizeLinear.* does not run: .*int8"):
        backend.load(tmp_path / GRAPHS["backbone"])
    for damaged in (b"no graph at all", b""):
        (tmp_path / "damaged.onnx").write_bytes(damaged)
        with pytest.raises(BundleError, match=r"damaged\.onnx'.* ONNX graph"):
            backend.load(tmp_path / "damaged.onnx")
    with pytest.raises(BundleError, match=r"gone\.onnx' cannot be read"):
        backend.load(tmp_path / "gone.onnx")
    with pytest.raises(BackendUnavailable, match="open on 'cpu'"):
        backend.load_device(ENGINES / GRAPHS["backbone"])
    graph = backend.load(ENGINES / GRAPHS["roi_head"])
    with pytest.raises(RDNError, match=r"got the inputs \['pooled'\]; wanted \['pooled', 'support'\]"):
        graph({"pooled": np.zeros((1, 5, 5, 64), np.float32)})
    with pytest.raises(
        RDNError, match=r"roi_head\.onnx failed in torch on \{'pooled': 'torch\.float32 \[1, 5, 5, 9\]'"
    ):
        graph({"pooled": np.zeros((1, 5, 5, 9), np.float32), "support": np.zeros(1, np.int64)})


@pytest.mark.parametrize("missing", ["torch", "onnx"])
def test_without_torch_it_says_what_to_install(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any, **named: Any) -> Any:
        if name == missing:
            raise ImportError(f"No module named {missing!r}")
        return real(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(BackendUnavailable, match=rf"wants torch and onnx \(No module named '{missing}'\).*onnxruntime"):
        load_backend("torch", "cpu", 1)


def test_other_backends_leave_torch_alone() -> None:
    script = (
        "import sys; from rdn_engine.backends import load_backend; import rdn_engine.backends.torch\n"
        "import rdn_engine.backends.tensorrt, rdn_engine.backends.onnxruntime_cuda\n"
        "load_backend('onnxruntime', 'cpu', 1); print([m for m in ('torch', 'onnx', 'cupy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# Device graphs


class FakeCuda:
    """torch with host memory for a device's."""

    def __init__(self, cupy: FakeCupy) -> None:
        self.cuda = SimpleNamespace(
            MemPool=object,
            use_mem_pool=nothing,
            stream=lambda stream: cupy.log.append(("torch on", stream)) or nothing(),
            ExternalStream=lambda pointer: pointer,
            current_stream=lambda: 0,
        )

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)

    def zeros(self, shape: Any, dtype: Any, device: str) -> torch.Tensor:
        assert device == "cuda"
        return torch.zeros(shape, dtype=dtype)

    def as_tensor(self, array: Any, device: str) -> torch.Tensor:
        return torch.from_numpy(np.asarray(SimpleNamespace(__array_interface__=array.__cuda_array_interface__)))


def onnxruntime_graph(path: Path, cupy: FakeCupy) -> DeviceGraph:
    session = open_session(path, 1, ["CPUExecutionProvider"])
    return OnnxRuntimeDeviceGraph(session, path.name, cupy, cupy.cuda.Stream(non_blocking=True), ("cpu", 0))


def torch_graph(path: Path, cupy: FakeCupy) -> DeviceGraph:
    return TorchDeviceGraph(FakeCuda(cupy), Program(path).eval(), path.name)  # type: ignore[arg-type]


class FakeContext:
    """Of TensorRT: runs the graph in ONNX Runtime on what stands at the addresses."""

    def __init__(self, path: Path, log: list[Any]) -> None:
        self._graph, self._log = load_backend("onnxruntime", "cpu", 1).load(path), log
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
        self._log.append(("execute", stream))
        arrays = {name: self._at(name) for name in self._shapes}
        assert set(self._addresses) == set(self._shapes)  # an output without an address is an error there
        for name, array in self._graph({n: arrays[n] for n in self._graph.inputs}).items():
            arrays[name][...] = array
        return True

    def _at(self, name: str) -> NDArray[Any]:
        shape, dtype = self._shapes[name], np.dtype(self._dtypes[name])
        memory = (ctypes.c_byte * (int(np.prod(shape)) * dtype.itemsize)).from_address(self._addresses[name])
        return np.frombuffer(memory, dtype).reshape(shape)


def tensorrt_graph(path: Path, cupy: FakeCupy) -> TensorRTGraph:
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
        start=lambda engine: FakeContext(path, cupy.log),
        capturable=lambda context, stream: True,
        said=lambda: "it gave no reason",
    )
    return TensorRTGraph(library, None, engine, path.name, cupy)  # type: ignore[arg-type]


MAKERS = {"onnxruntime": onnxruntime_graph, "torch": torch_graph, "tensorrt": tensorrt_graph}


@pytest.mark.parametrize("role", GRAPHS)
@pytest.mark.parametrize("name", MAKERS)
def test_a_bound_graph_fills_the_callers_arrays(name: str, role: str) -> None:
    path, cupy = ENGINES / GRAPHS[role], FakeCupy()
    graph = MAKERS[name](path, cupy)
    plain = load_backend("onnxruntime", "cpu", 1).load(path)
    assert (graph.inputs, graph.outputs) == (plain.inputs, plain.outputs)
    feeds = feeds_of(path)
    bound = graph.bind({n: a.shape for n, a in feeds.items()})
    assert {n: (s.shape, s.dtype) for n, s in bound.inputs.items()} == {n: (a.shape, a.dtype) for n, a in feeds.items()}
    given = {n: put(a) for n, a in feeds.items()}
    found = {n: cupy.empty(s.shape, s.dtype) for n, s in bound.outputs.items()}
    for seed in (0, 1):  # the same memory again, as a captured graph does
        wanted = plain(feeds_of(path, seed=seed))
        for n, array in feeds_of(path, seed=seed).items():
            given[n][...] = array
        bound.run(views(given), views(found), 7)
        assert_close({n: np.asarray(a) for n, a in found.items()}, wanted, SINGLE_PRECISION)


@pytest.mark.parametrize("name", MAKERS)
def test_only_what_is_asked_for_is_filled(name: str) -> None:
    path, cupy = ENGINES / GRAPHS["roi_head"], FakeCupy()
    bound = MAKERS[name](path, cupy).bind({n: a.shape for n, a in feeds_of(path).items()})
    given = {n: put(a) for n, a in feeds_of(path).items()}
    keys = cupy.empty(bound.outputs["keys"].shape, np.float32)
    for _ in range(2):
        bound.run(views(given), views({"keys": keys}), 7)
    wanted = load_backend("onnxruntime", "cpu", 1).load(path)(feeds_of(path))
    assert np.abs(np.asarray(keys) - wanted["keys"]).max() <= 1e-5


@pytest.mark.parametrize("name", MAKERS)
def test_work_is_in_order_with_the_callers_stream(name: str) -> None:
    path, cupy = ENGINES / GRAPHS["backbone"], FakeCupy()
    bound = MAKERS[name](path, cupy).bind({"image": (1, 3, 64, 96)})
    given = {n: put(a) for n, a in feeds_of(path).items()}
    found = {n: cupy.empty(s.shape, s.dtype) for n, s in bound.outputs.items()}
    cupy.log.clear()
    bound.run(views(given), views(found), 7)
    if name == "onnxruntime":
        # Its session has a stream of its own, behind the caller's; then the caller's goes on behind it.
        assert cupy.log == [("record", 7), ("wait", 101, 7), ("record", 101), ("wait", 7, 101)]
    else:
        assert cupy.log == [({"torch": "torch on", "tensorrt": "execute"}[name], 7)]
    assert bound.capturable == (name != "onnxruntime")


@pytest.mark.parametrize("name", MAKERS)
def test_wrong_arrays_are_refused_before_anything_runs(name: str) -> None:
    path, cupy = ENGINES / GRAPHS["roi_head"], FakeCupy()
    graph, feeds = MAKERS[name](path, cupy), feeds_of(path)
    with pytest.raises(RDNError, match=r"roi_head\.onnx got the inputs \['pooled'\]; wanted"):
        graph.bind({"pooled": feeds["pooled"].shape})
    bound = graph.bind({n: a.shape for n, a in feeds.items()})
    given = {n: put(a) for n, a in feeds.items()}
    cupy.log.clear()
    for wrong in ({"support": put(np.int32([0]))}, {"support": put(np.arange(3))}, {"other": put(np.arange(3))}):
        with pytest.raises(RDNError, match=r"roi_head\.onnx got .* wanted .*'support': 'int64 \[4\]'"):
            bound.run(views(given | wrong), {}, 7)
    with pytest.raises(RDNError, match=r"wanted .*'keys': 'float32"):
        bound.run(views(given), views({"key": put(np.float32([0]))}), 7)
    assert cupy.log == []


def test_a_plan_says_which_sizes_it_takes() -> None:
    graph = tensorrt_graph(ENGINES / GRAPHS["backbone"], FakeCupy())
    with pytest.raises(RDNError, match=r"image has shape \[1, 3, 64, 200\]; this plan takes \[1, 3, 1, 1\] to"):
        graph.bind({"image": (1, 3, 64, 200)})
    graph.library.start = lambda engine: None  # type: ignore[method-assign]
    with pytest.raises(BackendUnavailable, match=r"tensorrt cannot start backbone\.onnx: it gave no reason"):
        graph.bind({"image": (1, 3, 64, 96)})


def test_behind_numpy_a_device_graph_is_bound_once_for_each_shape() -> None:
    path, cupy = ENGINES / GRAPHS["roi_head"], FakeCupy()
    graph = onnxruntime_graph(path, cupy)
    binds: list[Any] = []
    original = graph.bind
    graph.bind = lambda shapes: binds.append(shapes) or original(shapes)  # type: ignore[method-assign, func-returns-value]
    behind, plain = OnHost(graph, cupy), load_backend("onnxruntime", "cpu", 1).load(path)
    for rows in (7, 7, 5, 7):
        feeds = feeds_of(path, {"rows": rows})
        assert_close(behind(feeds), plain(feeds), 0.0)
    assert len(binds) == 3


@pytest.mark.parametrize("name", ["onnxruntime", "torch"])
def test_a_machine_without_a_gpu_says_what_is_missing(name: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)
    message = "has no CUDA provider here, only .*gpu|wants cupy" if name == "onnxruntime" else "wants cupy"
    with pytest.raises(BackendUnavailable, match=message):
        load_backend(name, "cuda", 1)


def test_no_device_is_no_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = SimpleNamespace(getDeviceCount=lambda: 0)
    monkeypatch.setitem(sys.modules, "cupy", SimpleNamespace(cuda=SimpleNamespace(runtime=runtime)))
    with pytest.raises(BackendUnavailable, match="finds no CUDA device; wanted one"):
        device_graph.load_cupy("torch")
