"""Steps, and a run that stops and goes on."""

import json
import resource

import numpy as np
import pytest
import safetensors.torch
import torch
import torchvision

from rdn_engine.config import BackboneConfig, RDNConfig
from rdn_engine.errors import CheckpointError, ConfigError, TrainingError
from tests.training_files import MODEL, micro, phase, synthetic
from training import state
from training.checkpoints.public_layout import public_name
from training.model.rdn import RDN
from training.trainer import Trainer, learning_rate


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def weights(model):
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def log_of(output):
    """The lines without what depends on the clock."""
    lines = [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()]
    clock = ("data_seconds", "step_seconds", "eta_minutes")
    return [{k: v for k, v in line.items() if k not in clock} for line in lines]


@pytest.mark.parametrize("relation", ["none", "basic", "full"])
def test_every_phase_trains_its_parts(tmp_path, relation):
    trainer = Trainer(micro(phases=[phase(relation=relation)]), tmp_path / "run")
    before = {n: p.detach().clone() for n, p in trainer.model.named_parameters()}
    trainer.step()
    changed = {n for n, p in trainer.model.named_parameters() if not torch.equal(p, before[n])}
    relation_parts = {"relation.rel.0.query.weight", "relation.rel.1.value.weight", "relation.basic_fc.0.weight"}
    advanced_parts = {"relation.rel.2.query.weight", "relation.rel.3.value.weight", "relation.advanced_fc.weight"}
    assert {"backbone.conv1.weight", "rpn.deltas.weight", "roi.fc.weight", "relation.classify.weight"} <= changed
    assert (relation_parts <= changed) if relation != "none" else not (relation_parts & changed)
    assert (advanced_parts <= changed) if relation == "full" else not (advanced_parts & changed)


def test_a_few_steps_teach_the_proposals(tmp_path):
    data = {"train": [synthetic(num_videos=2, num_frames=3)]}
    trainer = Trainer(micro(phases=[phase(iterations=40)], data=data), tmp_path / "run")
    seen = [trainer.step()["rpn_class"] for _ in range(40)]
    assert np.mean(seen[-5:]) < 0.5 * np.mean(seen[:5])


def test_only_references_have_losses(tmp_path):
    """With `first`, what the support frames show changes nothing but the relations' input."""
    settings = micro(phases=[phase(references="first", relation="basic")])
    trainer = Trainer(settings, tmp_path / "run")
    batch = trainer._next_batch()
    for i in (1, 2, 4, 5):
        batch.boxes[i][:] = 0
        batch.labels[i][:] = 99
    found = trainer._objective(batch, "basic", "first")
    assert all(torch.isfinite(loss) for loss in found.values())
    with pytest.raises(Exception, match=r"99|out of bounds"):
        trainer._objective(batch, "basic", "all")


FROZEN = {"model": {**MODEL, "backbone": {**MODEL["backbone"], "norm": "group"}}}


def gradients(output, **changes):
    trainer = Trainer(micro(**FROZEN, bf16=False, **changes), output)
    values, _ = trainer.gradients()
    return {n: p.grad for n, p in trainer.model.named_parameters() if p.grad is not None}, values


@pytest.mark.parametrize("references", ["all", "first"])
def test_accumulated_parts_have_the_gradient_of_the_whole(tmp_path, references):
    phases = [phase(clips=4, references=references)]
    whole, values = gradients(tmp_path / "whole", phases=phases)
    parts, values_of_parts = gradients(tmp_path / "parts", phases=phases, accumulate=2)
    assert values_of_parts == pytest.approx(values, rel=1e-4)
    scale = max(g.abs().max() for g in whole.values())
    assert whole.keys() == parts.keys()
    assert all((whole[n] - parts[n]).abs().max() < 1e-5 * scale for n in whole)


def test_frozen_stages_stay_as_they_are(tmp_path):
    trainer = Trainer(micro(frozen_stages=2), tmp_path / "run")
    before = weights(trainer.model)
    trainer.step()
    after = weights(trainer.model)
    frozen = {n for n in before if n.startswith(("backbone.conv1", "backbone.bn1", "backbone.layer1"))}
    assert len(frozen) > 10
    assert all(torch.equal(before[n], after[n]) for n in frozen), "weights and statistics"
    assert not torch.equal(before["backbone.layer2.0.conv1.weight"], after["backbone.layer2.0.conv1.weight"])
    assert not torch.equal(before["backbone.layer2.0.bn1.running_mean"], after["backbone.layer2.0.bn1.running_mean"])


def test_sgd_with_momentum_and_decay(tmp_path):
    settings = micro(optimizer="sgd", weight_decay=0.1, phases=[phase(learning_rate=0.5)], clip_gradient=0, bf16=False)
    trainer = Trainer(settings, tmp_path / "run")
    name = "rpn.conv.weight"
    weight = trainer.model.get_parameter(name)
    momentum = torch.zeros_like(weight)
    for done in range(3):
        before = weight.detach().clone()
        rate = learning_rate(settings, settings.phases[0], done)
        trainer.step()
        momentum = 0.9 * momentum + weight.grad + 0.1 * before
        assert torch.allclose(weight, before - rate * momentum, rtol=1e-5, atol=1e-7)


