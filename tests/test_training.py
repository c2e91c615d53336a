"""Losses against numbers worked out by hand, the sampling of clips, and a run that stops and goes on."""

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
import torchvision
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from export.checkpoints import save_checkpoint
from rdn_engine.config import BackboneConfig
from rdn_engine.errors import CheckpointError, ConfigError
from training import losses
from training.data.sampling import draw_batch, draw_times
from training.data.synthetic import CLASS_NAMES, SyntheticVideos
from training.evaluate import evaluate
from training.train import Phase, Settings, Trainer, learning_rate

CONFIGS = Path(__file__).parents[1] / "training" / "configs"


def generator():
    return torch.Generator().manual_seed(0)


def test_anchor_targets():
    truth = torch.tensor([[0.0, 0, 9, 9], [50, 50, 99, 99]])
    anchors = torch.tensor([
        [0.0, 0, 9, 9],  # IoU 1: positive
        [0, 0, 9, 4],  # 0.5: neither
        [0, 0, 9, 1],  # 0.2: negative
        [50, 50, 74, 74],  # 0.25, and the best of the second object: positive
    ])  # fmt: skip
    objectness, matched = losses.anchor_targets(anchors, truth)
    assert objectness.tolist() == [1, -1, 0, 1]
    assert matched[[0, 3]].tolist() == [0, 1]


def test_without_objects_every_anchor_is_negative():
    anchors = torch.tensor([[0.0, 0, 9, 9], [5, 5, 20, 20]])
    objectness, _ = losses.anchor_targets(anchors, torch.zeros(0, 4))
    assert objectness.tolist() == [0, 0]
    classification, regression = losses.rpn_loss(
        torch.zeros(2), torch.zeros(2, 4), anchors, torch.zeros(0, 4), generator()
    )
    assert classification.item() == pytest.approx(math.log(2))
    assert regression.item() == 0


def test_rpn_loss():
    anchors = torch.tensor([[0.0, 0, 9, 9], [40, 40, 49, 49]])
    truth = torch.tensor([[1.0, 0, 10, 9]])  # dx = 0.1 of the first anchor, the rest 0
    deltas = torch.zeros(2, 4)
    deltas[0, 1] = 0.5
    classification, regression = losses.rpn_loss(torch.tensor([0.0, 2.0]), deltas, anchors, truth, generator())
    assert classification.item() == pytest.approx((math.log(2) + math.log(1 + math.exp(2))) / 2)
    # smooth L1, beta 1/9: 0.1 lies below it (0.5 x^2 / beta), 0.5 above (x - beta / 2); two anchors were drawn
    assert regression.item() == pytest.approx((0.5 * 0.01 * 9 + 0.5 - 1 / 18) / 2, rel=1e-5)


def test_rpn_draws_at_most_half_positives():
    anchors = torch.tensor([[0.0, 0, 9, 9]]).repeat(10, 1)
    logits = torch.full((10,), 3.0)
    anchors[5:] += 50
    classification, _ = losses.rpn_loss(logits, torch.zeros(10, 4), anchors, anchors[:1], generator(), count=4)
    assert classification.item() == pytest.approx((math.log(1 + math.exp(-3)) + math.log(1 + math.exp(3))) / 2)


def test_roi_sample():
    truth = torch.tensor([[0.0, 0, 19, 19]])
    near = torch.tensor([[0.0, 0, 19, 9]]).repeat(6, 1)  # IoU 0.5
    far = torch.tensor([[0.0, 0, 19, 8]]).repeat(20, 1)  # 0.45
    sample = losses.sample_rois(torch.cat([near, far]), truth, torch.tensor([5]), generator(), count=8)
    assert sample.labels.tolist() == [5, 5, 0, 0, 0, 0, 0, 0]
    assert sample.truth[0].tolist() == truth[0].tolist()
    assert torch.equal(sample.boxes[2:], far[:6])
    only_truth = losses.sample_rois(far[:0], truth, torch.tensor([5]), generator())
    assert only_truth.boxes.tolist() == truth.tolist(), "objects join the proposals"
    background = losses.sample_rois(far, truth[:0], torch.zeros(0, dtype=torch.long), generator(), count=8)
    assert background.labels.tolist() == [0] * 8


