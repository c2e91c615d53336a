"""fp16 and bf16: which tensors take half precision, what that changes, and when a bundle is refused."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

import export.build_engines
import rdn_engine.verify
from export.build_engines import build
from export.half import HALVES, Half, Watched, check_range, convert, emulate, half_tensors
from export.precision import MIN_AGREEMENT
from export.reduced import Reduced
from rdn_engine import Detector
from rdn_engine.bundle.directory import Bundle
from rdn_engine.bundle.manifest import GRAPHS
from rdn_engine.cli.app import app
from rdn_engine.errors import BackendUnavailable, PrecisionError
from training.data.synthetic import SyntheticVideos

MODEL = Path(__file__).parents[2] / "models" / "rdn_tiny"
EXACT = MODEL / "engines"
TORCH = {"fp16": torch.float16, "bf16": torch.bfloat16}
ELEMENT = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}
EPSILON = {"fp16": 2.0**-11, "bf16": 2.0**-8}
"""Largest relative error of one rounding"""


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clip")
    for t, frame in enumerate(SyntheticVideos("calibration", num_videos=1, num_frames=12)[0].frames):
        Image.fromarray(frame).save(folder / f"{t:02}.png")
    return folder


@pytest.fixture(scope="module", autouse=True)
def exact_is_built() -> Iterator[None]:
    """The float32 half of every build is the committed bundle of the same checkpoint."""

    def copied(loaded: Any, staging: Path, *_: Any) -> tuple[list[Any], list[Any]]:
        shutil.copytree(EXACT, staging, dirs_exist_ok=True)
        return [], []

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export.build_engines, "_float32", copied)
        yield


@pytest.fixture(scope="module", params=HALVES)
def built(request: pytest.FixtureRequest, clip: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Half, Path]:
    half: Half = request.param
    directory = tmp_path_factory.mktemp("engines") / half
    build(MODEL / "model.safetensors", directory, reduced=Reduced(half, clip, frames=3))
    return half, directory


def elements(model: onnx.ModelProto) -> dict[str, int]:
    graph = model.graph
    found = {v.name: v.type.tensor_type.elem_type for v in (*graph.input, *graph.output, *graph.value_info)}
    return found | {t.name: t.data_type for t in graph.initializer}


def run(model: onnx.ModelProto, feeds: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return dict(zip([o.name for o in session.get_outputs()], session.run(None, feeds), strict=True))


def random_feeds(model: onnx.ModelProto, seed: int = 0) -> dict[str, NDArray[Any]]:
    rng, sizes = np.random.default_rng(seed), {"batch": 1, "height": 64, "width": 96}
    feeds: dict[str, NDArray[Any]] = {}
    for value in model.graph.input:
        kind = value.type.tensor_type
        shape = [d.dim_value or sizes.get(d.dim_param, 7) for d in kind.shape.dim]
        feeds[value.name] = rng.standard_normal(shape, np.float32)
        if value.name.endswith("boxes"):
            corner = rng.uniform(0, 100, (shape[0], 2))
            feeds[value.name] = np.float32(np.concatenate([corner, corner + rng.uniform(10, 50, corner.shape)], 1))
        if kind.elem_type == TensorProto.INT64:
            feeds[value.name] = np.arange(shape[0])
    return feeds


# What is half precision


@pytest.mark.parametrize("role", GRAPHS)
def test_every_product_but_those_of_boxes_and_scores_is_half(role: str, built: tuple[Half, Path]) -> None:
    half, directory = built
    model = onnx.load(directory / GRAPHS[role])
    kinds = elements(model)
    products = [n for n in model.graph.node if n.op_type in ("Conv", "Gemm", "MatMul")]
    exact = [n.output[0] for n in products if kinds[n.output[0]] == TensorProto.FLOAT]
    # The RPN's two last convolutions; the geometry of four modules and the two heads.
    assert len(exact) == {"backbone": 2, "roi_head": 0, "relation": 6}[role]
    assert len(products) - len(exact) == {"backbone": 22, "roi_head": 9, "relation": 14}[role]
    for node in products:
        assert len({kinds[name] for name in (*node.input, *node.output)}) == 1
        assert kinds[node.input[0]] in (ELEMENT[half], TensorProto.FLOAT)


@pytest.mark.parametrize("role", GRAPHS)
def test_inputs_outputs_boxes_and_softmax_are_float32(role: str, built: tuple[Half, Path]) -> None:
    model = onnx.load(built[1] / GRAPHS[role])
    kinds = elements(model)
    for value in (*model.graph.input, *model.graph.output):
        assert kinds[value.name] in (TensorProto.FLOAT, TensorProto.INT64)
    exact = {"Softmax", "Log", "Sin", "Cos", "Div", "Sigmoid", "Sub", "Abs"}
    for node in model.graph.node:
        if node.op_type in exact:
            assert {kinds[o] for o in node.output} <= {TensorProto.FLOAT, TensorProto.INT64}


# What it computes


@pytest.mark.parametrize("half", HALVES)
def test_emulation_is_torch_in_half_precision(half: Half) -> None:
    """A convolution, a ReLU and a sum, rounded where torch rounds."""
    rng = np.random.default_rng(0)
    weight, bias = rng.standard_normal((5, 3, 3, 3), np.float32), rng.standard_normal(5, np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["image", "w", "b"], ["c"], pads=[1, 1, 1, 1]),
            helper.make_node("Relu", ["c"], ["r"]),
            helper.make_node("Add", ["r", "c"], ["out"]),
        ],
        "small",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, "h", "w"])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, [1, 5, "h", "w"])],
        [numpy_helper.from_array(weight, "w"), numpy_helper.from_array(bias, "b")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    image = rng.standard_normal((1, 3, 9, 11), np.float32)
    low = [torch.from_numpy(a).to(TORCH[half]) for a in (image, weight, bias)]
    c = torch.nn.functional.conv2d(*(t.float() for t in low), padding=1).to(TORCH[half])
    wanted = (c.relu() + c).float().numpy()
    got = run(emulate(model, half), {"image": image})["out"]
    assert np.array_equal(torch.from_numpy(got).to(TORCH[half]).float().numpy(), got)
    # A sum in another order may fall on the other side of a rounding.
    assert (got != wanted).mean() < 0.05
    assert np.abs(got - wanted).max() <= 4 * EPSILON[half] * np.abs(wanted).max()


@pytest.mark.parametrize("role", GRAPHS)
@pytest.mark.parametrize("half", HALVES)
def test_half_differs_from_float32_by_its_rounding_and_no_more(role: str, half: Half) -> None:
    model = onnx.load(EXACT / GRAPHS[role])
    feeds = random_feeds(model)
    wanted, got = run(model, feeds), run(emulate(model, half), feeds)
    for name, exact in wanted.items():
        error = float(np.abs(got[name] - exact).max() / np.abs(exact).max())
        assert EPSILON[half] / 10 < error < 8 * EPSILON[half], name


@pytest.mark.parametrize("role", GRAPHS)
def test_fp16_runs_in_onnx_runtime_and_agrees_with_its_emulation(role: str) -> None:
    model = onnx.load(EXACT / GRAPHS[role])
    feeds = random_feeds(model, 1)
    wanted, got = run(emulate(model, "fp16"), feeds), run(convert(model, "fp16"), feeds)
    for name, emulated in wanted.items():
        assert np.abs(got[name] - emulated).max() <= 8 * EPSILON["fp16"] * np.abs(emulated).max(), name


@pytest.mark.parametrize("role", ["roi_head", "relation"])
def test_bf16_graph_agrees_with_its_emulation(role: str) -> None:
    """In ONNX's own interpreter, because no runtime on a CPU has the kernels."""
    from onnx.reference import ReferenceEvaluator

    model = onnx.load(EXACT / GRAPHS[role])
    feeds = random_feeds(model, 2)
    converted = convert(model, "bf16")
    got = dict(
        zip([o.name for o in converted.graph.output], ReferenceEvaluator(converted).run(None, feeds), strict=True)
    )
    for name, emulated in run(emulate(model, "bf16"), feeds).items():
        assert np.abs(got[name] - emulated).max() <= 8 * EPSILON["bf16"] * np.abs(emulated).max(), name


