"""Backend `torch` against ONNX Runtime on the CPU, and what each backend says is missing."""

from __future__ import annotations

import builtins
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

from benchmarks.frame.models import draw_relation
from export.calibration import CalibrationFrames
from export.graphs import describe, export_graph
from export.half import Half, convert
from export.int8 import quantize
from rdn_engine import Detector
from rdn_engine.backends import device_graph, load_backend
from rdn_engine.backends.graph import BackendName
from rdn_engine.bundle.directory import Bundle
from rdn_engine.bundle.manifest import GRAPHS
from rdn_engine.config import BackboneConfig, RelationConfig
from rdn_engine.errors import BackendUnavailable, BundleError, RDNError
from rdn_engine.verify import verify
from tests.graph_feeds import assert_close, feeds_of
from training.data.synthetic import SyntheticVideos
from training.model.rdn import RDN

ENGINES = Path(__file__).parents[2] / "models" / "rdn_tiny" / "engines"
SINGLE_PRECISION, HALF = 1e-5, {"fp16": 2.0**-8, "bf16": 2.0**-5}


@pytest.mark.parametrize("sizes", [{}, {"rows": 1, "support_rows": 1, "supports": 1, "advanced": 1, "batch": 2}])
@pytest.mark.parametrize("role", GRAPHS)
@pytest.mark.parametrize("backend", ["torch", "openvino"])
def test_it_computes_what_onnx_runtime_computes(backend: BackendName, role: str, sizes: dict[str, int]) -> None:
    """In float32: left to itself OpenVINO would round to bfloat16 where the processor has it."""
    path = ENGINES / GRAPHS[role]
    feeds = feeds_of(path, sizes)
    ours, theirs = (load_backend(name, "cpu", 1).load(path) for name in (backend, "onnxruntime"))
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


@pytest.mark.long
def test_torch_runs_a_model_of_another_kind(tmp_path: Path) -> None:
    """Group norms, which stay in the graph, and no basic module; rdn_tiny has all the rest."""
    relation = RelationConfig(dim=32, heads=2, num_basic=0)
    backbone = BackboneConfig("resnet18", width=0.25, norm="group")
    torch.manual_seed(0)
    model = RDN(replace(Bundle.open(ENGINES).config, backbone=backbone, relation=relation)).eval()
    draw_relation(model.relation)
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
        graph({"pooled": np.zeros((1, 1600), np.float32)})
    with pytest.raises(RDNError, match=r"roi_head\.onnx failed in torch on \{'pooled': 'torch\.float32 \[1, 9\]'"):
        graph({"pooled": np.zeros((1, 9), np.float32), "support": np.zeros(1, np.int64)})


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
        "import sys; from rdn_engine.backends import load_backend; import rdn_engine.backends.torch.backend\n"
        "import rdn_engine.backends.tensorrt.backend, rdn_engine.backends.onnxruntime.device\n"
        "load_backend('onnxruntime', 'cpu', 1); print([m for m in ('torch', 'onnx', 'cupy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


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


def test_graphs_share_the_memory_they_work_in(tmp_path: Path) -> None:
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    steps = [("Sin", "x", "y"), ("Cos", "y", "z"), ("ReduceMax", "z", "largest")]
    nodes = [helper.make_node(op, [given], [made]) for op, given, made in steps]
    given = helper.make_tensor_value_info("x", kind, ["rows", 1024])
    made = helper.make_tensor_value_info("largest", kind, [1, 1])
    graph = helper.make_graph(nodes, "wide", [given], [made])
    path = tmp_path / "wide.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    script = (
        "import resource, sys; from pathlib import Path; import numpy as np\n"
        "from rdn_engine.backends import load_backend\n"
        "backend, x = load_backend('onnxruntime', 'cpu', 1), np.ones((16384, 1024), np.float32)\n"
        "for graph in [backend.load(Path(sys.argv[1])) for _ in range(3)]:\n"
        "    graph({'x': x})\n"
        "    pages = int(Path('/proc/self/statm').read_text().split()[1])\n"
        "    print(pages * resource.getpagesize() / x.nbytes)"
    )
    done = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=True)
    after = [float(line) for line in done.stdout.split()]
    assert after[2] - after[0] < 0.5, after


@pytest.mark.parametrize(
    ("name", "device", "message"),
    [
        ("tensorrt", "cpu", r"'tensorrt' runs on device 'cuda'; got device 'cpu'"),
        ("tensorrt_rtx", "cpu", r"'tensorrt_rtx' runs on device 'cuda'; got device 'cpu'"),
        ("openvino3", "cpu", r"backend is 'openvino3'; wanted one of"),
        ("onnxruntime", "npu", r"device is 'npu'; wanted 'cpu' or 'cuda'"),
    ],
)
def test_what_is_missing_is_said(name: Any, device: Any, message: str) -> None:
    with pytest.raises(BackendUnavailable, match=message):
        load_backend(name, device, 1)