def test_roi_loss():
    box = torch.tensor([[0.0, 0, 9, 9]])
    sample = losses.RoISample(box.repeat(2, 1), torch.tensor([2, 0]), torch.tensor([[1.0, 0, 10, 9], [0, 0, 9, 9]]))
    deltas = torch.zeros(2, 12)
    deltas[0, 8:] = torch.tensor([0.4, 0, 0, 3])
    deltas[0, :8] = deltas[1] = 100  # other classes and the background have no part in it
    classification, regression = losses.roi_loss(torch.zeros(2, 3), deltas, sample, (10, 10, 5, 5))
    assert classification.item() == pytest.approx(math.log(3))
    assert regression.item() == pytest.approx((0.5 * 0.6**2 + 3 - 0.5) / 2, rel=1e-5)


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 2**32), num_frames=st.integers(3, 40), window=st.integers(2, 18), count=st.integers(1, 3))
def test_clips_stay_within_a_window(seed, num_frames, window, count):
    times = draw_times(np.random.default_rng(seed), num_frames, window, count)
    assert len(set(times)) == count
    assert 0 <= min(times) <= max(times) < num_frames
    assert max(times) - min(times) <= window


def test_support_is_drawn_from_both_sides():
    rng = np.random.default_rng(0)
    offsets = {b - a for a, b in (draw_times(rng, 24, 3, 2) for _ in range(400))}
    assert offsets == {-3, -2, -1, 1, 2, 3}


def micro(tmp_path, relation="full", **changes):
    raw = {
        "model": {
            "input": {"shorter_side": 64, "longer_side": 96, "channel_order": "rgb"},
            "backbone": {"name": "resnet18", "width": 0.125, "norm": "batch", "norm_eps": 1e-5},
            "rpn": {"anchor_sizes": [24, 48], "anchor_ratios": [1], "pre_nms_top_n": 50},
            "roi": {"size": 3, "reduce_channels": 8},
            "relation": {"dim": 32, "heads": 2},
            "dials": {"window": 4, "num_support": 4, "num_reference": 8, "advanced_ratio": 0.5},
        },
        "data": {"num_videos": 4, "num_frames": 6, "size": [96, 64]},
        "phases": [{"name": "only", "iterations": 6, "learning_rate": 3e-3, "relation": relation, "clips": 2}],
        "rois_per_frame": 8,
        "warm_up": 1,
        "save_every": 3,
        "log_every": 2,
        **changes,
    }
    path = tmp_path / "micro.yaml"
    path.write_text(yaml.safe_dump(raw))
    return Settings.read(path)


def test_mirrored_boxes_follow_their_pixels(tmp_path):
    config = micro(tmp_path)
    videos = SyntheticVideos("train", 1, 4, (96, 64))
    seen = set()
    for seed in range(6):
        batch = draw_batch(np.random.default_rng(seed), videos, config.model.input, 3, 1, 1)
        # The colours are exchanged, so compare what does not depend on their order.
        frame = (batch.images[0].permute(1, 2, 0) + torch.tensor(config.model.input.mean)).round().sum(-1).numpy()
        for t in range(4):
            drawn, boxes = videos[0].frames[t].sum(-1), videos[0].boxes[t]
            if np.array_equal(frame, drawn):
                assert np.array_equal(batch.boxes[0], boxes)
                seen.add("as it is")
            if np.array_equal(frame, drawn[:, ::-1]):
                assert np.array_equal(batch.boxes[0][:, [2, 0]], 95 - boxes[:, [0, 2]])
                seen.add("mirrored")
    assert seen == {"as it is", "mirrored"}


