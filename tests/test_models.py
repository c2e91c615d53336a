"""Synthetic weights for measurements: the same for the same seed, and alive in every layer."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks.frame.models import DEVIATIONS, frames, r101_config, write_checkpoint
from rdn_engine.config import BackboneConfig, Dials, RDNConfig, RelationConfig, RoIConfig
from rdn_engine.input_config import InputConfig
from training.checkpoints.files import load_checkpoint
from training.checkpoints.tensors import read_tensors
from training.model.inference import detect_video

torch.set_num_threads(1)

CONFIG = RDNConfig(
    class_names=("cat", "dog"),
    input=InputConfig(shorter_side=96, longer_side=160),
    backbone=BackboneConfig("resnet18", width=0.25),
    roi=RoIConfig(size=3, reduce_channels=16),
    relation=RelationConfig(dim=64, heads=4),
    dials=Dials(window=1, num_support=10, num_reference=40),
)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "model.safetensors"
    write_checkpoint(path, CONFIG)
    return path


def test_the_same_seed_gives_the_same_weights(checkpoint: Path, tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "again.safetensors", CONFIG)
    write_checkpoint(tmp_path / "other.safetensors", CONFIG, seed=1)
    # Not the bytes of the file: findings/safetensors_bytes_change_between_runs.sh
    paths = checkpoint, tmp_path / "again.safetensors", tmp_path / "other.safetensors"
    first, again, other = (read_tensors(path) for path in paths)
    assert again[1] == first[1]
    assert all(torch.equal(again[0][name], tensor) for name, tensor in first[0].items())
    assert not all(torch.equal(other[0][name], tensor) for name, tensor in first[0].items())


def test_nothing_vanishes_explodes_or_saturates(checkpoint: Path) -> None:
    model = load_checkpoint(checkpoint).model()
    seen: dict[str, float] = {}
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear | torch.nn.Conv2d):
            module.register_forward_hook(lambda _m, _i, out, name=name: seen.__setitem__(name, float(out.std())))
    results = detect_video(model, list(frames(2, seed=5)))
    assert len(seen) > 30
    # A norm follows on the stem, whose input is in grey levels.
    assert 1 < seen.pop("backbone.conv1") < 100
    assert all(0.05 < deviation < 20 for deviation in seen.values()), seen
    for result in results:
        assert len(result.boxes) == CONFIG.dials.num_reference
        assert result.objectness[0] < 1
        assert len(set(result.objectness.tolist())) > 20
        assert len(result.confidence) > 5


def test_a_norm_that_learns_is_refused(tmp_path: Path) -> None:
    config = replace(CONFIG, backbone=replace(CONFIG.backbone, norm="batch"))
    with pytest.raises(ValueError, match="norm is 'batch'; wanted 'frozen'"):
        write_checkpoint(tmp_path / "model.safetensors", config)


def test_the_public_configuration_is_the_papers() -> None:
    config = r101_config()
    assert (config.backbone.name, config.roi.reduce_channels, config.relation.num_basic) == ("resnet101", None, 2)
    assert (config.dials.window, config.dials.num_support, config.dials.num_reference) == (18, 75, 300)
    assert r101_config(256).roi.reduce_channels == 256
    assert frames(1).shape == (1, 600, 1000, 3)
    assert min(DEVIATIONS.values()) > 0
