"""Checkpoints of the small FCOS: safetensors, with what it is made of as JSON in the metadata."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from torch import Tensor

from rdn_engine.config import RDNConfig
from rdn_engine.errors import CheckpointError
from rdn_engine.plain import from_plain, to_plain
from training.checkpoints.files import write_tensors
from training.checkpoints.tensors import State, check, read_tensors
from training.model.fcos import FCOSConfig, SmallFCOS


def save_fcos(path: Path, model: SmallFCOS, *, half: bool = False) -> None:
    """Write the weights; an interrupted call leaves an older file as it was.

    Args:
        path: of the file; its folder is made if need be.
        model: on any device.
        half: stores float16.
    """
    told = {"rdn_config": json.dumps(model.config.to_dict()), "fcos": json.dumps(to_plain(asdict(model.fcos)))}
    write_tensors(path, model.state_dict(), {"format": "rdn_engine", **told}, half=half)


def narrowed(trunk: State, channels: int) -> State:
    """The weights of a ResNet-18 with fewer channels up to conv2: those that the layers behind weigh most are kept.

    Args:
        trunk: its state by the names of `training.model.backbone.Backbone`, with basic blocks.
        channels: to keep; all are, where there are no more.

    Returns:
        The state with those channels, in their order; of the last two stages it is the same tensors.
    """
    behind = [trunk[f"layer2.0.{name}.weight"].abs().sum((0, 2, 3)) for name in ("conv1", "downsample.0")]
    stream = _largest(behind[0] + behind[1], channels)
    # By prefix: which channels its output keeps, and which its input.
    sides: dict[str, tuple[Tensor | None, Tensor | None]] = {"conv1.": (stream, None), "bn1.": (stream, None)}
    sides |= {f"layer2.0.{name}.": (None, stream) for name in ("conv1", "downsample.0")}
    for block in sorted({name.split(".")[1] for name in trunk if name.startswith("layer1.")}):
        start = f"layer1.{block}."
        used = trunk[f"{start}conv2.weight"].abs().sum((0, 2, 3)) * trunk[f"{start}bn1.weight"].abs()
        inner = _largest(used, channels)
        sides |= {f"{start}{name}.": (inner, stream if name == "conv1" else None) for name in ("conv1", "bn1")}
        sides |= {f"{start}{name}.": (stream, inner if name == "conv2" else None) for name in ("conv2", "bn2")}
    found = dict(trunk)
    for name, tensor in trunk.items():
        rows, columns = sides.get(f"{name.rpartition('.')[0]}.", (None, None))
        if rows is not None and tensor.ndim:
            tensor = tensor[rows]
        if columns is not None and tensor.ndim > 1:
            tensor = tensor[:, columns]
        found[name] = tensor.contiguous()
    return found


def _largest(values: Tensor, count: int) -> Tensor:
    return values.topk(min(count, len(values))).indices.sort().values


def load_fcos(path: Path) -> SmallFCOS:
    """Read what `save_fcos` wrote.

    Args:
        path: of the file.

    Returns:
        The detector, in evaluation mode.

    Raises:
        CheckpointError: the file cannot be read, is another model's, or its tensors do not fit.
        ConfigError: what it says of itself is no configuration.
    """
    tensors, metadata, _ = read_tensors(path)
    if "fcos" not in metadata or "rdn_config" not in metadata:
        raise CheckpointError(f"{path} is no checkpoint of a small FCOS; wanted what training with `fcos` writes")
    try:
        config, fcos = (json.loads(metadata[name]) for name in ("rdn_config", "fcos"))
    except ValueError as error:
        raise CheckpointError(f"{path}: the configuration in its metadata is not JSON: {error}") from error
    model = SmallFCOS(RDNConfig.from_dict(config), from_plain(FCOSConfig, fcos, "fcos"))
    state = {k: v.long() if k.endswith("num_batches_tracked") else v.float() for k, v in tensors.items()}
    check(state, {k: tuple(v.shape) for k, v in model.state_dict().items()}, path.name)
    model.load_state_dict(state)
    return model.eval()
