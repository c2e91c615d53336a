"""Checkpoints in the public YOLOV layout: what is told from their shapes, and what a wrong one is refused with."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from rdn_engine.config import CosineConfig
from rdn_engine.errors import CheckpointError
from tests.checkpoint_files import equal
from tests.parity_yolov import DATA, write_checkpoint
from tests.yolov_files import CLASSES, SIZE, SMALL, small_checkpoint, small_state
from training.checkpoints.files import load_checkpoint
from training.checkpoints.yolov import load_yolov, yolox_size
from training.model.yolov import YOLOV
from training.model.yolox import YOLOXSize

State = dict[str, Tensor]


def test_the_generated_checkpoint_of_a_small_model_is_the_one_of_the_data(tmp_path: Path) -> None:
    tensors = torch.load(write_checkpoint(tmp_path / "w.pth"), weights_only=True)["model"]
    digest = hashlib.sha256(b"".join(tensor.numpy().tobytes() for tensor in tensors.values()))
    assert digest.hexdigest() == "cd3dc5acf78a2fa9ead2c941a3e09ca5de1d423f20f47918312339e310faaf83"
    assert len(tensors) == 506
    loaded = load_yolov(tmp_path / "w.pth", tuple(f"class {i}" for i in range(30)))
    assert loaded.size == YOLOXSize(32, 1, 30)
    assert equal(loaded.state, tensors)
    assert (DATA / "expected.npz").stat().st_size < 2**23


@pytest.mark.parametrize(
    ("stem", "depth", "dim"), [(16, 1, 64), (24, 1, 96), (32, 1, 128), (48, 2, 192), (64, 3, 256), (80, 4, 320)]
)
def test_every_width_and_depth_is_told_from_the_shapes(stem: int, depth: int, dim: int) -> None:
    size = YOLOXSize(stem, depth, 5)
    with torch.device("meta"):
        state = YOLOV(size, CosineConfig()).state_dict()
    assert yolox_size(state, "w.pth") == size
    assert state["head.linear_pred.weight"].shape == (6, 4 * dim)
    assert state["backbone.C3_n4.conv3.conv.weight"].shape[0] == 16 * stem


def test_a_training_checkpoint_and_its_wrappers_load(tmp_path: Path) -> None:
    small_checkpoint(tmp_path / "a.pth", start_epoch=7, optimizer={"state": {}, "param_groups": [{"lr": 0.1}]})
    wrapped = {f"module.{name}": tensor.half() for name, tensor in small_state().items() if "num_batches" not in name}
    torch.save(wrapped, tmp_path / "b.pth")
    a, b = (load_yolov(tmp_path / name, CLASSES, input_size=SIZE) for name in ("a.pth", "b.pth"))
    assert a.size == b.size == SMALL
    assert equal(a.state, small_state())
    weights = {name: tensor for name, tensor in b.state.items() if "num_batches" not in name}
    assert all(tensor.dtype == torch.float32 for tensor in weights.values())
    assert all(torch.equal(tensor.half(), a.state[name].half()) for name, tensor in weights.items())
    assert not a.model().training
    assert a.config.attached is not None
    assert (a.config.attached.num_classes, a.config.relation.dim, a.config.input.size) == (3, 32, SIZE)


def _renamed(state: State) -> State:
    state["head.trans.linear3.weight"] = state.pop("head.trans.linear1.weight")
    return state


def _plus(state: State) -> State:
    return {name.replace("head.trans.", "head.agg."): tensor for name, tensor in state.items()}


def _still(state: State) -> State:
    """Of a YOLOX."""
    return {k: v for k, v in state.items() if not k.startswith(("head.trans", "head.linear_pred", "head.cls_convs2"))}


def _with(name: str, change: Callable[[Tensor], Tensor]) -> Callable[[State], State]:
    return lambda state: {**state, name: change(state[name])}


WRONG: dict[str, tuple[Callable[[State], State], str]] = {
    "name": (_renamed, r"1 of 506 tensors are missing: head.trans.linear1.weight; 1 are unexpected: head"),
    "still": (_still, r"38 of 506 tensors are missing: head.cls_convs2.0.0.bn.bias"),
    "plus": (_plus, r"w.pth is YOLOV\+\+ \(it has head.agg.\*\); wanted YOLOV"),
    "shape": (_with("head.linear_pred.bias", lambda x: x[1:]), r"head.linear_pred.bias has \(3,\), wanted \(4,\)"),
    "number": (_with("head.trans.linear1.bias", lambda x: x * torch.nan), r"hold NaN or infinite values: head.trans"),
    "stem": (_with("backbone.backbone.stem.conv.conv.weight", lambda x: x[0, 0]), "has shape .*; wanted 4 axes"),
    "other": (lambda state: {"fc.weight": torch.zeros(2, 2)}, "not in the public YOLOV layout: none of its 1 names"),
}  # fmt: skip


@pytest.mark.parametrize(("change", "message"), WRONG.values(), ids=WRONG)
def test_a_wrong_checkpoint_is_refused_by_name(change: Callable[[State], State], message: str, tmp_path: Path) -> None:
    torch.save({"model": change(small_state())}, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match=message):
        load_yolov(tmp_path / "w.pth", CLASSES, input_size=SIZE)


def test_classes_and_sizes_that_disagree_are_refused(tmp_path: Path) -> None:
    path = small_checkpoint(tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match="has 3 classes; 2 names were given"):
        load_yolov(path, CLASSES[:2], input_size=SIZE)
    with pytest.raises(CheckpointError, match="network input is 60 x 96; wanted multiples of 32"):
        load_yolov(path, CLASSES, input_size=(60, 96))


def test_the_front_door_of_rdn_says_where_it_belongs(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"YOLOV checkpoint; wanted export/attach_yolov\.py"):
        load_checkpoint(small_checkpoint(tmp_path / "w.pth"))