@pytest.mark.parametrize("relation", ["none", "basic", "full"])
def test_every_phase_trains_its_parts(tmp_path, relation):
    trainer = Trainer(micro(tmp_path, relation), tmp_path / "run")
    before = {n: p.detach().clone() for n, p in trainer.model.named_parameters()}
    trainer.step()
    changed = {n for n, p in trainer.model.named_parameters() if not torch.equal(p, before[n])}
    relation_parts = {"relation.rel.0.query.weight", "relation.rel.1.value.weight", "relation.basic_fc.0.weight"}
    advanced_parts = {"relation.rel.2.query.weight", "relation.rel.3.value.weight", "relation.advanced_fc.weight"}
    assert {"backbone.conv1.weight", "rpn.deltas.weight", "roi.fc.weight", "relation.classify.weight"} <= changed
    assert (relation_parts <= changed) if relation != "none" else not (relation_parts & changed)
    assert (advanced_parts <= changed) if relation == "full" else not (advanced_parts & changed)


def test_a_few_steps_teach_the_proposals(tmp_path):
    phases = [{"name": "a", "iterations": 40, "learning_rate": 3e-3, "relation": "full", "clips": 2}]
    data = {"num_videos": 2, "num_frames": 3, "size": [96, 64]}
    trainer = Trainer(micro(tmp_path, phases=phases, data=data), tmp_path / "run")
    seen = [trainer.step()["rpn_class"] for _ in range(40)]
    assert np.mean(seen[-5:]) < 0.5 * np.mean(seen[:5])


def test_a_stopped_run_goes_on_as_if_it_had_not(tmp_path):
    config = micro(tmp_path)
    whole = Trainer(config, tmp_path / "whole")
    whole.run()
    stopped = Trainer(config, tmp_path / "stopped")
    for _ in range(3):
        stopped.step()
    stopped.save()
    resumed = Trainer(config, tmp_path / "stopped")
    assert resumed.iteration == 3
    resumed.run()
    written = [safetensors.torch.load_file(tmp_path / run / "only.safetensors") for run in ("whole", "stopped")]
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(tensor, resumed.model.state_dict()[name]), name
        assert torch.equal(written[0][name], written[1][name]), name
    assert len((tmp_path / "whole" / "log.jsonl").read_text().splitlines()) == 3


def test_start_from_another_run(tmp_path):
    config = micro(tmp_path)
    single = dataclasses.replace(
        config, model=dataclasses.replace(
            config.model, relation=dataclasses.replace(config.model.relation, num_basic=0, advanced=False)
        )
    )  # fmt: skip
    start = Trainer(single, tmp_path / "single")
    start.step()
    save_checkpoint(tmp_path / "start.safetensors", start.model.state_dict(), single.model)
    with_relations = Trainer(config, tmp_path / "rdn", tmp_path / "start.safetensors")
    for name, tensor in start.model.state_dict().items():
        assert torch.equal(tensor, with_relations.model.state_dict()[name]), name
    bigger = dataclasses.replace(config, model=dataclasses.replace(
        config.model, backbone=dataclasses.replace(config.model.backbone, norm="group")))  # fmt: skip
    group = Trainer(bigger, tmp_path / "group").model
    save_checkpoint(tmp_path / "group.safetensors", group.state_dict(), bigger.model)
    with pytest.raises(CheckpointError, match="running_mean"):
        Trainer(config, tmp_path / "other", tmp_path / "group.safetensors")


def test_start_from_torchvision(tmp_path):
    config = micro(tmp_path)
    backbone = BackboneConfig("resnet18", norm="batch", norm_eps=1e-5, stride_in_1x1=False)
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, backbone=backbone))
    torch.manual_seed(3)
    classifier = torchvision.models.resnet18(weights=None)
    torch.save(classifier.state_dict(), tmp_path / "resnet18.pth")
    model = Trainer(config, tmp_path / "run", tmp_path / "resnet18.pth").model
    ours, theirs = model.backbone.state_dict(), classifier.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_learning_rate():
    phase = Phase("a", 100, 1.0, "none")
    assert learning_rate(phase, 0, 10) == pytest.approx(0.1)
    assert learning_rate(phase, 50, 10) == pytest.approx(0.525)
    assert learning_rate(phase, 99, 10) == pytest.approx(0.05, abs=1e-3)


