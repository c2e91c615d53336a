"""The small FCOS: training it, its checkpoint, its graph, and relations on what it finds."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from export.attach import Options, attach
from export.families import FAMILIES, Given
from export.torchvision_detector import export, main
from rdn_engine.backends import load_backend
from rdn_engine.bundle.directory import Bundle
from rdn_engine.config import AttachedConfig, BackboneConfig, RoIConfig
from rdn_engine.errors import CheckpointError, ConfigError
from rdn_engine.host import preprocess
from rdn_engine.input_config import InputConfig
from rdn_engine.kernels import cpu
from tests.training_files import MODEL, micro, phase, synthetic
from training.checkpoints.fcos import load_fcos, save_fcos
from training.checkpoints.files import load_checkpoint, save_checkpoint
from training.data.drawing import CLASS_NAMES
from training.data.sampling import Batch, normalise
from training.model.attached import AttachedRDN
from training.model.backbone import Backbone
from training.model.fcos import FCOSConfig, SmallFCOS
from training.model.rdn import RDN
from training.objective import FCOSObjective, map_loss
from training.settings import Settings
from training.state import load_start
from training.trainer import Trainer

FCOS = {"channels": 16, "convs": 1}
SIZE = (64, 96)


@pytest.fixture(autouse=True)
def one_thread() -> Any:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def settings(**changes: Any) -> Settings:
    alone = phase(relation="none", clips=4, frames_per_clip=1)
    found: Settings = micro(**{"fcos": FCOS, "phases": [alone], "bf16": False, **changes})
    return found


def batch_of(boxes: torch.Tensor, ignored: torch.Tensor | None = None) -> Batch:
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 255, (1, *SIZE, 3), np.uint8))
    nothing = torch.zeros(0, 4)
    labels = torch.ones(len(boxes), dtype=torch.long)
    ignored = nothing if ignored is None else ignored
    return Batch(images, [SIZE], [boxes], [labels], [ignored], [0], ["a"], [], 1)


@pytest.mark.parametrize("strides", [[8], [16], [8, 16]])
def test_some_steps_teach_it_where_objects_are(tmp_path: Path, strides: list[int]) -> None:
    data = {"train": [synthetic(num_videos=2, num_frames=3)]}
    alone = phase(relation="none", clips=4, frames_per_clip=1, iterations=40, learning_rate=1e-2)
    told = settings(fcos={**FCOS, "strides": strides}, data=data, phases=[alone])
    trainer = Trainer(told, tmp_path / "run")
    before = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    losses = [trainer.step() for _ in range(40)]
    for name in ("classification", "bbox_regression"):
        assert np.mean([x[name] for x in losses[-5:]]) < 0.8 * np.mean([x[name] for x in losses[:5]]), name
    stood = [name for name, p in trainer.model.named_parameters() if torch.equal(p, before[name])]
    # ReLUs of so narrow a network may be silent; layers may not.
    assert not [name for name in stood if name.endswith("weight")]


def test_one_object_is_learnt_by_heart(tmp_path: Path) -> None:
    told = settings()
    torch.manual_seed(0)
    model = SmallFCOS(told.model, FCOSConfig(channels=16, convs=1))
    box = torch.tensor([[20.0, 10, 59, 49]])
    objective, batch = FCOSObjective(model.train(), told), batch_of(box)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    for _ in range(80):
        optimizer.zero_grad()
        sum(objective(batch, "none", "all").values()).backward()  # type: ignore[union-attr]
        optimizer.step()
    # The statistics of one image are those of the training, so that the norms compute the same.
    found = model.eval().detect(batch.images[0].numpy())
    best = int(found.confidence.argmax())
    assert found.class_id[best] == 0
    assert found.confidence[best] > 0.3
    np.testing.assert_allclose(found.xyxy[best], box[0], atol=4)


def test_what_is_ignored_is_not_seen(tmp_path: Path) -> None:
    told = settings()
    objective = FCOSObjective(SmallFCOS(told.model, FCOSConfig(16, 1)).eval(), told)
    box, region = torch.tensor([[4.0, 4, 30, 40]]), torch.tensor([[50.0, -3, 200, 70]])
    first, second = batch_of(box, region), batch_of(box, region)
    second.images[:, :, 50:] = 7
    third = batch_of(box)
    third.images[:, :, 50:] = 7
    losses = [float(objective(b, "none", "all")["classification"].detach()) for b in (first, second, third)]
    assert losses[0] == losses[1] != losses[2]


def test_frames_without_objects_have_losses(tmp_path: Path) -> None:
    told = settings()
    losses = FCOSObjective(SmallFCOS(told.model, FCOSConfig(16, 1)), told)(batch_of(torch.zeros(0, 4)), "none", "all")
    assert torch.isfinite(torch.stack(list(losses.values()))).all()
    assert losses["classification"] > 0


def test_a_stopped_run_goes_on_as_if_it_had_not(tmp_path: Path) -> None:
    data = {"train": [synthetic()], "validation": [synthetic(split="test", num_videos=1)]}
    told = settings(data=data, evaluate_every=6)
    whole = Trainer(told, tmp_path / "whole")
    whole.run()
    stopped = Trainer(told, tmp_path / "stopped")
    for _ in range(3):
        stopped.step()
    stopped.save()
    resumed = Trainer(Settings.read(tmp_path / "whole" / "config.yaml"), tmp_path / "stopped")
    resumed.run()
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(tensor, resumed.model.state_dict()[name]), name
    lines = [json.loads(line) for line in (tmp_path / "whole" / "log.jsonl").read_text().splitlines()]
    assert 0 <= lines[-1]["AP50"] <= 100
    best, last = (load_fcos(tmp_path / "whole" / f"{name}.safetensors") for name in ("best", "model"))
    assert best.fcos == last.fcos == told.fcos


def test_frozen_stages_stay_as_they_are(tmp_path: Path) -> None:
    trainer = Trainer(settings(frozen_stages=2), tmp_path / "run")
    before = {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}
    trainer.step()
    moved = {name for name, tensor in trainer.model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert not [name for name in moved if (".conv1." in name and "layer" not in name) or "trunk.layer1." in name]
    assert "backbone.trunk.layer2.0.bn1.running_mean" in moved


def test_it_starts_from_a_trained_backbone_or_from_its_like(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = settings()
    torch.manual_seed(5)
    rdn = RDN(told.model)
    save_checkpoint(tmp_path / "rdn.safetensors", rdn.state_dict(), told.model)
    started = Trainer(told, tmp_path / "a", tmp_path / "rdn.safetensors").model
    assert "all but the first stages of the backbone stays as initialised" in capsys.readouterr().err
    assert isinstance(started, SmallFCOS)
    for name, tensor in started.backbone.trunk.state_dict().items():
        assert torch.equal(tensor, rdn.backbone.state_dict()[name]), name
    torch.manual_seed(6)
    save_fcos(tmp_path / "fcos.safetensors", SmallFCOS(told.model, FCOSConfig(16, 1)))
    again = Trainer(told, tmp_path / "b", tmp_path / "fcos.safetensors").model
    wanted = load_fcos(tmp_path / "fcos.safetensors").state_dict()
    assert all(torch.equal(tensor, wanted[name]) for name, tensor in again.state_dict().items())
    wider = Backbone(BackboneConfig("resnet18", 0.25, "batch", 1e-5, stride_in_1x1=False))
    torch.save(wider.state_dict(), tmp_path / "classifier.pth")
    with pytest.raises((CheckpointError, ConfigError)):
        Trainer(told, tmp_path / "c", tmp_path / "classifier.pth")


def teacher_of(folder: Path, **changes: Any) -> str:
    """A checkpoint of an RDN of drawn weights, whose norms know its pictures."""
    config = replace(settings().model, **changes)
    torch.manual_seed(7)
    model = RDN(config)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    model.encode_map(torch.rand(4, 3, *SIZE) * 255 - 110)
    save_checkpoint(folder / "teacher.safetensors", model.state_dict(), config)
    return str(folder / "teacher.safetensors")


def test_it_learns_the_map_of_a_teacher_that_stays_as_it_is(tmp_path: Path) -> None:
    alone = phase(relation="none", clips=4, frames_per_clip=1, iterations=40, learning_rate=1e-2)
    fcos = {**FCOS, "strides": [16], "stem": 16, "blocks": 1, "map_channels": 8}
    told = settings(fcos=fcos, teacher=teacher_of(tmp_path), phases=[alone], data={"train": [synthetic(num_videos=2)]})
    trainer = Trainer(told, tmp_path / "run")
    teacher = trainer._objective.teacher
    assert isinstance(teacher, RDN)
    before = {name: tensor.clone() for name, tensor in teacher.state_dict().items()}
    losses = [trainer.step()["feature_map"] for _ in range(40)]
    assert np.mean(losses[-5:]) < 0.6 * np.mean(losses[:5])
    assert all(torch.equal(tensor, before[name]) for name, tensor in teacher.state_dict().items())
    # The loss is in parts of the teacher's own mean square: of a map of zeros it is the weight.
    wanted = torch.rand(2, 8, 4, 6)
    assert map_loss(torch.zeros_like(wanted), wanted) == pytest.approx(2)
    assert map_loss(wanted, wanted) == 0


def test_a_narrower_stem_begins_with_the_channels_that_weigh_most(tmp_path: Path) -> None:
    told = settings(fcos={**FCOS, "strides": [16], "stem": 5})
    torch.manual_seed(5)
    rdn = RDN(told.model)
    wide = rdn.backbone.state_dict()
    for name in ("conv1", "downsample.0"):
        wide[f"layer2.0.{name}.weight"][:, [1, 4, 7]] = 0  # three of its eight channels carry nothing
    for block in rdn.backbone.layer1:
        block.bn1.weight.data[[0, 2, 5]] = 0
        block.bn1.bias.data[[0, 2, 5]] = -1
    for module in rdn.backbone.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)
    # What the dropped channels of a block do to those that stay is lost, so that here they do nothing.
    for block in rdn.backbone.layer1:
        block.conv1.weight.data[:, [1, 4, 7]] = 0
    save_checkpoint(tmp_path / "rdn.safetensors", rdn.state_dict(), told.model)
    model = Trainer(told, tmp_path / "a", tmp_path / "rdn.safetensors").model.eval()
    assert isinstance(model, SmallFCOS)
    assert model.backbone.trunk.conv1.out_channels == 5
    image = torch.randn(1, 3, *SIZE)
    with torch.no_grad():
        c4, _ = rdn.eval().backbone(image)
        trunk = model.backbone.trunk
        x = trunk.layer1(trunk.maxpool(trunk.relu(trunk.bn1(trunk.conv1(image)))))
        found = trunk.layer3(trunk.layer2(x))
    assert float(c4.std()) > 0.01
    torch.testing.assert_close(found, c4, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("changes", "message"), [
    ({"roi": RoIConfig(size=3, reduce_channels=16)}, "has a map of 16 channels"),
    ({"input": InputConfig(64, 96, channel_order="bgr")}, "channel_order='bgr'"),
])  # fmt: skip
def test_a_teacher_of_another_map_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    told = settings(fcos={**FCOS, "map_channels": 8}, teacher=teacher_of(tmp_path, **changes))
    with pytest.raises(ConfigError, match=f"{message}.*wanted an RDN with its own backbone, 8 channels"):
        Trainer(told, tmp_path / "run")


def test_relations_begin_with_those_of_the_teacher(tmp_path: Path) -> None:
    path = teacher_of(tmp_path)
    teacher = load_checkpoint(path).model().eval()
    attached = AttachedConfig(relations=True, num_classes=6, features=8 * 9, map_stride=16)
    relation = replace(teacher.config.relation, num_basic=1, advanced=False)
    roi = replace(teacher.config.roi, reduce_channels=None)
    model = AttachedRDN(replace(teacher.config, attached=attached, relation=relation, roi=roi))
    load_start(model, Path(path))
    feature_map = torch.rand(1, 8, 4, 6)
    boxes = torch.tensor([[3.0, 4, 40, 50], [20, 10, 90, 60]])
    cells = np.ascontiguousarray(feature_map.permute(0, 2, 3, 1).numpy())
    pooled = cpu.roi_pool(cells, boxes.numpy(), np.zeros(2, np.int64), config=roi, scale=1 / 16, threads=1)
    with torch.no_grad():
        found = model.describe(torch.from_numpy(pooled[:, : 8 * 9]))
        wanted = teacher.roi_features(feature_map, [boxes])
    assert float(wanted.std()) > 0.01
    np.testing.assert_allclose(found, wanted, atol=1e-4)
    assert torch.equal(model.relation.rel[0].key.weight, teacher.relation.rel[0].key.weight)


@pytest.mark.parametrize(("changes", "message"), [
    ({"fcos": {"strides": [4]}}, r"fcos\.strides is \(4,\); wanted one of"),
    ({"fcos": {"channels": 4}}, r"fcos\.channels is 4; wanted 8\.\.1024"),
    ({"fcos": {"towers": 2}}, r"settings\.fcos has unknown fields \['towers'\]"),
    ({"fcos": {**FCOS, "map_channels": 8}}, "teacher is '' and fcos.map_channels 8; wanted both or none"),
    ({"teacher": "rdn.safetensors"}, "teacher is 'rdn.safetensors' and fcos.map_channels 0; wanted both or none"),
    ({"phases": [phase()]}, "relation 'full', frames_per_clip 3; wanted relation 'none' and frames_per_clip 1"),
    ({"model": {**MODEL, "backbone": {"name": "resnet50"}}}, "backbone.name is resnet50; wanted resnet18 with fcos"),
])  # fmt: skip
def test_settings_refuse(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        settings(**changes)


def test_files_that_are_no_checkpoint_of_it_are_refused(tmp_path: Path) -> None:
    told = settings()
    model = SmallFCOS(told.model, FCOSConfig(16, 1))
    save_fcos(tmp_path / "half.safetensors", model, half=True)
    tensors = safetensors.torch.load_file(tmp_path / "half.safetensors")
    assert all(t.dtype == torch.float16 for t in tensors.values() if t.is_floating_point())
    save_checkpoint(tmp_path / "rdn.safetensors", RDN(told.model).state_dict(), told.model)
    with pytest.raises(CheckpointError, match="is no checkpoint of a small FCOS; wanted what training with `fcos`"):
        load_fcos(tmp_path / "rdn.safetensors")
    metadata = {"rdn_config": json.dumps(told.model.to_dict()), "fcos": json.dumps({"channels": 24, "convs": 1})}
    safetensors.torch.save_file(tensors, tmp_path / "other.safetensors", metadata)
    with pytest.raises(CheckpointError, match="have another shape"):
        load_fcos(tmp_path / "other.safetensors")
    safetensors.torch.save_file(tensors, tmp_path / "text.safetensors", metadata | {"fcos": "{"})
    with pytest.raises(CheckpointError, match="is not JSON"):
        load_fcos(tmp_path / "text.safetensors")


@pytest.mark.parametrize("strides", [(8,), (8, 16)])
def test_attached_it_says_what_torch_says(tmp_path: Path, strides: tuple[int, ...]) -> None:
    torch.manual_seed(1)
    model = SmallFCOS(settings().model, FCOSConfig(16, 1, strides)).eval()
    torch.nn.init.normal_(model.head.classification_head.cls_logits.weight, std=0.5)
    torch.nn.init.normal_(model.head.regression_head.bbox_reg.weight, std=0.1)
    export(model, SIZE, range(1, 7), tmp_path / "detector.onnx")
    family, given = FAMILIES["torchvision"].preprocessing, model.config.input
    how = replace(family, channel_order="rgb", mean=tuple(given.mean), std=tuple(given.std))
    config = attach(
        tmp_path / "detector.onnx", tmp_path / "engines", Options("torchvision", CLASS_NAMES, preprocessing=how)
    ).config
    assert config.attached is not None
    assert config.attached.features == 32
    frame = np.random.default_rng(2).integers(0, 255, (*SIZE, 3), np.uint8)
    # As the trainer sees it, and as the runtime does.
    image = torch.from_numpy(frame)[None]
    seen = normalise(image, [SIZE], given)
    network = preprocess.network_input(frame, config.input, 1)
    np.testing.assert_allclose(network, seen[0], atol=1e-4)
    graph = load_backend("onnxruntime", "cpu", 1).load(Bundle.open(tmp_path / "engines").path("encoder"))
    got = graph({"image": network[None]})
    with torch.no_grad():
        found, _ = model.predict(seen)
    (cells,), _ = model.cells(seen)
    edges = model.box_coder.decode(found["bbox_regression"][0], cells)
    np.testing.assert_allclose(got["boxes"][0], edges - torch.tensor([0, 0, 1, 1]), atol=1e-3)
    scores = (found["cls_logits"].sigmoid() * found["bbox_ctrness"].sigmoid()).sqrt()[0, :, 1:]
    # The root of a score near 0 makes 1e-8 of a sigmoid 1e-4.
    np.testing.assert_allclose(got["class_scores"][0] ** 2, scores**2, rtol=1e-3, atol=1e-5)
    assert float(scores.std()) > 0.01
    best = model.detect(frame)
    assert float(best.confidence[0]) == pytest.approx(float(scores.max()), abs=1e-5)


def test_its_checkpoint_is_all_that_the_exporter_wants(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_fcos(tmp_path / "model.safetensors", SmallFCOS(settings().model, FCOSConfig(16, 1)))
    wanted = ["--size", "64", "96", "--output", str(tmp_path / "d.onnx")]
    assert main(["--checkpoint", str(tmp_path / "model.safetensors"), *wanted]) == 0
    assert "--family torchvision --mean 102.98 115.947 122.772 --std 1 1 1" in capsys.readouterr().out
    told = replace(settings().model, roi=RoIConfig(size=3, reduce_channels=None))
    mapped = SmallFCOS(told, FCOSConfig(16, 1, (16,), blocks=1, map_channels=8))
    torch.nn.init.ones_(mapped.backbone.context[0].bn2.weight)
    save_fcos(tmp_path / "mapped.safetensors", mapped)
    assert main(["--checkpoint", str(tmp_path / "mapped.safetensors"), *wanted]) == 0
    assert "--feature-map feature_map --pooled-side 3 " in capsys.readouterr().out
    given = Given(feature_map="feature_map")
    options = Options("torchvision", CLASS_NAMES, given=given, pooled_side=3)
    config = attach(tmp_path / "d.onnx", tmp_path / "engines", options).config
    assert config.attached is not None
    assert (config.attached.features, config.attached.map_stride, config.roi.size) == (72, 16, 3)
    graph = load_backend("onnxruntime", "cpu", 1).load(Bundle.open(tmp_path / "engines").path("encoder"))
    image = torch.randn(1, 3, *SIZE)
    with torch.no_grad():
        feature_map = mapped.eval().predict(image)[1]
    assert feature_map is not None
    got = graph({"image": image.numpy()})["feature_map"]
    np.testing.assert_allclose(got, feature_map.permute(0, 2, 3, 1), rtol=1e-3, atol=1e-4)
    assert main(wanted) == 1
    assert "neither --model nor --checkpoint is given" in capsys.readouterr().err
