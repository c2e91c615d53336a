"""A small detector and the relations on it, trained together."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision

from export.attach import Options, attach
from export.attach_relations import attach_relations
from export.families import FAMILIES, Given
from export.torchvision_detector import export
from rdn_engine.backends import load_backend
from rdn_engine.bundle.directory import Bundle
from rdn_engine.config import RoIConfig
from rdn_engine.errors import ConfigError
from rdn_engine.host import preprocess
from rdn_engine.host.attached import AttachedEncoder
from tests.training_files import micro, phase, synthetic
from training.checkpoints.fcos import load_fcos, save_fcos
from training.data.drawing import CLASS_NAMES
from training.data.synthetic import SyntheticVideos
from training.model.attached import AttachedRDN
from training.model.fcos import FCOSConfig, SmallFCOS
from training.settings import Settings
from training.state import save_model
from training.trainer import Trainer

SIZE = (64, 96)
CHANNELS, SIDE = 8, 3
"""Of the map, and cells of a pooled feature"""
DETECTOR = "detector.safetensors"


def attached(checkpoint: Path, output: Path) -> Path:
    """The engine directory of a small detector alone."""
    model = load_fcos(checkpoint)
    export(model, SIZE, range(1, 1 + len(CLASS_NAMES)), output.with_suffix(".onnx"))
    told = model.config.input
    how = replace(
        FAMILIES["torchvision"].preprocessing,
        channel_order=told.channel_order, mean=tuple(told.mean), std=tuple(told.std),
    )  # fmt: skip
    options = Options(
        "torchvision", CLASS_NAMES, preprocessing=how, given=Given(feature_map="feature_map"), pooled_side=SIDE,
    )  # fmt: skip
    attach(output.with_suffix(".onnx"), output, options)
    return output


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A detector's checkpoint, and `engines` made from it."""
    made = tmp_path_factory.mktemp("joint")
    torch.manual_seed(3)
    config = replace(micro().model, roi=RoIConfig(size=SIDE, reduce_channels=None))
    model = SmallFCOS(config, FCOSConfig(16, 1, (16,), blocks=1, map_channels=CHANNELS))
    torch.nn.init.normal_(model.head.classification_head.cls_logits.weight, std=0.5)
    torch.nn.init.normal_(model.head.regression_head.bbox_reg.weight, std=0.2)
    save_fcos(made / DETECTOR, model)
    attached(made / DETECTOR, made / "engines")
    return made


def settings(folder: Path, **changes: Any) -> Settings:
    return Settings.from_plain(
        {
            "detector": str(folder / "engines"),
            "detector_checkpoint": str(folder / DETECTOR),
            "model": {
                "relation": {"dim": 32, "heads": 2},
                "dials": {"window": 4, "num_support": 4, "num_reference": 12, "advanced_ratio": 0.5},
            },
            "data": {"train": [synthetic(num_videos=2, num_frames=4)], "exchange_colours": True},
            "phases": [phase(clips=2, frames_per_clip=2)],
            "rois_per_frame": 8,
            "bf16": False,
            "warm_up": 1,
            "save_every": 3,
            "log_every": 2,
            **changes,
        }
    )


def state(trainer: Trainer) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}


def test_its_proposals_are_those_of_the_runtime(folder: Path, tmp_path: Path) -> None:
    told = settings(folder)
    model = Trainer(told, tmp_path / "run").model.eval()
    assert isinstance(model, AttachedRDN)
    graph = load_backend("onnxruntime", "cpu", 1).load(Bundle.open(folder / "engines").path("encoder"))
    encoder = AttachedEncoder(told.model, graph, None, 1)
    for frame in SyntheticVideos("test", 1, 3, (96, 64))[0].frames:
        boxes, scores, features, size = model.proposals(frame, 12)
        (found,) = encoder.candidates(preprocess.network_input(frame, told.model.input, 1)[None])
        rows = encoder.select(found, 12)
        assert len(rows) > 3
        assert size == SIZE
        np.testing.assert_allclose(boxes, found.boxes[rows], atol=1e-3)
        np.testing.assert_allclose(scores, found.score[rows], atol=1e-4)
        wanted = model.describe(torch.from_numpy(encoder.pool(found, rows))).detach()
        assert float(wanted.std()) > 0.01
        np.testing.assert_allclose(features, wanted, atol=1e-3)


