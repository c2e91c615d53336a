"""Export: graphs that compute what torch computes, bundles that prove it, and errors without tracebacks."""

from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from PIL import Image
from torchvision.ops import FrozenBatchNorm2d

import export.build_engines
import rdn_engine.verify
from benchmarks.frame.models import draw_relation
from export.build_engines import Built, Differs, build, main
from export.golden import LONGEST_SIDE, NUM_FRAMES, golden_frames
from export.graphs import describe, export_graph, fold_norms
from export.verify import compare, compare_graphs
from rdn_engine import Detector
from rdn_engine.bundle.contract import fused_shapes
from rdn_engine.bundle.directory import Bundle
from rdn_engine.bundle.manifest import GRAPHS
from rdn_engine.config import BackboneConfig, Dials, RDNConfig, RelationConfig, RoIConfig, RPNConfig
from rdn_engine.errors import CheckpointError, VideoError
from rdn_engine.input_config import InputConfig
from training.checkpoints.files import save_checkpoint
from training.model.backbone import Backbone
from training.model.inference import detect_video
from training.model.rdn import RDN

torch.set_num_threads(1)

ROOT = Path(__file__).parents[2]


def config_of(**relation: Any) -> RDNConfig:
    return RDNConfig(
        class_names=("cat", "dog"),
        input=InputConfig(shorter_side=64, longer_side=96),
        backbone=BackboneConfig("resnet18", width=0.25, norm_eps=1e-5),
        rpn=RPNConfig(anchor_sizes=(16, 32)),
        roi=RoIConfig(size=3, reduce_channels=16),
        relation=RelationConfig(**{"dim": 64, "heads": 4, **relation}),
        dials=Dials(window=1, num_support=5, num_reference=12, advanced_ratio=0.4, score_threshold=0.05),
    )


def model_of(config: RDNConfig) -> RDN:
    """Random weights of which none is idle: norms differ from the identity, heads tell proposals apart."""
    torch.manual_seed(0)
    model = RDN(config)
    draw_relation(model.relation)
    torch.manual_seed(1)  # the same norms, whatever the relation stage drew
    randomise_norms(model.backbone)
    with torch.no_grad():
        model.rpn.objectness.weight *= 20
        model.relation.classify.weight *= 50
    return model.eval()


def randomise_norms(backbone: Backbone) -> None:
    for module in backbone.modules():
        if isinstance(module, (FrozenBatchNorm2d, torch.nn.BatchNorm2d)):
            with torch.no_grad():
                module.weight.uniform_(0.5, 1.0)
                module.bias.uniform_(-0.2, 0.2)
            module.running_mean.uniform_(-0.2, 0.2)
            module.running_var.uniform_(0.5, 2.0)


@pytest.fixture(scope="module")
def model() -> RDN:
    return model_of(config_of())


