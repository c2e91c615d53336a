"""INT8: what is quantised, on which frames, how it is judged, and when a bundle is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import export.build_engines
import rdn_engine.verify
from export.build_engines import build, main
from export.calibration import LEAST_FRAMES, METHODS, Activations, CalibrationFrames
from export.precision import MIN_AGREEMENT, SCORE, agreement
from export.reduced import Reduced
from rdn_engine import Detector
from rdn_engine.backends.graph import BackendName
from rdn_engine.bundle.directory import Bundle, write_manifest
from rdn_engine.bundle.manifest import GRAPHS, MANIFEST, Agreement
from rdn_engine.cli.app import app
from rdn_engine.errors import BundleError, PrecisionError
from rdn_engine.results import Detections
from training.data.synthetic import SyntheticVideos

MODEL = Path(__file__).parents[2] / "models" / "rdn_tiny"
EXACT = MODEL / "engines"


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Frames of three videos, the last of which is held out."""
    folder = tmp_path_factory.mktemp("clip")
    videos = SyntheticVideos("calibration", num_videos=3, num_frames=6)
    for i in range(3):
        for t, frame in enumerate(videos[i].frames):
            Image.fromarray(frame).save(folder / f"{i}_{t}.png")
    return folder


@pytest.fixture(scope="module", autouse=True)
def exact_is_built() -> Iterator[None]:
    """The float32 half of every build is the committed bundle of the same checkpoint, which
    tests/export/test_export.py and tests/test_parity.py stand for."""

    def copied(loaded: Any, staging: Path, *_: Any) -> tuple[list[Any], list[Any]]:
        shutil.copytree(EXACT, staging, dirs_exist_ok=True)
        return [], []

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export.build_engines, "_float32", copied)
        yield


