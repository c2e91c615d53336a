"""The relation stage: reference proposals look at the window's, then the heads. Two executors behind one face."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from types import TracebackType
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]

from rdn_engine import ops
from rdn_engine.backends import Graph
from rdn_engine.config import RDNConfig
from rdn_engine.errors import BundleError
from rdn_engine.features import Float, Index, RelationOutput, SupportPool

_THREADED_DIM = 512
"""Feature width D from which on numpy's products may use more than one thread."""


class Relation(Protocol):
    def __call__(
        self, boxes: Float, features: Float, query: Float, pool: SupportPool, omega_rows: tuple[int, int] | None = None
    ) -> RelationOutput:
        """boxes [n, 4] network-input pixels, features and query [n, D] of the reference proposals, as encoded.

        With `omega_rows` (a, b) the output has the weights of the last basic module for `pool.rows[a:b]`.
        """
        ...


class FusedRelation:
    """Compiled attention over the ring in place, numpy's BLAS for the rest. Default.

    weights: `relation.npz`, by the names of the torch module (see `fused_shapes`); others are ignored.
    """

    def __init__(self, config: RDNConfig, weights: Mapping[str, NDArray[Any]], threads: int) -> None:
        self._config = config.relation
        self._threads = threads
        self._num_logits = config.num_logits
        self._weights: dict[str, Float] = {}
        for name, shape in fused_shapes(config).items():
            array = weights.get(name)
            got = None if array is None else array.shape
            if array is None or got != shape:
                raise BundleError(f"relation weight {name} has shape {got}; the model's configuration wants {shape}")
            self._weights[name] = np.ascontiguousarray(array, np.float32)
        # A narrower product is done before a second thread has begun.
        self._blas = _BlasLimit(threads if self._config.dim >= _THREADED_DIM else 1)

    def __call__(
        self, boxes: Float, features: Float, query: Float, pool: SupportPool, omega_rows: tuple[int, int] | None = None
    ) -> RelationOutput:
        r = self._config
        if not len(features):
            return _no_rows(self._num_logits, omega_rows if r.num_basic else None)
        omega = None
        with self._blas:
            x = features
            for i in range(r.num_basic):
                if i:
                    x = self._fc(f"basic_fc.{i - 1}", x)
                    query = self._linear(f"rel.{i}.query", x)
                asked = omega_rows if i == r.num_basic - 1 else None
                found = self._attend(
                    i, query, boxes, pool.keys[i], pool.values[i], pool.boxes, pool.rows, pool.multiplicity, asked
                )
                x = x + found.out
                omega = found.omega
            if r.advanced:
                x = x + self._advanced(x, query, boxes, pool)
            return RelationOutput(self._linear("classify", x), self._linear("regress", x), omega)

    def _advanced(self, x: Float, query: Float, boxes: Float, pool: SupportPool) -> Float:
        """rel_{N_b+1}(x, a): a are the advanced support proposals after their refinement by the whole pool."""
        r = self._config
        refine, distill = r.num_basic, r.num_basic + 1
        chosen = pool.advanced_rows
        chosen_boxes = pool.boxes[chosen]
        refined = self._attend(
            refine,
            pool.refine_query[chosen],
            chosen_boxes,
            pool.keys[refine],
            pool.values[refine],
            pool.boxes,
            pool.rows,
            pool.multiplicity,
        )
        a: Float = pool.features[chosen] + refined.out
        if r.advanced_fc:
            a = self._fc("advanced_fc", a)
        # Without a basic module the encoder's query is already this one's.
        query = self._linear(f"rel.{distill}.query", x) if r.num_basic else query
        # The bias of the keys adds the same to every logit of a row, so the softmax does not see it.
        keys: Float = a @ self._weights[f"rel.{distill}.key.weight"].T
        values: Float = a @ self._weights[f"rel.{distill}.value.weight"].T
        every = np.arange(len(chosen))
        return self._attend(distill, query, boxes, keys, values, chosen_boxes, every, pool.advanced_multiplicity).out

    def _attend(
        self,
        module: int,
        query: Float,
        boxes: Float,
        keys: Float,
        values: Float,
        support_boxes: Float,
        rows: Index,
        multiplicity: Float,
        omega_rows: tuple[int, int] | None = None,
    ) -> ops.Attention:
        """rel_module(x, s), the bias of the values included; zeros where there is no support."""
        w = self._weights
        found = ops.relation_attention(
            query,
            boxes,
            keys,
            values,
            support_boxes,
            rows,
            multiplicity,
            w[f"rel.{module}.geometry.weight"],
            w[f"rel.{module}.geometry.bias"],
            omega_rows,
            self._threads,
        )
        # Softmax weights add up to 1, so the bias of every value is the bias of their mean; of nothing there is none.
        return found._replace(out=found.out + w[f"rel.{module}.value.bias"]) if len(rows) else found

    def _linear(self, name: str, x: Float) -> Float:
        out: Float = x @ self._weights[f"{name}.weight"].T + self._weights[f"{name}.bias"]
        return out

    def _fc(self, name: str, x: Float) -> Float:
        return np.maximum(self._linear(name, x), 0)


class EngineRelation:
    """The relation graph on a backend: standard operators only, so that any runtime can run it."""

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
        feeds = {
            "features": features,
            "query": query,
            "boxes": boxes,
            "support_boxes": pool.boxes[rows],
            "keys": pool.keys[:, rows],
            "values": pool.values[:, rows],
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


class _BlasLimit:
    """Bounds numpy's BLAS to `threads` inside a `with`, and puts the old bound back.

    BLAS has one pool and one bound a process. So the first Python thread that enters sets it and the last that leaves
    restores it; streams that overlap run under the first one's bound, and so does whatever else the process
    multiplies meanwhile.
    """

    _lock: ClassVar[threading.Lock] = threading.Lock()
    _inside: ClassVar[int] = 0
    _restore: ClassVar[Any] = None

    def __init__(self, threads: int) -> None:
        self._threads = threads
        # Finding the libraries reads the process's memory map; setting a bound is one C call.
        self._libraries = ThreadpoolController().select(user_api="blas")

    def __enter__(self) -> None:
        with _BlasLimit._lock:
            if _BlasLimit._inside == 0:
                _BlasLimit._restore = self._libraries.limit(limits=self._threads)
            _BlasLimit._inside += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with _BlasLimit._lock:
            _BlasLimit._inside -= 1
            if _BlasLimit._inside == 0:
                _BlasLimit._restore.restore_original_limits()
                _BlasLimit._restore = None