@pytest.mark.parametrize("name", ["rdn_tiny", "single_tiny"])
def test_configurations_are_read(name):
    config = Settings.read(CONFIGS / f"{name}.yaml")
    assert bool(config.model.relation.num_modules) == (name == "rdn_tiny")


def test_the_comparison_is_fair():
    rdn, single = (Settings.read(CONFIGS / f"{name}.yaml") for name in ("rdn_tiny", "single_tiny"))
    assert rdn.data == single.data
    assert rdn.model.backbone == single.model.backbone
    after_start = [[(p.iterations, p.learning_rate) for p in s.phases if p.name != "start"] for s in (rdn, single)]
    assert after_start[0] == after_start[1]


PHASE = {"name": "a", "iterations": 6, "learning_rate": 3e-3, "relation": "full"}


@pytest.mark.parametrize(("changes", "message"), [
    ({"batch": 3}, "batch"),
    ({"data": {"size": [100, 64]}}, r"data.size is \(100, 64\)"),
    ({"data": {"size": 96}}, r"micro\.yaml: settings\.data\.size is 96; wanted a list"),
    ({"data": None}, r"micro\.yaml: settings\.data is None; wanted a mapping"),
    ({"model": None}, r"micro\.yaml: settings\.model is None; wanted a mapping"),
    ({"model": {"rpm": {}}}, r"micro\.yaml: settings\.model has unknown fields \['rpm'\]"),
    ({"phases": []}, r"micro\.yaml: phases are \(\); wanted one or more"),
    ({"phases": [{**PHASE, "iterations": 0}]}, "of 1 iteration or more"),
    ({"phases": ["full"]}, r"micro\.yaml: settings\.phases\[0\] is 'full'; wanted a mapping"),
    ({"phases": [{**PHASE, "iteratons": 6}]}, r"micro\.yaml: settings\.phases\[0\] has unknown fields \['iteratons'\]"),
    ({"phases": [PHASE, {"name": "b"}]}, r"phases\[1\] lacks \['iterations', 'learning_rate', 'relation'\]"),
    ({"phases": [{**PHASE, "relation": "ful"}]}, r"phases\[0\]\.relation is 'ful'; wanted one of"),
    ({"phases": [{**PHASE, "learning_rate": "1e-3"}]}, r"phases\[0\]\.learning_rate is '1e-3'; wanted a finite number"),
    ({"bf16": "maybe"}, r"micro\.yaml: settings\.bf16 is 'maybe'; wanted a bool"),
])  # fmt: skip
def test_settings_refuse(tmp_path, changes, message):
    with pytest.raises(ConfigError, match=message):
        micro(tmp_path, **changes)


@pytest.mark.parametrize(("text", "message"), [
    ("model: {}", r"s\.yaml: settings lacks \['data', 'phases'\]"),
    ("data: {}", r"settings lacks \['model', 'phases'\]"),
    ("- 1", r"s\.yaml holds \[1\]; wanted a mapping"),
    ("a: [", r"s\.yaml cannot be read as YAML"),
    (None, r"s\.yaml cannot be read as YAML"),
])  # fmt: skip
def test_files_that_are_no_settings_are_refused(tmp_path, text, message):
    if text is not None:
        (tmp_path / "s.yaml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        Settings.read(tmp_path / "s.yaml")


def oracle(video):
    everything = zip(video.boxes, video.labels, strict=True)
    return [(boxes, np.linspace(0.9, 0.5, len(boxes), dtype=np.float32), labels) for boxes, labels in everything]


@pytest.mark.parametrize(("shift", "other_class", "wanted"), [(0, 0, 100), (200, 0, 0), (0, 1, 0)])
def test_average_precision_of_known_detections(shift, other_class, wanted):
    videos = SyntheticVideos("test", 3, 8, (96, 64))

    def detect(video):
        return [(b + np.float32(shift), s, (c + other_class) % len(CLASS_NAMES)) for b, s, c in oracle(video)]

    result = evaluate(detect, videos)
    assert result["AP50"] == pytest.approx(wanted, abs=12 if wanted == 0 else 1e-6)
    assert result["objects"] == sum(len(b) for i in range(3) for b in videos[i].boxes)
