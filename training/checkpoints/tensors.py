"""Tensors by name: read from a file without running it, and checked against the names and shapes that a model has."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import safetensors
import torch
from torch import Tensor

from rdn_engine.config import RDNConfig
from rdn_engine.errors import CheckpointError
from training.model.rdn import RDN

State = dict[str, Tensor]

_WRAPPERS = ("model", "state_dict")
"""Keys under which training scripts put the tensors, next to an optimiser's state and the like."""

_SHOWN = 12  # names in one error message


def read_tensors(path: Path) -> tuple[State, dict[str, str]]:
    """The tensors of a safetensors or torch file.

    Args:
        path: of the file; a torch file is read as plain tensors, no code in it runs.

    Returns:
        Tensors by name, on the CPU, without a `module.` prefix, and the metadata of a safetensors.

    Raises:
        CheckpointError: the file cannot be read, or holds something else than tensors by name.
    """
    try:
        if path.suffix == ".safetensors":
            with safetensors.safe_open(path, "pt") as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
                return _unprefixed(tensors), file.metadata() or {}
        data = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        # Any: bytes that are no checkpoint are run as opcodes of the unpickler, and it raises what they lead it to
        # (KeyError for the text "hello world").
        raise CheckpointError(f"{path} cannot be read as plain tensors: {_reason(error)}") from error
    if isinstance(data, dict):
        data = next((data[key] for key in _WRAPPERS if isinstance(data.get(key), dict)), data)
    if not isinstance(data, dict) or not data or not all(isinstance(v, Tensor) for v in data.values()):
        found = (
            some([f"{k}: {type(v).__name__}" for k, v in data.items()])
            if isinstance(data, dict)
            else type(data).__name__
        )
        raise CheckpointError(
            f"{path.name} holds {found or 'nothing'}; wanted tensors by name, or those under the key 'model' "
            "or 'state_dict'"
        )
    return _unprefixed(data), {}


def _unprefixed(tensors: Mapping[str, Tensor]) -> State:
    """Without what DataParallel puts in front of every name."""
    return {str(name).removeprefix("module."): tensor for name, tensor in tensors.items()}


def _reason(error: Exception) -> str:
    """Why a file was not read. Not in torch's words, which advise to load the file with weights_only=False."""
    if isinstance(error, (OSError, safetensors.SafetensorError)):
        return (str(error).strip().splitlines() or [type(error).__name__])[0]
    named = re.search(r"GLOBAL ([\w.]+)", str(error))
    if named:
        return f"it holds {named[1]}, which is no tensor; wanted tensors in plain dicts and lists"
    return f"its bytes are not what torch.save writes, or it holds more than tensors ({type(error).__name__})"


def wanted_shapes(config: RDNConfig) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        return {k: tuple(v.shape) for k, v in RDN(config).state_dict().items()}


def check(state: Mapping[str, Tensor], wanted: Mapping[str, tuple[int, ...]], where: str) -> None:
    """Checks names, shapes and finite values, in this order; the first kind of fault found is the one reported.

    Args:
        state: tensors by name.
        wanted: shapes by name.
        where: the file, for messages.

    Raises:
        CheckpointError: names all tensors with that fault.
    """
    check_names(set(state), set(wanted), where)
    wrong = [
        f"{k} has {tuple(state[k].shape)}, wanted {shape}" for k, shape in wanted.items() if state[k].shape != shape
    ]
    if wrong:
        raise CheckpointError(f"{where}: {len(wrong)} tensors have another shape: {some(wrong)}")
    check_finite(state, where)


def check_finite(state: Mapping[str, Tensor], where: str) -> None:
    bad = [k for k, v in state.items() if v.is_floating_point() and not v.isfinite().all()]
    if bad:
        raise CheckpointError(f"{where}: {len(bad)} tensors hold NaN or infinite values: {some(bad)}")


def check_names(got: set[str], wanted: set[str], where: str) -> None:
    missing, unexpected = sorted(wanted - got), sorted(got - wanted)
    if missing or unexpected:
        raise CheckpointError(
            f"{where} does not fit the model: {len(missing)} of {len(wanted)} tensors are missing"
            f"{': ' + some(missing) if missing else ''}; {len(unexpected)} are unexpected"
            f"{': ' + some(unexpected) if unexpected else ''}"
        )


def some(names: list[str]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
