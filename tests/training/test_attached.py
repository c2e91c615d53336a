"""Relations trained on a frozen detector: the cache of its features, the training, and the bundle that comes of it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision

from export.attach import Options, attach
from export.attach_relations import attach_relations, main
from export.build_engines import build
from export.families import Given
from rdn_engine import Detector
from rdn_engine.backends import load_backend
from rdn_engine.backends.tensorrt.backend import build_plans
from rdn_engine.backends.tensorrt.plans import Limits
from rdn_engine.bundle.directory import Bundle
from rdn_engine.config import RDNConfig
from rdn_engine.errors import BackendUnavailable, BundleError, CheckpointError, ConfigError, DatasetError
from rdn_engine.host import preprocess
from rdn_engine.host.attached import AttachedEncoder
from rdn_engine.verify import verify
from tests.own_detectors import CLASSES, WIDTH, columns, yolox
from tests.training_files import phase, synthetic
from training.checkpoints.files import load_checkpoint
from training.data.features import FACTS, VERSION, FeatureBatch, FeatureCache, FeatureClips, FeatureFrame
from training.data.videos import open_sources
from training.model.attached import AttachedRDN
from training.model.inference import detect_video
from training.objective import AttachedObjective
from training.settings import Settings
from training.state import save_model
from training.trainer import Trainer

MODEL = {
    "relation": {"dim": 32, "heads": 2},
    "dials": {"window": 4, "num_support": 4, "num_reference": 12, "advanced_ratio": 0.5},
}


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("detector")
    attach(yolox(folder / "detector.onnx"), folder / "engines", Options("yolox", CLASSES))
    return folder / "engines"


def settings(engines: Path, **changes: Any) -> Settings:
    return Settings.from_plain(
        {
            "detector": str(engines),
            "model": MODEL,
            "data": {"train": [synthetic(size=[120, 90])], "flip": False},
            "phases": [phase()],
            "rois_per_frame": 8,
            "warm_up": 1,
            "save_every": 3,
            "log_every": 2,
            **changes,
        }
    )


def encoder_of(engines: Path, told: Settings) -> AttachedEncoder:
    graph = load_backend("onnxruntime", "cpu", 1).load(Bundle.open(engines).path("encoder"))
    return AttachedEncoder(told.model, graph, None, 1)


def weights(trainer: Trainer) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}


# The cache


def test_the_cache_holds_what_the_detector_says_in_half_precision(engines: Path, tmp_path: Path) -> None:
    told = settings(engines)
    videos, encoder = open_sources(told.data.train), encoder_of(engines, told)
    cache = FeatureCache(tmp_path, "0" * 64, told)
    cache.fill(videos, encoder)
    for video, t in ((0, 0), (3, 5), (2, 1)):
        example, frame = videos.example(video, t), cache.frame(video, t)
        (found,) = encoder.candidates(preprocess.network_input(example.image, told.model.input, 1)[None])
        rows = encoder.select(found, 12)
        np.testing.assert_array_equal(frame.boxes, found.boxes[rows])
        np.testing.assert_array_equal(frame.objectness, found.score[rows])
        assert found.features is not None
        np.testing.assert_array_equal(frame.features, found.features[rows].astype(np.float16).astype(np.float32))
        assert frame.labels.tolist() == [label + 1 for label in example.labels]
        # 120 x 90 in 96 x 64: as high as fits, 85 pixels wide.
        last = np.array([0, 0, 1, 1])
        wanted = (example.boxes + last) * np.array([85 / 120, 64 / 90] * 2) - last
        np.testing.assert_allclose(frame.truth, wanted, atol=1e-4)
        assert frame.ignored.shape == (0, 4)


def test_what_is_there_is_not_computed_again(engines: Path, tmp_path: Path) -> None:
    told = settings(engines)
    videos, encoder = open_sources(told.data.train), encoder_of(engines, told)
    computed: list[int] = []
    cache = FeatureCache(tmp_path, "0" * 64, told)
    cache.fill(videos, encoder, computed.append)
    (tmp_path / "000002.npz").unlink()
    FeatureCache(tmp_path, "0" * 64, told).fill(videos, encoder, computed.append)
    assert computed == [0, 1, 2, 3, 2]
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".json", *[".npy"] * 4, *[".npz"] * 4]


def test_a_cache_of_something_else_is_refused(engines: Path, tmp_path: Path) -> None:
    told = settings(engines)
    FeatureCache(tmp_path, "0" * 64, told)
    with pytest.raises(
        DatasetError, match=r"another detector, other data or another version: encoder is 0.*, wanted 1"
    ):
        FeatureCache(tmp_path, "1" * 64, told)
    other = settings(engines, data={"train": [synthetic(size=[120, 90], seed=1)], "flip": False})
    with pytest.raises(DatasetError, match=r"data is .*choose another folder"):
        FeatureCache(tmp_path, "0" * 64, other)
    more = settings(engines, model={**MODEL, "dials": {**MODEL["dials"], "num_reference": 13}})
    with pytest.raises(DatasetError, match="proposals is 12, wanted 13"):
        FeatureCache(tmp_path, "0" * 64, more)
    (tmp_path / FACTS).write_text("{")
    with pytest.raises(DatasetError, match="not JSON"):
        FeatureCache(tmp_path, "0" * 64, told)
    (tmp_path / FACTS).write_text("[" * 200_000)
    with pytest.raises(DatasetError, match="not JSON"):
        FeatureCache(tmp_path, "0" * 64, told)


def test_a_cache_of_before_is_refused(engines: Path, tmp_path: Path) -> None:
    told = settings(engines)
    FeatureCache(tmp_path, "0" * 64, told)
    facts = json.loads((tmp_path / FACTS).read_text())
    (tmp_path / FACTS).write_text(json.dumps({**facts, "later": 1}))
    with pytest.raises(DatasetError, match="another version: later is 1, wanted none; choose another"):
        FeatureCache(tmp_path, "0" * 64, told)
    del facts["version"]
    (tmp_path / FACTS).write_text(json.dumps(facts))
    with pytest.raises(DatasetError, match=f"another version: version is missing, wanted {VERSION}; choose another"):
        FeatureCache(tmp_path, "0" * 64, told)


def test_damaged_files_are_passed_over_and_named(engines: Path, tmp_path: Path) -> None:
    told = settings(engines)
    videos, encoder = open_sources(told.data.train), encoder_of(engines, told)
    cache = FeatureCache(tmp_path, "0" * 64, told)
    cache.fill(videos, encoder)
    (tmp_path / "000001.npz").write_bytes(b"PK\x03\x04 cut")
    np.save(tmp_path / "000002.npy", np.zeros((1, 2 * WIDTH), np.float16))
    for video in (1, 2):
        with pytest.raises(DatasetError, match=rf"00000{video}.npz cannot be read .*; deleted, it is computed anew"):
            cache.frame(video, 3)
    clips = FeatureClips(videos, told, cache)
    batch = clips.collate([clips[0, index] for index in range(4)])
    assert batch.damaged
    assert len(batch.frames) == 4 * batch.frames_per_clip


def test_features_beyond_half_precision_are_refused(engines: Path, tmp_path: Path) -> None:
    told = settings(engines)
    encoder = encoder_of(engines, told)
    pool = encoder.pool
    encoder.pool = lambda found, rows: pool(found, rows) + 1e6  # type: ignore[method-assign]
    with pytest.raises(DatasetError, match=r"features reach 1\.0*1?e\+06; wanted at most 65504"):
        FeatureCache(tmp_path, "0" * 64, told).fill(open_sources(told.data.train), encoder)
    assert [path.name for path in tmp_path.iterdir()] == [FACTS]


# The training


@pytest.mark.parametrize("relation", ["none", "basic", "full"])
@pytest.mark.parametrize("references", ["all", "first"])
def test_every_phase_learns_and_moves_what_it_trains_alone(
    engines: Path, tmp_path: Path, relation: str, references: str
) -> None:
    frames = {"frames_per_clip": 1} if relation == "none" else {}
    told = settings(engines, phases=[phase(relation=relation, references=references, iterations=30, **frames)])
    trainer = Trainer(told, tmp_path / "run")
    before = weights(trainer)
    losses = [trainer.step() for _ in range(30)]
    assert set(losses[0]) >= {"roi_class", "roi_box", "gradient_norm"}
    assert np.mean([x["roi_class"] for x in losses[-5:]]) < 0.8 * np.mean([x["roi_class"] for x in losses[:5]])
    moved = {name for name, tensor in trainer.model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert "roi.fc.weight" in moved
    assert ("relation.rel.0.value.weight" in moved) == (relation != "none")
    assert ("relation.rel.3.value.weight" in moved) == (relation == "full")


@pytest.mark.parametrize("relation", ["none", "basic", "full"])
def test_frames_without_proposals_teach_nothing(engines: Path, tmp_path: Path, relation: Any) -> None:
    model = AttachedRDN(settings(engines).model)
    box, nothing = torch.tensor([[4.0, 4, 20, 20]]), torch.zeros(0, 4)
    empty = FeatureFrame(nothing, torch.zeros(0), torch.zeros(0, 2 * WIDTH), box, torch.tensor([1]), nothing)
    full = replace(empty, boxes=box, objectness=torch.ones(1), features=torch.ones(1, 2 * WIDTH))
    objective = AttachedObjective(model, settings(engines))
    for frames in ([empty, empty], [empty, full]):
        losses = objective(FeatureBatch(frames, [0, 1], ["a", "b"], [], 2), relation, "all")
        total = torch.stack(list(losses.values())).sum()
        total.backward()
        assert torch.isfinite(total)
        assert all(p.grad is None or torch.isfinite(p.grad).all() for p in model.parameters())
        assert (float(losses["roi_class"].detach()) > 0) == (frames[1] is full)


def test_a_stopped_run_goes_on_as_if_it_had_not_stopped(engines: Path, tmp_path: Path) -> None:
    told = settings(engines)
    whole = Trainer(told, tmp_path / "whole")
    whole.run()
    stopped = Trainer(told, tmp_path / "stopped")
    for _ in range(3):
        stopped.step()
    stopped.save()
    resumed = Trainer(Settings.read(tmp_path / "whole" / "config.yaml"), tmp_path / "stopped")
    assert resumed.iteration == 3
    resumed.run()
    for name, tensor in whole.model.state_dict().items():
        torch.testing.assert_close(tensor, resumed.model.state_dict()[name], rtol=0, atol=0)


def test_the_model_is_validated_on_frames(engines: Path, tmp_path: Path) -> None:
    data = {"train": [synthetic(size=[120, 90])], "validation": [synthetic(split="test", num_videos=1)], "flip": False}
    Trainer(settings(engines, data=data, evaluate_every=6), tmp_path).run()
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert 0 <= lines[-1]["AP50"] <= 100
    assert (tmp_path / "best.safetensors").exists()


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "flip": ({"data": {"train": [synthetic()]}}, "data.flip is true; wanted false with a detector"),
    "input": ({"model": {**MODEL, "input": {"shorter_side": 64}}}, "model.input is .*; wanted that of detector"),
    "no detector": ({"detector": str(Path(__file__).parents[2] / "models" / "rdn_tiny" / "engines")},
                    "has no features of an attached detector"),
}  # fmt: skip


@pytest.mark.parametrize(("change", "message"), BAD.values(), ids=BAD)
def test_settings_that_cannot_be_are_refused(engines: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        settings(engines, **change)


def test_a_detector_without_features_and_a_model_without_detector_are_refused(engines: Path, tmp_path: Path) -> None:
    attach(yolox(tmp_path / "d.onnx", named=False), tmp_path / "engines", Options("yolox", CLASSES))
    with pytest.raises(ConfigError, match=r"no features of an attached detector; wanted .* --features"):
        settings(tmp_path / "engines")
    plain = settings(engines).to_plain()
    with pytest.raises(ConfigError, match=r"detector is ''; wanted one where model\.attached is"):
        Settings.from_plain({**plain, "detector": ""})


# The bundle


@pytest.fixture(scope="module")
def trained(engines: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint whose relations have weights that show."""
    torch.manual_seed(0)
    told = settings(engines)
    model = AttachedRDN(told.model)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1 and "geometry" not in name:
                parameter.normal_(0, parameter.shape[1] ** -0.5)
    path = tmp_path_factory.mktemp("trained") / "model.safetensors"
    save_model(path, model)
    return path