def test_overflow_shows_in_the_emulation() -> None:
    model = onnx.load(EXACT / GRAPHS["roi_head"])
    feeds = random_feeds(model)
    feeds["pooled"] *= 1e5
    assert np.isfinite(run(model, feeds)["features"]).all()
    assert not np.isfinite(run(emulate(model, "fp16"), feeds)["features"]).all()
    assert np.isfinite(run(emulate(model, "bf16"), feeds)["features"]).all()


# Bundles


def test_a_bundle_tells_what_it_changes(built: tuple[Half, Path], capsys: pytest.CaptureFixture[str]) -> None:
    half, directory = built
    manifest = Bundle.open(directory).manifest
    agreed = manifest.agreement
    assert manifest.precision == half
    assert agreed is not None
    assert MIN_AGREEMENT <= agreed.share <= 1
    assert 0 < agreed.score_difference < 0.05
    assert agreed.detections > 3
    assert (agreed.calibration, agreed.calibration_frames, agreed.frames) == ("maxima", 3, 3)
    with pytest.raises(SystemExit) as ended:
        app(["info", str(directory)])
    assert ended.value.code == 0
    assert half in capsys.readouterr().out


@pytest.mark.parametrize("prover", ["onnxruntime", "torch"])
def test_a_bundle_proves_itself_or_says_what_runs_it(prover: Any, built: tuple[Half, Path]) -> None:
    half, directory = built
    if (half, prover) != ("bf16", "onnxruntime"):
        assert [r for r in rdn_engine.verify.verify(directory, backend=prover) if not r.passed] == []
    else:
        with pytest.raises(BackendUnavailable, match=r"no kernel that roi_head\.onnx needs.*'torch', 'tensorrt'"):
            Detector.from_pretrained(directory)


def test_values_near_the_end_of_the_range_are_refused_by_name() -> None:
    path = EXACT / GRAPHS["roi_head"]
    watched = Watched(path)
    assert set(half_tensors(onnx.load(path))) >= {"features", "linear", "keys"}
    feeds = random_feeds(onnx.load(path))
    out = watched(feeds)
    assert watched.largest["features"] == pytest.approx(float(out["features"].max()))
    check_range([("roi_head", watched)], "fp16")
    feeds["pooled"] = feeds["pooled"] * (30_000 / np.abs(feeds["pooled"]).max())
    watched(feeds)
    with pytest.raises(PrecisionError, match=r"roi_head '\w+': \d.*wanted at most 1\.638e\+04\. bf16 has the range"):
        check_range([("roi_head", watched)], "fp16")
    check_range([("roi_head", watched)], "bf16")


def test_a_weight_beyond_fp16_is_refused() -> None:
    model = onnx.load(EXACT / GRAPHS["roi_head"])
    weight = next(t for t in model.graph.initializer if t.name == "weight")
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * np.float32(1e7), "weight"))
    with pytest.raises(PrecisionError, match="weight 'weight' has a value of"):
        convert(model, "fp16")
    convert(model, "bf16")
