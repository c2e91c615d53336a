"""Memory that the steps of a relation stage share, because they come one after the other."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from rdn_engine.config import RelationConfig
from rdn_engine.device.gpu import Queue
from rdn_engine.device.window import in_groups
from rdn_engine.kernels import cuda
from rdn_engine.kernels.arithmetic import ceil_div
from rdn_engine.kernels.cuda.boxes import Kernels
from rdn_engine.kernels.cuda.relation import Partials

SPLITS = 3
"""Supports are looked at in so many parts: 300 rows of 16 heads alone do not fill a large GPU."""


class Scratch:
    """As large as the largest that was reserved."""

    def __init__(self, queue: Queue, kernels: Kernels, relation: RelationConfig, kind: DTypeLike) -> None:
        self._queue, self._kernels, self._relation = queue, kernels, relation
        self._half = np.dtype(kind) == np.float16
        self._geometry_bytes = self._gate_count = self._value_count = self._weight_count = 0

    def reserve(self, queries: int, supports: int, *, modules: int = 1, partials: bool = True) -> None:
        """For `queries` rows that look at `supports`; modules: those whose gates are found in one pass."""
        r = self._relation
        needed = cuda.geometry_bytes(self._kernels, queries=queries, supports=supports)
        self._geometry_bytes = max(self._geometry_bytes, needed)
        if self._half:
            self._gate_count = max(self._gate_count, modules * r.heads * queries * supports)
        if partials:
            _, splits = split_of(supports)
            self._value_count = max(self._value_count, splits * queries * r.dim)
            self._weight_count = max(self._weight_count, splits * queries * r.heads * 2)

    def allocate(self) -> None:
        empty = self._queue.empty
        self.geometry = empty(self._geometry_bytes, np.uint8)
        self._gates = empty(self._gate_count, np.float16)
        self._values, self._weights = empty(self._value_count, np.float32), empty(self._weight_count, np.float32)

    def gates(self, shape: tuple[int, ...]) -> Any:
        return self._gates[: math.prod(shape)].reshape(shape)

    def partials(self, queries: int, supports: int) -> tuple[int, Partials]:
        """Supports of a split, and where the splits' results go."""
        r = self._relation
        size, splits = split_of(supports)
        values, weights = (splits, queries, r.dim), (splits, queries, r.heads, 2)
        return size, Partials(
            self._values[: math.prod(values)].reshape(values), self._weights[: math.prod(weights)].reshape(weights)
        )

    @property
    def nbytes(self) -> int:
        return sum(int(a.nbytes) for a in (self.geometry, self._gates, self._values, self._weights))


def split_of(supports: int) -> tuple[int, int]:
    """Size of a split, in whole groups, and how many there are."""
    size = max(in_groups(ceil_div(supports, SPLITS)), 16)
    return size, ceil_div(supports, size)
