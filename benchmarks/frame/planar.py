"""The baseline's relation stage in the layout that suits torch: what care alone is worth, with the same operations.

Geometry is computed plane by plane and weights stay head by head, so that nothing is copied to be turned around.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.frame.baseline import BaselineRelation, relative_positions
from training.model.relation import WAVELENGTHS, RelationModule


def embed(boxes: Tensor, support_boxes: Tensor) -> Tensor:
    """As `baseline.embed`, [1, 64, n, S], stored in this order."""
    p = torch.stack(relative_positions(boxes, support_boxes))
    phase = (100 * p)[:, None] / torch.tensor(WAVELENGTHS, dtype=p.dtype, device=p.device)[:, None, None]
    return torch.cat([phase.sin(), phase.cos()], 1).flatten(0, 1)[None]


def attend(module: RelationModule, x: Tensor, support: Tensor, geometry: Tensor) -> Tensor:
    """As `baseline.attend`. Weights are stored [M, n, S]."""
    heads, head_dim = module.heads, module.head_dim
    query = module.query(x).unflatten(1, (heads, head_dim)).transpose(0, 1)
    key = module.key(support).unflatten(1, (heads, head_dim)).transpose(0, 1)
    affinity = torch.bmm(query, key.transpose(1, 2)) / head_dim**0.5
    gate = F.conv2d(geometry, module.geometry.weight[..., None, None], module.geometry.bias)[0].relu()
    weights = ((gate + 1e-6).log() + affinity).softmax(-1)
    gathered = (weights.flatten(0, 1) @ support).unflatten(0, (heads, -1)).transpose(0, 1).flatten(1)
    value = module.value
    return F.conv2d(gathered[..., None, None], value.weight[..., None, None], value.bias, groups=heads)[..., 0, 0]


class PlanarRelation(BaselineRelation):
    embed = staticmethod(embed)
    attend = staticmethod(attend)