PHASES = [
    phase(name="start", iterations=3, relation="none", frames_per_clip=1),
    phase(name="first", iterations=4, references="first"),
]


@pytest.mark.parametrize(("optimizer", "stop"), [("adamw", 3), ("adamw", 5), ("sgd", 1)])
def test_a_stopped_run_goes_on_as_if_it_had_not(tmp_path, optimizer, stop):
    settings = micro(phases=PHASES, optimizer=optimizer)
    whole = Trainer(settings, tmp_path / "whole")
    whole.run()
    stopped = Trainer(settings, tmp_path / "stopped")
    for _ in range(stop):
        stopped._add(stopped.step())
        stopped._report(settings.phases[0])
    stopped.save()
    (tmp_path / "stopped" / "log.jsonl").write_text(
        "".join(json.dumps(line) + "\n" for line in log_of(tmp_path / "whole")) + '{"iteration": 6, "pha'
    )
    resumed = Trainer(settings, tmp_path / "stopped")
    assert resumed.iteration == stop
    resumed.run()
    assert same(weights(whole.model), weights(resumed.model))
    assert log_of(tmp_path / "whole") == log_of(tmp_path / "stopped")
    for name in ("first", "model"):
        written = [safetensors.torch.load_file(tmp_path / run / f"{name}.safetensors") for run in ("whole", "stopped")]
        assert same(*written)


def test_the_run_directory(tmp_path):
    settings = micro(phases=PHASES, half=True)
    Trainer(settings, tmp_path).run()
    names = {p.name for p in tmp_path.iterdir()}
    assert {"config.yaml", "versions.json", "log.jsonl", "last.pt", "previous.pt"} <= names
    assert {"start.safetensors", "first.safetensors", "model.safetensors"} <= names
    assert not [name for name in names if name.endswith((".part", ".partial"))]
    assert type(settings).read(tmp_path / "config.yaml") == settings
    lines = log_of(tmp_path)
    assert [(line["iteration"], line["phase"]) for line in lines] == [
        (2, "start"),
        (4, "first"),
        (6, "first"),
        (7, "first"),
    ]
    losses = ("rpn_class", "rpn_box", "roi_class", "roi_box")
    assert all(line["loss"] == pytest.approx(sum(line[n] for n in losses), rel=1e-4) for line in lines)
    final = safetensors.torch.load_file(tmp_path / "model.safetensors")
    assert final["roi.fc.weight"].dtype == torch.float16


def test_other_settings_are_refused(tmp_path):
    Trainer(micro(), tmp_path).save()
    other = micro(seed=3, phases=[phase(learning_rate=1e-3)], log_every=1)
    with pytest.raises(
        ConfigError, match=r"phases.0.learning_rate is 0.001 here, 0.003 there, seed is 3 here, 0 there"
    ):
        Trainer(other, tmp_path)
    Trainer(micro(log_every=1, save_every=1), tmp_path)


def test_a_damaged_state(tmp_path):
    trainer = Trainer(micro(), tmp_path)
    trainer.save()
    trainer.step()
    trainer.save()
    last = tmp_path / "last.pt"
    whole = last.read_bytes()
    for data in (whole[: len(whole) // 2], b"", b"hello world"):
        last.write_bytes(data)
        with pytest.raises(CheckpointError, match=r"last\.pt cannot be read .* goes on from .*previous\.pt"):
            Trainer(micro(), tmp_path)
    last.unlink()
    assert Trainer(micro(), tmp_path).iteration == 0
    last.write_bytes(whole)
    assert Trainer(micro(), tmp_path).iteration == 1


def test_a_full_disk_leaves_the_last_state(tmp_path):
    trainer = Trainer(micro(), tmp_path)
    trainer.save()
    trainer.step()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, hard))  # a file may not grow beyond 64 KiB
    try:
        with pytest.raises(CheckpointError, match=r"last\.pt cannot be written: .* are intact"):
            trainer.save()
        with pytest.raises(CheckpointError, match=r"m\.safetensors cannot be written"):
            state.save_model(tmp_path / "m.safetensors", trainer.model)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert {p.name for p in tmp_path.iterdir()} == {"last.pt"}
    assert Trainer(micro(), tmp_path).iteration == 0


@pytest.mark.parametrize(("parameter", "part"), [
    ("rpn.objectness.bias", "rpn_class is nan"),
    ("relation.regress.bias", "roi_box is nan"),
])  # fmt: skip
def test_a_loss_that_is_no_number_stops_the_run(tmp_path, parameter, part):
    trainer = Trainer(micro(), tmp_path)
    trainer.step()
    trainer.save()
    kept = (tmp_path / "last.pt").read_bytes()
    trainer.model.get_parameter(parameter).data.fill_(float("nan"))
    with pytest.raises(
        TrainingError, match=rf"iteration 1, phase 'only': .*{part}.* synthetic train \(seed 0\) video \d frame \d"
    ):
        trainer.run()
    assert (tmp_path / "last.pt").read_bytes() == kept
    assert not (tmp_path / "model.safetensors").exists()


