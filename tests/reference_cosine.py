"""YOLOV's relation of proposals in float64: the definition (DESIGN section 2, Cosine score attention), short and slow.

N rows of a window, the proposals of all its frames; M heads of d channels, D = M d. Source: YOLOV (Shi et al., AAAI
2023) and, for `branch` with a second threshold, YOLOV++ (2024), as the parity data describe them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Double = NDArray[np.float64]

SHARPNESS = 25.0


def normalised(rows: Array) -> Double:
    """rows [..., d] over their Euclidean length; zeros where it is 0."""
    rows = np.asarray(rows, np.float64)
    length = np.linalg.norm(rows, axis=-1, keepdims=True)
    found: Double = np.divide(rows, length, out=np.zeros_like(rows), where=length > 0)
    return found


def softmax(logits: Double) -> Double:
    terms = np.exp(logits - logits.max(-1, keepdims=True))
    found: Double = terms / terms.sum(-1, keepdims=True)
    return found


def branch(
    weights: Mapping[str, Array],
    features_cls: Array,
    features_reg: Array,
    confidence: Array,
    objectness: Array,
    *,
    heads: int = 4,
    objectness_on_key: bool = True,
    values: str = "cls",
    similarity: float = 0.75,
    value_similarity: float | None = None,
) -> dict[str, Double]:
    """Every stage for all rows: features [N, D], confidence and objectness [N] in 0..1.

    weights: `qkv_cls.weight`, `qkv_reg.weight` [3 D, D]; `linear1.weight` [2 D, 2 D], `linear2.weight` [4 D, 4 D] and
    their biases. values: whose V is summed. value_similarity: YOLOV++'s second mask, on those values.
    """
    w = {name: np.asarray(array, np.float64) for name, array in weights.items()}
    found: dict[str, Double] = {}
    projected, attention = {}, {}
    scores = {"cls": confidence, "reg": objectness if objectness_on_key else np.ones(len(objectness))}
    for name, features in (("cls", features_cls), ("reg", features_reg)):
        rows = np.asarray(features, np.float64) @ w[f"qkv_{name}.weight"].T
        found[f"qkv_{name}"] = rows
        q, k, v = (part.reshape(len(rows), heads, -1).swapaxes(0, 1) for part in np.split(rows, 3, 1))  # [M, N, d]
        logits = SHARPNESS * np.asarray(scores[name], np.float64) * (normalised(q) @ normalised(k).swapaxes(1, 2))
        attention[name], projected[name] = softmax(logits), v
        found[f"attn_{name}"] = attention[name]
    mean = (attention["cls"] + attention["reg"]) / 2

    def side_by_side(v: Double) -> Double:
        joined: Double = v.swapaxes(0, 1).reshape(v.shape[1], -1)
        return joined

    def similarities(v: Double) -> Double:
        unit = normalised(v)
        mean_of_heads: Double = (unit @ unit.swapaxes(1, 2)).mean(0)
        return mean_of_heads

    v = projected[values]
    found["x"] = np.concatenate([side_by_side(mean @ v), side_by_side(v)], 1)
    found["lin1"] = found["x"] @ w["linear1.weight"].T + w["linear1.bias"]
    found["sim"] = similarities(projected["cls"])
    taken = (found["sim"] > similarity) * np.exp(mean.mean(0))
    if value_similarity is not None:
        found["sim_values"] = similarities(v)
        taken = taken * (found["sim_values"] > value_similarity)
    # A row that is like none, itself neither because its value is zero, keeps its own.
    taken = np.where(taken.any(1, keepdims=True), taken, np.eye(len(taken)))
    found["weights2"] = taken / taken.sum(1, keepdims=True)
    found["round2"] = np.concatenate([found["weights2"] @ found["lin1"], found["lin1"]], 1)
    found["out"] = found["round2"] @ w["linear2.weight"].T + w["linear2.bias"]
    return found


def overlaps(boxes: Array, others: Array) -> NDArray[np.float32]:
    """IoU [n, m] of boxes [n, 4] and [m, 4] xyxy without the last pixel, in float32, rounded to float16."""
    a, b = np.asarray(boxes, np.float32)[:, None], np.asarray(others, np.float32)[None]
    sides = np.maximum(np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2]), 0)
    area_a, area_b, common = (np.prod(s, -1) for s in (a[..., 2:] - a[..., :2], b[..., 2:] - b[..., :2], sides))
    with np.errstate(invalid="ignore"):
        found = common / (area_a + area_b - common)
    return np.where(common > 0, found, 0).astype(np.float16).astype(np.float32)


def average(
    out: Array, boxes: Array, confidence: Array, objectness: Array, memory: tuple[Array, Array, Array, Array]
) -> dict[str, Double]:
    """The online head's mean with what the same place was before.

    memory has out [m, 4 D], boxes, confidence, objectness. A box that overlaps none of them keeps its own (the public
    code makes it NaN).
    """
    own, past = np.asarray(out, np.float64), np.asarray(memory[0], np.float64)
    found: dict[str, Double] = {"cos": normalised(own) @ normalised(past).T}
    found["iou"] = overlaps(boxes, memory[1]).astype(np.float64)
    # As float32 has it, since it decides.
    score = np.asarray(objectness, np.float32) * np.asarray(confidence, np.float32)
    past_score = np.asarray(memory[3], np.float32) * np.asarray(memory[2], np.float32)
    found["pass"] = (past_score[None] - score[:, None] > np.float32(-0.3)).astype(np.float64)
    terms = np.exp(SHARPNESS * found["cos"] * found["pass"]) * found["iou"]
    total = terms.sum(1, keepdims=True)
    found["weights"] = np.divide(terms, total, out=np.zeros_like(terms), where=total > 0)
    found["out"] = np.where(total > 0, (found["weights"] @ past + own) / 2, own)
    return found
