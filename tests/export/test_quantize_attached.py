"""INT8 of attached detectors: what is quantised, what stays, and when it is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from PIL import Image

import export.quantize_attached as quantization
from export.attach import Options, attach
from export.calibration import CalibrationFrames
from export.int8 import through_relu
from export.precision import agreement
from export.quantize_attached import WAYS, main, quantize_attached
from rdn_engine import Detector
from rdn_engine.bundle.directory import Bundle
from rdn_engine.errors import AttachError, PrecisionError
from rdn_engine.verify import verify
from tests.own_detectors import CLASSES, yolox
from training.data.synthetic import SyntheticVideos

TINY = Path(__file__).parents[2] / "models" / "rdn_tiny" / "engines"


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clip")
    for t, frame in enumerate(SyntheticVideos("calibration", 1, 16, (96, 64))[0].frames):
        Image.fromarray(frame).save(folder / f"{t:02}.png")
    return folder


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of opset 11, with sure scores: the 0.3 from which detections are compared is reached."""
    folder = tmp_path_factory.mktemp("detector")
    attach(yolox(folder / "detector.onnx", opset=11), folder / "engines", Options("yolox", CLASSES))
    return folder / "engines"


def test_convolutions_in_front_of_scores_and_boxes_are_quantised(engines: Path, clip: Path, tmp_path: Path) -> None:
    done = quantize_attached(engines, clip, tmp_path / "int8", count=8, minimum=0.0)
    model = onnx.load(tmp_path / "int8" / "encoder.onnx")
    assert model.opset_import[0].version >= 13
    makers = {name: node for node in model.graph.node for name in node.output}
    values = {one.name: onnx.numpy_helper.to_array(one) for one in model.graph.initializer}
    layers = [node for node in model.graph.node if node.op_type == "Conv"]
    kinds = {}
    for node in layers:
        source = makers.get(node.input[1])
        kinds[node.name] = "float32" if source is None else values[source.input[0]].dtype.name
        if source is not None:
            assert values[source.input[1]].shape == (len(values[source.input[0]]),), "a scale for each channel"
            assert makers[node.input[0]].op_type == "DequantizeLinear"
    # Three levels: of stem, two towers and three predictions each, the predictions stay.
    assert sorted(kinds.values()) == ["float32"] * 9 + ["int8"] * 9
    assert done.convolutions == (9, 18)
    # Nothing that boxes and scores share is coded.
    behind = quantization.ends(model)
    assert {node.op_type for node in model.graph.node if node.name in behind} >= {"Concat", "Sigmoid", "Exp"}
    for node in model.graph.node:
        if node.name in behind and node.op_type in ("Concat", "Sigmoid", "Exp"):
            assert all(makers[name].op_type != "DequantizeLinear" for name in node.input if name in makers), node.name


def test_it_is_a_directory_like_any_other(engines: Path, clip: Path, tmp_path: Path) -> None:
    done = quantize_attached(engines, clip, tmp_path / "int8", count=8, minimum=0.0)
    assert all(stage.passed for stage in verify(tmp_path / "int8"))
    told = Bundle.open(tmp_path / "int8").manifest
    assert (told.precision, told.agreement) == ("int8", done.agreement)
    assert told.config == Bundle.open(engines).config
    frames = [np.asarray(Image.open(path)) for path in sorted(clip.iterdir())]
    both = [Detector.from_pretrained(path).predict(frames) for path in (engines, tmp_path / "int8")]
    for exact, reduced in zip(*both, strict=True):
        best = exact.confidence[:3]
        np.testing.assert_allclose(reduced.confidence[: len(best)], best, atol=0.1)
    assert any(not np.array_equal(a.confidence, b.confidence) for a, b in zip(*both, strict=True)), "it is another"


def test_the_gate_leaves_layers_out_and_then_refuses(
    engines: Path, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shares: list[float] = []

    def worse(*arguments: object) -> object:
        from dataclasses import replace

        found = agreement(*arguments)  # type: ignore[arg-type]
        return replace(found, share=shares.pop(0))

    monkeypatch.setattr(quantization, "agreement", worse)
    shares[:] = [0.5, 0.5, 0.5, 0.97]
    done = quantize_attached(engines, clip, tmp_path / "some", count=8)
    assert done.convolutions == (9 - int(WAYS[3][1] * 9), 18)
    assert done.agreement.share == 0.97
    shares[:] = [0.5, 0.6, 0.7, 0.8]
    with pytest.raises(
        PrecisionError,
        match=r"agree on 50.0% with 9 of 18 .*between them, 60.0% with 9 .*, 80.0% with 7 of 18 .*wanted 95.0%",
    ):
        quantize_attached(engines, clip, tmp_path / "none", count=8)
    assert not (tmp_path / "none").exists()
    shares[:] = [0.5, 0.6, 0.7, 0.8]
    options = ["--engines", str(engines), "--calibration", str(clip), "--output", str(tmp_path / "none")]
    assert main(options) == 3
    assert "PrecisionError" in capsys.readouterr().err


@pytest.mark.parametrize("which", [0, 4])
def test_the_first_to_stay_in_float32_is_what_changes_most(
    engines: Path, clip: Path, tmp_path: Path, which: int
) -> None:
    """One layer whose codes are a hundred times too coarse."""
    exact = Bundle.open(engines)
    model = quantization._of_opset(exact.path("encoder"))
    activations, outputs = quantization._observe(model, exact, CalibrationFrames.read(clip, 8))
    kept, nodes = quantization.ends(model), model.graph.node
    layers = [node for node in nodes if node.op_type == "Conv" and node.name not in kept]
    coarse = {layers[which].output[0]}
    coarse |= {node.output[0] for node in nodes if node.op_type == "Relu" and node.input[0] in coarse}
    ranges = {
        name: (100 * low, 100 * high) if name in coarse else (low, high)
        for name, (low, high) in through_relu(model, activations.ranges("minmax")).items()
    }
    order = quantization._most_changing(model, layers, ranges, outputs[:2], tmp_path, lambda step: None)
    assert order[0] == layers[which].name
    assert sorted(order) == sorted(layer.name for layer in layers)
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_quantised_is_named(engines: Path, clip: Path, tmp_path: Path) -> None:
    with pytest.raises(AttachError, match="rdn_tiny, in float32; wanted an attached detector in float32"):
        quantize_attached(TINY, clip, tmp_path / "a")
    quantize_attached(engines, clip, tmp_path / "int8", count=8, minimum=0.0)
    with pytest.raises(AttachError, match="in int8; wanted an attached detector in float32"):
        quantize_attached(tmp_path / "int8", clip, tmp_path / "b")


def test_the_graph_runs_as_onnx_runtime_loads_it(engines: Path, clip: Path, tmp_path: Path) -> None:
    """Not in our arithmetic alone: plain ONNX Runtime takes the file."""
    quantize_attached(engines, clip, tmp_path / "int8", count=8, minimum=0.0)
    session = ort.InferenceSession(tmp_path / "int8" / "encoder.onnx", providers=["CPUExecutionProvider"])
    assert {value.name for value in session.get_outputs()} >= {"boxes", "class_scores"}
