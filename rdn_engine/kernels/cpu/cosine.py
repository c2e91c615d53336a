"""Cosine attention with the score on the key, YOLOV's: the kernels of csrc/bindings/cosine.cpp.

Shi et al., *YOLOV: Making Still Image Object Detectors Great at Video Object Detection*, AAAI 2023. M heads of d
channels, padded with zeros to a multiple of PANEL; two attentions, of a proposal's class and of its box description.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rdn_engine.kernels import _C
from rdn_engine.kernels.cpu.arrays import PANEL, Double, Float, Index, zeros_together
from rdn_engine.kernels.cpu.relation import PackedWeight


class CosineBank(NamedTuple):
    """Proposals, packed for the kernels: a frame a slot, with room for C proposals, a multiple of PANEL."""

    query: Float
    """[slots, 2, M, C, d] queries of length 1"""
    keys: Float
    """[slots, 2, M, C / 16, d, 16] keys of length 1 times 25 log2(e) and their score"""
    values: Float
    """[slots, M, C, d]"""
    unit: Float
    """[slots, masks, C, M d] values of each mask, of length 1 a head"""
    unit_panels: Float
    """[slots, masks, C / 16, M d, 16] the same over M"""


class CosineSums(NamedTuple):
    """What rows have summed over their windows, R = slots x C; `cosine_refine` writes to them."""

    values: Double
    """[2, M, R, d] softmax term times value"""
    normaliser: Double
    """[2, M, R] softmax terms"""
    peak: Double
    """[2, M, R] largest normaliser since the row's sums began"""


class CosineAverage(NamedTuple):
    out: Float
    """[n, 4 M d] W X, W V, X, V: each [M, d]"""
    omega: Float | None
    """[n, b - a] B of the supports asked for; None when not asked"""
    weights: Float
    """[n, S] W of the second round; [n, 0] where it is not wanted"""


class LocalAverage(NamedTuple):
    out: Float
    """[n, D]"""
    weights: Float
    """[n, S]; [n, 0] where they are not wanted"""


def empty_cosine(slots: int, *, room: int, heads: int, head_dim: int, masks: int) -> tuple[CosineBank, CosineSums]:
    """All zero.

    Args:
        slots: of frames, 1 or more.
        room: C, a multiple of PANEL.
        heads: M.
        head_dim: d, a multiple of PANEL.
        masks: of the second round, 1 or 2.

    Returns:
        A bank, and the sums of its rows.
    """
    width, panels, rows = heads * head_dim, room // PANEL, slots * room

    arrays = zeros_together(
        ((slots, 2, heads, room, head_dim), np.float32),
        ((slots, 2, heads, panels, head_dim, PANEL), np.float32),
        ((slots, heads, room, head_dim), np.float32),
        ((slots, masks, room, width), np.float32),
        ((slots, masks, panels, width, PANEL), np.float32),
        ((2, heads, rows, head_dim), np.float64),
        ((2, heads, rows), np.float64),
        ((2, heads, rows), np.float64),
    )
    return CosineBank(*arrays[:5]), CosineSums(*arrays[5:])


def linear_exact(x: Float, weight: PackedWeight, bias: Double, *, threads: int = 1) -> Double:
    """x W^T + bias, products and sums in float64.

    Args:
        x: [n, K].
        weight: float32 of `pack_weight`.
        bias: [columns].
        threads: of this call, 1 or more.

    Returns:
        [n, columns]

    Raises:
        ValueError: an argument does not fit.
    """
    return _C.linear_exact(np.ascontiguousarray(x), weight, np.ascontiguousarray(bias), threads)


def pack_cosine(
    projected: tuple[Double, Double],
    scores: tuple[Float, Float],
    bank: CosineBank,
    *,
    slot: int,
    values_of_reg: bool = False,
) -> None:
    """Write the proposals of a frame into a slot; what it held is gone.

    Args:
        projected: [n, 3 M d] queries, keys and values of cls and of reg, n at most C.
        scores: [n] in 0..1 that multiply the logits of a key, of cls and of reg.
        bank: is written to.
        slot: of the bank.
        values_of_reg: the values that are summed, and the second mask, are those of reg.

    Raises:
        ValueError: an argument does not fit.
    """
    cls, reg = (np.ascontiguousarray(array) for array in projected)
    of_cls, of_reg = (np.ascontiguousarray(array) for array in scores)
    _C.pack_cosine(cls, reg, of_cls, of_reg, tuple(bank), slot, values_of_reg)