def test_the_bundle_computes_what_torch_computes(engines: Path, trained: Path, tmp_path: Path) -> None:
    joined = attach_relations(engines, trained, tmp_path / "own")
    assert {row.graph for row in joined.graphs} == {"roi_head", "relation"}
    assert all(row.passed for row in verify(tmp_path / "own"))
    frames = [np.random.default_rng(t).integers(0, 256, (90, 120, 3), np.uint8) for t in range(5)]
    detector = Detector.from_pretrained(tmp_path / "own", threads=1)
    assert detector.config.class_names == settings(engines).model.class_names
    assert detector.config.attached is not None
    assert detector.config.attached.num_classes == len(CLASSES)
    model = load_checkpoint(trained).model()
    assert isinstance(model, AttachedRDN)
    model.encoder = encoder_of(engines, settings(engines))
    for executor in ("fused", "graph"):
        run = Detector.from_pretrained(tmp_path / "own", threads=1, executor=executor)
        for found, wanted in zip(run.predict(frames, threshold=0.05), detect_video(model, frames), strict=True):
            rows = wanted.confidence > 0.05
            assert rows.sum() > 5
            np.testing.assert_allclose(found.confidence, wanted.confidence[rows], atol=1e-4)
            assert found.class_id.tolist() == wanted.class_id[rows].tolist()
            np.testing.assert_allclose(found.xyxy, wanted.xyxy[rows], atol=0.02)
    linked = detector.predict(frames, link=True)
    assert all(result.tracker_id is not None for result in linked)


