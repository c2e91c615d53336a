"""The relation stage on packed supports, its sampling and its products: the kernels of csrc/bindings/relation.cpp."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rdn_engine.kernels import _C
from rdn_engine.kernels.cpu.arrays import PANEL, Float, Index, Packed, Precision, aligned, aligned_zeros


class SupportBank(NamedTuple):
    """Support proposals, packed for the kernels: a frame a slot, with room for C proposals, a multiple of PANEL.

    In bfloat16, keys and values are pairs of it: of a key two channels that follow each other, of values a channel of
    two supports. Past an odd count, the other support of the pair must be finite.
    """

    keys: Packed
    """[slots, M, C / 16, d, 16], or bfloat16 [slots, M, C / 16, d / 2, 16, 2]"""
    values: Packed
    """[slots, M, C, d], or bfloat16 [slots, M, C / 2, d, 2]"""
    key_length: Float
    """[slots, M] at least the Euclidean length of every key of the slot"""
    boxes: Float
    """[slots, C, 4]"""


def empty_supports(
    shape: tuple[int, ...], room: int, heads: int, head_dim: int, precision: Precision
) -> tuple[Packed, Packed]:
    """Keys and values of a SupportBank, all zero, with `shape` in place of its slots and C = room."""
    if precision == "float32":
        return (
            aligned_zeros((*shape, heads, room // PANEL, head_dim, PANEL), np.float32),
            aligned_zeros((*shape, heads, room, head_dim), np.float32),
        )
    return (
        aligned_zeros((*shape, heads, room // PANEL, head_dim // 2, PANEL, 2), np.uint16),
        aligned_zeros((*shape, heads, room // 2, head_dim, 2), np.uint16),
    )


class RunningSums(NamedTuple):
    """What refined rows have summed over their windows, R = slots x C rows; `relation_refine` writes to them."""

    values: NDArray[np.float64]
    """[R, D] weight times value"""
    normaliser: NDArray[np.float64]
    """[R, M] weights"""
    peak: NDArray[np.float64]
    """[R, M] largest normaliser since the row's sums began"""
    shift: Float
    """[R, M] what is subtracted from its scores since then: logits times log2(e)"""


class Attention(NamedTuple):
    out: Float
    """[n, D] residual + relation"""
    omega: Float | None
    """[n, W] softmax weights averaged over heads"""


RIGHT, CANCELLED = range(2)
"""Status of a refined row: see `relation_refine`."""


class Refined(NamedTuple):
    out: Float
    """[A, D] residual + relation, of no meaning where the status is not RIGHT"""
    status: NDArray[np.uint8]
    """[A]"""


def sample_advanced(
    objectness: Float,
    multiplicity: Float,
    frame_start: Index,
    ratio: float,
    num_support: int,
    sampling: Literal["per_frame", "global"],
) -> tuple[Index, Float]:
    """The support proposals that the advanced stage refines: positions into the pool, and how often each counts.

    objectness [S], multiplicity [S], frame_start [F + 1] (frame j holds start[j]..start[j+1]). `per_frame`: the first
    int(K r) of each frame. `global`: the int(r * sum(multiplicity)) highest of the pool, at least one, repeats counted,
    equal objectness in pool order; the last one taken may count less often than its multiplicity. Positions ascend.
    """
    return _C.sample_advanced(
        np.ascontiguousarray(objectness),
        np.ascontiguousarray(multiplicity),
        np.ascontiguousarray(frame_start),
        ratio,
        num_support,
        sampling == "global",
    )


PackedWeight = Packed
"""float32 [ceil(columns / 16), K, 16], or bfloat16 [ceil(columns / 16), K / 2, 16, 2]; zeros past the last column."""