def test_start_from_another_run(tmp_path):
    single = micro(model={**MODEL, "relation": {**MODEL["relation"], "num_basic": 0, "advanced": False}})
    start = Trainer(single, tmp_path / "single")
    start.step()
    state.save_model(tmp_path / "start.safetensors", start.model)
    with_relations = Trainer(micro(), tmp_path / "rdn", tmp_path / "start.safetensors").model.state_dict()
    assert all(torch.equal(tensor, with_relations[name]) for name, tensor in start.model.state_dict().items())


def test_other_classes_start_with_fresh_heads(tmp_path, capsys):
    start = Trainer(micro(), tmp_path / "start")
    state.save_model(tmp_path / "start.safetensors", start.model)
    data = {"train": [synthetic()]}
    settings = micro(data=data)
    names = settings.model.class_names
    model = Trainer(settings, tmp_path / "same", tmp_path / "start.safetensors").model
    renamed = model.config.to_dict() | {"class_names": ["ant", "bee"]}
    other = type(model)(type(model.config).from_dict(renamed))
    fresh = weights(other)
    notes = state.load_start(other, tmp_path / "start.safetensors")
    [note] = notes
    assert note.startswith(f"the heads stay as initialised, because its classes are {names[0]}, ")
    assert torch.equal(other.state_dict()["roi.fc.weight"], start.model.state_dict()["roi.fc.weight"])
    assert torch.equal(other.state_dict()["relation.classify.weight"], fresh["relation.classify.weight"])


@pytest.mark.parametrize("known", [True, False])
def test_start_from_a_public_checkpoint_of_any_classes(tmp_path, known):
    """Anchors are those of the model that is to be trained, which no public checkpoint tells."""
    fresh = Trainer(micro(), tmp_path / "run").model
    config = fresh.config.to_dict()
    config["backbone"] |= {"norm": "frozen", "norm_eps": 0.0, "stride_in_1x1": True}
    config["class_names"] = config["class_names"] if known else ["ant", "bee", "cow", "doe", "elk"]
    theirs = RDN(RDNConfig.from_dict(config))
    public = {public_name(name, 2): tensor for name, tensor in theirs.state_dict().items()}
    torch.save({"model": public, "ema": public}, tmp_path / "theirs.pth")
    model = RDN(RDNConfig.from_dict(config | {"class_names": fresh.config.to_dict()["class_names"]}))
    untouched = weights(model)
    taken, *notes = state.load_start(model, tmp_path / "theirs.pth")
    assert taken == "holds weights under 'model', 'ema': took those of 'model'"
    assert notes == ([] if known else [
        "the heads stay as initialised, because its classes are class 1, class 2, class 3, class 4, class 5"
    ])  # fmt: skip
    found = model.state_dict()
    assert torch.equal(found["roi.fc.weight"], theirs.state_dict()["roi.fc.weight"])
    heads = theirs.state_dict() if known else untouched
    assert torch.equal(found["relation.classify.weight"], heads["relation.classify.weight"])


@pytest.mark.parametrize(("section", "changes", "message"), [
    ("backbone", {"norm": "group"}, r"backbone\.norm is 'batch' here, 'group' there"),
    ("roi", {"size": 5}, r"roi\.fc\.weight; its configuration differs in roi\.size is 3 here, 5 there"),
])  # fmt: skip
def test_weights_that_do_not_fit_are_refused(tmp_path, section, changes, message):
    other = micro(model={**MODEL, section: {**MODEL[section], **changes}})
    state.save_model(tmp_path / "other.safetensors", Trainer(other, tmp_path / "other").model)
    with pytest.raises(CheckpointError, match=message):
        Trainer(micro(), tmp_path / "run", tmp_path / "other.safetensors")


def test_start_from_torchvision(tmp_path):
    backbone = BackboneConfig("resnet18", norm="batch", norm_eps=1e-5, stride_in_1x1=False)
    settings = micro(model={**MODEL, "backbone": vars(backbone)})
    torch.manual_seed(3)
    classifier = torchvision.models.resnet18(weights=None)
    torch.save(classifier.state_dict(), tmp_path / "resnet18.pth")
    model = Trainer(settings, tmp_path / "run", tmp_path / "resnet18.pth").model
    ours, theirs = model.backbone.state_dict(), classifier.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_learning_rate():
    def rate(done, warm_up=10, warm_up_factor=0.0, schedule="cosine", drops=()):
        phases = [phase(iterations=100, learning_rate=1.0, drops=list(drops))]
        changes = {"warm_up": warm_up, "warm_up_factor": warm_up_factor, "schedule": schedule}
        settings = micro(phases=phases, **changes)
        return learning_rate(settings, settings.phases[0], done)

    assert rate(0) == pytest.approx(0.1)
    assert rate(50) == pytest.approx(0.525)
    assert rate(99) == pytest.approx(0.05, abs=1e-3)
    assert rate(0, warm_up_factor=1 / 3, schedule="step") == pytest.approx(1 / 3 + 2 / 3 * 0.1)
    steps = [rate(done, warm_up=0, schedule="step", drops=(60, 80)) for done in (0, 59, 60, 79, 80, 99)]
    assert steps == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])