@pytest.fixture(scope="module")
def built(clip: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("engines") / "int8"
    build(MODEL / "model.safetensors", directory, reduced=Reduced("int8", clip, frames=10))
    return directory


def constants(graph: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {t.name: onnx.numpy_helper.to_array(t) for t in graph.graph.initializer}


def test_weights_are_int8_per_channel_and_activations_uint8(built: Path) -> None:
    for role, quantised in (("backbone", 22), ("roi_head", 1)):
        graph = onnx.load(built / GRAPHS[role])
        values, nodes = constants(graph), list(graph.graph.node)
        producers = {o: n for n in nodes for o in n.output}
        layers = [n for n in nodes if n.op_type == ("Conv" if role == "backbone" else "Gemm")]
        fed = [producers.get(n.input[1]) for n in layers]
        dequantised = [n for n in fed if n is not None]
        assert len(dequantised) == quantised
        for node in dequantised:
            weight, scale = values[node.input[0]], values[node.input[1]]
            assert node.op_type == "DequantizeLinear"
            assert weight.dtype == np.int8
            assert scale.shape == (len(weight),)
            assert np.abs(weight.reshape(len(weight), -1)).max(1).min() >= 126  # each channel uses its whole range
        zeros = [values[n.input[2]] for n in nodes if n.op_type == "QuantizeLinear"]
        assert zeros
        assert all(z.dtype == np.uint8 for z in zeros)
        assert not any(n.op_type == "BatchNormalization" for n in nodes)


@pytest.mark.parametrize("output", ["objectness", "deltas"])
def test_scores_and_boxes_of_proposals_are_never_rounded(output: str, built: Path) -> None:
    graph = onnx.load(built / GRAPHS["backbone"])
    producers = {o: n for n in graph.graph.node for o in n.output}
    node = producers[output]
    while node.op_type != "Conv":
        assert node.op_type not in ("QuantizeLinear", "DequantizeLinear")
        node = producers[node.input[0]]
    assert constants(graph)[node.input[1]].dtype == np.float32


def test_the_manifest_tells_what_int8_changes(built: Path, capsys: pytest.CaptureFixture[str]) -> None:
    agreed = Bundle.open(built).manifest.agreement
    assert agreed is not None
    assert MIN_AGREEMENT <= agreed.share <= 1
    assert 0 < agreed.score_difference < 0.1
    assert agreed.detections > 10
    assert (agreed.frames, agreed.calibration_frames) == (4, 10)
    assert agreed.calibration in METHODS
    assert Bundle.open(EXACT).manifest.agreement is None
    with pytest.raises(SystemExit) as ended:
        app(["info", str(built)])
    assert ended.value.code == 0
    printed = capsys.readouterr().out
    assert "int8" in printed
    assert f"{agreed.share:.1%} of {agreed.detections} detections" in printed


def test_it_detects_what_float32_detects_on_other_videos(built: Path) -> None:
    frames = CalibrationFrames([], list(SyntheticVideos("elsewhere", num_videos=1, num_frames=8)[0].frames))
    exact, reduced = (Detector.from_pretrained(d, threads=1) for d in (EXACT, built))
    judged = agreement(exact, reduced, frames, "int8", "minmax", MIN_AGREEMENT)
    assert judged.share > 0.9
    assert 0 < judged.score_difference < 0.1


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_a_bundle_proves_itself_and_a_wrong_scale_shows(backend: BackendName, built: Path, tmp_path: Path) -> None:
    assert [r for r in rdn_engine.verify.verify(built, backend=backend) if not r.passed] == []
    wrong = tmp_path / "wrong"
    shutil.copytree(built, wrong)
    graph = onnx.load(wrong / GRAPHS["roi_head"])
    quantize = next(n for n in graph.graph.node if n.op_type == "QuantizeLinear")
    scale = next(t for t in graph.graph.initializer if t.name == quantize.input[1])
    scale.CopyFrom(onnx.numpy_helper.from_array(constants(graph)[scale.name] / 2, scale.name))
    onnx.save(graph, wrong / GRAPHS["roi_head"])
    told = Bundle.open(built).manifest
    same = {k: getattr(told, k) for k in ("name", "config", "precision", "opset", "producers", "source", "parameters")}
    errors = told.quantization_error
    write_manifest(wrong, **same, tolerances=told.tolerances, agreement=told.agreement, quantization_error=errors)
    assert {r.stage for r in rdn_engine.verify.verify(wrong, backend=backend) if not r.passed} >= {"features"}


def test_another_library_may_be_as_far_from_int8_as_float32_is(built: Path) -> None:
    told = Bundle.open(built).manifest
    assert set(told.quantization_error) == set(rdn_engine.verify.STAGES)
    assert all(error > 0 for error in told.quantization_error.values())
    assert rdn_engine.verify.tolerances_of(told, "onnxruntime") == told.tolerances
    other = rdn_engine.verify.tolerances_of(replace(told, quantization_error={"boxes": 0.03}), "openvino")
    assert other == {**told.tolerances, "boxes": 0.06}
    exact = Bundle.open(EXACT).manifest
    assert exact.quantization_error == {}
    assert rdn_engine.verify.tolerances_of(exact, "openvino") == exact.tolerances


def test_too_little_agreement_is_refused_unless_accepted(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    low = Agreement(0.5, 0.2, SCORE, 40, 4, MIN_AGREEMENT, "minmax", 8)
    monkeypatch.setattr(export.build_engines, "agreement", lambda *_: low)
    output = tmp_path / "engines" / "low"
    arguments = ["--checkpoint", str(MODEL / "model.safetensors"), "--output", str(output), "--precision", "int8"]
    arguments += ["--calibration", str(clip), "--frames", "2"]
    assert main(arguments) == 3
    assert "PrecisionError: int8 and float32 agree on 50.0% of 40 detections" in capsys.readouterr().err
    assert list(output.parent.iterdir()) == []
    assert main([*arguments, "--accept"]) == 0
    assert Bundle.open(output).manifest.agreement == low
    with pytest.raises(SystemExit):
        app(["info", str(output)])
    assert "accepted below the 95.0%" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--precision", "int8"], "PrecisionError: --precision int8 wants --calibration"),
        (
            ["--precision", "fp8", "--calibration", "CLIP", "--backend", "torch"],
            "torch' does not run fp8; wanted float32",
        ),
        (["--calibration", "."], "PrecisionError: --calibration is for --precision fp16, bf16, int8, fp8; got float32"),
        (["--precision", "int8", "--calibration", "no.mp4"], "VideoError: no.mp4"),
        (["--precision", "int8", "--calibration", "CLIP", "--frames", "0"], "PrecisionError: 0 calibration frames"),
        (["--precision", "int8", "--calibration", "CLIP", "--min-agreement", "2"], "PrecisionError: --min-agreement"),
    ],
)
def test_wrong_options_are_one_message(
    arguments: list[str], message: str, clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [str(clip) if a == "CLIP" else a for a in arguments]
    output = tmp_path / "engines"
    assert main(["--checkpoint", str(MODEL / "model.safetensors"), "--output", str(output), *arguments]) != 0
    assert message in capsys.readouterr().err
    assert not output.exists()


@pytest.mark.parametrize(
    ("agreed", "message"),
    [
        (None, "agreement is None"),
        ({"share": 1.5, "minimum": 0.95, "score": 0.3}, "agreement.share is 1.5; wanted 0..1"),
        ({"share": "all"}, "agreement.share is 'all'"),
    ],
)
def test_a_manifest_without_a_sound_agreement_is_refused(agreed: Any, message: str, tmp_path: Path) -> None:
    shutil.copytree(EXACT, tmp_path / "e")
    path = tmp_path / "e" / MANIFEST
    path.write_text(json.dumps(json.loads(path.read_text()) | {"precision": "int8", "agreement": agreed}))
    with pytest.raises(BundleError, match=message):
        Bundle.open(tmp_path / "e")


# Calibration


def numbered(folder: Path, count: int) -> Path:
    for t in range(count):
        Image.new("RGB", (16, 16), (t, 0, 0)).save(folder / f"{t:03}.png")
    return folder


@pytest.mark.parametrize(("length", "count", "used"), [(8, 64, 6), (40, 5, 5), (200, 16, 16)])
def test_frames_to_judge_on_are_not_calibrated_on(length: int, count: int, used: int, tmp_path: Path) -> None:
    frames = CalibrationFrames.read(numbered(tmp_path, length), count)
    calibrate, held_out = ([int(f[0, 0, 0]) for f in part] for part in (frames.calibrate, frames.held_out))
    first = length - length // 4
    assert calibrate == sorted(set(calibrate))
    assert (len(calibrate), calibrate[0], calibrate[-1]) == (used, 0, first - 1)
    assert np.ptp(np.diff(calibrate)) <= 1
    assert held_out == list(range(first, min(length, first + 24)))


def test_too_few_frames_are_refused(tmp_path: Path) -> None:
    with pytest.raises(PrecisionError, match=f"has {LEAST_FRAMES - 1} readable frames"):
        CalibrationFrames.read(numbered(tmp_path, LEAST_FRAMES - 1))


def test_ranges_of_a_tensor_with_rare_outliers() -> None:
    rng = np.random.default_rng(0)
    seen = Activations()
    for _ in range(20):
        seen.add("x", np.maximum(rng.standard_normal(4096, dtype=np.float32), 0))
    seen.add("x", np.float32([100.0]))
    seen.add("positive", np.float32([2.0, 3.0]))
    found = {method: seen.ranges(method) for method in METHODS}
    assert found["minmax"] == {"x": (0.0, 100.0), "positive": (0.0, 3.0)}
    assert all(f["positive"][0] == 0 for f in found.values())  # zero, which padding is, keeps a code
    assert 3 < found["percentile"]["x"][1] < 10
    assert found["entropy"]["x"][1] < 50


def test_ranges_of_both_signs_are_cut_on_both_sides() -> None:
    seen = Activations()
    seen.add("x", np.random.default_rng(0).standard_normal(4000, dtype=np.float32))
    low, high = seen.ranges("percentile")["x"]
    minimum, maximum = seen.ranges("minmax")["x"]
    assert minimum <= low < -2 < 2 < high <= maximum


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_an_overflow_in_float32_is_named(bad: float) -> None:
    with pytest.raises(PrecisionError, match="'conv1' of the float32 graph"):
        Activations().add("conv1", np.float32([1, bad]))


# Agreement


class Replay:
    """A detector that has found what it is told."""

    def __init__(self, *frames: Detections) -> None:
        self._frames = frames

    def predict(self, source: Any, *, stream: bool) -> Iterator[Detections]:
        return iter(self._frames)


def found(*rows: tuple[float, float, int]) -> Detections:
    """Of each row x (of a box 100 wide), confidence, class."""
    xyxy = np.float32([[x, 0, x + 99, 99] for x, _, _ in rows]).reshape(-1, 4)
    confidence, class_id = np.float32([c for _, c, _ in rows]), np.int64([k for _, _, k in rows])
    return Detections(
        xyxy=xyxy, confidence=confidence, class_id=class_id, tracker_id=None, class_names=("a", "b"), frame_index=0,
        pts=None, source_id="", height=100, width=1000, pool_fill=1, lookahead=0, epoch=0,
    )  # fmt: skip


def judge(exact: Detections, reduced: Detections) -> Agreement:
    held_out = CalibrationFrames([], [np.zeros((16, 16, 3), np.uint8)])
    return agreement(Replay(exact), Replay(reduced), held_out, "int8", "minmax", 0.9)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("reduced", "share", "difference"),
    [
        ([(0, 0.9, 0), (300, 0.5, 1)], 1.0, 0.0),
        ([(0, 0.8, 0), (300, 0.4, 1)], 1.0, 0.1),
        ([(0, 0.9, 0)], 2 / 3, 0.0),
        ([(0, 0.9, 0), (300, 0.5, 0)], 0.5, 0.0),  # another class
        ([(0, 0.9, 0), (340, 0.5, 1)], 0.5, 0.0),  # IoU 0.43
        ([(0, 0.9, 0), (330, 0.5, 1)], 1.0, 0.0),  # IoU 0.54
        ([(0, 0.9, 0), (300, 0.26, 1)], 1.0, 0.08),  # below the score that is compared, above half of its partner's
        ([(0, 0.9, 0), (300, 0.24, 1)], 2 / 3, 0.0),
        ([(0, 0.9, 0), (0, 0.9, 0), (300, 0.5, 1)], 4 / 5, 0.0),  # each counts once
        ([(0, 0.9, 0), (300, 0.5, 1), (600, 0.2, 1)], 1.0, 0.0),  # too faint to count
    ],
)
def test_agreement(reduced: list[tuple[float, float, int]], share: float, difference: float) -> None:
    judged = judge(found((0, 0.9, 0), (300, 0.5, 1)), found(*reduced))
    assert judged.share == pytest.approx(share)
    assert judged.score_difference == pytest.approx(difference, abs=1e-6)


def test_nothing_to_compare_is_no_agreement() -> None:
    with pytest.raises(PrecisionError, match="neither float32 nor int8 detects anything"):
        judge(found((0, 0.2, 0)), found())


rows = st.lists(st.tuples(st.integers(0, 400), st.floats(0.05, 1), st.integers(0, 1)), max_size=6)


@given(rows, rows)
@settings(deadline=None, max_examples=50)
def test_agreement_is_the_same_from_both_sides(a: list[Any], b: list[Any]) -> None:
    a, b = ([*r, (800, 0.5, 0)] for r in (a, b))
    ours, theirs = (found(*sorted(r, key=lambda row: -row[1])) for r in (a, b))
    assert judge(ours, theirs) == judge(theirs, ours)
    assert judge(ours, ours) == replace(judge(ours, ours), share=1.0, score_difference=0.0)
