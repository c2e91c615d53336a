"""Checkpoints of the small FCOS: safetensors, with what it is made of as JSON in the metadata."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from rdn_engine.config import RDNConfig
from rdn_engine.errors import CheckpointError
from rdn_engine.plain import from_plain, to_plain
from training.checkpoints.files import write_tensors
from training.checkpoints.tensors import check, read_tensors
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
