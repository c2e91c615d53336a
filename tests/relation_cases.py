"""Cases of relation attention, the float64 definition's answers to them, and how far a kernel may be off."""

from __future__ import annotations

from typing import Any

import numpy as np

from rdn_engine.kernels import cpu
from rdn_engine.kernels.arithmetic import round_up
from rdn_engine.kernels.cpu.arrays import Float
from tests import reference_relation as reference
from tests.fakes import empty_bank
from tests.reference_relation import boxes_of_kind

Case = dict[str, Any]


def draw_case(
    rng: np.random.Generator, n: int, supports: int, heads: int, head_dim: int, kind: str = "spread", scale: float = 1.0
) -> Case:
    """n query rows and supports that each have a box, a key and a value, and a geometry; logits q.k / sqrt(d) have
    deviation scale^2.
    """
    dim = heads * head_dim

    def normal(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(np.float32)

    drawn = boxes_of_kind(rng, n + supports, kind)
    return {
        "query": normal(n, dim) * np.float32(scale),
        "boxes": drawn[:n],
        "keys": normal(supports, dim) * np.float32(scale),
        "values": normal(supports, dim),
        "support_boxes": drawn[n:],
        "multiplicity": rng.integers(1, 4, supports).astype(np.float32),
        "geometry_weight": normal(heads, 64) * np.float32(0.2),
        "geometry_bias": normal(heads),
    }


def make_case(
    n: int, supports: int, heads: int, head_dim: int, seed: int = 0, kind: str = "spread", scale: float = 1.0
) -> Case:
    """Arguments of `run`. The supports are cut in frames of any size."""
    rng = np.random.default_rng(seed)
    cuts = np.sort(rng.integers(0, supports + 1, rng.integers(0, 4)))
    return draw_case(rng, n, supports, heads, head_dim, kind, scale) | {"counts": np.diff([0, *cuts, supports])}


def arguments(case: Case, precision: cpu.StoredPrecision = "float32") -> dict[str, Any]:
    """The case for `attend`: frames in shuffled slots, with one slot that is not used."""
    counts, (heads, _) = case["counts"], case["geometry_weight"].shape
    n, dim = case["query"].shape
    slots = np.random.default_rng(len(counts)).permutation(len(counts) + 1)[: len(counts)]
    room = round_up(max([*counts, 1]), cpu.PANEL)
    bank = empty_bank(len(counts) + 1, room, heads, dim // heads, precision)
    for slot, stop, count in zip(slots, np.cumsum(counts), counts, strict=True):
        part = slice(stop - count, stop)
        cpu.pack_supports(case["keys"][part], case["values"][part], bank, slot=slot)
        bank.boxes[slot, :count] = case["support_boxes"][part]
    kept = ("query", "boxes", "multiplicity")
    plain = {"residual": np.zeros((n, dim), np.float32), "value_bias": np.zeros(dim, np.float32)}
    return (
        {name: case[name] for name in kept}
        | plain
        | {
            "bank": bank,
            "slots": slots,
            "counts": counts,
            "geometry": cpu.prepare_geometry(
                case["geometry_weight"], case["geometry_bias"], "bfloat16" if precision == "bfloat16" else "float32"
            ),
        }
    )


def run(
    case: Case,
    omega_range: tuple[int, int] | None = None,
    threads: int = 1,
    precision: cpu.StoredPrecision = "float32",
) -> cpu.Attention:
    return attend(**arguments(case, precision), omega_range=omega_range, threads=threads)


def attend(*, query: Float, boxes: Float, residual: Float, bank: cpu.SupportBank, **others: Any) -> cpu.Attention:
    return cpu.relation_attention(cpu.QueryRows(query, boxes, residual), bank, **others)


def wanted_out(case: Case) -> np.ndarray:
    names = ("query", "boxes", "keys", "values", "support_boxes")
    every = np.arange(len(case["keys"]))
    given = {name: case[name] for name in names} | {"rows": every, "multiplicity": case["multiplicity"]}
    return reference.relation(**given, wg=case["geometry_weight"], bg=case["geometry_bias"])


def wanted_weights(case: Case) -> np.ndarray:
    names = ("query", "boxes", "keys", "support_boxes", "multiplicity", "geometry_weight", "geometry_bias")
    return reference.softmax_weights(*(case[name] for name in names))


def relative_error(got: np.ndarray, wanted: np.ndarray) -> float:
    return float(np.linalg.norm(got - wanted) / np.linalg.norm(wanted))


def embedding_error() -> np.ndarray:
    """[64] how far the kernel's E may be off, radians.

    The phase of frequency k is 100 / 1000^(k/8) times a logarithm that float32 holds to about 6e-8: DESIGN section 2,
    Conditioning. Worst seen in 50,000 pairs, nearly concentric ones too: 6e-6 at k = 0 (1e-5 without fused
    multiply-adds), 6e-7 at the high k and in the size terms, which are computed in float64. To it comes the error of
    the splines, which csrc/cpu/geometry.h fits to the eight frequencies: at most this much of a wave of each, and
    twice, as it is in the normaliser too.
    """
    frequency = 100 / 1000 ** (np.tile(np.arange(8), 8) / 8)
    spline = np.tile([1.2e-6, 4.5e-6, 9.6e-7, 1.8e-7, 3.1e-8, 5.6e-9, 1e-9, 1.8e-10], 8)
    return 2e-6 + np.repeat([1.5e-7, 0], 32) * frequency + 2.2 * spline


def allowed_error(case: Case, unit: float = 0.0) -> np.ndarray:
    """[n, D] bound of the output's error, from the errors of gates and logits.

    If every softmax term is off by a factor 1 + e_j, the output moves by sum w_j e_j (v_j - out) / (1 + sum w_j e_j).
    Absolute tolerances would not do: where relu(Wg.E + b) is near 0 for all supports, the conditioning is arbitrary.
    Dot products of 64 terms are trusted to 16 roundings; the sums over S supports to all S of them, since many equal
    small weights after a large one are all rounded the same way. `unit` is that of the precision to which query, keys,
    values, weights and the geometry's coefficients are rounded, if to any: 2^-8 for bfloat16, 2^-11 for float16.
    """
    heads = len(case["geometry_bias"])
    wg, bg = np.float64(case["geometry_weight"]), np.float64(case["geometry_bias"])
    g = reference.embedding(case["boxes"][:, None], case["support_boxes"][None]) @ wg.T + bg
    off = np.abs(wg) @ (embedding_error() + 2 * unit) + 1e-6 * (np.abs(wg).sum(1) + np.abs(bg))
    gate = np.where(g > -off, off / (np.maximum(g, 0) + 1e-6), 0).transpose(2, 0, 1)
    q, k, v = (np.float64(case[name]).reshape(len(case[name]), heads, -1) for name in ("query", "keys", "values"))
    logit = np.einsum("imd,jmd->mij", np.abs(q), np.abs(k)) / np.sqrt(q.shape[-1])
    e = gate + np.expm1((2 * unit + 1e-6) * logit) + unit + 1e-6
    sums = 6e-8 * (len(k) + 16) + 2 * unit
    w = wanted_weights(case)
    out = np.einsum("mij,jmd->imd", w, v)
    moved = np.einsum("mij,ijmd->imd", w * e, np.abs(v[None] - out[:, None]))
    total = (w * e).sum(-1).T[..., None]
    with np.errstate(divide="ignore"):
        bound = np.where(total < 1, moved / (1 - total), np.inf) + sums * np.einsum("mij,jmd->imd", w, np.abs(v))
    return bound.reshape(len(q), -1)
