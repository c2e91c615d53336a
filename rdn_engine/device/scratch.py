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
    """Memory as large as the largest that was reserved, of any content between two steps."""

    def __init__(self, queue: Queue, kernels: Kernels, relation: RelationConfig, kind: DTypeLike) -> None:
        """Begin with nothing reserved.

        Args:
            queue: that the steps are put on.
            kernels: say how much they need.
            relation: of the model.
            kind: of what the relation stage stores and multiplies, float32 or float16.
        """
        self._queue, self._kernels, self._relation = queue, kernels, relation
        self._half = np.dtype(kind) == np.float16
        self._geometry_bytes = self._gate_count = self._value_count = self._weight_count = 0

    def reserve(self, queries: int, supports: int, *, modules: int = 1, partials: bool = True) -> None:
        """Reserve for one step; before `allocate`.

        Args:
            queries: rows of the step.
            supports: that they look at.
            modules: those whose gates are found in one pass.
            partials: whether the step has `partials`.
        """
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
        """Allocate what was reserved."""
        empty = self._queue.empty
        self.geometry = empty(self._geometry_bytes, np.uint8)
        self._gates = empty(self._gate_count, np.float16)
        self._values, self._weights = empty(self._value_count, np.float32), empty(self._weight_count, np.float32)

    def gates(self, shape: tuple[int, ...]) -> Any:
        """Room for the gates of modules that share boxes, float16; each call gives the same room.

        Args:
            shape: (modules, M, queries, supports), no larger than what was reserved.
        """
        return self._gates[: math.prod(shape)].reshape(shape)

    def partials(self, queries: int, supports: int) -> tuple[int, Partials]:
        """Room for what the splits of the supports make by themselves.

        Args:
            queries: rows of the step.
            supports: that they look at.

        Returns:
            Supports of a split, and where the splits' results go.
        """
        r = self._relation
        size, splits = split_of(supports)
        values, weights = (splits, queries, r.dim), (splits, queries, r.heads, 2)
        return size, Partials(
            self._values[: math.prod(values)].reshape(values), self._weights[: math.prod(weights)].reshape(weights)
        )

    @property
    def nbytes(self) -> int:
        """Bytes on the device, after `allocate`."""
        return sum(int(a.nbytes) for a in (self.geometry, self._gates, self._values, self._weights))


def split_of(supports: int) -> tuple[int, int]:
    """How supports are split.

    Args:
        supports: of a step.

    Returns:
        Supports of a split, in whole groups, and how many splits there are, at most SPLITS.
    """
    size = max(in_groups(ceil_div(supports, SPLITS)), 16)
    return size, ceil_div(supports, size)