@pytest.mark.parametrize("relation", ["basic", "full"])
def test_both_learn(folder: Path, tmp_path: Path, relation: str) -> None:
    only = phase(relation=relation, clips=2, frames_per_clip=2, iterations=30, learning_rate=1e-2)
    trainer = Trainer(settings(folder, phases=[only]), tmp_path / "run")
    before = state(trainer)
    losses = [trainer.step() for _ in range(30)]
    for name in ("classification", "bbox_regression", "roi_class"):
        assert np.mean([x[name] for x in losses[-5:]]) < np.mean([x[name] for x in losses[:5]]), name
    moved = {name for name, tensor in state(trainer).items() if not torch.equal(tensor, before[name])}
    # No loss of the detector's own depends on the layer in front of the map: what moves it are the relations.
    assert "detector.backbone.pooled.weight" in moved
    assert {"detector.backbone.trunk.conv1.weight", "roi.fc.weight", "relation.rel.0.key.weight"} <= moved
    assert ("relation.advanced_fc.weight" in moved) == (relation == "full")


def test_the_files_of_a_run_make_an_engine_directory(folder: Path, tmp_path: Path) -> None:
    trainer = Trainer(settings(folder, half=True), tmp_path / "run")
    trainer.run()
    wanted = [f"{name}{end}.safetensors" for name in ("model", "only") for end in ("", "_detector")]
    assert sorted(wanted) == sorted(path.name for path in (tmp_path / "run").glob("*.safetensors"))
    detector = tmp_path / "run" / "model_detector.safetensors"
    assert torch.equal(
        load_fcos(detector).backbone.trunk.conv1.weight, trainer.model.detector.backbone.trunk.conv1.weight.half()
    )
    engines = attached(detector, tmp_path / "detector")
    joined = attach_relations(engines, tmp_path / "run" / "model.safetensors", tmp_path / "joined")
    assert all(stage.passed for stage in joined.stages)
    # A next run takes both up.
    again = settings(folder, detector=str(engines), detector_checkpoint=str(detector))
    other = Trainer(again, tmp_path / "next", tmp_path / "run" / "model.safetensors")
    for name, tensor in state(trainer).items():
        stored = tensor.half().float() if tensor.is_floating_point() else tensor
        torch.testing.assert_close(other.model.state_dict()[name], stored, rtol=0, atol=0)


def test_a_stopped_run_goes_on_as_if_it_had_not(folder: Path, tmp_path: Path) -> None:
    told = settings(folder)
    whole = Trainer(told, tmp_path / "whole")
    whole.run()
    first = Trainer(told, tmp_path / "parts")
    for _ in range(3):
        first._add(first.step())
    first.save()
    then = Trainer(told, tmp_path / "parts")
    assert then.iteration == 3
    then.run()
    for name, tensor in state(whole).items():
        assert torch.equal(tensor, state(then)[name]), name


def test_a_frame_in_an_ignored_region_and_one_without_objects_have_losses(folder: Path, tmp_path: Path) -> None:
    trainer = Trainer(settings(folder), tmp_path / "run")
    trainer._enter(trainer.settings.phases[0])
    batch = trainer._next_batch()
    nothing = torch.zeros(0, 4)
    batch.boxes[0], batch.labels[0], batch.ignored[0] = nothing, torch.zeros(0, dtype=torch.long), nothing
    batch.ignored[1] = torch.tensor([[0.0, 0, 95, 63]])
    losses = trainer._objective(batch, "full", "all")
    assert all(torch.isfinite(loss) for loss in losses.values())


