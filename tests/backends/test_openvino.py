"""Backend `openvino`: other precisions than float32, threads, refusals; float32 is in test_backends.py."""

from __future__ import annotations

import builtins
import threading
from pathlib import Path
from typing import Any

import rdn_engine.backends.openvino  # noqa: F401  first: it keeps OpenVINO from writing into the home folder

# isort: split
import numpy as np
import onnx
import openvino
import pytest

from export.calibration import CalibrationFrames
from export.half import convert
from export.int8 import quantize
from rdn_engine import Detector
from rdn_engine.backends import load_backend
from rdn_engine.backends.openvino import backend as module
from rdn_engine.bundle.directory import Bundle
from rdn_engine.bundle.manifest import GRAPHS
from rdn_engine.errors import BackendUnavailable, BundleError, RDNError
from rdn_engine.verify import verify
from tests.graph_feeds import assert_close, feeds_of
from training.data.synthetic import SyntheticVideos

ENGINES = Path(__file__).parents[2] / "models" / "rdn_tiny" / "engines"
BFLOAT16 = 2.0**-5


def test_the_bundle_verifies_and_detects_the_same() -> None:
    assert [r for r in verify(ENGINES, backend="openvino") if not r.passed] == []
    frames = SyntheticVideos("elsewhere", num_videos=1, num_frames=3)[0].frames
    found = [
        Detector.from_pretrained(ENGINES, backend=b, threads=1).predict(frames) for b in ("openvino", "onnxruntime")
    ]
    assert sum(len(d) for d in found[0]) > 3
    for ours, theirs in zip(*found, strict=True):
        assert len(ours) == len(theirs)
        np.testing.assert_allclose(ours.xyxy, theirs.xyxy, atol=0.05)
        np.testing.assert_allclose(ours.confidence, theirs.confidence, atol=1e-3)


def test_int8_detects_what_onnx_runtime_detects(tmp_path: Path) -> None:
    """Roundings of sums between two levels may fall either way: a level of the last tensor, not of each value."""
    frames = CalibrationFrames(list(SyntheticVideos("calibration", num_videos=1, num_frames=1)[0].frames), [])
    quantize(ENGINES, tmp_path, Bundle.open(ENGINES).config, frames, lambda step: None)
    path = tmp_path / GRAPHS["backbone"]
    feeds = feeds_of(path)
    ours, theirs = (load_backend(name, "cpu", 1).load(path)(feeds) for name in ("openvino", "onnxruntime"))
    exact = load_backend("onnxruntime", "cpu", 1).load(ENGINES / GRAPHS["backbone"])(feeds)
    for name in theirs:
        between = np.linalg.norm(ours[name] - theirs[name])
        assert between <= np.linalg.norm(theirs[name] - exact[name]), name


def half(tmp_path: Path) -> Path:
    path = tmp_path / GRAPHS["roi_head"]
    onnx.save(convert(onnx.load(ENGINES / GRAPHS["roi_head"]), "bf16"), path)
    return path


def test_bfloat16_is_computed_in_or_refused(tmp_path: Path) -> None:
    path = half(tmp_path)
    if "BF16" not in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        with pytest.raises(BackendUnavailable, match="is in bf16, which OpenVINO would compute in float32"):
            load_backend("openvino", "cpu", 1).load(path)
        return
    feeds = feeds_of(ENGINES / GRAPHS["roi_head"])
    got = load_backend("openvino", "cpu", 1).load(path)(feeds)
    exact = load_backend("onnxruntime", "cpu", 1).load(ENGINES / GRAPHS["roi_head"])(feeds)
    assert_close(got, exact, BFLOAT16)
    assert any(np.abs(got[name] - wanted).max() > 2.0**-20 for name, wanted in exact.items())


def test_a_processor_without_bfloat16_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Plain(openvino.Core):
        def get_property(self, *asked: Any) -> Any:
            return ["FP32", "INT8"] if asked == ("CPU", "OPTIMIZATION_CAPABILITIES") else super().get_property(*asked)

    monkeypatch.setattr(module.openvino, "Core", Plain)
    with pytest.raises(BackendUnavailable, match=r"is in bf16, .*it has FP32, INT8\); use the float32 bundle"):
        load_backend("openvino", "cpu", 1).load(half(tmp_path))


def test_threads_call_at_once_and_do_not_mix() -> None:
    """Every thread has memory of its own: what one call gave is not written over by another's."""
    path = ENGINES / GRAPHS["roi_head"]
    graph = load_backend("openvino", "cpu", 1).load(path)
    feeds = [{name: array * (1 + i) for name, array in feeds_of(path).items()} for i in range(4)]
    for one in feeds:
        one["support"] = feeds[0]["support"]
    alone = [graph(one) for one in feeds]
    wrong: list[str] = []

    def call(number: int) -> None:
        for _ in range(20):
            got = graph(feeds[number])
            wrong.extend(name for name, wanted in alone[number].items() if not np.array_equal(got[name], wanted))

    threads = [threading.Thread(target=call, args=(number,)) for number in range(len(feeds))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_what_it_does_not_run_is_said(tmp_path: Path) -> None:
    backend = load_backend("openvino", "cpu", 1)
    for damaged in (b"no graph at all", b""):
        (tmp_path / "damaged.onnx").write_bytes(damaged)
        with pytest.raises(BundleError, match=r"damaged\.onnx' is no ONNX graph"):
            backend.load(tmp_path / "damaged.onnx")
    with pytest.raises(BundleError, match=r"gone\.onnx' cannot be read"):
        backend.load(tmp_path / "gone.onnx")
    with pytest.raises(BackendUnavailable, match="open on 'cpu'"):
        backend.load_device(ENGINES / GRAPHS["backbone"])
    with pytest.raises(BackendUnavailable, match="runs on device 'cpu', got 'cuda'"):
        load_backend("openvino", "cuda", 1)
    graph = backend.load(ENGINES / GRAPHS["roi_head"])
    with pytest.raises(RDNError, match=r"got the inputs \['pooled'\]; wanted \['pooled', 'support'\]"):
        graph({"pooled": np.zeros((1, 1600), np.float32)})
    with pytest.raises(RDNError, match=r"roi_head\.onnx failed in OpenVINO on \{'pooled': 'float32\[1, 9\]'"):
        graph({"pooled": np.zeros((1, 9), np.float32), "support": np.zeros(1, np.int64)})


def test_without_openvino_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any, **named: Any) -> Any:
        if name.startswith("rdn_engine.backends.openvino"):
            raise ImportError("No module named 'openvino'")
        return real(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(BackendUnavailable, match=r"wants OpenVINO .*; pip install openvino"):
        load_backend("openvino", "cpu", 1)
