"""The relation module and stage in float64: the definition (DESIGN section 2), short and slow.

Boxes are xyxy in network-input pixels; n query rows, S supports, M heads, D channels.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rdn_engine.config import RelationConfig

Array = NDArray[Any]
Double = NDArray[np.float64]


def embedding(box_i: Array, box_j: Array) -> Double:
    """E of two boxes, or of arrays of boxes [..., 4] that broadcast -> [..., 64]."""
    (x1, y1, x2, y2), (u1, v1, u2, v2) = (np.moveaxis(np.asarray(b, np.float64), -1, 0) for b in (box_i, box_j))
    w, h, w_j, h_j = x2 - x1 + 1, y2 - y1 + 1, u2 - u1 + 1, v2 - v1 + 1
    dx, dy = (x1 + x2) / 2 - (u1 + u2) / 2, (y1 + y2) / 2 - (v1 + v2) / 2
    terms = [np.log(np.abs(dx) / w + 1e-3), np.log(np.abs(dy) / h + 1e-3), np.log(w / w_j), np.log(h / h_j)]
    frequency = 100 / 1000 ** (np.arange(8) / 8)
    return np.concatenate([f(p[..., None] * frequency) for p in terms for f in (np.sin, np.cos)], -1)


def softmax_weights(
    query: Array, boxes: Array, keys: Array, support_boxes: Array, multiplicity: Array, wg: Array, bg: Array
) -> Double:
    """query [n, D], keys [S, D], multiplicity [S] (0 leaves a support out), wg [M, 64], bg [M] -> [M, n, S]."""
    heads = len(bg)
    q, k = (np.asarray(a, np.float64).reshape(len(a), heads, -1) for a in (query, keys))
    pairs = embedding(np.asarray(boxes)[:, None], np.asarray(support_boxes)[None])
    geometry = pairs @ np.asarray(wg, np.float64).T + np.asarray(bg, np.float64)
    logits = np.einsum("imd,jmd->mij", q, k) / np.sqrt(q.shape[-1])
    logits += np.log(np.maximum(geometry, 0) + 1e-6).transpose(2, 0, 1)
    with np.errstate(divide="ignore"):
        logits += np.log(np.asarray(multiplicity, np.float64))
    terms = np.exp(logits - logits.max(-1, keepdims=True))
    weights: Double = terms / terms.sum(-1, keepdims=True)
    return weights


def relation(
    query: Array,
    boxes: Array,
    keys: Array,
    values: Array,
    support_boxes: Array,
    rows: Array,
    multiplicity: Array,
    wg: Array,
    bg: Array,
) -> Double:
    """What `cpu.relation_attention` computes -> [n, D] heads concatenated; zeros where no support takes part."""
    if not np.any(np.asarray(multiplicity) > 0):
        return np.zeros(np.shape(query))
    weights = softmax_weights(query, boxes, keys[rows], support_boxes[rows], multiplicity, wg, bg)
    v = np.asarray(values[rows], np.float64).reshape(len(rows), len(bg), -1)
    summed: Double = np.einsum("mij,jmd->imd", weights, v).reshape(np.shape(query))
    return summed


def relation_stage(
    weights: Mapping[str, Array],
    config: RelationConfig,
    features: Array,
    boxes: Array,
    support: Array,
    support_boxes: Array,
    multiplicity: Array | None = None,
    advanced: Array | None = None,
    advanced_multiplicity: Array | None = None,
) -> dict[str, Double]:
    """The whole stage from features: basic modules, refinement, distillation, heads.

    weights as in relation.npz; features [n, D], boxes [n, 4]; support [S, D], support_boxes [S, 4], multiplicity [S]
    (ones); advanced [A] positions in support, advanced_multiplicity [A] (ones), both only for the advanced stage.
    Returns `rel{i}` after module i with its residual, `refined` what the distillation looks at, `omega` [n, S] of the
    last basic module, `logits` [n, C + 1], `deltas` [n, 4 (C + 1)].
    """
    w = {name: np.asarray(array, np.float64) for name, array in weights.items()}
    x, s = np.asarray(features, np.float64), np.asarray(support, np.float64)
    count = np.ones(len(s)) if multiplicity is None else multiplicity
    found: dict[str, Double] = {}

    def linear(name: str, rows: Double) -> Double:
        return rows @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    def module(i: int, x: Double, g: Array, s: Double, s_boxes: Array, count: Array) -> Double:
        """x + rel_i(x, s); no support adds nothing."""
        if not len(s):
            return x
        q, k, v = (linear(f"rel.{i}.{part}", rows) for part, rows in (("query", x), ("key", s), ("value", s)))
        wg, bg = w[f"rel.{i}.geometry.weight"], w[f"rel.{i}.geometry.bias"]
        if i == config.num_basic - 1:
            found["omega"] = softmax_weights(q, g, k, s_boxes, count, wg, bg).mean(0)
        return x + relation(q, g, k, v, s_boxes, np.arange(len(s)), count, wg, bg)

    for i in range(config.num_basic):
        if i:
            x = np.maximum(linear(f"basic_fc.{i - 1}", x), 0)
        x = found[f"rel{i}"] = module(i, x, boxes, s, support_boxes, count)
    if config.advanced:
        assert advanced is not None, "the advanced stage needs the positions of its supports"
        refine, distil = config.num_basic, config.num_basic + 1
        a, a_boxes = s[advanced], support_boxes[advanced]
        a = found[f"rel{refine}"] = module(refine, a, a_boxes, s, support_boxes, count)
        if config.advanced_fc:
            a = np.maximum(linear("advanced_fc", a), 0)
        found["refined"] = a
        a_count = np.ones(len(a)) if advanced_multiplicity is None else advanced_multiplicity
        x = found[f"rel{distil}"] = module(distil, x, boxes, a, a_boxes, a_count)
    return found | {"logits": linear("classify", x), "deltas": linear("regress", x)}


def boxes_of_kind(rng: np.random.Generator, count: int, kind: str) -> NDArray[np.float32]:
    """[count, 4] in a 1000 x 600 image, the cases that are hard for the geometry among them."""
    centre = rng.uniform(0, [1000, 600], (count, 2))
    side = np.exp(rng.uniform(0, 6, (count, 2)))
    if kind == "point":  # x1 = x2, y1 = y2: sides of one pixel
        side[:] = 1
    if kind == "same":  # the centre terms are log(1e-3)
        centre[:], side[:] = centre[:1], side[:1]
    if kind == "concentric":  # thousandths of a pixel apart
        centre[:] = centre[:1] + rng.normal(0, 2e-3, (count, 2))
    return np.concatenate([centre - side / 2, centre + side / 2 - 1], 1).astype(np.float32)
