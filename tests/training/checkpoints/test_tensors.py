"""What a file of tensors is told by, what is unwrapped, and what no checkpoint is refused with."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from rdn_engine.errors import CheckpointError
from tests.checkpoint_files import as_public, equal, overrides, state_of, tiny
from training.checkpoints.files import load_checkpoint
from training.checkpoints.tensors import read_tensors
from training.model.rdn import RDN

torch.set_num_threads(1)


@pytest.mark.parametrize("prefix", ["", "module.", "module.module.", "_orig_mod.module.", "model.", "net.detector."])
@pytest.mark.parametrize("key", ["model", "state_dict", "model_state_dict", "ema", None])
def test_public_files_come_wrapped_and_prefixed(tmp_path: Path, prefix: str, key: str | None) -> None:
    state = {prefix + k: v for k, v in as_public(tiny()).items()}
    torch.save({key: state, "iteration": 7} if key else state, tmp_path / "w.pth")
    loaded = load_checkpoint(tmp_path / "w.pth", overrides(tiny()))
    assert loaded.config == tiny()
    assert equal(loaded.state, state_of(tiny()))


def test_safetensors_lose_their_prefix_too(tmp_path: Path) -> None:
    state = {f"module.{k}": v.contiguous() for k, v in as_public(tiny()).items()}
    safetensors.torch.save_file(state, tmp_path / "w.safetensors")
    assert equal(load_checkpoint(tmp_path / "w.safetensors", overrides(tiny())).state, state_of(tiny()))


def test_what_else_a_pickle_holds_is_named(tmp_path: Path) -> None:
    (tmp_path / "w.pth").write_bytes(pickle.dumps({"model": _Bomb()}, protocol=2))
    with pytest.raises(CheckpointError, match=r"it holds [\w.]+, which is no tensor"):
        load_checkpoint(tmp_path / "w.pth")


class _Bomb:
    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return (Path.touch, (Path("bomb-went-off"),))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("w.pth", b""),
        ("w.pth", b"not a checkpoint"),
        ("w.pth", b"hello world"),
        ("w.pth", pickle.dumps({"model": _Bomb()}, protocol=2)),
        ("w.safetensors", b"\x08\0\0\0\0\0\0\0garbage!"),
        ("w.safetensors", b""),
    ],
)
def test_no_file_is_run_or_crashes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, content: bytes) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CheckpointError, match="cannot be read as plain tensors") as caught:
        load_checkpoint(tmp_path / name)
    assert "weights_only" not in str(caught.value), "torch's advice is to run the file"
    assert "trust" not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert [p.name for p in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"model": {"a": 1}}, "holds a: int; wanted tensors by name"),
        ([torch.ones(1)], "holds list; wanted tensors by name"),
        ({}, "holds nothing; wanted tensors by name"),
        ({"a": torch.ones(1)}, "no layout known here has these 1 names: a;"),
        ({"conv1.weight": torch.ones(1), "layer1.0.conv1.weight": torch.ones(1)}, "torchvision classifier"),
    ],
)
def test_other_contents_are_described(tmp_path: Path, content: object, message: str) -> None:
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(tmp_path / "w.pth")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"nowhere\.pth cannot be read"):
        load_checkpoint(tmp_path / "nowhere.pth")


def test_names_of_a_model_are_no_prefix(tmp_path: Path) -> None:
    """Nor is a layer's name where there is but one layer."""
    for names in (["backbone.layer1.weight", "backbone.layer1.bias"], ["conv1.weight", "conv1.bias"]):
        torch.save({name: torch.ones(1) for name in names}, tmp_path / "w.pth")
        assert list(read_tensors(tmp_path / "w.pth").tensors) == names


@pytest.mark.parametrize("wrap", ["DataParallel", "compile", "AveragedModel"])
def test_what_torch_wraps_is_unwrapped(tmp_path: Path, wrap: str) -> None:
    model = RDN(tiny())
    wrapped = {
        "DataParallel": torch.nn.DataParallel,
        "compile": torch.compile,
        "AveragedModel": torch.optim.swa_utils.AveragedModel,
    }[wrap](model)
    torch.save(wrapped.state_dict(), tmp_path / "w.pth")
    assert equal(read_tensors(tmp_path / "w.pth").tensors, model.state_dict())


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("first", ["model", "ema"])
def test_of_two_sets_of_weights_it_says_which_was_taken(tmp_path: Path, prefix: str, first: str) -> None:
    ours = as_public(tiny())
    average = {prefix + name: torch.zeros_like(tensor) for name, tensor in ours.items()}
    other = {"model": "ema", "ema": "model"}[first]
    held = {"model": ours, "ema": average}
    optimizer = {"state": {}, "param_groups": [{"lr": 0.1}]}
    torch.save({first: held[first], other: held[other], "optimizer": optimizer, "epoch": 3}, tmp_path / "w.pth")
    loaded = load_checkpoint(tmp_path / "w.pth", overrides(tiny()))
    assert loaded.notes == ("holds weights under 'model', 'ema': took those of 'model'",)
    assert equal(loaded.state, state_of(tiny()))
    torch.save({"model": ours, "optimizer": optimizer}, tmp_path / "w.pth")
    assert load_checkpoint(tmp_path / "w.pth", overrides(tiny())).notes == ()


@pytest.mark.parametrize("name", ["w.pth", "w.bin", "w.safetensors"])
@pytest.mark.parametrize("written", ["torch", "torch before 1.6", "safetensors"])
def test_a_file_is_what_its_bytes_are_not_its_name(tmp_path: Path, name: str, written: str) -> None:
    state = {k: v.contiguous() for k, v in as_public(tiny()).items()}
    if written == "safetensors":
        safetensors.torch.save_file(state, tmp_path / name)
    else:
        torch.save(state, tmp_path / name, _use_new_zipfile_serialization=written == "torch")
    assert equal(load_checkpoint(tmp_path / name, overrides(tiny())).state, state_of(tiny()))


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"4d7a" * 16 + b"\nsize 259214342\n"


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (POINTER, "it is a Git LFS pointer, not the file that it stands for; fetch that with `git lfs pull`"),
        (b"<!DOCTYPE html><html><title>Virus scan warning</title></html>", "it is an HTML page, .*; download it again"),
        (b"\xef\xbb\xbf\r\n<HTML>Sign in</HTML>", "it is an HTML page"),
        (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "it is an XML document"),
        (b'{"error": "Repository not found"}', "it is JSON"),
        (b"", "it is empty"),
    ],
)
def test_what_came_instead_of_a_checkpoint_is_recognised(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(tmp_path / name)
