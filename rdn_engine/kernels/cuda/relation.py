"""The relation module on the device, in the steps of `csrc/include/rdn/cuda_ops.h` (paper, eq. 1 to 4).

`attend` looks at the supports in splits and leaves a softmax average of each; `combine` adds the splits up. Splits fill
the machine where rows are few, and they are what a sliding window keeps (`cuda.list_slide`). Storage is read in
place through row lists. float32 is computed in float32. float16 runs on tensor cores with float32 sums: `find_gates`
puts the geometry of its pairs into memory first, once for two modules that share boxes, and supports and splits come in
sixteens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from rdn_engine.kernels.arithmetic import ceil_div
from rdn_engine.kernels.cuda.boxes import Kernels
from rdn_engine.kernels.cuda.view import FLOATS, View


@dataclass(frozen=True)
class Supports:
    boxes: Any
    """float32 [R, 4]"""
    rows: Any
    """int32 [S] in 0..R-1; None: all of the storage in order"""
    multiplicity: Any
    """float32 [S] how often each counts, 0 leaves it out"""


@dataclass(frozen=True)
class Queries:
    boxes: Any
    """float32 [Q, 4]"""
    rows: Any = None
    """int32 [n] in 0..Q-1; None: all in order"""


@dataclass(frozen=True)
class Partials:
    values: Any
    """float32 [splits, places, D] softmax average of each split"""
    weights: Any
    """float32 [splits, places, M, 2] base-2 maximum, and the sum of the weights relative to it"""


@dataclass(frozen=True, kw_only=True)
class AttentionInputs:
    """What one module attends with."""

    query: Any
    """[Q, D] not yet divided by sqrt(head_dim)"""
    keys: Any
    """[R, D]"""
    values: Any
    """[R, D] without their bias"""
    geometry_weight: Any = None
    """float32 [M, 64], for float32"""
    geometry_bias: Any = None
    """float32 [M]"""
    gates: Any = None
    """float16 [M, n, S] of `find_gates`, for float16"""


def geometry_bytes(kernels: Kernels, *, queries: int, supports: int) -> int:
    """Size of the workspace of `find_gates`, `attend` and `average_weights` (these two: float32 only)."""
    return int(kernels.module.geometry_bytes(queries, supports))


def find_gates(
    kernels: Kernels,
    queries: Queries,
    supports: Supports,
    *,
    geometry_weight: Any,
    geometry_bias: Any,
    gates: Any,
    workspace: Any,
    stream: int = 0,
) -> None:
    """The geometry of modules that share boxes: 64 (relu(Wg.E + b) + 1e-6); DESIGN section 2, Relation module.

    Args:
        kernels: of this build.
        queries: n of them.
        supports: S of them, a multiple of 16; the multiplicity is not looked at.
        geometry_weight: Wg float32 [modules, M, 64], one module or two.
        geometry_bias: b float32 [modules, M].
        gates: float16 [modules, M, n, S]: is filled.
        workspace: `geometry_bytes` bytes.
        stream: of CUDA.

    Raises:
        ValueError: an argument does not fit.
        RuntimeError: CUDA refused.
    """
    a = kernels.arrays
    weight = a.float32(geometry_weight, (None, None, 64), "geometry_weight [modules, M, 64]")
    modules, heads = weight.shape[:2]
    query, support = _queries(kernels, queries), _supports(kernels, supports)
    shape = (modules, heads, query[1], support[1])
    kernels.module.RelationGates(
        queries=query[0],
        supports=support[0],
        geometry_weight=weight.pointer,
        geometry_bias=a.float32(geometry_bias, (modules, heads), f"geometry_bias [{modules}, {heads}]").pointer,
        modules=modules,
        heads=heads,
        gates=a.any(gates, (np.float16,), shape, f"gates {list(shape)}").pointer,
        workspace=a.workspace(workspace, geometry_bytes(kernels, queries=query[1], supports=support[1])),
    ).run(stream)


def attend(
    kernels: Kernels,
    queries: Queries,
    supports: Supports,
    *,
    inputs: AttentionInputs,
    split_size: int,
    partials: Partials,
    query_places: Any = None,
    split_places: Any = None,
    workspace: Any,
    stream: int = 0,
) -> None:
    """Softmax averages of the values, one for each split of the supports (paper, equations 1 to 4).

    Args:
        kernels: of this build.
        queries: n of them.
        supports: S of them; float16: a multiple of 16.
        inputs: of one module.
        split_size: supports of a split, 1 or more; float16: a multiple of 16.
        partials: are filled.
        query_places: int32 [n] row of `partials` for each query; None: all in order.
        split_places: int32 [splits] place of `partials` for each split; None: all in order.
        workspace: float32: `geometry_bytes` bytes; float16 does not look at it.
        stream: of CUDA.

    Raises:
        ValueError: an argument does not fit.
        RuntimeError: CUDA refused.
    """
    a = kernels.arrays
    heads = a.float32(partials.weights, (None, None, None, 2), "weights [splits, places, M, 2]").shape[2]
    record, n, dim = _attention(kernels, queries, supports, inputs=inputs, heads=heads, workspace=workspace)
    values = a.float32(partials.values, (None, None, dim), f"values [splits, places, D = {dim}]")
    splits = ceil_div(_supports(kernels, supports)[1], split_size)
    if (query_places is None and n > values.shape[1]) or (split_places is None and splits > values.shape[0]):
        raise ValueError(f"partials {list(values.shape)} have no room for {splits} splits of {n} rows")
    record.update(
        split_size=split_size,
        query_places=a.pointer(query_places, np.int32, (n,), f"query_places [n = {n}]"),
        split_places=a.pointer(split_places, np.int32, (splits,), f"split_places [splits = {splits}]"),
        places=values.shape[1],
        partial=values.pointer,
        partial_weight=a.float32(partials.weights, (*values.shape[:2], heads, 2), "weights like values").pointer,
    )
    kernels.module.RelationAttention(**record).run(stream)


def combine(
    kernels: Kernels,
    partials: Partials,
    out: Any,
    *,
    value_bias: Any,
    residual: Any,
    residual_rows: Any = None,
    split_count: Any = None,
    weight: Any = None,
    stream: int = 0,
) -> None:
    """out = residual + the module's output, from all splits.

    Args:
        kernels: of this build.
        partials: of `attend`.
        out: [places, D]: is filled; the residual alone where there is no support.
        value_bias: float32 [D] is added where there is a support.
        residual: [., D] of out's type.
        residual_rows: int32 [places] of the residual; None: all in order.
        split_count: float32 [splits] how often each counts, 0: it is not read; None: once.
        weight: float32 [places, M, 2]: is filled with the softmax' maximum and sum, for `average_weights`; None where
            nobody asks for them.
        stream: of CUDA.

    Raises:
        ValueError: an argument does not fit.
        RuntimeError: CUDA refused.
    """
    a = kernels.arrays
    values = a.float32(partials.values, (None, None, None), "values [splits, places, D]")
    splits, places, dim = values.shape
    weights = a.float32(partials.weights, (splits, places, None, 2), f"weights [{splits}, {places}, M, 2]")
    heads = weights.shape[2]
    result = a.floats(out, (places, dim), f"out [{places}, {dim}]")
    kernels.module.CombineRelation(
        partial=values.pointer,
        partial_weight=weights.pointer,
        split_count=a.pointer(split_count, np.float32, (splits,), f"split_count [splits = {splits}]"),
        splits=splits,
        rows=places,
        heads=heads,
        head_dim=dim // heads,
        value_bias=a.float32(value_bias, (dim,), f"value_bias [D = {dim}]").pointer,
        residual=a.any(residual, (result.dtype,), (None, dim), f"residual [., {dim}] of out's type").pointer,
        residual_rows=a.pointer(residual_rows, np.int32, (places,), f"residual_rows [{places}]"),
        type=FLOATS[result.dtype],
        out=result.pointer,
        weight=a.pointer(weight, np.float32, (places, heads, 2), f"weight [{places}, {heads}, 2]"),
    ).run(stream)


def average_weights(
    kernels: Kernels,
    queries: Queries,
    supports: Supports,
    *,
    inputs: AttentionInputs,
    weight: Any,
    omega_range: tuple[int, int],
    omega: Any,
    workspace: Any,
    stream: int = 0,
) -> None:
    """Softmax weights averaged over the heads (paper, equation 8: omega).

    Args:
        kernels: of this build.
        queries: n of them, as `attend` had them.
        supports: likewise.
        inputs: likewise.
        weight: float32 [n, M, 2] of `combine`.
        omega_range: (a, b): the weights of supports a..b-1; float16: both multiples of 16.
        omega: float32 [n, b - a]: is filled.
        workspace: float32: as `attend` left it; float16 does not look at it.
        stream: of CUDA.

    Raises:
        ValueError: an argument does not fit.
        RuntimeError: CUDA refused.
    """
    a = kernels.arrays
    heads = a.float32(weight, (None, None, 2), "weight [n, M, 2]").shape[1]
    record, n, _ = _attention(kernels, queries, supports, inputs=inputs, heads=heads, workspace=workspace)
    begin, end = omega_range
    record.update(split_size=16, query_places=None, split_places=None, places=1, partial=None, partial_weight=None)
    kernels.module.RelationOmega(
        attention=kernels.module.RelationAttention(**record),
        weight=a.float32(weight, (n, heads, 2), f"weight [n = {n}, {heads}, 2]").pointer,
        begin=begin,
        end=end,
        omega=a.float32(omega, (n, end - begin), f"omega [{n}, {end - begin}]").pointer,
    ).run(stream)


def _queries(kernels: Kernels, queries: Queries) -> tuple[Any, int, int]:
    """The record, n and Q."""
    boxes, rows, count = _boxes_and_rows(kernels, queries.boxes, queries.rows)
    record = kernels.module.Queries(boxes=boxes.pointer, rows=rows, count=count)
    return record, count, boxes.shape[0]


def _supports(kernels: Kernels, supports: Supports) -> tuple[Any, int, int]:
    """The record, S and R."""
    boxes, rows, count = _boxes_and_rows(kernels, supports.boxes, supports.rows)
    multiplicity = kernels.arrays.pointer(supports.multiplicity, np.float32, (count,), f"multiplicity [S = {count}]")
    record = kernels.module.Supports(boxes=boxes.pointer, rows=rows, multiplicity=multiplicity, count=count)
    return record, count, boxes.shape[0]


def _boxes_and_rows(kernels: Kernels, boxes: Any, rows: Any) -> tuple[View, int | None, int]:
    a = kernels.arrays
    box = a.float32(boxes, (None, 4), "boxes [R, 4]")
    if rows is None:
        return box, None, box.shape[0]
    row = a.int32(rows, (None,), "rows [S]")
    return box, row.pointer, row.shape[0]


def _attention(
    kernels: Kernels, queries: Queries, supports: Supports, *, inputs: AttentionInputs, heads: int, workspace: Any
) -> tuple[dict[str, Any], int, int]:
    """Fields of RelationAttention but for where the partial results go; n; D."""
    a = kernels.arrays
    query_record, n, query_storage = _queries(kernels, queries)
    support_record, count, storage = _supports(kernels, supports)
    query = a.any(inputs.query, (np.float32, np.float16), (query_storage, None), f"query [Q = {query_storage}, D]")
    dim, half = query.shape[1], query.dtype == np.float16
    if dim % heads:
        raise ValueError(f"D = {dim} does not divide among {heads} heads")
    stored = {
        name: a.any(getattr(inputs, name), (query.dtype,), (storage, dim), f"{name} [R = {storage}, D = {dim}]")
        for name in ("keys", "values")
    }
    weight, bias, gates, scratch = None, None, None, None
    if half:
        shape = (heads, n, count)
        gates = a.any(inputs.gates, (np.float16,), shape, f"gates [M, n, S] = {list(shape)}").pointer
    else:
        weight = a.float32(inputs.geometry_weight, (heads, 64), f"geometry_weight [M = {heads}, 64]").pointer
        bias = a.float32(inputs.geometry_bias, (heads,), f"geometry_bias [M = {heads}]").pointer
        scratch = a.workspace(workspace, geometry_bytes(kernels, queries=n, supports=count))
    record = {
        "queries": query_record,
        "supports": support_record,
        "query": query.pointer,
        "keys": stored["keys"].pointer,
        "values": stored["values"].pointer,
        "geometry_weight": weight,
        "geometry_bias": bias,
        "gates": gates,
        "type": FLOATS[query.dtype],
        "heads": heads,
        "head_dim": dim // heads,
        "workspace": scratch,
    }
    return record, n, dim
