"""The relation stage on packed supports, its sampling and its products: the kernels of csrc/bindings/relation.cpp."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rdn_engine.config import Dials, RelationConfig
from rdn_engine.kernels import _C
from rdn_engine.kernels.arithmetic import round_up
from rdn_engine.kernels.cpu.arrays import (
    PANEL,
    Double,
    Float,
    Half,
    Index,
    Packed,
    Precision,
    StoredPrecision,
    aligned,
    aligned_zeros,
)


class SupportBank(NamedTuple):
    """Support proposals, packed for the kernels: a frame a slot, with room for C proposals, a multiple of PANEL.

    Keys and values are float32 or float16, which are multiplied with floats; or pairs of bfloat16: of a key two
    channels that follow each other, of values a channel of two supports. Past an odd count, the other support of such a
    pair must be finite.
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
    shape: tuple[int, ...], *, room: int, config: RelationConfig, precision: StoredPrecision
) -> tuple[Packed, Packed]:
    """Keys and values of a SupportBank, all zero.

    Args:
        shape: stands in place of its slots.
        room: C, a multiple of PANEL.
        config: heads and their channels.
        precision: of what is kept.

    Returns:
        Keys and values, as SupportBank has them.
    """
    heads, head_dim = config.heads, config.head_dim
    if precision == "bfloat16":
        return (
            aligned_zeros((*shape, heads, room // PANEL, head_dim // 2, PANEL, 2), np.uint16),
            aligned_zeros((*shape, heads, room // 2, head_dim, 2), np.uint16),
        )
    return (
        aligned_zeros((*shape, heads, room // PANEL, head_dim, PANEL), precision),
        aligned_zeros((*shape, heads, room, head_dim), precision),
    )


class RunningSums(NamedTuple):
    """What refined rows have summed over their windows, with places for P rows; `relation_refine` writes to them."""

    values: Double
    """[P, D] weight times value"""
    normaliser: Double
    """[P, M] weights"""
    peak: Double
    """[P, M] largest normaliser since the row's sums began"""
    shift: Float
    """[P, M] what is subtracted from its scores since then: logits times log2(e)"""


class QueryRows(NamedTuple):
    """The rows that look at the supports."""

    query: Float
    """[n, D] not yet divided by sqrt(d)"""
    boxes: Float
    """[n, 4]"""
    residual: Float
    """[n, D] x, to which the relation is added"""


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


def sample_advanced(objectness: Float, multiplicity: Float, frame_start: Index, *, dials: Dials) -> tuple[Index, Float]:
    """The support proposals that the advanced stage refines; DESIGN section 2, Top-r%.

    Args:
        objectness: [S] of the pool.
        multiplicity: [S] how often each counts, 1 or more.
        frame_start: [F + 1] frame j holds start[j]..start[j + 1].
        dials: K, r and the rule. `per_frame`: the first int(K r) of each frame. `global`: the
            int(r * sum(multiplicity)) highest of the pool, at least one, repeats counted, equal objectness in pool
            order; the last one taken may count less often than its multiplicity.

    Returns:
        Positions into the pool, ascending, and how often each counts.

    Raises:
        ValueError: an argument does not fit.
    """
    return _C.sample_advanced(
        np.ascontiguousarray(objectness),
        np.ascontiguousarray(multiplicity),
        np.ascontiguousarray(frame_start),
        dials.advanced_ratio,
        dials.num_support,
        dials.sampling == "global",
    )


PackedWeight = Packed
"""float32 [ceil(columns / 16), K, 16], or bfloat16 [ceil(columns / 16), K / 2, 16, 2]; zeros past the last column."""


def pack_weight(weight: Float, precision: Precision = "float32") -> PackedWeight:
    """A weight as `linear` wants it.

    Args:
        weight: [columns, K], K even for bfloat16.
        precision: bfloat16 rounds the weight.

    Returns:
        The packed weight, on cache lines.
    """
    columns, depth = weight.shape
    padded = np.zeros((round_up(columns, PANEL), depth), np.float32)
    padded[:columns] = weight
    panels = np.ascontiguousarray(padded.reshape(-1, PANEL, depth).swapaxes(1, 2))
    if precision == "float32":
        return aligned(panels)
    bits = panels.view(np.uint32)
    nearest = np.where(np.isnan(panels), bits | 0x400000, bits + 0x7FFF + (bits >> 16 & 1)) >> 16
    pairs = nearest.astype(np.uint16).reshape(-1, depth // 2, 2, PANEL)
    return aligned(pairs.swapaxes(2, 3))


def linear(x: Float, weight: PackedWeight, bias: Float, *, relu: bool = False, threads: int = 1) -> Float:
    """x W^T + bias.

    With a bfloat16 weight x is rounded to bfloat16 too; sums are float32. Fast where `isa` is avx512_bf16.

    Args:
        x: [n, K].
        weight: of `pack_weight`.
        bias: [columns].
        relu: what is below 0 becomes 0.
        threads: of this call, 1 or more.

    Returns:
        [n, columns]

    Raises:
        ValueError: an argument does not fit.
    """
    return _C.linear(np.ascontiguousarray(x), weight, np.ascontiguousarray(bias), relu, threads)


def prepare_geometry(weight: Float, bias: Float, precision: Precision = "float32") -> Packed:
    """The geometry of a relation module as the kernels read it.

    Wg.E becomes splines in the logarithms of E, for sides and distances within a factor of 2^20 of each other.

    Args:
        weight: Wg [M, 64].
        bias: b [M].
        precision: bfloat16 for a bank of it.

    Returns:
        What `relation_attention` and `relation_refine` take as `geometry`.

    Raises:
        ValueError: an argument does not fit.
    """
    return aligned(
        _C.prepare_geometry(np.ascontiguousarray(weight), np.ascontiguousarray(bias), precision == "bfloat16")
    )


def narrow(x: Float, out: Half) -> None:
    """Round to float16, ties to even; what lies beyond its largest, +-65504, becomes that, NaN stays.

    Args:
        x: [n, D].
        out: [n, D] is written to.

    Raises:
        ValueError: an argument does not fit.
    """
    _C.narrow(np.ascontiguousarray(x), out)


def widen(x: Half) -> Float:
    """The same numbers in float32.

    Args:
        x: [n, D].

    Returns:
        [n, D].

    Raises:
        ValueError: an argument does not fit.
    """
    return _C.widen(np.ascontiguousarray(x))


def pack_supports(keys: Float, values: Float, bank: SupportBank, *, slot: int) -> None:
    """Writes a frame's support proposals into a slot of the bank, zeros past them. Boxes are the caller's to write.

    Args:
        keys: [n, D], n at most C.
        values: [n, D].
        bank: is written to: keys, values and key lengths.
        slot: in 0..slots-1.

    Raises:
        ValueError: an argument does not fit.
    """
    _C.pack_supports(
        np.ascontiguousarray(keys),
        np.ascontiguousarray(values),
        bank.keys[slot],
        bank.values[slot],
        bank.key_length[slot],
    )


def relation_attention(
    queries: QueryRows,
    bank: SupportBank,
    *,
    slots: Index,
    counts: Index,
    multiplicity: Float,
    geometry: Packed,
    value_bias: Float,
    omega_range: tuple[int, int] | None = None,
    threads: int = 1,
) -> Attention:
    """x + rel(x, s) (paper, equations 1 to 4; DESIGN section 2, Relation module).

    softmax_j(q.k / sqrt(d) + log(relu(Wg.E + b) + 1e-6)) . v + bias, all heads.

    Args:
        queries: n rows; a residual of zeros gives rel(x, s) alone.
        bank: the supports are the first `counts` of `slots`, S in all.
        slots: [F] of the bank; a slot may occur again.
        counts: [F] in 0..C.
        multiplicity: [S] how often each support counts, above 0.
        geometry: of `prepare_geometry`.
        value_bias: [D]; no support at all gives the residual without it.
        omega_range: (a, b), 0 <= a <= b <= S: the head-averaged weights of supports a..b-1 are wanted too.
        threads: of this call, 1 or more.

    Returns:
        The output [n, D], and the weights [n, b - a] where they are wanted.

    Raises:
        ValueError: an argument does not fit.
    """
    out, omega = _C.relation_attention(
        np.ascontiguousarray(queries.query),
        np.ascontiguousarray(queries.boxes),
        np.ascontiguousarray(queries.residual),
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
    queries: QueryRows,
    places: Index,
    *,
    bank: SupportBank,
    slots: Index,
    counts: Index,
    change: Float,
    restart: NDArray[np.bool_],
    geometry: Packed,
    value_bias: Float,
    sums: RunningSums,
    threads: int = 1,
) -> Refined:
    """`relation_attention` of rows whose sums are kept, by what changed since they were left.

    Args:
        queries: A rows.
        places: [A] distinct, in 0..P-1: where the sums of each are.
        bank: the supports.
        slots: [F] of the bank whose frames came or went.
        counts: [F] in 0..C, support proposals of each.
        change: [A, F] how many times more than before the first counts[f] of slots[f] count for a row.
        restart: [A] the sums of a row begin at zero.
        geometry: of `prepare_geometry`.
        value_bias: [D].
        sums: those at `places` are updated in place.
        threads: of this call, 1 or more.

    Returns:
        The output [A, D] and a status of each row: RIGHT; or CANCELLED where no more than 1e-6 of the largest
        normaliser is left, a logit is far above those that the sums began with, or something is not finite: restart it.

    Raises:
        ValueError: an argument does not fit.
    """
    out, status = _C.relation_refine(
        np.ascontiguousarray(queries.query),
        np.ascontiguousarray(queries.boxes),
        np.ascontiguousarray(queries.residual),
        np.ascontiguousarray(value_bias),
        np.ascontiguousarray(places),
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
