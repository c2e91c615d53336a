"""fp8: which layers multiply codes, what codes are, what they change, and that a bundle proves itself."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

import export.build_engines
import rdn_engine.verify
from export.build_engines import build
from export.calibration import observer
from export.float8 import FLOAT8_OPSET, LARGEST, insert, power_of_two
from export.half import convert, emulate
from export.precision import MIN_AGREEMENT
from export.reduced import Reduced
from rdn_engine.backends import load_backend
from rdn_engine.bundle.directory import Bundle, write_manifest
from rdn_engine.bundle.manifest import GRAPHS
from rdn_engine.cli.app import app
from training.data.synthetic import SyntheticVideos

MODEL = Path(__file__).parents[2] / "models" / "rdn_tiny"
EXACT = MODEL / "engines"
CODES = ml_dtypes.float8_e4m3fn


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The float32 half of the build is the committed bundle of the same checkpoint."""

    def copied(loaded: Any, staging: Path, *_: Any) -> tuple[list[Any], list[Any]]:
        shutil.copytree(EXACT, staging, dirs_exist_ok=True)
        return [], []

    clip = tmp_path_factory.mktemp("clip")
    for t, frame in enumerate(SyntheticVideos("calibration", num_videos=1, num_frames=12)[0].frames):
        Image.fromarray(frame).save(clip / f"{t:02}.png")
    directory = tmp_path_factory.mktemp("engines") / "fp8"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export.build_engines, "_float32", copied)
        build(MODEL / "model.safetensors", directory, reduced=Reduced("fp8", clip, frames=3))
    return directory


def constants(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}