def test_a_checkpoint_of_another_detector_is_refused(engines: Path, trained: Path, tmp_path: Path) -> None:
    given = Given(boxes="dets", scores="logits", features=("map0", "map1", "map2"), box_format="cxcywh",
                  activation="sigmoid")  # fmt: skip
    attach(columns(tmp_path / "d.onnx"), tmp_path / "other", Options("generic", CLASSES, given))
    with pytest.raises(CheckpointError, match=r"trained on another detector: attached is .*; input is"):
        attach_relations(tmp_path / "other", trained, tmp_path / "own")
    tiny = Path(__file__).parents[2] / "models" / "rdn_tiny"
    with pytest.raises(CheckpointError, match="trained without a detector attached"):
        attach_relations(engines, tiny / "model.safetensors", tmp_path / "own")
    with pytest.raises(CheckpointError, match="--engines is no detector alone"):
        attach_relations(tiny / "engines", trained, tmp_path / "own")
    assert not (tmp_path / "own").exists()


def test_other_exporters_and_starts_say_what_is_wanted(engines: Path, trained: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"wanted export/attach_relations\.py"):
        build(trained, tmp_path / "own")
    torch.save(torchvision.models.resnet18(weights=None).state_dict(), tmp_path / "resnet18.pth")
    with pytest.raises(CheckpointError, match="a model on a detector has no backbone"):
        Trainer(settings(engines), tmp_path / "run", tmp_path / "resnet18.pth")
    again = Trainer(settings(engines), tmp_path / "again", trained)
    torch.testing.assert_close(
        again.model.state_dict()["roi.fc.weight"], load_checkpoint(trained).state["roi.fc.weight"]
    )
    with pytest.raises(BackendUnavailable, match="runs on ONNX Runtime on the CPU only; got tensorrt"):
        build_plans("tensorrt", Bundle.open(engines), Limits.of(RDNConfig(("cat",))))
    with pytest.raises(BundleError, match="has no backbone; its model has encoder, golden"):
        Bundle.open(engines).path("backbone")


