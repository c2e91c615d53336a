"""A tiny model's checkpoint, in our own names and in those of the public layout."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from benchmarks.frame.models import draw_relation
from rdn_engine.config import BackboneConfig, RDNConfig, RelationConfig, RoIConfig, RPNConfig
from training.checkpoints.public_layout import public_name
from training.model.rdn import RDN

State = dict[str, Tensor]


def tiny(**relation: Any) -> RDNConfig:
    return RDNConfig(
        class_names=("cat", "dog"),
        backbone=BackboneConfig("resnet18", width=0.25),
        rpn=RPNConfig(anchor_sizes=(32, 64)),
        roi=RoIConfig(size=3, reduce_channels=16),
        relation=RelationConfig(**{"dim": 64, "heads": 4, **relation}),
    )


def state_of(config: RDNConfig) -> State:
    torch.manual_seed(0)
    model = RDN(config)
    draw_relation(model.relation)
    return model.state_dict()


def as_public(config: RDNConfig) -> State:
    """The same weights as a public checkpoint holds them: 1x1 convolutions for the relation modules, anchors."""
    state = {}
    for name, tensor in state_of(config).items():
        shape = (*tensor.shape, 1, 1) if ".value.weight" in name or ".geometry.weight" in name else tensor.shape
        state[public_name(name, config.relation.num_basic)] = tensor.reshape(shape)
    state["rpn.anchor_generator.cell_anchors.0"] = torch.from_numpy(config.rpn.cell_anchors())
    return state


def overrides(config: RDNConfig) -> dict[str, Any]:
    """What a public checkpoint of `config` cannot tell."""
    return {"class_names": list(config.class_names), "rpn": {"anchor_sizes": list(config.rpn.anchor_sizes)}}


def equal(a: State, b: State) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)