def pack_weight(weight: Float, precision: Precision = "float32") -> PackedWeight:
    """Rows of a weight [columns, K] as `linear` wants them. K is even for bfloat16, to which weights are rounded."""
    columns, depth = weight.shape
    padded = np.zeros((-(-columns // PANEL) * PANEL, depth), np.float32)
    padded[:columns] = weight
    panels = np.ascontiguousarray(padded.reshape(-1, PANEL, depth).swapaxes(1, 2))
    if precision == "float32":
        return aligned(panels)
    bits = panels.view(np.uint32)
    nearest = np.where(np.isnan(panels), bits | 0x400000, bits + 0x7FFF + (bits >> 16 & 1)) >> 16
    pairs = nearest.astype(np.uint16).reshape(-1, depth // 2, 2, PANEL)
    return aligned(pairs.swapaxes(2, 3))


def linear(x: Float, weight: PackedWeight, bias: Float, relu: bool = False, threads: int = 1) -> Float:
    """x W^T + bias, with `relu` no less than 0: x [n, K], weight of `pack_weight`, bias [columns] -> [n, columns].

    With a bfloat16 weight x is rounded to bfloat16 too; sums are float32. Fast where `isa` is avx512_bf16.
    """
    return _C.linear(np.ascontiguousarray(x), weight, np.ascontiguousarray(bias), relu, threads)


def prepare_geometry(weight: Float, bias: Float, precision: Precision = "float32") -> Packed:
    """Wg [M, 64] and b [M] of a relation module as the kernels read them beside a bank of `precision`.

    Wg.E becomes cubic splines in the logarithms of E, for sides and distances within a factor of 2^20 of each other.
    """
    return aligned(
        _C.prepare_geometry(np.ascontiguousarray(weight), np.ascontiguousarray(bias), precision == "bfloat16")
    )


def pack_supports(keys: Float, values: Float, bank: SupportBank, slot: int) -> None:
    """keys, values [n, D], n <= C, into a slot of the bank, zeros past them. Boxes are the caller's to write."""
    _C.pack_supports(
        np.ascontiguousarray(keys),
        np.ascontiguousarray(values),
        bank.keys[slot],
        bank.values[slot],
        bank.key_length[slot],
    )


def relation_attention(
    query: Float,
    boxes: Float,
    residual: Float,
    value_bias: Float,
    bank: SupportBank,
    slots: Index,
    counts: Index,
    multiplicity: Float,
    geometry: Packed,
    omega_range: tuple[int, int] | None = None,
    threads: int = 1,
) -> Attention:
    """x + rel(x, s) (paper, eq. 1 to 4): softmax_j(q.k / sqrt(d) + log(relu(Wg.E + b) + 1e-6)) . v + bias, all heads.

    query [n, D] unscaled, boxes [n, 4], residual x [n, D], value_bias [D]. Supports are the first counts [F] of slots
    [F] of the bank (a slot may occur again), S in all; number j counts multiplicity[j] > 0 times; geometry is of
    `prepare_geometry`. With `omega_range` (a, b) also the head-averaged weights of supports a..b-1. No support at all
    gives the residual.
    """
    out, omega = _C.relation_attention(
        np.ascontiguousarray(query),
        np.ascontiguousarray(boxes),
        np.ascontiguousarray(residual),
        np.ascontiguousarray(value_bias),
        tuple(np.ascontiguousarray(a) for a in bank),
        np.ascontiguousarray(slots),
        np.ascontiguousarray(counts),
        np.ascontiguousarray(multiplicity),
        np.ascontiguousarray(geometry),
        omega_range if omega_range is not None else (0, 0),
        threads,
    )
    return Attention(out, omega if omega_range is not None else None)


def relation_refine(
    query: Float,
    residual: Float,
    value_bias: Float,
    rows: Index,
    bank: SupportBank,
    slots: Index,
    counts: Index,
    change: Float,
    restart: NDArray[np.bool_],
    geometry: Packed,
    sums: RunningSums,
    threads: int = 1,
) -> Refined:
    """`relation_attention` of some of the bank's own rows, by what changed since their sums were left.

    query, residual [R, D] of every row, R = slots x C; rows [A] distinct, those wanted. change [A, F]: how many times
    more than before the first counts[f] of slots[f] count for a row; restart [A]: sums begin at zero. `sums` are
    updated in place. Status of a row: RIGHT; CANCELLED where no more than 1e-6 of the largest normaliser is left, a
    logit is far above those that the sums began with, or something is not finite: restart it.
    """
    out, status = _C.relation_refine(
        np.ascontiguousarray(query),
        np.ascontiguousarray(residual),
        np.ascontiguousarray(value_bias),
        np.ascontiguousarray(rows),
        tuple(np.ascontiguousarray(a) for a in bank),
        np.ascontiguousarray(slots),
        np.ascontiguousarray(counts),
        np.ascontiguousarray(change),
        np.ascontiguousarray(restart, np.uint8),
        np.ascontiguousarray(geometry),
        *sums,
        threads,
    )
    return Refined(out, status)