def test_the_command_writes_a_directory_or_says_why_not(
    engines: Path, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["--engines", str(engines), "--output", str(tmp_path / "own"), "--checkpoint"]
    assert main([*command, str(trained)]) == 0
    assert Bundle.open(tmp_path / "own").manifest.name == "own"
    assert main([*command, str(tmp_path / "missing.safetensors")]) == 1
    assert "CheckpointError" in capsys.readouterr().err


def test_dials_change_on_a_running_stream(engines: Path, trained: Path, tmp_path: Path) -> None:
    attach_relations(engines, trained, tmp_path / "own")
    detector = Detector.from_pretrained(tmp_path / "own", threads=1)
    frames = [np.full((90, 120, 3), 25 * t, np.uint8) for t in range(6)]
    wide = detector.predict(frames, dials=replace(detector.config.dials, look_ahead=0))
    with detector.open_stream(replace(detector.config.dials, look_ahead=0)) as stream:
        found = [*stream.push(frames[0]), *stream.push(frames[1])]
        stream.dials = replace(stream.dials, window=1, look_ahead=0)
        found += [r for frame in frames[2:] for r in stream.push(frame)]
    assert [r.pool_fill for r in found] == [1, 2, 2, 2, 2, 2]
    np.testing.assert_array_equal(found[1].confidence, wide[1].confidence)
    assert not np.array_equal(found[4].confidence, wide[4].confidence)
