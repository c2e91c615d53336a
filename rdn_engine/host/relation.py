"""The relation stage: reference proposals look at the window's, then the heads. The face, and its compiled executor."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rdn_engine.bundle.contract import relation_arrays
from rdn_engine.config import Dials, RDNConfig
from rdn_engine.errors import BackendUnavailable, ConfigError
from rdn_engine.host.features import RelationOutput, SupportPool
from rdn_engine.host.window import ReferenceProposals, Window
from rdn_engine.kernels import _C, cpu
from rdn_engine.kernels.cpu.arrays import Float


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
        # The bias of keys adds the same to every logit of a row, so the softmax does not see it; that of values is
        # added after the softmax.
        self._no_bias = np.zeros(self._config.dim, np.float32)

    def __call__(
        self, boxes: Float, features: Float, query: Float, pool: SupportPool, omega_rows: tuple[int, int] | None = None
    ) -> RelationOutput:
        r = self._config
        if not len(features):
            return RelationOutput.of_no_rows(self._num_logits, omega_rows if r.num_basic else None)
        omega = None
        x = features
        for i in range(r.num_basic):
            if i:
                x = self._linear(f"basic_fc.{i - 1}", x, relu=True)
                query = self._linear(f"rel.{i}.query", x)
            asked = omega_rows if i == r.num_basic - 1 else None
            x, omega = cpu.relation_attention(
                query,
                boxes,
                x,
                self._arrays[f"rel.{i}.value.bias"],
                pool.bank(i),
                pool.slots,
                pool.counts,
                pool.multiplicity,
                self._geometry[i],
                asked,
                self._threads,
            )
        if r.advanced:
            x = self._distil(x, query, boxes, pool)
        return RelationOutput(self._linear("classify", x), self._linear("regress", x), omega)

    def _distil(self, x: Float, query: Float, boxes: Float, pool: SupportPool) -> Float:
        """x + rel_{N_b+1}(x, a): a are the advanced support proposals after their refinement by the whole pool."""
        r = self._config
        module = r.num_basic + 1
        a = self._refine(pool)
        if r.advanced_fc:
            a = self._linear("advanced_fc", a, relu=True)
        # Without a basic module the encoder's query is already this one's.
        query = self._linear(f"rel.{module}.query", x) if r.num_basic else query
        keys, values = (self._linear(f"rel.{module}.{part}", a, bias=self._no_bias) for part in ("key", "value"))
        room = -(-len(a) // cpu.PANEL) * cpu.PANEL
        bank = cpu.SupportBank(
            *cpu.empty_supports((1,), room, r.heads, r.head_dim, self.precision),
            np.zeros((1, r.heads), np.float32),
            np.zeros((1, room, 4), np.float32),
        )
        cpu.pack_supports(keys, values, bank, 0)
        bank.boxes[0, : len(a)] = pool.boxes[pool.advanced_rows]
        return cpu.relation_attention(
            query,
            boxes,
            x,
            self._arrays[f"rel.{module}.value.bias"],
            bank,
            np.zeros(1, np.int64),
            np.array([len(a)]),
            pool.advanced_multiplicity,
            self._geometry[module],
            threads=self._threads,
        ).out

    def _refine(self, pool: SupportPool) -> Float:
        """s_A + rel_{N_b}(s_A, S) [A, D]"""
        module = self._config.num_basic
        value_bias = self._arrays[f"rel.{module}.value.bias"]
        refined, left = pool.refinement.step(pool, module, value_bias, self._geometry[module], self._threads)
        if left.any():
            rows = pool.advanced_rows[left]
            refined[left] = cpu.relation_attention(
                pool.refine_query[rows],
                pool.boxes[rows],
                pool.features[rows],
                value_bias,
                pool.bank(module),
                pool.slots,
                pool.counts,
                pool.multiplicity,
                self._geometry[module],
                threads=self._threads,
            ).out
        return refined

    def _linear(self, name: str, x: Float, relu: bool = False, bias: Float | None = None) -> Float:
        bias = self._arrays[f"{name}.bias"] if bias is None else bias
        return cpu.linear(x, self._packed[f"{name}.weight"], bias, relu, self._threads)


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
