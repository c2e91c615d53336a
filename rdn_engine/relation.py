"""The relation stage: reference proposals look at the window's, then the heads. Two executors behind one face."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rdn_engine import _C, ops
from rdn_engine.backends import Graph
from rdn_engine.config import RDNConfig
from rdn_engine.errors import BackendUnavailable, BundleError, ConfigError
from rdn_engine.features import Float, RelationOutput, SupportPool


class Relation(Protocol):
    @property
    def precision(self) -> ops.Precision:
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

    weights: `relation.npz`, by the names of the torch module (see `fused_shapes`); others are ignored. precision: of
    the operands of all products, sums are float32; `bfloat16` needs a processor with AVX512-BF16 (BackendUnavailable).
    """

    def __init__(
        self,
        config: RDNConfig,
        weights: Mapping[str, NDArray[Any]],
        threads: int,
        precision: ops.Precision = "float32",
    ) -> None:
        if precision not in ("float32", "bfloat16"):
            raise ConfigError(f"relation_precision is {precision!r}; wanted 'float32' or 'bfloat16'")
        if precision == "bfloat16" and _C.isa != "avx512_bf16":
            raise BackendUnavailable(
                f"relation_precision is 'bfloat16', which wants the kernels of avx512_bf16; here are those of {_C.isa}"
            )
        self.precision: ops.Precision = precision
        self._config = config.relation
        self._threads = threads
        self._num_logits = config.num_logits
        self._arrays: dict[str, Float] = {}
        self._packed: dict[str, ops.PackedWeight] = {}
        for name, shape in fused_shapes(config).items():
            array = weights.get(name)
            got = None if array is None else array.shape
            if array is None or got != shape:
                raise BundleError(f"relation weight {name} has shape {got}; the model's configuration wants {shape}")
            single = np.ascontiguousarray(array, np.float32)
            if name.endswith(".geometry.weight") or not name.endswith(".weight"):
                self._arrays[name] = single
            else:
                square = shape == (config.relation.dim, config.relation.dim)
                self._packed[name] = ops.pack_weight(single, precision if square else "float32")
        named = [f"rel.{i}.geometry" for i in range(self._config.num_modules)]
        self._geometry = [
            ops.prepare_geometry(self._arrays.pop(f"{name}.weight"), self._arrays.pop(f"{name}.bias"), precision)
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
            return _no_rows(self._num_logits, omega_rows if r.num_basic else None)
        omega = None
        x = features
        for i in range(r.num_basic):
            if i:
                x = self._linear(f"basic_fc.{i - 1}", x, relu=True)
                query = self._linear(f"rel.{i}.query", x)
            asked = omega_rows if i == r.num_basic - 1 else None
            x, omega = ops.relation_attention(
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
        room = -(-len(a) // ops.PANEL) * ops.PANEL
        bank = ops.SupportBank(
            *ops.empty_supports((1,), room, r.heads, r.head_dim, self.precision),
            np.zeros((1, r.heads), np.float32),
            np.zeros((1, room, 4), np.float32),
        )
        ops.pack_supports(keys, values, bank, 0)
        bank.boxes[0, : len(a)] = pool.boxes[pool.advanced_rows]
        return ops.relation_attention(
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
            refined[left] = ops.relation_attention(
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
        return ops.linear(x, self._packed[f"{name}.weight"], bias, relu, self._threads)


class EngineRelation:
    """The relation graph on a backend: standard operators only, so that any runtime can run it."""

    precision: ops.Precision = "float32"

    def __init__(self, config: RDNConfig, graph: Graph) -> None:
        known = {"features", "query", "boxes", "support_boxes", "keys", "values", "log_multiplicity",
                 "advanced_boxes", "advanced_features", "advanced_query", "advanced_log_multiplicity"}  # fmt: skip
        wanted = {"logits", "deltas"} | ({"omega"} if config.relation.num_basic else set())
        if not set(graph.inputs) <= known or not wanted <= set(graph.outputs):
            raise BundleError(
                f"graph relation has inputs {list(graph.inputs)} and outputs {list(graph.outputs)}; wanted inputs "
                f"among {sorted(known)} and outputs {sorted(wanted)}"
            )
        self._graph = graph
        self._num_logits = config.num_logits
        self._has_omega = config.relation.num_basic > 0

    def __call__(
        self, boxes: Float, features: Float, query: Float, pool: SupportPool, omega_rows: tuple[int, int] | None = None
    ) -> RelationOutput:
        asked = omega_rows if self._has_omega else None
        # A graph need not accept zero rows. A frame with proposals is in its own window, so its pool is never empty.
        if not len(features):
            return _no_rows(self._num_logits, asked)
        rows, chosen = pool.rows, pool.advanced_rows
        keys, values = pool.plain()
        feeds = {
            "features": features,
            "query": query,
            "boxes": boxes,
            "support_boxes": pool.boxes[rows],
            "keys": keys,
            "values": values,
            "log_multiplicity": np.log(pool.multiplicity),
            "advanced_boxes": pool.boxes[chosen],
            "advanced_features": pool.features[chosen],
            "advanced_query": pool.refine_query[chosen],
            "advanced_log_multiplicity": np.log(pool.advanced_multiplicity),
        }
        found = self._graph({name: np.ascontiguousarray(feeds[name]) for name in self._graph.inputs})
        omega = found["omega"][:, asked[0] : asked[1]] if asked is not None else None
        return RelationOutput(found["logits"], found["deltas"], omega)


def fused_shapes(config: RDNConfig) -> dict[str, tuple[int, ...]]:
    """Every array the fused executor reads, by name, and none that it does not: the content of `relation.npz`.

    Not among them: the query of the first module, and keys and values of the cached ones, which come from the encoder.
    """
    r = config.relation
    linear: dict[str, tuple[int, int]] = {
        "classify": (config.num_logits, r.dim),
        "regress": (4 * config.num_logits, r.dim),
    }
    # Queries that are made of what an earlier module put out.
    asking = list(range(1, r.num_basic)) + ([r.num_basic + 1] if r.advanced and r.num_basic else [])
    linear.update({f"rel.{i}.query": (r.dim, r.dim) for i in asking})
    linear.update({f"rel.{i}.geometry": (r.heads, 64) for i in range(r.num_modules)})
    linear.update({f"basic_fc.{i}": (r.dim, r.dim) for i in range(r.num_basic - 1)})
    if r.advanced and r.advanced_fc:
        linear["advanced_fc"] = (r.dim, r.dim)
    shapes: dict[str, tuple[int, ...]] = {}
    for name, shape in linear.items():
        shapes[f"{name}.weight"] = shape
        shapes[f"{name}.bias"] = shape[:1]
    shapes.update({f"rel.{i}.value.bias": (r.dim,) for i in range(r.num_modules)})
    if r.advanced:
        # The distillation's support is what the refinement put out; the bias of its keys has no effect.
        shapes.update({f"rel.{r.num_basic + 1}.{part}.weight": (r.dim, r.dim) for part in ("key", "value")})
    return shapes


def _no_rows(num_logits: int, omega_rows: tuple[int, int] | None) -> RelationOutput:
    omega = np.zeros((0, omega_rows[1] - omega_rows[0]), np.float32) if omega_rows is not None else None
    return RelationOutput(np.zeros((0, num_logits), np.float32), np.zeros((0, 4 * num_logits), np.float32), omega)