def coded(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    """Products whose weights are codes."""
    producers = {o: n for n in model.graph.node for o in n.output}
    products = [n for n in model.graph.node if n.op_type in ("Conv", "Gemm")]
    return [n for n in products if n.input[1] in producers and producers[n.input[1]].op_type == "DequantizeLinear"]


def run(model: onnx.ModelProto, feeds: dict[str, NDArray[Any]]) -> list[NDArray[Any]]:
    """As the graph says, without a rewrite of ONNX Runtime's."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return list(session.run(None, feeds))


# Codes


@given(st.floats(0, 1e6))
@settings(deadline=None, max_examples=100)
def test_a_scale_is_the_smallest_power_of_two_that_reaches(largest: float) -> None:
    scale = power_of_two(np.asarray(largest))
    assert np.float64(np.float16(scale)) == scale
    assert np.frexp(scale)[0] == 0.5
    assert scale * LARGEST >= largest
    assert scale == 2.0**-24 or scale / 2 * LARGEST < largest


def small(rng: np.random.Generator, groups: int = 1, kernel: int = 3) -> onnx.ModelProto:
    """A convolution of 32 to 16 channels, whose input is called `x`."""
    weight = rng.standard_normal((16, 32 // groups, kernel, kernel), np.float32)
    weight *= np.float32(10.0) ** rng.integers(-3, 2, (16, 1, 1, 1)).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["c"], name="conv", pads=[kernel // 2] * 4, group=groups),
        helper.make_node("Relu", ["c"], ["out"], name="relu"),
    ]
    constant = [
        numpy_helper.from_array(weight, "w"),
        numpy_helper.from_array(rng.standard_normal(16, np.float32), "b"),
    ]
    values = [
        helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, c, "h", "w"]) for n, c in (("x", 32), ("out", 16))
    ]
    graph = helper.make_graph(nodes, "small", values[:1], values[1:], constant)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", FLOAT8_OPSET)], ir_version=10)


def test_a_convolution_of_codes_is_that_of_what_they_stand_for() -> None:
    rng = np.random.default_rng(0)
    exact = small(rng)
    image = rng.standard_normal((1, 32, 9, 11), np.float32) * 3
    image[0, 0, 0, 0] = 1e3  # beyond the range: saturates
    values = constants(exact)
    scale = 2.0**-5  # of 8: a code reaches 14
    seen = (image.astype(np.float16).astype(np.float32) / scale).clip(-LARGEST, LARGEST).astype(CODES)
    weight_scale = 2.0 ** np.ceil(np.log2(np.abs(values["w"]).max((1, 2, 3), keepdims=True) / LARGEST))
    weight = (values["w"] / weight_scale).astype(CODES).astype(np.float32) * weight_scale
    wanted = torch.nn.functional.conv2d(
        torch.from_numpy(seen.astype(np.float32) * scale),
        torch.from_numpy(weight.astype(np.float32)),
        torch.from_numpy(values["b"].astype(np.float16).astype(np.float32)),
        padding=1,
    )
    wanted = wanted.half().relu().float().numpy()
    for model in (emulate(exact, "fp16"), convert(exact, "fp16")):
        [got] = run(insert(model, exact, {"x": 8.0}), {"x": image})
        assert np.abs(got - wanted).max() <= 2.0**-9 * np.abs(wanted).max()
        assert got[0, :, 0, 0] == pytest.approx(wanted[0, :, 0, 0], rel=2.0**-9)


@pytest.mark.parametrize(("groups", "kernel"), [(4, 3), (1, 7)])
def test_what_has_no_kernel_stays_in_fp16(groups: int, kernel: int) -> None:
    exact = small(np.random.default_rng(0), groups, kernel)
    half = convert(exact, "fp16")
    assert [n.op_type for n in insert(half, exact, {}).graph.node] == [n.op_type for n in half.graph.node]


# Graphs


def test_every_layer_that_can_multiplies_codes(built: Path) -> None:
    # Of 24 convolutions the first reads 3 channels, two make scores and boxes, and two change the count by 24.
    for role, kind, number in (("backbone", "Conv", 19), ("roi_head", "Gemm", 1), ("relation", "Gemm", 0)):
        model = onnx.load(built / GRAPHS[role])
        values, found = constants(model), coded(model)
        assert {n.op_type for n in found} <= {kind}
        producers = {o: n for n in model.graph.node for o in n.output}
        for node in found:
            weight = producers[node.input[1]]
            codes, scale = values[weight.input[0]], values[weight.input[1]]
            assert (codes.dtype, scale.dtype, scale.shape) == (CODES, np.float16, (len(codes),))
            largest = np.abs(codes.reshape(len(codes), -1).astype(np.float32)).max(1)
            assert ((largest >= LARGEST / 2) | (scale == 2.0**-24)).all()
            read = producers[node.input[0]]
            assert read.op_type == "DequantizeLinear"
            assert producers[read.input[0]].op_type == "QuantizeLinear"
            assert values[read.input[1]].shape == ()
        assert len(found) == number


@pytest.mark.parametrize("output", ["objectness", "deltas"])
def test_scores_and_boxes_of_proposals_are_never_rounded(output: str, built: Path) -> None:
    model = onnx.load(built / GRAPHS["backbone"])
    producers = {o: n for n in model.graph.node for o in n.output}
    node = producers[output]
    while node.op_type != "Conv":
        node = producers[node.input[0]]
    assert constants(model)[node.input[1]].dtype == np.float32


def test_onnx_runtime_runs_what_the_graph_says(built: Path) -> None:
    """It would make integers of the biases, and another result."""
    path = built / GRAPHS["backbone"]
    image = np.random.default_rng(0).uniform(-2, 2, (1, 3, 64, 96)).astype(np.float32)
    got = load_backend("onnxruntime", "cpu", 1).load(path)({"image": image})
    wanted = run(onnx.load(path), {"image": image})
    for a, b in zip(got.values(), wanted, strict=True):
        assert np.abs(a - b).max() <= 1e-3 * np.abs(b).max()


def test_codes_change_the_backbone_as_much_as_their_rounding() -> None:
    model = onnx.version_converter.convert_version(onnx.load(EXACT / GRAPHS["backbone"]), FLOAT8_OPSET)
    image = np.random.default_rng(0).uniform(-2, 2, (1, 3, 64, 96)).astype(np.float32)
    names = [n.input[0] for n in model.graph.node if n.op_type == "Conv"]
    largest = {
        n: float(np.abs(a).max()) for n, a in observer(EXACT / GRAPHS["backbone"], names)({"image": image}).items()
    }
    got = run(insert(emulate(model, "fp16"), model, largest), {"image": image})
    wanted = run(model, {"image": image})
    for a, b in zip(got, wanted, strict=True):
        assert 2.0**-10 < np.sqrt(((a - b) ** 2).mean() / b.var()) < 2.0**-2


# Bundles


def test_a_bundle_tells_what_it_changes(built: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = Bundle.open(built).manifest
    agreed = manifest.agreement
    assert (manifest.precision, manifest.opset) == ("fp8", FLOAT8_OPSET)
    assert agreed is not None
    assert MIN_AGREEMENT <= agreed.share <= 1
    assert 0 < agreed.score_difference < 0.1
    assert agreed.detections > 3
    assert agreed.calibration in ("minmax", "percentile")
    with pytest.raises(SystemExit) as ended:
        app(["info", str(built)])
    assert ended.value.code == 0
    assert "fp8" in capsys.readouterr().out


def test_a_bundle_proves_itself_and_a_wrong_scale_shows(built: Path, tmp_path: Path) -> None:
    assert [r for r in rdn_engine.verify.verify(built) if not r.passed] == []
    wrong = tmp_path / "wrong"
    shutil.copytree(built, wrong)
    model = onnx.load(wrong / GRAPHS["roi_head"])
    [fc] = coded(model)
    producers = {o: n for n in model.graph.node for o in n.output}
    scale = next(t for t in model.graph.initializer if t.name == producers[fc.input[1]].input[1])
    scale.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(scale) / 2, scale.name))
    onnx.save(model, wrong / GRAPHS["roi_head"])
    told = Bundle.open(built).manifest
    same = {k: getattr(told, k) for k in ("name", "config", "precision", "opset", "producers", "source", "parameters")}
    write_manifest(wrong, **same, tolerances=told.tolerances, agreement=told.agreement)
    assert {r.stage for r in rdn_engine.verify.verify(wrong) if not r.passed} >= {"features"}