@pytest.mark.parametrize(("changes", "message"), [
    ({"detector": ""}, "detector_checkpoint is .* without detector; wanted the engine directory"),
    ({"phases": [phase(name="a"), phase(name="a_detector")]}, "phases: 'a_detector' ends with _detector"),
    ({"detector_checkpoint": ""}, "data.flip, data.exchange_colours is true; wanted false"),
])  # fmt: skip
def test_settings_refuse(folder: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        settings(folder, **changes)


def test_a_checkpoint_of_another_detector_is_refused(folder: Path, tmp_path: Path) -> None:
    config = replace(load_fcos(folder / DETECTOR).config, class_names=("fly",))
    other = SmallFCOS(config, FCOSConfig(16, 1, (16,), map_channels=4))
    save_model(tmp_path / "other.safetensors", other)
    told = settings(folder, detector_checkpoint=str(tmp_path / "other.safetensors"))
    with pytest.raises(
        ConfigError, match=r"is not of detector .*class_names is \('fly',\) here.*features is 36 here, 72"
    ):
        Trainer(told, tmp_path / "run")


def test_a_checkpoint_of_the_same_classes_in_another_order_is_refused(folder: Path, tmp_path: Path) -> None:
    """Its heads would learn the order of the data, and be exported by the other."""
    model = load_fcos(folder / DETECTOR)
    model.config = replace(model.config, class_names=model.config.class_names[::-1])
    save_model(tmp_path / "other.safetensors", model)
    with pytest.raises(ConfigError, match="of the classes that are trained, there: class_names is"):
        Trainer(settings(folder, detector_checkpoint=str(tmp_path / "other.safetensors")), tmp_path / "run")


def test_the_padding_of_a_batch_proposes_nothing(folder: Path, tmp_path: Path) -> None:
    model = Trainer(settings(folder), tmp_path / "run").model
    assert isinstance(model, AttachedRDN)
    assert model.detector is not None
    images = torch.zeros(2, 3, *SIZE)
    # Cells of 16 pixels, all of them as good: 4 rows of 6, and 2 rows of 3 that are no padding.
    cells = {"cls_logits": torch.zeros(2, 24, 1 + len(CLASS_NAMES)), "bbox_ctrness": torch.zeros(2, 24, 1)}
    cells["bbox_regression"] = torch.full((2, 24, 4), 0.5)
    sizes = [SIZE, (SIZE[0] // 2, SIZE[1] // 2)]
    whole, small = model.pooled(images, sizes, cells, torch.zeros(2, CHANNELS, 4, 6), 24)
    assert (len(whole[0]), len(small[0])) == (24, 6)
    assert (small[0][:, :2] + 8 < torch.tensor(sizes[1][::-1])).all()


def test_a_box_far_larger_than_the_image_is_pooled_near_it(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torchvision visits every sample of a box: one of a million pixels would take the training hours."""
    model = Trainer(settings(folder), tmp_path / "run").model
    assert isinstance(model, AttachedRDN)
    visited = []
    align = torchvision.ops.roi_align

    def seen(feature_map: torch.Tensor, boxes: list[torch.Tensor], *rest: Any, **more: Any) -> torch.Tensor:
        visited.extend(boxes)
        assert max(float(b.abs().max()) for b in boxes) <= 2 * max(SIZE)
        return align(feature_map, boxes, *rest, **more)

    monkeypatch.setattr(torchvision.ops, "roi_align", seen)
    cells = {"cls_logits": torch.zeros(1, 24, 1 + len(CLASS_NAMES)), "bbox_ctrness": torch.zeros(1, 24, 1)}
    cells["bbox_regression"] = torch.full((1, 24, 4), 1e5)
    [(boxes, _, features)] = model.pooled(torch.zeros(1, 3, *SIZE), [SIZE], cells, torch.ones(1, CHANNELS, 4, 6), 1)
    assert len(visited) == len(boxes) == 1
    assert float(boxes.max()) > 1e6
    assert torch.isfinite(features).all()