def cosine_refine(
    slots: Index,
    counts: Index,
    *,
    bank: CosineBank,
    sums: CosineSums,
    summed: Index,
    included: NDArray[np.int8],
    threads: int = 1,
) -> None:
    """Bring the sums behind X_i = 1/2 sum_j (A^cls_ij + A^reg_ij) v_j of a window's rows to that window.

    A^cls_ij = softmax_j(25 s_j q_i.k_j / (|q_i| |k_j|)) of each head, A^reg likewise. What has come or gone since the
    rows were summed last is added or subtracted. A row begins anew where that is less, where a slot takes part with
    another number of proposals, and where no more than 1e-6 of the largest normaliser is left.

    Args:
        slots: [F] distinct, of the bank: the frames of the window.
        counts: [slots] in 0..C, how many proposals of each slot take part, its first.
        bank: the rows and what they look at.
        sums: of all rows of the bank; those of the window are updated in place.
        summed: [slots] in 0..C, as `counts` of the call before; becomes `counts`.
        included: [slots, slots] 1 where the sums of a slot's rows hold another slot's proposals, else 0. Those of the
            window's rows become its slots; none for rows of which some are no finite numbers.
        threads: of this call, 1 or more.

    Raises:
        ValueError: an argument does not fit.
    """
    _C.cosine_refine(
        np.ascontiguousarray(slots),
        np.ascontiguousarray(counts),
        tuple(bank),
        tuple(sums),
        summed,
        included,
        threads,
    )


def cosine_average(
    slot: int,
    rows: int,
    *,
    bank: CosineBank,
    sums: CosineSums,
    slots: Index,
    counts: Index,
    thresholds: Float,
    omega_range: tuple[int, int] | None = None,
    whole: bool = False,
    threads: int = 1,
) -> CosineAverage:
    """The second round: W_ij = [S_ij > threshold] exp(B_ij), renormalised, over a window whose sums are complete.

    B is the mean of both attentions over heads, S the mean over heads of the cosines of values.

    Args:
        slot: of the bank whose rows look.
        rows: n, its first.
        bank: with the proposals.
        sums: complete over the same frames for the rows of all of them.
        slots: [F] of the window, in the order in which `whole` lists their proposals.
        counts: [F] in 0..C, proposals of each.
        thresholds: [masks] of S, all of which a pair must exceed.
        omega_range: (a, b), 0 <= a <= b <= the number of proposals: B of the proposals a..b-1 is wanted too.
        whole: W is wanted too.
        threads: of this call, 1 or more.

    Returns:
        What the last layers take. A row that is like none, not even itself since its value is zero, keeps its own.

    Raises:
        ValueError: an argument does not fit.
    """
    out, omega, weights = _C.cosine_average(
        slot,
        rows,
        tuple(bank),
        tuple(sums),
        np.ascontiguousarray(slots),
        np.ascontiguousarray(counts),
        np.ascontiguousarray(thresholds),
        omega_range if omega_range is not None else (0, 0),
        whole,
        threads,
    )
    return CosineAverage(out, omega if omega_range is not None else None, weights)


def local_average(
    x: Float,
    boxes: Float,
    score: Float,
    *,
    past: Float,
    past_length: Double,
    past_boxes: Float,
    past_score: Float,
    counts: Index,
    whole: bool = False,
    threads: int = 1,
) -> LocalAverage:
    """Half of x, and half a mean of past rows: weights exp(25 cos) IoU, renormalised (YOLOV's online head).

    A past row whose score is 0.3 or more below the row's own counts with a cosine of 0. IoU is of sides x2 - x1,
    rounded to float16 as the public code does. A box that overlaps none keeps its own row.

    Args:
        x: [n, D].
        boxes: [n, 4].
        score: [n].
        past: [F, C, D] earlier rows.
        past_length: [F, C] their Euclidean lengths.
        past_boxes: [F, C, 4].
        past_score: [F, C].
        counts: [F] in 0..C, rows of each frame.
        whole: the weights are wanted too.
        threads: of this call, 1 or more.

    Returns:
        The mean, and the weights of the S = sum(counts) past rows.

    Raises:
        ValueError: an argument does not fit.
    """
    return LocalAverage(
        *_C.local_average(
            np.ascontiguousarray(x),
            np.ascontiguousarray(boxes),
            np.ascontiguousarray(score),
            np.ascontiguousarray(past),
            np.ascontiguousarray(past_length),
            np.ascontiguousarray(past_boxes),
            np.ascontiguousarray(past_score),
            np.ascontiguousarray(counts),
            whole,
            threads,
        )
    )
