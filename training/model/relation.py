"""Relation modules and the stages built from them (paper, eq. 1 to 7; DESIGN section 2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rdn_engine.config import RelationConfig

WAVELENGTHS = tuple(1000 ** (k / 8) for k in range(8))
LEAST_OFFSET = 1e-3
"""Added to |dx| / w and |dy| / h, so that concentric boxes have a logarithm."""
LEAST_GEOMETRY = 1e-6
"""Added to relu(Wg.E + b), so that a pair which it shuts out has a logarithm."""


def embed(boxes: Tensor, support_boxes: Tensor) -> Tensor:
    """Relative geometry E of all pairs (paper, eq. 3).

    Args:
        boxes: [n, 4] in network-input pixels.
        support_boxes: [S, 4] in network-input pixels.

    Returns:
        [n, S, 64].
    """
    x1, y1, x2, y2 = boxes[:, None].unbind(-1)
    u1, v1, u2, v2 = support_boxes[None].unbind(-1)
    w, h = x2 - x1 + 1, y2 - y1 + 1
    p = torch.stack(
        [
            ((0.5 * ((x1 + x2) - (u1 + u2))).abs() / w + LEAST_OFFSET).log(),
            ((0.5 * ((y1 + y2) - (v1 + v2))).abs() / h + LEAST_OFFSET).log(),
            (w / (u2 - u1 + 1)).log(),
            (h / (v2 - v1 + 1)).log(),
        ],
        -1,
    )
    # In this order: the public checkpoints' phases are rounded twice, and that rounding shows (DESIGN, conditioning).
    phase = (100 * p)[..., None] / torch.tensor(WAVELENGTHS, dtype=p.dtype, device=p.device)
    return torch.cat([phase.sin(), phase.cos()], -1).flatten(-2)


class RelationModule(nn.Module):
    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads, self.head_dim = heads, dim // heads
        self.query = nn.Linear(dim, dim)
        self.key = nn.Linear(dim, dim)
        self.value = nn.Linear(dim, dim)
        self.geometry = nn.Linear(64, heads)
        for linear in (self.query, self.key):
            nn.init.xavier_uniform_(linear.weight)
        # A module begins by adding nothing, so that it does not upset what single frames have taught.
        nn.init.zeros_(self.value.weight)
        for linear in (self.query, self.key, self.value):
            nn.init.zeros_(linear.bias)
        # Where Wg.E + b is negative a pair gets no gradient and almost no weight: start with all pairs equal.
        nn.init.normal_(self.geometry.weight, std=0.01)
        nn.init.ones_(self.geometry.bias)

    def project(self, support: Tensor) -> tuple[Tensor, Tensor]:
        """What depends on the supports alone.

        Args:
            support: [S, D] features.

        Returns:
            Keys and values, each [S, D]; the values are without their bias, which `attend` adds.
        """
        return self.key(support), F.linear(support, self.value.weight)

    def attend(
        self,
        query: Tensor,
        boxes: Tensor,
        keys: Tensor,
        values: Tensor,
        support_boxes: Tensor,
        log_multiplicity: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """What the supports add to each query row; the residual is not in it.

        Args:
            query: [n, D] projected.
            boxes: [n, 4] of the query rows, network-input pixels.
            keys: [S, D] of `project`.
            values: [S, D] of `project`.
            support_boxes: [S, 4] in network-input pixels.
            log_multiplicity: [S] logarithm of how often each support counts; once by default.

        Returns:
            rel [n, D] and the attention weights [M, n, S], which sum to 1 over the supports.
        """
        q, k, v = (t.unflatten(1, (self.heads, self.head_dim)).transpose(0, 1) for t in (query, keys, values))
        geometry = self.geometry(embed(boxes, support_boxes)).permute(2, 0, 1)
        logits = q @ k.transpose(1, 2) * self.head_dim**-0.5 + (geometry.relu() + LEAST_GEOMETRY).log()
        if log_multiplicity is not None:
            logits = logits + log_multiplicity
        weights = logits.softmax(-1)
        return (weights @ v).transpose(0, 1).flatten(1) + self.value.bias, weights


@dataclass
class Advanced:
    """The support proposals that the refinement takes."""

    boxes: Tensor
    """[A, 4]"""
    features: Tensor
    """[A, D]"""
    query: Tensor
    """[A, D] of the refinement"""
    log_multiplicity: Tensor | None = None
    """[A]"""


@dataclass
class RelationResult:
    logits: Tensor
    """[n, C + 1]"""
    deltas: Tensor
    """[n, 4 (C + 1)]"""
    omega: Tensor | None
    """[n, S] head-averaged weights of the last basic module"""
    stages: dict[str, Tensor] = field(default_factory=dict)
    """`rel{i}` after module i with its residual; `refined` after the FC of the refinement"""


class RelationStage(nn.Module):
    """Basic modules, refinement, distillation and the two heads.

    `rel` holds the N_b basic modules, then the refinement and the distillation; `basic_fc[i]` stands in front of
    basic module i + 1.
    """

    def __init__(self, config: RelationConfig, num_logits: int) -> None:
        super().__init__()
        self.config = config
        dim, n_b = config.dim, config.num_basic
        # To the type checker a ModuleList holds bare Modules; these are sequences of one type each.
        rel = nn.ModuleList(RelationModule(dim, config.heads) for _ in range(config.num_modules))
        basic_fc = nn.ModuleList(nn.Linear(dim, dim) for _ in range(n_b - 1))
        self.rel, self.basic_fc = cast(Sequence[RelationModule], rel), cast(Sequence[nn.Linear], basic_fc)
        self.advanced_fc = nn.Linear(dim, dim) if config.advanced and config.advanced_fc else None
        self.classify = nn.Linear(dim, num_logits)
        self.regress = nn.Linear(dim, 4 * num_logits)
        for fc in [*self.basic_fc, self.advanced_fc]:
            if fc is not None:
                nn.init.eye_(fc.weight)  # of what is not negative: it begins by changing nothing
                nn.init.zeros_(fc.bias)
        nn.init.normal_(self.classify.weight, std=0.01)
        nn.init.normal_(self.regress.weight, std=0.001)
        nn.init.zeros_(self.classify.bias)
        nn.init.zeros_(self.regress.bias)

    def first_query(self, x: Tensor) -> Tensor:
        """Query of the first module that takes the reference: rel_0, or the distillation without basic modules.

        Args:
            x: [n, D] features.

        Returns:
            [n, D].
        """
        query: Tensor = self.rel[0 if self.config.num_basic else 1].query(x)
        return query

    def project(self, support: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """What depends on the supports alone, which a stream keeps.

        Args:
            support: [S, D] features.

        Returns:
            Keys and values, each [P, S, D] of the P modules that attend to supports, and the query of the refinement
            [S, D], None without an advanced stage.
        """
        pairs = [self.rel[i].project(support) for i in range(self.config.num_cached)]
        keys, values = (torch.stack(t) for t in zip(*pairs, strict=True))
        return keys, values, self.rel[self.config.num_basic].query(support) if self.config.advanced else None

    def attend(
        self,
        x: Tensor,
        query: Tensor,
        boxes: Tensor,
        keys: Tensor,
        values: Tensor,
        support_boxes: Tensor,
        log_multiplicity: Tensor | None,
        advanced: Advanced | None,
    ) -> RelationResult:
        """The stage from cached projections.

        Args:
            x: [n, D] features of the reference proposals.
            query: [n, D] of `first_query`.
            boxes: [n, 4] reference proposals in network-input pixels.
            keys: [P, S, D] of `project`.
            values: [P, S, D] of `project`.
            support_boxes: [S, 4] in network-input pixels.
            log_multiplicity: [S] logarithm of how often each support counts; None counts each once.
            advanced: what the refinement takes; None leaves the advanced stage out.

        Returns:
            Logits and deltas of the n proposals, and what lies between.
        """
        n_b = self.config.num_basic
        stages: dict[str, Tensor] = {}
        omega = None
        for i in range(n_b):
            if i:
                x = self.basic_fc[i - 1](x).relu()
                query = self.rel[i].query(x)
            out, weights = self.rel[i].attend(query, boxes, keys[i], values[i], support_boxes, log_multiplicity)
            x = stages[f"rel{i}"] = x + out
            if i == n_b - 1:
                omega = weights.mean(0)
        if advanced is not None:
            refined = self._refine(advanced, keys[n_b], values[n_b], support_boxes, log_multiplicity, stages)
            distil = self.rel[n_b + 1]
            k, v = distil.project(refined)
            if n_b:
                query = distil.query(x)
            out, _ = distil.attend(query, boxes, k, v, advanced.boxes, advanced.log_multiplicity)
            x = stages[f"rel{n_b + 1}"] = x + out
        return RelationResult(self.classify(x), self.regress(x), omega, stages)

    def _refine(
        self,
        advanced: Advanced,
        keys: Tensor,
        values: Tensor,
        support_boxes: Tensor,
        log_multiplicity: Tensor | None,
        stages: dict[str, Tensor],
    ) -> Tensor:
        n_b = self.config.num_basic
        out, _ = self.rel[n_b].attend(advanced.query, advanced.boxes, keys, values, support_boxes, log_multiplicity)
        a = stages[f"rel{n_b}"] = advanced.features + out
        if self.advanced_fc is not None:
            a = stages["refined"] = self.advanced_fc(a).relu()
        return a

    def forward(
        self, x: Tensor, boxes: Tensor, support: Tensor, support_boxes: Tensor, advanced: Tensor | None = None
    ) -> RelationResult:
        """The stage from features.

        Args:
            x: [n, D] features of the reference proposals.
            boxes: [n, 4] reference proposals in network-input pixels.
            support: [S, D] features of the support proposals.
            support_boxes: [S, 4] in network-input pixels.
            advanced: [A] rows of `support` that the refinement takes. None leaves the advanced stage out; the heads
                then stand on the basic stage (training, phase one).

        Returns:
            Logits and deltas of the n proposals, and what lies between.
        """
        if not self.config.num_modules:
            return RelationResult(self.classify(x), self.regress(x), None)
        keys, values, refine_query = self.project(support)
        chosen = None
        if advanced is not None and refine_query is not None:
            chosen = Advanced(support_boxes[advanced], support[advanced], refine_query[advanced])
        return self.attend(x, self.first_query(x), boxes, keys, values, support_boxes, None, chosen)
