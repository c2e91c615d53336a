"""The command line, on fakes and on a small bundle that is really exported."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner, Result

from benchmarks.frame.models import draw_relation
from export.build_engines import build as build_bundle
from rdn_engine.cli import app as cli
from rdn_engine.cli.run import Run
from rdn_engine.config import BackboneConfig, Dials, InputConfig, RDNConfig, RelationConfig, RoIConfig, RPNConfig
from rdn_engine.detector import Detector
from rdn_engine.errors import VideoError
from rdn_engine.frame import Frame
from rdn_engine.kernels import _C
from rdn_engine.media.source import open_source
from rdn_engine.media.writer import VideoWriter
from rdn_engine.results import Detections
from rdn_engine.verify import STAGES, verify
from tests.fakes import fake_detector
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


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli.app, [str(a) for a in arguments])


def write_video(path: Path, frames: int = 9) -> Path:
    with VideoWriter(path, fps=10.0) as writer:
        for t in range(frames):
            image = np.full((48, 64, 3), 20 * t, np.uint8)
            image[10:30, 5 + t : 25 + t] = (250, 30, 30)
            writer.write(image)
    return path


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> None:
    """`Detector.from_pretrained` gives the fake detector: every proposal is a cat."""
    monkeypatch.setattr(Detector, "from_pretrained", lambda *_, **__: fake_detector()[0])


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundle")
    torch.manual_seed(0)
    model = RDN(CONFIG).eval()
    draw_relation(model.relation)
    save_checkpoint(folder / "w.safetensors", model.state_dict(), CONFIG)
    build_bundle(folder / "w.safetensors", folder / "engines", golden=write_video(folder / "golden.mp4", 3))
    return folder / "engines"


@pytest.mark.usefixtures("fake")
def test_predict_writes_one_line_a_frame_and_an_annotated_video(tmp_path: Path) -> None:
    video, out, drawn = write_video(tmp_path / "a.mp4"), tmp_path / "out.jsonl", tmp_path / "out.mp4"
    result = run("predict", video, "--engines", tmp_path, "--output", out, "--save-video", drawn)
    assert result.exit_code == 0, result.output
    found = [Detections.from_dict(line) for line in lines(out)]
    assert [d.frame_index for d in found] == list(range(9))
    assert [d.pts for d in found] == pytest.approx([t / 10 for t in range(9)], abs=1e-3)
    assert all(d.class_names[c] == "cat" for d in found for c in d.class_id)
    assert "steady frames" in result.stdout
    with open_source(video) as before, open_source(drawn) as after:
        pairs = list(zip(before, after, strict=True))
    assert [b.pts for b, _ in pairs] == pytest.approx([a.pts for _, a in pairs], abs=1e-3)
    assert all(np.abs(b.image.astype(int) - a.image).max() > 100 for b, a in pairs)


@pytest.mark.usefixtures("fake")
def test_json_summary_is_all_there_is_on_stdout(tmp_path: Path) -> None:
    video = write_video(tmp_path / "a.mp4")
    result = run("predict", video, "--engines", tmp_path, "--json", "--window", 1, "--threshold", 0.5)
    assert result.exit_code == 0
    summary = json.loads(result.stdout)
    assert (summary["frames"], summary["skipped"], summary["refused"], summary["epochs"]) == (9, 0, 0, 1)
    assert summary["per_class"] == {"cat": summary["detections"]}
    assert summary["steady_frames"] == 9 - 3
    assert "relation" in summary["steady_ms_per_frame"]
    assert summary["interrupted"] is False


@pytest.mark.usefixtures("fake")
def test_quiet_says_nothing(tmp_path: Path) -> None:
    result = run("predict", write_video(tmp_path / "a.mp4"), "--engines", tmp_path, "--quiet")
    assert (result.exit_code, result.output) == (0, "")


@pytest.mark.usefixtures("fake")
def test_damaged_and_refused_images_leave_gaps(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for t in range(6):
        side = 4 if t == 2 else 20 + t // 4
        Image.fromarray(np.full((side, side, 3), 40 * t, np.uint8)).save(folder / f"{t}.png")
    (folder / "4.png").write_bytes(b"not an image")
    out, drawn = tmp_path / "o.jsonl", tmp_path / "o.mp4"
    result = run("predict", folder, "--engines", tmp_path, "--output", out, "--save-video", drawn, "--json")
    assert result.exit_code == 0
    summary = json.loads(result.stdout)
    assert (summary["frames"], summary["skipped"], summary["refused"], summary["epochs"]) == (4, 1, 1, 2)
    assert [d["frame_index"] for d in lines(out)] == [0, 1, 3, 5]
    assert [d["epoch"] for d in lines(out)] == [0, 0, 0, 1]
    with open_source(drawn) as video:
        assert len(list(video)) == 4


@pytest.mark.usefixtures("fake")
def test_bad_input_is_one_line_and_exit_code_3(tmp_path: Path) -> None:
    (tmp_path / "tiny").mkdir()
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / "tiny" / "a.png")
    for source in (tmp_path / "no.mp4", tmp_path / "tiny"):
        result = run("predict", source, "--engines", tmp_path, "--quiet")
        assert result.exit_code == cli.BAD_INPUT
        assert result.stdout == ""
        assert result.stderr.startswith("rdn-engine: ")
        assert result.stderr.count("\n") == 1


@pytest.mark.usefixtures("fake")
def test_source_that_breaks_off_keeps_the_results_so_far(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    video, out = write_video(tmp_path / "a.mp4"), tmp_path / "o.jsonl"
    _break_off(monkeypatch, VideoError("the camera is gone"))
    result = run("predict", video, "--engines", tmp_path, "--output", out)
    assert result.exit_code == cli.BAD_INPUT
    assert "the camera is gone" in result.stderr
    assert [d["frame_index"] for d in lines(out)] == [0, 1, 2, 3, 4]


@pytest.mark.usefixtures("fake")
def test_interrupt_keeps_whole_lines_and_a_readable_video(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    video, out, drawn = write_video(tmp_path / "a.mp4"), tmp_path / "o.jsonl", tmp_path / "o.mp4"
    _break_off(monkeypatch, KeyboardInterrupt())
    result = run("predict", video, "--engines", tmp_path, "--output", out, "--save-video", drawn, "--json")
    assert result.exit_code == cli.INTERRUPTED
    assert "interrupted" in result.stderr
    assert json.loads(result.stdout)["interrupted"] is True
    assert [d["frame_index"] for d in lines(out)] == [0, 1, 2]
    with open_source(drawn) as frames:
        assert len(list(frames)) == 3


def _break_off(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """Every video ends with `error` after its first five frames."""
    read = cli.open_source

    def broken(source: str) -> object:
        video = read(source)
        whole = video._frames

        def frames() -> object:
            for frame in whole():
                if frame.index == 5:
                    raise error
                yield frame

        monkeypatch.setattr(video, "_frames", frames)
        return video

    monkeypatch.setattr(cli, "open_source", broken)


@pytest.mark.usefixtures("fake")
@pytest.mark.parametrize(
    "arguments",
    [
        ("--window", -1),
        ("--window", 2, "--look-ahead", 3),
        ("--ratio", 0),
        ("--support", 9),
        ("--threshold", 1.5),
        ("--draw-threshold", -0.1),
        ("--draw-threshold", 1.5),
        ("--draw-threshold", "nan"),
        ("--sampling", "some"),
        ("--bogus",),
    ],
)
def test_wrong_usage_is_exit_code_2(tmp_path: Path, arguments: tuple[object, ...]) -> None:
    result = run("predict", write_video(tmp_path / "a.mp4", 2), "--engines", tmp_path, *arguments)
    assert result.exit_code == cli.USAGE
    assert result.stdout == ""
    assert result.stderr


@pytest.mark.usefixtures("fake")
def test_output_must_not_be_the_source_and_must_have_a_place(tmp_path: Path) -> None:
    video = write_video(tmp_path / "a.mp4", 2)
    before = video.read_bytes()
    assert run("predict", video, "--engines", tmp_path, "--save-video", video).exit_code == cli.USAGE
    assert video.read_bytes() == before
    result = run("predict", video, "--engines", tmp_path, "--output", tmp_path / "no" / "o.jsonl")
    assert (result.exit_code, result.stderr.count("\n")) == (cli.OTHER_ERROR, 1)


@pytest.mark.usefixtures("fake")
@pytest.mark.parametrize("option", ["--output", "--save-video"])
def test_output_must_not_be_a_file_of_the_source(tmp_path: Path, option: str) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for name in ("1.png", "2.png"):
        Image.fromarray(np.zeros((20, 20, 3), np.uint8)).save(folder / name)
    (tmp_path / "link.png").symlink_to(folder / "2.png")
    before = (folder / "2.png").read_bytes()
    for source in (folder, folder / "*.png"):
        for out in (folder / "2.png", folder / ".." / "images" / "2.png", tmp_path / "link.png"):
            result = run("predict", source, "--engines", tmp_path, option, out)
            assert result.exit_code == cli.USAGE
            assert "is a file of the source" in result.stderr
            assert (folder / "2.png").read_bytes() == before


@pytest.mark.usefixtures("fake")
def test_lines_and_video_must_be_two_files(tmp_path: Path) -> None:
    video, out = write_video(tmp_path / "a.mp4", 2), tmp_path / "o.mp4"
    again = tmp_path / ".." / tmp_path.name / "o.mp4"
    result = run("predict", video, "--engines", tmp_path, "--output", out, "--save-video", again)
    assert result.exit_code == cli.USAGE
    assert "two different files" in result.stderr
    assert not out.exists()


@pytest.mark.usefixtures("fake")
@pytest.mark.parametrize("name", ["o.gif", "o.webm", "o.txt", "o.ogg"])
def test_container_that_cannot_hold_the_video_is_one_line(tmp_path: Path, name: str) -> None:
    video, out = write_video(tmp_path / "a.mp4", 2), tmp_path / "o.jsonl"
    result = run("predict", video, "--engines", tmp_path, "--output", out, "--save-video", tmp_path / name)
    assert result.exit_code == cli.BAD_INPUT
    assert ".mp4, .mkv, .avi, .mov" in result.stderr
    assert result.stderr.count("\n") == 1


def test_progress_says_that_its_memory_is_a_peak(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    detector, _, _ = fake_detector()
    with open_source(write_video(tmp_path / "a.mp4", 2)) as video, detector.open_stream() as stream:
        Run(stream, video, 0.3).process(None, None, show_progress=True)
    assert re.search(r"peak\s+\d+\s+MiB", capsys.readouterr().err)


@pytest.mark.usefixtures("fake")
def test_empty_source_is_bad_input(tmp_path: Path) -> None:
    result = run("predict", "", "--engines", tmp_path)
    assert result.exit_code == cli.BAD_INPUT
    assert "empty string" in result.stderr


def test_bad_bundle_and_missing_backend(tmp_path: Path, bundle: Path) -> None:
    video = write_video(tmp_path / "a.mp4", 2)
    assert run("predict", video, "--engines", tmp_path).exit_code == cli.BAD_BUNDLE
    assert run("info", tmp_path / "no").exit_code == cli.BAD_BUNDLE
    assert run("verify", tmp_path).exit_code == cli.BAD_BUNDLE
    assert run("predict", video, "--engines", bundle, "--device", "cuda").exit_code == cli.NO_BACKEND
    assert run("predict", video, "--engines", bundle, "--backend", "tensorrt").exit_code == cli.NO_BACKEND
    for backend in ("tensorrt", "onnxruntime"):
        result = run("build", bundle, "--backend", backend)
        assert result.exit_code == cli.NO_BACKEND
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
            assert result.exit_code == cli.NO_BACKEND
            assert f"here are those of {_C.isa}" in result.stderr
            return
        assert result.exit_code == 0, result.output
        found[precision] = [line["detections"] for line in lines(out)]
    assert found["bfloat16"] != found["float32"]
    assert [len(d) for d in found["bfloat16"]] == pytest.approx([len(d) for d in found["float32"]], abs=3)


def test_info_says_what_there_is(bundle: Path) -> None:
    result = run("info", bundle)
    assert result.exit_code == 0
    for text in ("2: cat, dog", "all as recorded", "look-ahead (L)", "image [batch, 3, height, width]", "MiB"):
        assert text in result.stdout


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
    assert result.exit_code == cli.MISMATCH
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
    assert result.exit_code == cli.BAD_BUNDLE
    assert "relation.npz" in result.stderr


def test_help_lists_commands_and_exit_codes_and_imports_little() -> None:
    result = run("--help")
    assert result.exit_code == 0
    for word in ("predict", "info", "verify", "build", "130"):
        assert word in result.stdout
    listing = "import sys, rdn_engine.cli.app; print(*sys.modules)"
    found = subprocess.run([sys.executable, "-c", listing], capture_output=True, text=True, check=True)
    assert {"torch", "onnxruntime", "PIL", "rich.progress", "supervision"}.isdisjoint(found.stdout.split())


def test_frame_of_a_source_fits_a_stream() -> None:
    detector, _, _ = fake_detector()
    with detector.open_stream() as stream:
        stream.push(Frame(np.zeros((20, 20, 3), np.uint8), 5, 1.5, "x"))
        (result,) = stream.flush()
    assert (result.frame_index, result.pts, result.source_id) == (5, 1.5, "x")
