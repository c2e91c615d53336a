"""What a run keeps on disk: its state, from which it goes on as if it had not stopped, and the weights it starts from.

A state is written beside the last one and then takes its name: `last.pt` is always whole, `previous.pt` the one before.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from rdn_engine.config import RDNConfig
from rdn_engine.errors import CheckpointError, ConfigError
from training.checkpoints.fcos import narrowed, save_fcos
from training.checkpoints.files import (
    detect_layout,
    load_checkpoint,
    load_torchvision_backbone,
    num_classes,
    save_checkpoint,
)
from training.checkpoints.tensors import State, check, read_tensors, some
from training.model.attached import AttachedRDN
from training.model.fcos import SmallFCOS
from training.model.rdn import RDN
from training.settings import DETECTOR, MAY_CHANGE, Settings, differences

LAST, PREVIOUS = "last.pt", "previous.pt"

_MAY_MISS = ("relation.rel.", "relation.basic_fc.", "relation.advanced_fc.")
_OF_CLASSES = ("relation.classify.", "relation.regress.")


def save_state(output: Path, state: Mapping[str, Any]) -> None:
    """Writes the state of a run as `last.pt`; the one before becomes `previous.pt`.

    Args:
        output: folder of the run.
        state: what `read_state` gives back: tensors and plain values.

    Raises:
        CheckpointError: the disk does not take it; the states written before are then as they were.
    """
    last, part = output / LAST, output / f"{LAST}.part"
    try:
        with part.open("wb") as file:
            torch.save(dict(state), file)
            file.flush()
            os.fsync(file.fileno())
        if last.exists():
            os.replace(last, output / PREVIOUS)
        os.replace(part, last)
    except (OSError, RuntimeError) as error:  # the second: torch's own writer
        part.unlink(missing_ok=True)
        raise CheckpointError(
            f"{last} cannot be written: {str(error).splitlines()[0]}; the states saved before are intact"
        ) from error


def save_model(path: Path, model: RDN | SmallFCOS, *, half: bool = False) -> None:
    """Writes the weights in our own format; a detector that is trained with its relations gets a file of its own.

    Args:
        path: of the safetensors file.
        model: on any device.
        half: stores float16.

    Raises:
        CheckpointError: the disk does not take it; an older file is then as it was.
    """
    try:
        if isinstance(model, SmallFCOS):
            save_fcos(path, model, half=half)
        else:
            save_checkpoint(path, _own(model.state_dict()), model.config, half=half)
            if isinstance(model, AttachedRDN) and model.detector is not None:
                save_fcos(path.with_stem(f"{path.stem}{DETECTOR}"), model.detector, half=half)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} cannot be written: {error}; an older file of this name is intact") from error


def read_state(output: Path, settings: Settings) -> dict[str, Any] | None:
    """The last state of a run.

    Args:
        output: folder of the run.
        settings: those with which the run is to go on.

    Returns:
        What `save_state` wrote, on the CPU; None where there is none.

    Raises:
        CheckpointError: the file is cut off, or no state.
        ConfigError: the state is of a run with other settings.
    """
    path = output / LAST
    if not path.exists():
        path = output / PREVIOUS
    if not path.exists():
        return None
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        theirs = Settings.from_plain(state["settings"])
    except Exception as error:  # bytes that are no state are run as opcodes of the unpickler, and raise anything
        spare = output / PREVIOUS
        then = f"goes on from {spare}" if path != spare and spare.exists() else "starts anew"
        raise CheckpointError(
            f"{path} cannot be read as the state of a run ({type(error).__name__}); delete it, and the run {then}"
        ) from error
    mine, other = ({k: v for k, v in s.to_plain().items() if k not in MAY_CHANGE} for s in (settings, theirs))
    differing = differences(mine, other)
    if differing:
        raise ConfigError(
            f"{path} is of a run with other settings: {some(differing)}; go on with {output / 'config.yaml'}, "
            "or choose another output folder"
        )
    return state


def load_start(model: RDN | SmallFCOS, path: Path) -> list[str]:
    """Takes the weights of an earlier run or of a public checkpoint, or the backbone of a torchvision classifier.

    Args:
        model: which takes them.
        path: of the checkpoint.

    Returns:
        In words, which weights were taken of several, and what stays as initialised: relation modules that the file
        does not hold, and the heads where its classes are others.

    Raises:
        CheckpointError: the file cannot be read, or its tensors do not fit; it says which fields of the configuration
            differ.
        ConfigError: a torchvision backbone would compute something else under this configuration.
    """
    tensors, _, chosen = read_tensors(path)
    if isinstance(model, SmallFCOS):
        return [*chosen, *_start_fcos(model, tensors, path)]
    layout = detect_layout(tensors)
    if layout == "torchvision" and model.config.attached is not None:
        raise CheckpointError(
            f"{path} is a torchvision classifier; a model on a detector has no backbone to begin with it"
        )
    if layout == "torchvision":
        model.backbone.load_state_dict(load_torchvision_backbone(tensors, model.config.backbone))
        return [*chosen, "all but the backbone stays as initialised"]
    found = load_checkpoint(path, _untold(model.config, tensors, path.name) if layout == "public" else None)
    state = _own(model.state_dict())
    fresh = [n for n in state if n not in found.state and n.startswith(_MAY_MISS)]
    taken = dict(found.state)
    attached = model.config.attached
    if attached is not None and attached.map_stride is not None and found.config.attached is None:
        # Its own RoI features have channels outside of cells; those pooled from a detector's map have them inside.
        cells = (-1, found.config.roi.size, found.config.roi.size)
        taken["roi.fc.weight"] = taken["roi.fc.weight"].unflatten(1, cells).permute(0, 2, 3, 1).flatten(1)
    notes = [*chosen, *([f"{len(fresh)} tensors of relation modules stay as initialised"] if fresh else [])]
    if found.config.class_names != model.config.class_names:
        taken = {n: t for n, t in taken.items() if not n.startswith(_OF_CLASSES)}
        notes.append(f"the heads stay as initialised, because its classes are {some(list(found.config.class_names))}")
    wrong = [n for n in state if n not in taken and not n.startswith((*_MAY_MISS, *_OF_CLASSES))]
    wrong += [n for n, t in taken.items() if n in state and t.shape != state[n].shape]
    if wrong:
        raise CheckpointError(
            f"{path} does not fit: it lacks, or has in another shape, {some(wrong)}; its configuration differs in "
            f"{some(_architecture(model.config, found.config)) or 'nothing that it says'}"
        )
    model.load_state_dict(model.state_dict() | {n: t for n, t in taken.items() if n in state})
    return notes


def _own(state: State) -> State:
    """Without the detector that is trained with the relations."""
    return {name: tensor for name, tensor in state.items() if not name.startswith("detector.")}


def _start_fcos(model: SmallFCOS, tensors: State, path: Path) -> list[str]:
    """All weights of another such detector, or the first stages of a backbone."""
    if "head.regression_head.bbox_reg.weight" in tensors:
        check(tensors, {k: tuple(v.shape) for k, v in model.state_dict().items()}, str(path))
        model.load_state_dict(tensors)
        return []
    trunk = model.backbone.trunk
    if detect_layout(tensors) == "torchvision":
        found = load_torchvision_backbone(tensors, model.config.backbone)
    else:
        found = load_checkpoint(path, None).state
        found = {name.removeprefix("backbone."): t for name, t in found.items() if name.startswith("backbone.")}
    found = {name: tensor for name, tensor in found.items() if not name.startswith("layer4.")}
    if model.fcos.stem and "layer2.0.downsample.0.weight" in found:
        found = narrowed(found, model.fcos.stem)
    check(found, {k: tuple(v.shape) for k, v in trunk.state_dict().items()}, str(path))
    trunk.load_state_dict(found)
    return ["all but the first stages of the backbone stays as initialised"]


def _untold(config: RDNConfig, tensors: State, where: str) -> dict[str, Any]:
    """What a public checkpoint does not say of itself: the model's own, but names for as many classes as it has."""
    count = num_classes(tensors, "public", where)
    names = list(config.class_names)
    rpn = config.to_dict()["rpn"]
    return {
        "class_names": names if len(names) == count else [f"class {i}" for i in range(1, count + 1)],
        "rpn": {name: rpn[name] for name in ("anchor_sizes", "anchor_ratios")},
    }


def _architecture(mine: RDNConfig, theirs: RDNConfig) -> list[str]:
    """The fields that decide names and shapes, where they differ."""
    sections = ("backbone", "rpn", "roi", "relation")
    return differences({s: mine.to_dict()[s] for s in sections}, {s: theirs.to_dict()[s] for s in sections})
