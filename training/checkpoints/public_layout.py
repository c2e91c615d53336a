"""The layout of the public RDN checkpoints: what its tensors are called, and what their shapes tell of the model."""

from __future__ import annotations

import math
import re
from typing import Any

import torch
from torch import Tensor

from rdn_engine.config import RDNConfig
from rdn_engine.errors import CheckpointError
from training.checkpoints.tensors import State, check_names, some, wanted_shapes

_BOX = "roi_heads.box.feature_extractor"
_CELL_ANCHORS = "rpn.anchor_generator.cell_anchors.0"
_PUBLIC = (
    (r"backbone\.(layer4\..+)", rf"{_BOX}.head.\1"),
    (r"backbone\.(layer[123]\..+)", r"backbone.body.\1"),
    (r"backbone\.((?:conv1|bn1)\..+)", r"backbone.body.stem.\1"),
    (r"rpn\.conv\.(.+)", r"rpn.head.conv.\1"),
    (r"rpn\.objectness\.(.+)", r"rpn.head.cls_logits.\1"),
    (r"rpn\.deltas\.(.+)", r"rpn.head.bbox_pred.\1"),
    (r"roi\.reduce\.(.+)", rf"{_BOX}.conv.\1"),
    (r"roi\.fc\.(.+)", rf"{_BOX}.fcs.0.\1"),
    (r"relation\.rel\.(\d+)\.query\.(.+)", rf"{_BOX}.Wqs.\1.\2"),
    (r"relation\.rel\.(\d+)\.key\.(.+)", rf"{_BOX}.Wks.\1.\2"),
    (r"relation\.rel\.(\d+)\.value\.(.+)", rf"{_BOX}.Wvs.\1.\2"),
    (r"relation\.rel\.(\d+)\.geometry\.(.+)", rf"{_BOX}.Wgs.\1.\2"),
    (r"relation\.classify\.(.+)", r"roi_heads.box.predictor.cls_score.\1"),
    (r"relation\.regress\.(.+)", r"roi_heads.box.predictor.bbox_pred.\1"),
)


def public_name(name: str, num_basic: int) -> str:
    """What the public layout calls one of our tensors.

    Args:
        name: in our state dict.
        num_basic: N_b, the basic modules of the model.

    Returns:
        Its name there.

    Raises:
        CheckpointError: the layout has no place for it.
    """
    # fcs.0 is the RoI FC, then one in front of each basic module but the first, then the refinement's.
    if match := re.fullmatch(r"relation\.basic_fc\.(\d+)\.(.+)", name):
        return f"{_BOX}.fcs.{int(match[1]) + 1}.{match[2]}"
    if match := re.fullmatch(r"relation\.advanced_fc\.(.+)", name):
        return f"{_BOX}.fcs.{max(num_basic, 1)}.{match[1]}"
    for ours, theirs in _PUBLIC:
        if match := re.fullmatch(ours, name):
            return match.expand(theirs)
    raise CheckpointError(f"the public layout has no place for {name!r}")


def from_public(tensors: State, config: RDNConfig, where: str) -> State:
    """The tensors of a public checkpoint under our names.

    Args:
        tensors: by the names of the public layout.
        config: that they are to fit.
        where: the file, for messages.

    Returns:
        A state dict for an RDN of `config`.

    Raises:
        CheckpointError: tensors are missing, unexpected or misshapen, or anchors are others than the configuration's.
    """
    wanted = wanted_shapes(config)
    names = {name: public_name(name, config.relation.num_basic) for name in wanted}
    used = {k: v for k, v in tensors.items() if k != _CELL_ANCHORS and not k.endswith("num_batches_tracked")}
    check_names(set(used), set(names.values()), where)
    anchors, expected = tensors.get(_CELL_ANCHORS), torch.from_numpy(config.rpn.cell_anchors())
    if anchors is not None and not (anchors.shape == expected.shape and torch.equal(anchors.float(), expected)):
        raise CheckpointError(
            f"{where}: {_CELL_ANCHORS} is {anchors.tolist()}; the configuration's anchor_sizes "
            f"{config.rpn.anchor_sizes}, anchor_ratios {config.rpn.anchor_ratios} and stride {config.rpn.stride} make "
            f"{expected.tolist()}"
        )
    state, wrong = {}, []
    for ours, theirs in names.items():
        tensor, shape = used[theirs], wanted[ours]
        # The projections of a relation module are 1x1 convolutions there; Wvs has one group a head, so its rows are
        # already the concatenated heads of one linear map.
        if tensor.shape not in (shape, (*shape, 1, 1)):
            wrong.append(f"{theirs} has {tuple(tensor.shape)}, wanted {shape}")
            continue
        state[ours] = tensor.reshape(shape)
    if wrong:
        raise CheckpointError(f"{where}: {len(wrong)} tensors have another shape: {some(wrong)}")
    return state


