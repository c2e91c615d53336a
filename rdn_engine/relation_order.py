"""The order of the relation stage: which module asks which. Written once, for whatever computes it.

DESIGN section 2, Stages. x, queries, keys and values are arrays of a machine, or the names of a graph's tensors.
"""

from __future__ import annotations

from typing import Protocol, TypeVar

from rdn_engine.config import RelationConfig

X = TypeVar("X")


class RelationSteps(Protocol[X]):
    """What computes the stage for one reference frame. Weights go by their names in relation.npz."""

    def linear(self, name: str, x: X, *, relu: bool = False, bias: bool = True) -> X:
        """x W^T + b with the weights called `name`, `relu` of it; without b where `bias` is False."""
        ...

    def attend(self, module: int, x: X, query: X, *, last: bool) -> X:
        """x + rel_module(x, S) over the cached keys and values of the window; `last`: of the basic modules, whose
        weights link boxes.
        """
        ...

    def refine(self, module: int) -> X:
        """s_A + rel_module(s_A, S) of the advanced support proposals."""
        ...

    def distil(self, module: int, x: X, query: X, *, keys: X, values: X) -> X:
        """x + rel_module(x, a) over the refined proposals a, given by their keys and values."""
        ...


def run_relation(relation: RelationConfig, steps: RelationSteps[X], features: X, query: X) -> tuple[X, X]:
    """The relation stage of one reference frame.

    Args:
        relation: which modules there are.
        steps: computes each.
        features: [n, D] of the reference proposals, as encoded.
        query: [n, D] of the first module, as encoded.

    Returns:
        Class logits [n, C + 1] and deltas [n, 4 (C + 1)].
    """
    x = features
    for module in range(relation.num_basic):
        if module:
            x = steps.linear(f"basic_fc.{module - 1}", x, relu=True)
            query = steps.linear(f"rel.{module}.query", x)
        x = steps.attend(module, x, query, last=module == relation.num_basic - 1)
    if relation.advanced:
        refinement, distillation = relation.num_basic, relation.num_basic + 1
        a = steps.refine(refinement)
        if relation.advanced_fc:
            a = steps.linear("advanced_fc", a, relu=True)
        # Without a basic module the encoder's query is already the distillation's.
        if relation.num_basic:
            query = steps.linear(f"rel.{distillation}.query", x)
        # The bias of keys adds the same to every logit of a row, so the softmax does not see it; that of values is
        # added after the softmax, by the attention.
        keys, values = (steps.linear(f"rel.{distillation}.{part}", a, bias=False) for part in ("key", "value"))
        x = steps.distil(distillation, x, query, keys=keys, values=values)
    return steps.linear("classify", x), steps.linear("regress", x)
