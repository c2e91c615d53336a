"""Checkpoints of all layouts: what is read, what is told from the shapes, what a damaged file is refused with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import torchvision
from torch import Tensor

from rdn_engine.config import BackboneConfig, RDNConfig, RoIConfig
from rdn_engine.errors import CheckpointError, ConfigError
from tests.checkpoint_files import State, as_public, equal, overrides, state_of, tiny
from training.checkpoints.files import (
    TORCHVISION_EPS,
    detect_layout,
    load_checkpoint,
    load_torchvision_backbone,
    read_config,
    save_checkpoint,
)
from training.checkpoints.public_layout import public_name
from training.model.backbone import Backbone
from training.model.rdn import RDN

torch.set_num_threads(1)

CONFIGS = Path(__file__).parents[3] / "export" / "configs"
BOX = "roi_heads.box.feature_extractor"


@pytest.mark.parametrize("norm", ["frozen", "batch", "group"])
def test_our_own_format_comes_back_as_it_was(tmp_path: Path, norm: str) -> None:
    config = RDNConfig.from_dict({**tiny().to_dict(), "backbone": {"name": "resnet18", "width": 0.25, "norm": norm}})
    save_checkpoint(tmp_path / "a.safetensors", state_of(config), config)
    loaded = load_checkpoint(tmp_path / "a.safetensors")
    assert loaded.config == config
    assert loaded.layout == "rdn_engine"
    assert equal(loaded.state, state_of(config))
    model = loaded.model()
    assert not model.training
    assert equal(model.state_dict(), loaded.state)


def test_half_is_half_the_size_and_loads_as_float32(tmp_path: Path) -> None:
    config = tiny()
    for half in (False, True):
        save_checkpoint(tmp_path / f"{half}.safetensors", state_of(config), config, half=half)
    assert (tmp_path / "True.safetensors").stat().st_size < 0.55 * (tmp_path / "False.safetensors").stat().st_size
    loaded = load_checkpoint(tmp_path / "True.safetensors").state
    assert all(v.dtype == torch.float32 for v in loaded.values())
    assert all(torch.equal(v, state_of(config)[k].half().float()) for k, v in loaded.items())


def test_a_refused_save_leaves_the_old_file(tmp_path: Path) -> None:
    config, path = tiny(), tmp_path / "a.safetensors"
    save_checkpoint(path, state_of(config), config)
    before = path.read_bytes()
    too_large = {**state_of(config), "relation.classify.bias": torch.full((3,), 1e6)}
    with pytest.raises(CheckpointError, match=r"NaN or infinite values: relation\.classify\.bias"):
        save_checkpoint(path, too_large, config, half=True)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_overrides_win_over_the_stored_configuration(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "a.safetensors", state_of(tiny()), tiny())
    loaded = load_checkpoint(tmp_path / "a.safetensors", {"dials": {"window": 3}, "class_names": ["x", "y"]})
    assert loaded.config.dials.window == 3
    assert loaded.config.class_names == ("x", "y")
    assert loaded.config.relation == tiny().relation
    with pytest.raises(ConfigError, match="unknown fields"):
        load_checkpoint(tmp_path / "a.safetensors", {"dial": {}})


@pytest.mark.parametrize(
    "relation",
    [
        {"num_basic": 0, "advanced": False},
        {"num_basic": 1, "advanced": False},
        {"num_basic": 1, "advanced_fc": False},
        {"num_basic": 4},
        {"num_basic": 0, "advanced_fc": False},
    ],
)
def test_the_public_layout_tells_its_architecture(tmp_path: Path, relation: dict[str, Any]) -> None:
    config = tiny(**relation)
    torch.save(as_public(config), tmp_path / "w.pth")
    loaded = load_checkpoint(tmp_path / "w.pth", overrides(config))
    told, wanted = loaded.config.relation, config.relation
    assert loaded.layout == "public"
    assert (told.num_basic, told.advanced, told.dim) == (wanted.num_basic, wanted.advanced, 64)
    assert told.heads == 4 or not wanted.num_modules
    assert told.advanced_fc == wanted.advanced_fc or not wanted.advanced
    assert loaded.config.roi == config.roi
    assert equal(loaded.state, state_of(config))


def test_two_modules_and_two_layers_are_told_apart_by_the_configuration(tmp_path: Path) -> None:
    config = tiny(num_basic=0)
    torch.save(as_public(config), tmp_path / "w.pth")
    assert load_checkpoint(tmp_path / "w.pth", overrides(config)).config.relation.num_basic == 2
    given = {**overrides(config), "relation": {"num_basic": 0, "advanced": True}}
    assert equal(load_checkpoint(tmp_path / "w.pth", given).state, state_of(config))


@pytest.mark.parametrize("name", ["resnet50", "resnet101", "resnext101_64x4d"])
def test_public_backbones_are_told_by_blocks_and_groups(tmp_path: Path, name: str) -> None:
    config = RDNConfig(("a",), backbone=BackboneConfig(name), roi=RoIConfig(reduce_channels=None))
    with torch.device("meta"):
        shapes = {public_name(k, 2): v.shape for k, v in RDN(config).state_dict().items()}
    # One value with its strides at zero, so that a hundred million weights cost nothing to store.
    torch.save({k: torch.ones(1).expand(shape) for k, shape in shapes.items()}, tmp_path / "w.pth")
    loaded = load_checkpoint(tmp_path / "w.pth", {"class_names": ["a"]})
    assert loaded.config == config


def test_relation_modules_become_linear_maps() -> None:
    config = tiny()
    public = as_public(config)
    assert public[f"{BOX}.Wvs.3.weight"].shape == (64, 64, 1, 1)
    assert torch.equal(public[f"{BOX}.Wvs.3.weight"][:, :, 0, 0], state_of(config)["relation.rel.3.value.weight"])
    assert torch.equal(public[f"{BOX}.fcs.1.weight"], state_of(config)["relation.basic_fc.0.weight"])
    assert torch.equal(public[f"{BOX}.fcs.2.weight"], state_of(config)["relation.advanced_fc.weight"])


def drop(name: str) -> Callable[[State], State]:
    return lambda state: {k: v for k, v in state.items() if k != name}


def put(name: str, value: Tensor) -> Callable[[State], State]:
    return lambda state: {**state, name: value}


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (drop("rpn.head.conv.bias"), r"1 of \d+ tensors are missing: rpn\.head\.conv\.bias; 0 are unexpected"),
        (drop(f"{BOX}.fcs.0.weight"), r"fcs\.0\.weight is missing, without which the architecture"),
        (drop(f"{BOX}.Wks.1.bias"), rf"missing: {BOX}\.Wks\.1\.bias"),
        (drop(f"{BOX}.Wqs.3.weight"), rf"1 of \d+ tensors are missing: {BOX}\.Wqs\.3\.weight; 0 are unexpected"),
        (drop(f"{BOX}.fcs.1.weight"), r"4 relation modules .* and 1 fully connected layers"),
        (put("extra.weight", torch.ones(1)), r"0 of \d+ tensors are missing; 1 are unexpected: extra\.weight"),
        (put("rpn.head.cls_logits.bias", torch.ones(5)), r"cls_logits\.bias has \(5,\), wanted \(6,\)"),
        (put(f"{BOX}.Wvs.0.weight", torch.ones(64, 8, 1, 1)), r"Wvs\.0\.weight has \(64, 8, 1, 1\), wanted \(64, 64\)"),
        (put(f"{BOX}.fcs.0.weight", torch.ones(64, 100)), r"fcs\.0\.weight has \(64, 100\); wanted columns of 16"),
        (put(f"{BOX}.fcs.0.weight", torch.ones(64)), r"fcs\.0\.weight has shape \(64,\); wanted 2 axes"),
        (
            put(f"{BOX}.Wgs.2.bias", torch.full((4,), torch.nan)),
            rf"1 tensors hold NaN or infinite values: {BOX}\.Wgs\.2",
        ),
        (put("rpn.head.conv.bias", torch.full((64,), torch.inf)), r"infinite values: rpn\.head\.conv\.bias"),
        (
            put("rpn.anchor_generator.cell_anchors.0", torch.zeros(6, 4)),
            r"cell_anchors\.0 is .* anchor_sizes \(32, 64\)",
        ),
    ],
)
def test_damage_is_named(tmp_path: Path, damage: Callable[[State], State], message: str) -> None:
    torch.save({"model": damage(as_public(tiny()))}, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(tmp_path / "w.pth", overrides(tiny()))


def test_class_names_are_asked_for_with_their_number(tmp_path: Path) -> None:
    torch.save(as_public(tiny()), tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match="has 2 foreground classes and no names"):
        load_checkpoint(tmp_path / "w.pth")


@pytest.mark.parametrize("layout", ["public", "our own"])
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"class_names": ["a", "b", "c"]}, r"w has 2 foreground classes; class_names has 3"),
        ({"rpn": {"anchor_sizes": [64]}}, r"w has 6 anchors a cell; rpn.anchor_sizes \(64,\) times .* make 3"),
        (
            {"class_names": ["a"], "rpn": {"anchor_sizes": [32, 64], "anchor_ratios": [1]}},
            r"w has 2 foreground classes; class_names has 1 and has 6 anchors a cell; .*anchor_ratios \(1\.0,\) make 2",
        ),
    ],
)
def test_another_number_is_said_in_one_line(tmp_path: Path, layout: str, changes: dict[str, Any], message: str) -> None:
    if layout == "public":
        torch.save(as_public(tiny()), tmp_path / "w")
    else:
        save_checkpoint(tmp_path / "w", state_of(tiny()), tiny())
    with pytest.raises(CheckpointError, match=f"^{message}$"):
        load_checkpoint(tmp_path / "w", overrides(tiny()) | changes)


@pytest.mark.parametrize("stored", ["{", "[]"])
def test_damaged_metadata_is_refused(tmp_path: Path, stored: str) -> None:
    safetensors.torch.save_file(state_of(tiny()), tmp_path / "a.safetensors", {"rdn_config": stored})
    with pytest.raises(CheckpointError, match="configuration in its metadata"):
        load_checkpoint(tmp_path / "a.safetensors")


@pytest.mark.parametrize("norm", ["frozen", "batch"])
def test_torchvision_weights_fit_a_backbone(tmp_path: Path, norm: str) -> None:
    theirs = torchvision.models.resnet18(weights=None)
    config = BackboneConfig("resnet18", norm=norm, norm_eps=TORCHVISION_EPS, stride_in_1x1=False)
    torch.save(theirs.state_dict(), tmp_path / "r.pth")
    for source in (tmp_path / "r.pth", theirs.state_dict()):
        backbone = Backbone(config)
        backbone.load_state_dict(load_torchvision_backbone(source, config))
        assert torch.equal(backbone.layer4[1].conv2.weight, theirs.layer4[1].conv2.weight)
    damaged = drop("layer2.0.conv1.weight")(put("head.weight", torch.ones(1))(theirs.state_dict()))
    with pytest.raises(CheckpointError, match=r"missing: layer2\.0\.conv1\.weight; 1 are unexpected: head\.weight"):
        load_torchvision_backbone(damaged, config)


@pytest.mark.parametrize("wrong", [{"stride_in_1x1": True}, {"norm_eps": 0.0}, {"norm": "group"}])
def test_torchvision_weights_want_torchvisions_arithmetic(wrong: dict[str, Any]) -> None:
    right = {"name": "resnet18", "norm": "frozen", "norm_eps": TORCHVISION_EPS, "stride_in_1x1": False}
    with pytest.raises(ConfigError, match="stride_in_1x1=False, norm='frozen' or 'batch', norm_eps=1e-05"):
        load_torchvision_backbone({}, BackboneConfig(**{**right, **wrong}))


def test_layouts_are_told_by_names() -> None:
    assert detect_layout(state_of(tiny())) == "rdn_engine"
    assert detect_layout(as_public(tiny())) == "public"
    with torch.device("meta"):
        assert detect_layout(torchvision.models.resnet18(weights=None).state_dict()) == "torchvision"


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda p: p.name)
def test_the_configurations_here_are_valid(path: Path) -> None:
    assert len(RDNConfig.from_dict(read_config(path)).class_names) == 30


@pytest.mark.parametrize("text", ["a: [", "- 1", "", None])
def test_a_configuration_that_is_no_mapping_is_refused(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"c\.yaml"):
        read_config(tmp_path / "c.yaml")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_a_configuration_may_begin_with_a_byte_order_mark(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "model.yaml"
    path.write_text("class_names: [Füße]\ndials: {window: 3}\n", encoding=encoding)
    assert read_config(path) == {"class_names": ["Füße"], "dials": {"window": 3}}
