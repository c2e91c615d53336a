"""The relation stage: reference proposals look at the window's, then the heads. The face, and its compiled executor."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from rdn_engine.bundle.contract import relation_arrays
from rdn_engine.config import Dials, RDNConfig
from rdn_engine.errors import BackendUnavailable, ConfigError
from rdn_engine.host.features import RelationOutput, SupportPool
from rdn_engine.host.window import ReferenceProposals, Window
from rdn_engine.kernels import _C, cpu
from rdn_engine.kernels.arithmetic import round_up
from rdn_engine.kernels.cpu.arrays import Float, Index
from rdn_engine.relation_order import run_relation


class Relation(Protocol):
    @property
    def precision(self) -> cpu.Precision:
        """Of the keys and values that it wants in the pool."""
        ...

    def __call__(
        self, boxes: Float, features: Float, query: Float, pool: SupportPool, omega_rows: tuple[int, int] | None = None
    ) -> RelationOutput:
        """boxes [n, 4] network-input pixels, features and query [n, D] of the reference proposals, as encoded.

        With `omega_rows` (a, b) the output has the weights of the last basic module for `pool.rows[a:b]`.
        """
        ...


class FusedRelation:
    """Compiled kernels over the ring in place. Default.

    weights: `relation.npz`, by the names of the torch module (see `relation_arrays`); others are ignored. precision: of
    the operands of all products, sums are float32; `bfloat16` needs a processor with AVX512-BF16 (BackendUnavailable).
    """

    def __init__(
        self,
        config: RDNConfig,
        weights: Mapping[str, NDArray[Any]],
        threads: int,
        precision: cpu.Precision = "float32",
    ) -> None:
        if precision not in ("float32", "bfloat16"):
            raise ConfigError(f"relation_precision is {precision!r}; wanted 'float32' or 'bfloat16'")
        if precision == "bfloat16" and _C.isa != "avx512_bf16":
            raise BackendUnavailable(
                f"relation_precision is 'bfloat16', which wants the kernels of avx512_bf16; here are those of {_C.isa}"
            )
        self.precision: cpu.Precision = precision
        self._config = config.relation
        self._threads = threads
        self._num_logits = config.num_logits
        self._arrays: dict[str, Float] = {}
        self._packed: dict[str, cpu.PackedWeight] = {}
        for name, array in relation_arrays(config, weights).items():
            if name.endswith(".geometry.weight") or not name.endswith(".weight"):
                self._arrays[name] = array
            else:
                square = array.shape == (config.relation.dim, config.relation.dim)
                self._packed[name] = cpu.pack_weight(array, precision if square else "float32")
        named = [f"rel.{i}.geometry" for i in range(self._config.num_modules)]
        self._geometry = [
            cpu.prepare_geometry(self._arrays.pop(f"{name}.weight"), self._arrays.pop(f"{name}.bias"), precision)
            for name in named
        ]
        self._no_bias = np.zeros(self._config.dim, np.float32)

    def __call__(
        self, boxes: Float, features: Float, query: Float, pool: SupportPool, omega_rows: tuple[int, int] | None = None
    ) -> RelationOutput:
        asked = omega_rows if self._config.num_basic else None
        if not len(features):
            return RelationOutput.of_no_rows(self._num_logits, asked)
        steps = _FusedSteps(self, boxes, pool, asked)
        logits, deltas = run_relation(self._config, steps, features, query)
        return RelationOutput(logits, deltas, steps.omega)

    def linear(self, name: str, x: Float, *, relu: bool, bias: bool) -> Float:
        """x W^T + b with the weights called `name`."""
        added = self._arrays[f"{name}.bias"] if bias else self._no_bias
        return cpu.linear(x, self._packed[f"{name}.weight"], added, relu=relu, threads=self._threads)

    def attend(
        self,
        module: int,
        x: Float,
        query: Float,
        boxes: Float,
        supports: Supports,
        omega_rows: tuple[int, int] | None = None,
    ) -> cpu.Attention:
        """x + rel_module(x, supports) [n, D] of boxes [n, 4]."""
        return cpu.relation_attention(
            cpu.QueryRows(query, boxes, x),
            supports.bank,
            slots=supports.slots,
            counts=supports.counts,
            multiplicity=supports.multiplicity,
            geometry=self._geometry[module],
            value_bias=self._arrays[f"rel.{module}.value.bias"],
            omega_range=omega_rows,
            threads=self._threads,
        )

    def bank(self, keys: Float, values: Float, boxes: Float) -> cpu.SupportBank:
        """One slot of supports, from keys and values [A, D] and boxes [A, 4]."""
        r, count = self._config, len(keys)
        room = round_up(count, cpu.PANEL)
        bank = cpu.SupportBank(
            *cpu.empty_supports((1,), room=room, config=r, precision=self.precision),
            np.zeros((1, r.heads), np.float32),
            np.zeros((1, room, 4), np.float32),
        )
        cpu.pack_supports(keys, values, bank, slot=0)
        bank.boxes[0, :count] = boxes
        return bank

    def refine(self, module: int, pool: SupportPool) -> Float:
        """s_A + rel_module(s_A, S) [A, D], by what changed since the last window."""
        value_bias = self._arrays[f"rel.{module}.value.bias"]
        refined, left = pool.refinement.step(pool, module, value_bias, self._geometry[module], self._threads)
        if left.any():
            queries = pool.queries(pool.advanced_rows[left])
            whole = self.attend(module, queries.residual, queries.query, queries.boxes, Supports.of(pool, module))
            refined[left] = whole.out
        return refined


class Supports(NamedTuple):
    """The support proposals that a module looks at: the first counts[f] of slots[f] of a bank."""

    bank: cpu.SupportBank
    slots: Index
    """[F]"""
    counts: Index
    """[F]"""
    multiplicity: Float
    """[S] how often each counts"""

    @classmethod
    def of(cls, pool: SupportPool, module: int) -> Supports:
        """The window's, with the keys and values of a cached module."""
        return cls(pool.bank(module), pool.slots, pool.counts, pool.multiplicity)


