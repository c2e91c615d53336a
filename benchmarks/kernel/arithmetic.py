"""What the fused executor has to multiply and add on the CPU, counted: the floor of its way of computing the stage."""

from __future__ import annotations

from rdn_engine.config import Dials, RelationConfig

SPLINES = 16
"""multiply-adds of a pair's geometry and one head: four terms of four coefficients"""


def pair_operations(relation: RelationConfig) -> int:
    """Of one proposal with one support, all heads: score, weighted sum, geometry."""
    return 4 * relation.dim + 2 * SPLINES * relation.heads


def relation_operations(relation: RelationConfig, dials: Dials, num_logits: int) -> float:
    """Floating-point operations, a multiply-add being two, of a frame in the middle of a video.

    With keys and values cached, values projected first and sliding refinement (docs/design.md, section 3). Products and
    the geometry's splines; logarithms, exponentials, divisions and rounding are not counted, nor are the projections
    of the new frame. num_logits: classes and the background.
    """
    n, k, dim = dials.num_reference, dials.num_support, relation.dim
    frames, chosen = 2 * dials.window + 1, dials.num_advanced
    supports, advanced = k * frames, chosen * frames
    pair, square = pair_operations(relation), 2 * dim * dim
    basic = relation.num_basic * n * supports * pair + 2 * max(relation.num_basic - 1, 0) * n * square
    heads = 2 * n * dim * 5 * num_logits
    if not relation.advanced:
        return float(basic + heads)
    # The new frame's rows meet the whole window, the others the frame that came and the one that went.
    refinement = (chosen * supports + (advanced - chosen) * 2 * k) * pair + relation.advanced_fc * advanced * square
    distillation = (bool(relation.num_basic) * n + 2 * advanced) * square + n * advanced * pair
    return float(basic + refinement + distillation + heads)


def projection_operations(relation: RelationConfig, dials: Dials) -> float:
    """The same of the encoder's projections of one frame: the first query of each proposal; keys, values and the query
    of the refinement of those that support.
    """
    square = 2 * relation.dim * relation.dim
    support = 2 * relation.num_cached + relation.advanced
    return float((dials.num_reference + support * dials.num_support) * square)
