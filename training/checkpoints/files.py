"""Checkpoints: our own safetensors, the public RDN layout, torchvision's ImageNet backbones.

What a file holds is told from the names of its tensors; the architecture from their shapes, as far as shapes tell it.
No file is trusted: pickles are read with `weights_only=True`, and every tensor is checked for name, shape and finite
values before a model sees it.
"""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import safetensors.torch
import torch
import yaml
from torch import Tensor

from rdn_engine.config import BackboneConfig, RDNConfig
from rdn_engine.errors import CheckpointError, ConfigError
from rdn_engine.text import read_text
from training.checkpoints.public_layout import from_public, need, public_config, public_name
from training.checkpoints.tensors import State, check, check_finite, read_tensors, some, wanted_shapes
from training.checkpoints.yolov import is_yolov
from training.model.attached import rdn_of
from training.model.backbone import Backbone
from training.model.rdn import RDN

Layout = Literal["rdn_engine", "public", "torchvision"]

TORCHVISION_EPS = 1e-5
"""Of torchvision's BatchNorm; its ImageNet weights mean nothing with another."""


@dataclass(frozen=True)
class Checkpoint:
    """A model's weights, float32 under the names of `training.model.rdn.RDN`, and the configuration they fit."""

    config: RDNConfig
    state: State
    layout: Layout
    notes: tuple[str, ...] = ()
    """What was chosen where the file left a choice, for people"""

    def model(self) -> RDN:
        """The torch model in evaluation mode."""
        with torch.device("meta"):
            model = rdn_of(self.config)
        model.load_state_dict(self.state, assign=True)
        return model.eval()


def save_checkpoint(path: str | Path, state: Mapping[str, Tensor], config: RDNConfig, *, half: bool = False) -> None:
    """Writes our own format: safetensors, with the configuration as JSON in its metadata.

    An interrupted call leaves an older file at `path` as it was.

    Args:
        path: of the file; its folder is made if need be.
        state: the state dict of an RDN.
        config: of the model.
        half: stores float16.

    Raises:
        CheckpointError: `state` does not fit `config`, or a value overflows.
    """
    check(state, wanted_shapes(config), str(path))
    metadata = {"format": "rdn_engine", "rdn_config": json.dumps(config.to_dict())}
    write_tensors(Path(path), state, metadata, half=half)


