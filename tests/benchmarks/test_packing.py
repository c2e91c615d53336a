"""A model packed small comes out as it was, byte by byte."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from benchmarks.frame import packing, seeded
from benchmarks.frame.models import write_checkpoint
from export.graphs import export_graphs
from export.half import convert
from rdn_engine.bundle.manifest import GRAPHS, WEIGHTS
from rdn_engine.config import BackboneConfig, Dials, RDNConfig, RelationConfig, RoIConfig, RPNConfig
from rdn_engine.input_config import InputConfig
from training.checkpoints.files import load_checkpoint, save_checkpoint

SEED = 3


def test_the_numbers_are_those_of_every_machine() -> None:
    assert seeded.codes("a.weight", (2, 3), 0).tolist() == [[-26989, -1970, -29556], [20916, -4041, -27742]]
    whole = seeded.codes("a.weight", (1000, 100), 0)
    assert not np.array_equal(whole, seeded.codes("b.weight", (1000, 100), 0))
    assert not np.array_equal(whole, seeded.codes("a.weight", (1000, 100), 1))
    assert whole.std() == pytest.approx(2**16 / np.sqrt(12), rel=0.01)


@pytest.mark.parametrize("deviation", [1e-4, 0.0217, 1.0, 3.3])
def test_a_weight_has_the_deviation_and_is_exact(deviation: float) -> None:
    scale = seeded.factor(deviation)
    drawn = seeded.weights("a", (300, 200), 0, scale)
    assert drawn.std() == pytest.approx(deviation, rel=0.01)
    assert np.array_equal(drawn.astype(np.float64), seeded.codes("a", (300, 200), 0) * scale)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What models.py writes, without what a bundle holds beside the graphs and the weights."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("model")
    config = RDNConfig(
        class_names=("cat", "dog"),
        input=InputConfig(shorter_side=64, longer_side=96),
        backbone=BackboneConfig("resnet18", norm_eps=1e-5),
        rpn=RPNConfig(anchor_sizes=(16, 32)),
        roi=RoIConfig(size=4),
        relation=RelationConfig(dim=256, heads=4),
        dials=Dials(window=1, num_support=5, num_reference=12),
    )
    write_checkpoint(folder / "model.safetensors", config, SEED)
    (folder / "fp16").mkdir()
    export_graphs(load_checkpoint(folder / "model.safetensors").model(), folder / "fp16")
    for name in GRAPHS.values():
        onnx.save(convert(onnx.load(folder / "fp16" / name), "fp16"), folder / "fp16" / name)
    return folder


def test_every_file_comes_out_as_it_was_from_a_fraction_of_its_bytes(model: Path, tmp_path: Path) -> None:
    assert packing.pack(model, tmp_path / "packed", "fp16", SEED) == []
    files = ["model.safetensors", *(f"fp16/{name}" for name in (*GRAPHS.values(), WEIGHTS))]
    written = seeded.unpack(tmp_path / "packed", tmp_path / "out")
    assert sorted(str(path.relative_to(tmp_path / "out")) for path in written) == sorted(files)
    for name in files:
        assert (tmp_path / "out" / name).read_bytes() == (model / name).read_bytes(), name
    changes = {
        part["change"]
        for file in json.loads((tmp_path / "packed" / seeded.RECIPES).read_text())["files"]
        for part in file["parts"]
        if isinstance(part, dict)
    }
    assert changes >= {"as drawn", "rows scaled", "cells last to first"}
    packed = sum(path.stat().st_size for path in (tmp_path / "packed").iterdir())
    assert packed < sum((model / name).stat().st_size for name in files) / 20


def test_a_file_that_would_come_out_otherwise_is_refused(model: Path, tmp_path: Path) -> None:
    packing.pack(model, tmp_path / "packed", "fp16", SEED)
    recipes = tmp_path / "packed" / seeded.RECIPES
    recipes.write_text(recipes.read_text().replace(f'"seed": {SEED}', f'"seed": {SEED + 1}'))
    with pytest.raises(SystemExit, match=r"model\.safetensors came out with SHA-256 .*; wanted"):
        seeded.unpack(tmp_path / "packed", tmp_path / "out")
    assert not (tmp_path / "out" / "model.safetensors").exists()


def test_weights_that_were_not_drawn_are_named(model: Path, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=f"was not drawn from seed {SEED + 1}"):
        packing.pack(model, tmp_path / "packed", "fp16", SEED + 1)
    loaded = load_checkpoint(model / "model.safetensors")
    state = dict(loaded.state)
    state["roi.fc.weight"] = state["roi.fc.weight"] * 1.001
    save_checkpoint(tmp_path / "model.safetensors", state, loaded.config)
    with pytest.raises(SystemExit, match=r"roi\.fc\.weight was not drawn"):
        packing.pack(tmp_path, tmp_path / "packed", "fp16", SEED)
