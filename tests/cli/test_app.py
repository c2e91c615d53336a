"""The command line, on fakes and on a small bundle that is really exported."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch

import rdn_engine
from benchmarks.frame.models import draw_relation
from export.attach import attach
from export.build_engines import build as build_bundle
from rdn_engine.cli.exits import BAD_BUNDLE, MISMATCH, NO_BACKEND
from rdn_engine.config import BackboneConfig, Dials, RDNConfig, RelationConfig, RoIConfig, RPNConfig
from rdn_engine.frame import Frame
from rdn_engine.input_config import InputConfig
from rdn_engine.kernels import _C
from rdn_engine.kernels.cpu import RingPrecision
from rdn_engine.results import Detections
from rdn_engine.verify import STAGES, verify
from tests.cli.commands import lines, run, write_video
from tests.fakes import fake_detector
from tests.own_detectors import FAMILIES
from training.checkpoints.files import save_checkpoint
from training.model.rdn import RDN

CONFIG = RDNConfig(
    class_names=("cat", "dog"),
    input=InputConfig(shorter_side=48, longer_side=80),
    backbone=BackboneConfig("resnet18", width=0.125, norm="batch", norm_eps=1e-5),
    rpn=RPNConfig(anchor_sizes=(16, 32), anchor_ratios=(1.0,), pre_nms_top_n=100),
    roi=RoIConfig(size=3, reduce_channels=16),
    relation=RelationConfig(dim=32, heads=2),
    dials=Dials(window=2, num_support=4, num_reference=8, advanced_ratio=0.5),
)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundle")
    torch.manual_seed(0)
    model = RDN(CONFIG).eval()
    draw_relation(model.relation)
    save_checkpoint(folder / "w.safetensors", model.state_dict(), CONFIG)
    build_bundle(folder / "w.safetensors", folder / "engines", golden=write_video(folder / "golden.mp4", 3))
    return folder / "engines"


def test_bad_bundle_and_missing_backend(tmp_path: Path, bundle: Path) -> None:
    video = write_video(tmp_path / "a.mp4", 2)
    assert run("predict", video, "--engines", tmp_path).exit_code == BAD_BUNDLE
    assert run("info", tmp_path / "no").exit_code == BAD_BUNDLE
    assert run("verify", tmp_path).exit_code == BAD_BUNDLE
    assert run("predict", video, "--engines", bundle, "--device", "cuda").exit_code == NO_BACKEND
    assert run("predict", video, "--engines", bundle, "--backend", "tensorrt").exit_code == NO_BACKEND
    for backend in ("tensorrt", "onnxruntime"):
        result = run("build", bundle, "--backend", backend)
        assert result.exit_code == NO_BACKEND
        assert "onnxruntime" in result.stderr


def test_real_bundle_from_video_to_lines_with_both_executors(tmp_path: Path, bundle: Path) -> None:
    video = write_video(tmp_path / "a.mp4", 6)
    found = {}
    for executor in ("fused", "graph"):
        out = tmp_path / f"{executor}.jsonl"
        result = run("predict", video, "--engines", bundle, "--output", out, "--executor", executor, "--threads", 1)
        assert result.exit_code == 0, result.output
        found[executor] = [Detections.from_dict(line, CONFIG.class_names) for line in lines(out)]
    assert [len(d) for d in found["fused"]] == [len(d) for d in found["graph"]]
    assert sum(len(d) for d in found["fused"]) > 0
    for a, b in zip(found["fused"], found["graph"], strict=True):
        assert np.allclose(a.confidence, b.confidence, atol=1e-3)


def test_relation_precision_is_the_processor_s(tmp_path: Path, bundle: Path) -> None:
    video, found = write_video(tmp_path / "a.mp4", 4), {}
    for precision in ("float32", "bfloat16"):
        out = tmp_path / f"{precision}.jsonl"
        result = run("predict", video, "--engines", bundle, "--output", out, "--relation-precision", precision)
        if precision == "bfloat16" and _C.isa != "avx512_bf16":
            assert result.exit_code == NO_BACKEND
            assert f"here are those of {_C.isa}" in result.stderr
            return
        assert result.exit_code == 0, result.output
        found[precision] = [line["detections"] for line in lines(out)]
    assert found["bfloat16"] != found["float32"]
    assert [len(d) for d in found["bfloat16"]] == pytest.approx([len(d) for d in found["float32"]], abs=3)


def test_a_float16_ring_finds_the_same(tmp_path: Path, bundle: Path) -> None:
    video, found, held = write_video(tmp_path / "a.mp4", 4), {}, {}
    for precision in ("float32", "float16"):
        out = tmp_path / f"{precision}.jsonl"
        result = run(
            "predict", video, "--engines", bundle, "--output", out, "--ring-precision", precision, "--json", "--quiet"
        )
        assert result.exit_code == 0, result.output
        found[precision] = [line["detections"] for line in lines(out)]
        held[precision] = json.loads(result.stdout)["stream_bytes"]
    assert found["float16"] != found["float32"]
    assert [len(d) for d in found["float16"]] == pytest.approx([len(d) for d in found["float32"]], abs=3)
    assert held["float16"] < 0.7 * held["float32"]


def test_info_says_what_there_is(bundle: Path) -> None:
    result = run("info", bundle)
    assert result.exit_code == 0
    for text in ("2: cat, dog", "all as recorded", "look-ahead (L)", "image [batch, 3, height, width]", "MiB"):
        assert text in result.stdout
    for precision in get_args(RingPrecision):
        opened = rdn_engine.Detector.from_pretrained(bundle, ring_precision=precision).open_stream()
        assert f"{opened.nbytes / 2**20:.1f}" in result.stdout
    assert "ring_precision" in result.stdout


def test_info_says_what_an_attached_detector_is(tmp_path: Path) -> None:
    make, options = FAMILIES["yolox"]
    attach(make(tmp_path / "detector.onnx"), tmp_path / "engines", options)
    result = run("info", tmp_path / "engines")
    assert result.exit_code == 0
    for text in ("letterbox, 96 x 64, bgr", "features of 32", "none: the detector's own scores", "class_scores"):
        assert text in result.stdout
    assert "backbone" not in result.stdout
    assert "ring_precision" not in result.stdout
    assert run("verify", tmp_path / "engines").exit_code == 0


def test_verify_passes_on_the_bundle_as_built(bundle: Path) -> None:
    reports = verify(bundle)
    assert {r.stage for r in reports} == set(STAGES)
    assert {r.executor for r in reports if r.stage == "logits"} == {"fused", "graph"}
    assert all(r.passed for r in reports)
    assert all(r.difference < 1e-4 for r in reports)
    result = run("verify", bundle)
    assert result.exit_code == 0
    assert "FAIL" not in result.stdout


@pytest.mark.parametrize(
    ("key", "stages"),
    [
        ("t1/boxes", {"boxes", "features", "logits", "deltas"}),
        ("t1/objectness", {"objectness"}),
        ("t1/features", {"features", "logits", "deltas"}),
        ("t2/logits", {"logits"}),
        ("t2/deltas", {"deltas"}),
        ("t0/confidence", {"detections"}),
        ("t0/class_id", {"detections"}),
    ],
)
def test_verify_finds_a_changed_result(tmp_path: Path, bundle: Path, key: str, stages: set[str]) -> None:
    changed = _with_golden(bundle, tmp_path / "engines", key)
    failed = {r.stage for r in verify(changed) if not r.passed}
    # A changed input shows in the stages after it too, as far as they depend on it.
    assert failed <= stages
    assert (key.split("/")[1] if key.split("/")[1] in STAGES else "detections") in failed
    result = run("verify", changed)
    assert result.exit_code == MISMATCH
    assert "FAIL" in result.stdout


def _with_golden(bundle: Path, copy: Path, key: str) -> Path:
    """A copy of the bundle whose stored result `key` is a fifth off, checksums in order."""
    shutil.copytree(bundle, copy)
    with np.load(copy / "golden.npz") as archive:
        golden = dict(archive)
    golden[key] = (1 - golden[key] if key.endswith("class_id") else golden[key] * 1.2).astype(golden[key].dtype)
    np.savez(copy / "golden.npz", **golden)
    manifest = json.loads((copy / "manifest.json").read_text())
    data = (copy / "golden.npz").read_bytes()
    manifest["files"]["golden.npz"] = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    (copy / "manifest.json").write_text(json.dumps(manifest))
    return copy


def test_verify_refuses_a_damaged_file(tmp_path: Path, bundle: Path) -> None:
    shutil.copytree(bundle, tmp_path / "engines")
    weights = tmp_path / "engines" / "relation.npz"
    data = bytearray(weights.read_bytes())
    data[len(data) // 2] ^= 1
    weights.write_bytes(data)
    result = run("verify", tmp_path / "engines")
    assert result.exit_code == BAD_BUNDLE
    assert "relation.npz" in result.stderr


def test_help_lists_commands_and_exit_codes_and_imports_little() -> None:
    result = run("--help")
    assert result.exit_code == 0
    for word in ("predict", "info", "verify", "build", "130", "--version"):
        assert word in result.stdout
    listing = "import sys, rdn_engine.cli.app; print(*sys.modules)"
    found = subprocess.run([sys.executable, "-c", listing], capture_output=True, text=True, check=True)
    assert {"torch", "onnxruntime", "PIL", "rich.progress", "supervision"}.isdisjoint(found.stdout.split())


def test_version_is_the_package_s() -> None:
    result = run("--version")
    assert (result.exit_code, result.stdout) == (0, f"rdn-engine {rdn_engine.__version__}\n")


def test_the_package_runs_as_the_command() -> None:
    done = subprocess.run([sys.executable, "-m", "rdn_engine", "--version"], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == (f"rdn-engine {rdn_engine.__version__}\n", "")


def test_frame_of_a_source_fits_a_stream() -> None:
    detector, _, _ = fake_detector()
    with detector.open_stream() as stream:
        stream.push(Frame(np.zeros((20, 20, 3), np.uint8), 5, 1.5, "x"))
        (result,) = stream.flush()
    assert (result.frame_index, result.pts, result.source_id) == (5, 1.5, "x")