def write_tensors(path: Path, state: Mapping[str, Tensor], metadata: dict[str, str], *, half: bool = False) -> None:
    """Write a safetensors file; an interrupted call leaves an older one as it was.

    Args:
        path: of the file; its folder is made if need be.
        state: tensors by name, on any device.
        metadata: what the file says beside them.
        half: stores float16.

    Raises:
        CheckpointError: a value is not finite, or overflows.
    """
    dtype = torch.float16 if half else torch.float32
    tensors = {k: (v.to(dtype) if v.is_floating_point() else v).detach().cpu().contiguous() for k, v in state.items()}
    check_finite(tensors, str(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
        part = Path(folder) / "part"
        # One buffer a name, because safetensors refuses tensors that share memory.
        safetensors.torch.save_file({k: v.clone() for k, v in tensors.items()}, part, metadata)
        os.replace(part, path)


def load_checkpoint(path: str | Path, overrides: Mapping[str, Any] | None = None) -> Checkpoint:
    """Reads our own format or the public RDN layout.

    A public checkpoint says nothing about class names, dials or input sizes: those come from `overrides`, else from the
    defaults.

    Args:
        path: of the file.
        overrides: a partial `RDNConfig.to_dict()`, which wins over what the file says or its shapes tell.

    Returns:
        Configuration, tensors by our names, and the layout that the file had.

    Raises:
        CheckpointError: the file cannot be read, or its tensors do not fit (each named, with what was got and what was
            wanted).
        ConfigError: the overrides are no configuration.
    """
    path = Path(path)
    tensors, metadata, notes = read_tensors(path)
    layout = detect_layout(tensors)
    check_finite(tensors, path.name)
    if layout == "torchvision":
        raise CheckpointError(
            f"{path.name} is a torchvision classifier's state dict; it starts training, it detects nothing"
        )
    told = public_config(tensors, path.name) if layout == "public" else _stored_config(metadata, path.name)
    merged = _merge(told, overrides or {})
    if "class_names" not in merged:
        raise CheckpointError(
            f"{path.name} has {num_classes(tensors, layout, path.name)} foreground classes and no names for them; give "
            "class_names in a configuration file (export/configs/public_r101.yaml has the 30 of ImageNet VID)"
        )
    config = RDNConfig.from_dict(merged)
    _check_numbers(tensors, layout, config, path.name)
    state = from_public(tensors, config, path.name) if layout == "public" else tensors
    # Counters are whole numbers, whatever a half-precision writer made of them.
    state = {k: v.long() if k.endswith("num_batches_tracked") else v.float() for k, v in state.items()}
    check(state, wanted_shapes(config), path.name)
    return Checkpoint(config, state, layout, notes)


def load_torchvision_backbone(source: str | Path | Mapping[str, Tensor], config: BackboneConfig) -> State:
    """A torchvision classifier's weights for our backbone; the classifier `fc` is left out.

    Args:
        source: a file, or a state dict.
        config: of the backbone that takes them.

    Returns:
        A state dict for `training.model.backbone.Backbone(config)`.

    Raises:
        CheckpointError: tensors are missing, unexpected or misshapen; it names them.
        ConfigError: `config` would compute something else with them (stride_in_1x1, norm, norm_eps).
    """
    if config.stride_in_1x1 or config.norm == "group" or not math.isclose(config.norm_eps, TORCHVISION_EPS):
        raise ConfigError(
            f"backbone is stride_in_1x1={config.stride_in_1x1}, norm={config.norm!r}, norm_eps={config.norm_eps}; "
            f"torchvision's weights want stride_in_1x1=False, norm='frozen' or 'batch', norm_eps={TORCHVISION_EPS}"
        )
    where = "torchvision state dict" if isinstance(source, Mapping) else Path(source).name
    tensors = dict(source) if isinstance(source, Mapping) else read_tensors(Path(source)).tensors
    with torch.device("meta"):
        wanted = {k: tuple(v.shape) for k, v in Backbone(config).state_dict().items()}
    state = {k: v for k, v in tensors.items() if not k.startswith("fc.")}
    if config.norm == "frozen":
        state = {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}
    check(state, wanted, where)
    return state


def detect_layout(names: Mapping[str, Any]) -> Layout:
    """Whose names these are.

    Args:
        names: of the tensors of a checkpoint; what they map to is not looked at.

    Returns:
        The layout.

    Raises:
        CheckpointError: they are nobody's; it quotes some of them.
    """
    if any(n.startswith(("backbone.body.", "roi_heads.box.")) for n in names):
        return "public"
    if "backbone.conv1.weight" in names or "relation.classify.weight" in names:
        return "rdn_engine"
    if "conv1.weight" in names and "layer1.0.conv1.weight" in names:
        return "torchvision"
    if is_yolov(names):
        raise CheckpointError(
            f"these {len(names)} names are those of a YOLOV checkpoint; wanted export/attach_yolov.py for it"
        )
    raise CheckpointError(
        f"no layout known here has these {len(names)} names: {some(sorted(names))}; wanted our own "
        "(backbone.conv1.weight, ..), the public RDN layout (backbone.body.stem.conv1.weight, ..) or torchvision's "
        "(conv1.weight, layer1.0.conv1.weight, ..)"
    )


def read_config(path: str | Path) -> dict[str, Any]:
    """A partial configuration.

    Args:
        path: of a YAML file.

    Returns:
        A partial `RDNConfig.to_dict()`; what is in it has not been checked.

    Raises:
        ConfigError: the file cannot be read, or holds no mapping.
    """
    try:
        data = yaml.safe_load(read_text(Path(path)))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path} cannot be read as YAML: {error}") from error
    if not isinstance(data, dict):
        raise ConfigError(f"{path} holds {data!r}; wanted a mapping of configuration sections")
    return data


def _stored_config(metadata: Mapping[str, str], where: str) -> Mapping[str, Any]:
    if "rdn_config" not in metadata:
        return {}
    try:
        config = json.loads(metadata["rdn_config"])
    except ValueError as error:
        raise CheckpointError(f"{where}: the configuration in its metadata is not JSON: {error}") from error
    if not isinstance(config, dict):
        raise CheckpointError(f"{where}: the configuration in its metadata is {config!r}; wanted a mapping")
    return config


def _merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = _merge(merged[key], value) if both else value
    return merged


def _check_numbers(tensors: State, layout: Layout, config: RDNConfig, where: str) -> None:
    """Classes and anchors are what a user says, so a number that is not the file's is told by their fields."""
    rpn, wrong = config.rpn, []
    classes = _outputs(tensors, "relation.classify", layout)
    if classes is not None and classes != config.num_logits:
        wrong.append(f"has {classes - 1} foreground classes; class_names has {config.num_logits - 1}")
    anchors = _outputs(tensors, "rpn.objectness", layout)
    if anchors is not None and anchors != rpn.num_anchors:
        made = f"rpn.anchor_sizes {rpn.anchor_sizes} times rpn.anchor_ratios {rpn.anchor_ratios} make {rpn.num_anchors}"
        wrong.append(f"has {anchors} anchors a cell; {made}")
    if wrong:
        raise CheckpointError(f"{where} {' and '.join(wrong)}")


def _outputs(tensors: State, layer: str, layout: Layout) -> int | None:
    """How many outputs a layer has; None where its two tensors do not say the same, which is another fault."""
    names = [f"{layer}.{part}" for part in ("weight", "bias")]
    if layout == "public":
        names = [public_name(name, 0) for name in names]
    found = {tuple(tensors[name].shape[:1]) for name in names if name in tensors}
    return found.pop()[0] if len(found) == 1 and () not in found else None


def num_classes(tensors: State, layout: Layout, where: str) -> int:
    """How many foreground classes the heads of a checkpoint have; CheckpointError where it has none."""
    name = "relation.classify.bias" if layout == "rdn_engine" else public_name("relation.classify.bias", 0)
    return need(tensors, name, where, 1).shape[0] - 1