@pytest.fixture(scope="module")
def checkpoint(model: RDN, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("export") / "tiny.safetensors"
    save_checkpoint(path, model.state_dict(), model.config)
    return path


@pytest.fixture(scope="module")
def directory(checkpoint: Path) -> Path:
    directory = checkpoint.parent / "engines" / "tiny"
    build(checkpoint, directory, name="tiny detector")
    return directory


@pytest.mark.parametrize(("norm", "eps"), [("frozen", 0.0), ("frozen", 1e-2), ("batch", 1e-5), ("group", 1e-5)])
@pytest.mark.parametrize("stride_in_1x1", [True, False])
def test_folded_norms_compute_the_same(norm: Any, eps: float, stride_in_1x1: bool) -> None:
    torch.manual_seed(0)
    name, width = ("resnet18", 0.25) if stride_in_1x1 else ("resnet50", 1.0)
    backbone = Backbone(BackboneConfig(name, width, norm, eps, stride_in_1x1)).eval()
    randomise_norms(backbone)
    image = torch.randn(1, 3, 32, 48)
    with torch.no_grad():
        before = backbone(image)
        fold_norms(backbone)
        after = backbone(image)
    left = [m for m in backbone.modules() if isinstance(m, (FrozenBatchNorm2d, torch.nn.BatchNorm2d))]
    assert left == []
    for x, y in zip(before, after, strict=True):
        assert float((x - y).abs().max() / x.abs().max()) < 1e-5


def test_a_variance_of_zero_cannot_be_folded() -> None:
    backbone = Backbone(BackboneConfig("resnet18", 0.25))
    backbone.layer2[0].bn2.running_var[3] = 0
    with pytest.raises(CheckpointError, match=r"backbone\.layer2\.0\.bn2: running_var \+ 0\.0 is as low as 0"):
        fold_norms(backbone)


@pytest.mark.parametrize(
    "relation",
    [
        {"num_basic": 0, "advanced": False},
        {"num_basic": 0, "advanced_fc": False},
        {"num_basic": 1, "advanced": False},
    ],
)
def test_every_relation_stage_exports(relation: dict[str, Any], directory: Path, tmp_path: Path) -> None:
    model = model_of(config_of(**relation))
    graphs = describe(model)
    (tmp_path / GRAPHS["backbone"]).hardlink_to(directory / GRAPHS["backbone"])
    for role in ("roi_head", "relation"):
        export_graph(graphs[role], role, tmp_path / GRAPHS[role])
    rows = compare_graphs(model, tmp_path, golden_frames()[:2])
    assert {row.graph for row in rows} == set(GRAPHS)
    assert [row for row in rows if not row.passed] == []


def test_graphs_have_the_names_and_axes_of_the_contract(directory: Path) -> None:
    def signature(role: str) -> dict[str, list[str | int]]:
        proto = onnx.load(directory / GRAPHS[role])
        onnx.checker.check_model(proto, full_check=True)
        assert {o.domain for o in proto.opset_import} == {""}
        assert {n.domain for n in proto.graph.node} == {""}
        assert b"/export/" not in proto.SerializeToString().replace(b"in export/graphs.py", b"")
        values = [*proto.graph.input, *proto.graph.output]
        return {v.name: [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in values}

    assert signature("backbone") == {
        "image": ["batch", 3, "height", "width"],
        "objectness": ["batch", "anchors"],
        "deltas": ["batch", "anchors", 4],
        "feature_map": ["batch", "map_height", "map_width", 16],
    }
    assert signature("roi_head") == {
        "pooled": ["rows", 192],  # 3 x 3 x 16, and zeros
        "support": ["support_rows"],
        "features": ["rows", 64],
        "query": ["rows", 64],
        "keys": [3, "support_rows", 64],
        "values": [3, "support_rows", 64],
        "refine_query": ["support_rows", 64],
    }
    assert signature("relation") == {
        "features": ["rows", 64],
        "query": ["rows", 64],
        "boxes": ["rows", 4],
        "support_boxes": ["supports", 4],
        "keys": [3, "supports", 64],
        "values": [3, "supports", 64],
        "log_multiplicity": ["supports"],
        "advanced_boxes": ["advanced", 4],
        "advanced_features": ["advanced", 64],
        "advanced_query": ["advanced", 64],
        "advanced_log_multiplicity": ["advanced"],
        "logits": ["rows", 3],
        "deltas": ["rows", 12],
        "omega": ["rows", "supports"],
    }


def test_a_wrong_graph_is_found_out(model: RDN, directory: Path) -> None:
    other = model_of(model.config)
    with torch.no_grad():
        other.roi.fc.weight[0] *= 1.01
        other.relation.rel[3].geometry.bias[0] += 0.1
    rows = compare_graphs(other, directory, golden_frames()[:2])
    wrong = {(row.graph, row.output) for row in rows if not row.passed}
    assert {("roi_head", "features"), ("relation", "logits"), ("relation", "deltas")} <= wrong
    assert all(row.passed for row in rows if row.graph == "backbone" or row.output == "omega")


@pytest.mark.parametrize(
    "got", [np.float32([1, np.nan]), np.float32([1, np.inf]), np.float32([1]), np.float32([1, 2.001])]
)
def test_what_is_not_equal_does_not_pass(got: np.ndarray) -> None:
    assert compare("g", "c", "o", np.float32([1, 2]), np.float32([1, 2])).passed
    assert not compare("g", "c", "o", got, np.float32([1, 2])).passed


def test_the_manifest_says_where_it_comes_from(directory: Path, checkpoint: Path, model: RDN) -> None:
    manifest = Bundle.open(directory).manifest
    assert manifest.name == "tiny detector"
    assert manifest.config == model.config
    assert manifest.precision == "float32"
    assert manifest.source["checkpoint"] == checkpoint.name
    assert torch.__version__.startswith(manifest.producers["torch"])
    assert set(manifest.tolerances) == set(rdn_engine.verify.STAGES)
    assert manifest.parameters["backbone"] > sum(p.numel() for p in model.rpn.parameters())


def test_the_weights_are_those_of_the_relation_stage_that_are_read(directory: Path, model: RDN) -> None:
    weights = Bundle.open(directory).arrays("weights")
    state = model.relation.state_dict()
    assert set(weights) == set(fused_shapes(model.config)) < set(state)
    assert all(np.array_equal(weights[k], state[k].numpy()) for k in weights)


def test_a_bundle_proves_itself_without_torch(directory: Path) -> None:
    reports = rdn_engine.verify.verify(directory)
    assert {report.executor for report in reports} == {"both", "fused", "graph"}
    assert [report for report in reports if not report.passed] == []


@pytest.mark.parametrize("executor", ["fused", "graph"])
def test_the_runtime_detects_what_torch_detects(executor: Any, directory: Path, model: RDN) -> None:
    frames = golden_frames()
    detector = Detector.from_pretrained(directory, executor=executor, threads=1)
    wanted = detect_video(model, list(frames))
    found = list(detector.predict(frames, stream=True))
    assert len(found) == len(wanted) == NUM_FRAMES
    assert sum(len(w.confidence) for w in wanted) > 2 * NUM_FRAMES
    for f, w in zip(found, wanted, strict=True):
        assert np.array_equal(f.class_id, w.class_id.numpy())
        np.testing.assert_allclose(f.confidence, w.confidence.numpy(), atol=1e-3)
        np.testing.assert_allclose(f.xyxy, w.xyxy.numpy(), atol=0.1)


@pytest.mark.parametrize("part", ["graphs", "bundle"])
def test_a_bundle_that_differs_never_appears(part: str, checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = checkpoint.parent / "engines" / "differs"
    if part == "graphs":
        row = compare("relation", "frame 0", "logits", np.float32([1]), np.float32([2]))
        monkeypatch.setattr(export.build_engines, "export_graphs", lambda *_: {})
        monkeypatch.setattr(export.build_engines, "compare_graphs", lambda *_: [row])
    else:
        report = rdn_engine.verify.StageReport("logits", "fused", 0.5, 1e-3)
        built = checkpoint.parent / "engines" / "tiny"

        def copied(model: RDN, staging: Path, done: object) -> dict[str, int]:
            for name in (*GRAPHS.values(), "relation.npz"):
                (staging / name).hardlink_to(built / name)
            return {"backbone": 1}

        monkeypatch.setattr(export.build_engines, "export_graphs", copied)
        monkeypatch.setattr(rdn_engine.verify, "verify", lambda *_, **__: [report])
    with pytest.raises(Differs, match="logits"):
        build(checkpoint, output)
    assert not output.exists()
    assert [p.name for p in output.parent.iterdir()] == ["tiny"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--checkpoint", "missing.pth"], "CheckpointError: missing.pth cannot be read"),
        (["--checkpoint", "tiny.safetensors", "--config", "missing.yaml"], "ConfigError: missing.yaml cannot be read"),
        (["--checkpoint", "tiny.safetensors", "--golden", "missing.mp4"], "VideoError: missing.mp4"),
        (
            ["--checkpoint", "tiny.safetensors", "--precision", "float16"],
            "BackendUnavailable: --precision is 'float16'",
        ),
        (["--checkpoint", "tiny.safetensors", "--output", "taken"], "BundleError: "),
    ],
)
def test_what_users_get_wrong_is_one_message(
    arguments: list[str],
    message: str,
    checkpoint: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(checkpoint.parent)
    taken = checkpoint.parent / "taken"
    taken.mkdir(exist_ok=True)
    (taken / "thesis.txt").write_text("years of work")
    output = [] if "--output" in arguments else ["--output", "engines/other"]
    assert main([*arguments, *output]) == 1
    printed = capsys.readouterr()
    assert f"error: {message}" in printed.err
    assert "Traceback" not in printed.err
    assert printed.out == ""
    assert not Path("engines/other").exists()
    assert (taken / "thesis.txt").read_text() == "years of work"


def test_which_weights_were_taken_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    taken = "holds weights under 'model', 'ema': took those of 'model'"
    monkeypatch.setattr(export.build_engines, "build", lambda *_, **__: Built([], [], None, (taken,)))
    assert main(["--checkpoint", "w.pth", "--output", str(tmp_path / "engines")]) == 0
    assert f"w.pth {taken}\n" in capsys.readouterr().err


def test_the_script_runs_from_anywhere(tmp_path: Path) -> None:
    script = ROOT / "export" / "build_engines.py"
    done = subprocess.run([sys.executable, script, "--help"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "--checkpoint" in done.stdout


def test_golden_frames_from_a_folder_are_made_small(tmp_path: Path) -> None:
    for t in range(NUM_FRAMES + 2):
        Image.new("RGB", (2 * LONGEST_SIDE, LONGEST_SIDE), (t, 0, 0)).save(tmp_path / f"{t}.png")
    frames = golden_frames(tmp_path)
    assert frames.shape == (NUM_FRAMES, LONGEST_SIDE // 2, LONGEST_SIDE, 3)
    assert frames[:, 0, 0, 0].tolist() == list(range(NUM_FRAMES))


def test_golden_frames_are_rendered_alike_and_move() -> None:
    frames = golden_frames()
    assert np.array_equal(frames, golden_frames())
    assert all(not np.array_equal(a, b) for a, b in itertools.pairwise(frames))


def test_golden_frames_have_one_size(tmp_path: Path) -> None:
    for t, width in enumerate((40, 50)):
        Image.new("RGB", (width, 30)).save(tmp_path / f"{t}.png")
    with pytest.raises(VideoError, match=r"sizes \(height, width\) \[\(30, 40\), \(30, 50\)\]"):
        golden_frames(tmp_path)
