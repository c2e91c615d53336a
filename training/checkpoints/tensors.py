"""Tensors by name: read from a file without running it, and checked against the names and shapes that a model has."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import safetensors
import torch
from torch import Tensor

from rdn_engine.config import RDNConfig
from rdn_engine.errors import CheckpointError
from rdn_engine.text import what_came_instead
from training.model.attached import rdn_of

State = dict[str, Tensor]

_WRAPPERS = ("model", "state_dict", "model_state_dict", "ema", "model_ema", "state_dict_ema", "ema_state_dict")
"""Keys under which training scripts put the tensors, next to an optimiser's state and the like; the first one that is
there is taken, so an average of the weights only where they themselves are not."""

_OWN = {"backbone", "rpn", "roi", "roi_heads", "relation"}
"""Parts of a model, and so no prefix of all its names."""

_SHOWN = 12  # names in one error message


class TensorFile(NamedTuple):
    """What a file holds."""

    tensors: State
    """By name, on the CPU, without a prefix that all names have in common"""
    metadata: dict[str, str]
    """Of a safetensors file"""
    notes: tuple[str, ...]
    """What was chosen, for people: which of several sets of weights"""


def read_tensors(path: Path) -> TensorFile:
    """The tensors of a safetensors or torch file, told apart by their first bytes, not by the name.

    Args:
        path: of the file; a torch file is read as plain tensors, no code in it runs.

    Returns:
        Tensors, metadata, and what was chosen.

    Raises:
        CheckpointError: the file cannot be read, or holds something else than tensors by name.
    """
    try:
        with path.open("rb") as file:
            head = file.read(64)
            instead = what_came_instead(head)
            if instead is not None:
                raise CheckpointError(f"{path} cannot be read as plain tensors: it is {instead}")
            if not _is_safetensors(path, head):
                file.seek(0)
                # The open file, because of a path torch believes the suffix.
                return _unwrapped(torch.load(file, map_location="cpu", weights_only=True), path.name)
        with safetensors.safe_open(path, "pt") as archive:
            tensors = {name: archive.get_tensor(name) for name in archive.keys()}  # noqa: SIM118
            return TensorFile(_unprefixed(tensors), archive.metadata() or {}, ())
    except CheckpointError:
        raise
    except Exception as error:
        # Any: bytes that are no checkpoint are run as opcodes of the unpickler, and it raises what they lead it to
        # (KeyError for the text "hello world").
        raise CheckpointError(f"{path} cannot be read as plain tensors: {_reason(error)}") from error


def _is_safetensors(path: Path, head: bytes) -> bool:
    """Eight bytes of the header's length, and then JSON. What torch writes is a zip archive, and was a pickle."""
    if head.startswith((b"PK\x03\x04", b"\x80")) and head[8:9] != b"{":
        return False
    return head[8:9] == b"{" or path.suffix == ".safetensors"


def _unwrapped(data: Any, where: str) -> TensorFile:
    """The tensors in what torch.load gave."""
    taken = next((key for key in _WRAPPERS if isinstance(data, dict) and isinstance(data.get(key), dict)), None)
    inner = data if taken is None else data[taken]
    if not _are_tensors(inner):
        found = (
            some([f"{k}: {type(v).__name__}" for k, v in inner.items()])
            if isinstance(inner, dict)
            else type(inner).__name__
        )
        keys = " or ".join(map(repr, _WRAPPERS))
        raise CheckpointError(
            f"{where} holds {found or 'nothing'}; wanted tensors by name, or those under the key {keys}"
        )
    tensors = _unprefixed(inner)
    if taken is None:
        return TensorFile(tensors, {}, ())
    others = [k for k, v in data.items() if k != taken and _are_tensors(v) and _unprefixed(v).keys() == tensors.keys()]
    notes = [f"holds weights under {', '.join(map(repr, [taken, *others]))}: took those of {taken!r}"] if others else []
    return TensorFile(tensors, {}, tuple(notes))


def _are_tensors(data: object) -> bool:
    return isinstance(data, dict) and bool(data) and all(isinstance(value, Tensor) for value in data.values())


def _unprefixed(tensors: Mapping[str, Tensor]) -> State:
    """Without what wrappers put in front of every name (DataParallel `module.`, torch.compile `_orig_mod.`, trainers
    `model.`), in any order and number; nor what torch's AveragedModel puts beside them.
    """
    state = {str(name): tensor for name, tensor in tensors.items() if name != "n_averaged"}
    while state and len(first := {name.partition(".")[0] for name in state}) == 1 and not first & _OWN:
        if any(name.count(".") < 2 for name in state):  # a layer of its own, not a prefix
            break
        state = {name.partition(".")[2]: tensor for name, tensor in state.items()}
    return state


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
        return {k: tuple(v.shape) for k, v in rdn_of(config).state_dict().items()}


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