class _FusedSteps:
    """The stage for the reference proposals of one frame."""

    def __init__(
        self, stage: FusedRelation, boxes: Float, pool: SupportPool, omega_rows: tuple[int, int] | None
    ) -> None:
        self._stage, self._boxes, self._pool, self._omega_rows = stage, boxes, pool, omega_rows
        self.omega: Float | None = None

    def linear(self, name: str, x: Float, *, relu: bool = False, bias: bool = True) -> Float:
        return self._stage.linear(name, x, relu=relu, bias=bias)

    def attend(self, module: int, x: Float, query: Float, *, last: bool) -> Float:
        supports, asked = Supports.of(self._pool, module), self._omega_rows if last else None
        out, self.omega = self._stage.attend(module, x, query, self._boxes, supports, asked)
        return out

    def refine(self, module: int) -> Float:
        return self._stage.refine(module, self._pool)

    def distil(self, module: int, x: Float, query: Float, *, keys: Float, values: Float) -> Float:
        pool, count = self._pool, len(keys)
        bank = self._stage.bank(keys, values, pool.boxes[pool.advanced_rows])
        supports = Supports(bank, np.zeros(1, np.int64), np.array([count]), pool.advanced_multiplicity)
        return self._stage.attend(module, x, query, self._boxes, supports).out


def relate(
    relation: Relation, window: Window, t: int, dials: Dials, lap: Callable[[str], None] = lambda stage: None
) -> tuple[ReferenceProposals, RelationOutput]:
    """The relation stage of frame t of a window.

    Args:
        relation: the executor.
        window: has frame t, and as many later ones as the dials look ahead, or the last ones of its epoch.
        t: number of the frame in its epoch.
        dials: T, L, K, N and r; where they link by relations, the output has the weights for frame t + 1.
        lap: called with the name of each stage as it ends.

    Returns:
        The reference proposals of the frame, and what the heads say of them.
    """
    reference = window.reference(t, dials.num_reference)
    pool = window.pool(t, dials)
    lap("window")
    linked = window.support_rows(t + 1, t, dials) if dials.link == "relations" else None
    output = relation(reference.boxes, reference.features, reference.query, pool, linked)
    lap("relation")
    return reference, output