def public_config(tensors: State, where: str) -> dict[str, Any]:
    """What the shapes of a public checkpoint tell: architecture, RoI size, relation stage, number of anchors aside."""
    fc, conv = need(tensors, f"{_BOX}.fcs.0.weight", where, 2), tensors.get(f"{_BOX}.conv.weight")
    last = "conv3" if f"{_BOX}.head.layer4.0.conv3.weight" in tensors else "conv2"
    channels = (conv if conv is not None else need(tensors, f"{_BOX}.head.layer4.0.{last}.weight", where, 4)).shape[0]
    size = math.isqrt(fc.shape[-1] // channels)
    if size * size * channels != fc.shape[-1]:
        raise CheckpointError(
            f"{where}: {_BOX}.fcs.0.weight has {tuple(fc.shape)}; wanted columns of {channels} channels times a square"
        )
    # The most of any projection, so that one that is missing is named as such.
    modules, fcs = max(_count(tensors, kind) for kind in ("Wqs", "Wks", "Wvs", "Wgs")), _count(tensors, "fcs")
    num_basic, advanced, advanced_fc = _stages(modules, fcs, where)
    dim = fc.shape[0]
    # Without modules nothing has heads, and any number that divides will do.
    heads = need(tensors, f"{_BOX}.Wgs.0.weight", where, 2).shape[0] if modules else max(dim // 64, 1)
    return {
        "backbone": _backbone(tensors, where),
        "roi": {"size": size, "reduce_channels": None if conv is None else conv.shape[0]},
        "relation": {
            "dim": dim,
            "heads": heads,
            "num_basic": num_basic,
            "advanced": advanced,
            "advanced_fc": advanced_fc,
        },
    }


def _backbone(tensors: State, where: str) -> dict[str, Any]:
    stem = need(tensors, "backbone.body.stem.conv1.weight", where, 4).shape[0]
    second = need(tensors, "backbone.body.layer1.0.conv2.weight", where, 4)
    blocks = len({k.split(".")[3] for k in tensors if k.startswith("backbone.body.layer3.")})
    groups = second.shape[0] // second.shape[1]
    bottleneck = "backbone.body.layer1.0.conv3.weight" in tensors
    if not bottleneck and blocks == 2:
        return {"name": "resnet18", "width": stem / 64}
    names = {(6, 1): "resnet50", (23, 1): "resnet101", (23, 64): "resnext101_64x4d"}
    if not bottleneck or (blocks, groups) not in names:
        raise CheckpointError(
            f"{where}: layer3 of the backbone is {blocks} {'bottleneck' if bottleneck else 'basic'} blocks in {groups} "
            f"groups; known are {sorted(names.values())} and resnet18"
        )
    return {"name": names[blocks, groups]}


def _stages(modules: int, fcs: int, where: str) -> tuple[int, bool, bool]:
    """(N_b, advanced, advanced_fc) of a relation stage, from how many modules and fully connected layers there are.

    Two of each fit both N_b = 2 without and N_b = 0 with the advanced stage: the former is taken.
    """
    for num_basic, advanced, advanced_fc in (
        (modules, False, True),
        (modules - 2, True, True),
        (modules - 2, True, False),
    ):
        if num_basic >= 0 and fcs == max(num_basic, 1) + (advanced and advanced_fc):
            return num_basic, advanced, advanced_fc
    raise CheckpointError(
        f"{where}: {modules} relation modules ({_BOX}.Wqs) and {fcs} fully connected layers (.fcs) fit no relation "
        "stage; wanted N_b + 2 modules and N_b or N_b + 1 layers with the advanced stage, N_b of each without"
    )


def _count(tensors: State, kind: str) -> int:
    """How many consecutive `kind`.0, `kind`.1, .. the RoI head has."""
    i = 0
    while f"{_BOX}.{kind}.{i}.weight" in tensors:
        i += 1
    return i


def need(tensors: State, name: str, where: str, axes: int) -> Tensor:
    """The tensor `name`, which has `axes` axes or more, or CheckpointError."""
    if name not in tensors:
        raise CheckpointError(f"{where}: {name} is missing, without which the architecture cannot be told")
    if tensors[name].ndim < axes or not tensors[name].numel():
        raise CheckpointError(f"{where}: {name} has shape {tuple(tensors[name].shape)}; wanted {axes} axes")
    return tensors[name]
