"""The memory of one stream: a ring of support proposals and a queue of reference frames that wait for their future."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from rdn_engine import ops
from rdn_engine.config import Dials, RelationConfig
from rdn_engine.errors import ConfigError
from rdn_engine.features import EncodedFrame, Float, Index, SupportPool


class Reference(NamedTuple):
    """The reference proposals of one frame, in place in the queue."""

    boxes: Float
    """[n, 4] network-input pixels"""
    features: Float
    """[n, D]"""
    query: Float
    """[n, D]"""


class Window:
    """Fixed arrays for `capacity`: 2 T + 1 frames of K support proposals, T + 1 frames of N reference proposals.

    Frames are numbered 0, 1, ... from the last `reset`. Nothing here is allocated or freed while a stream runs.
    """

    def __init__(self, config: RelationConfig, capacity: Dials) -> None:
        self._config = config
        self._slots = 2 * capacity.window + 1
        self._stride = capacity.num_support
        self._waiting = capacity.window + 1
        rows = self._slots * self._stride
        try:
            self._allocate(config, rows, capacity.num_reference)
        except MemoryError as error:
            size = f"T = {capacity.window}, K = {capacity.num_support}, N = {capacity.num_reference}"
            raise ConfigError(
                f"a stream for {size} does not fit into memory ({error}); wanted smaller dials, or a smaller capacity"
            ) from None
        self.newest = -1
        """Number of the last frame appended; -1 after a reset."""

    def _allocate(self, config: RelationConfig, rows: int, num_reference: int) -> None:
        dim, cached = config.dim, config.num_cached
        self._boxes = np.zeros((rows, 4), np.float32)
        self._objectness = np.zeros(rows, np.float32)
        self._features = np.zeros((rows, dim), np.float32)
        self._keys = np.zeros((cached, rows, dim), np.float32)
        self._values = np.zeros((cached, rows, dim), np.float32)
        self._refine_query = np.zeros((rows, dim if config.advanced else 0), np.float32)
        self._support_counts = np.zeros(self._slots, np.int64)

        queue = (self._waiting, num_reference)
        self._reference_boxes = np.zeros((*queue, 4), np.float32)
        self._reference_features = np.zeros((*queue, dim), np.float32)
        self._reference_query = np.zeros((*queue, dim if config.num_modules else 0), np.float32)
        self._reference_counts = np.zeros(self._waiting, np.int64)

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays; the same from the first frame to the last."""
        return sum(a.nbytes for a in vars(self).values() if isinstance(a, np.ndarray))

    def reset(self) -> None:
        """Forget every frame; the next one appended is frame 0."""
        self.newest = -1

    def append(self, frame: EncodedFrame) -> int:
        """Copy a frame in, over the one that no window reaches any more; returns its number."""
        t = self.newest + 1
        k = len(frame.refine_query)
        slot = t % self._slots
        rows = slice(slot * self._stride, slot * self._stride + k)
        self._boxes[rows] = frame.boxes[:k]
        self._objectness[rows] = frame.objectness[:k]
        self._features[rows] = frame.features[:k]
        self._keys[:, rows] = frame.keys
        self._values[:, rows] = frame.values
        self._refine_query[rows] = frame.refine_query
        self._support_counts[slot] = k

        n = len(frame.boxes)
        place = t % self._waiting
        self._reference_boxes[place, :n] = frame.boxes
        self._reference_features[place, :n] = frame.features
        self._reference_query[place, :n] = frame.query
        self._reference_counts[place] = n
        self.newest = t
        return t

    def reference(self, t: int, num_reference: int) -> Reference:
        """The first `num_reference` proposals of frame t, one of the last T + 1 appended."""
        place = t % self._waiting
        rows = slice(min(num_reference, int(self._reference_counts[place])))
        return Reference(
            self._reference_boxes[place, rows],
            self._reference_features[place, rows],
            self._reference_query[place, rows],
        )

    def span(self, t: int, dials: Dials) -> range:
        """The frames of t-T..t+L that there are."""
        return range(max(t - dials.window, 0), min(t + dials.frames_ahead, self.newest) + 1)

    def support_rows(self, frame: int, t: int, dials: Dials) -> tuple[int, int] | None:
        """Where `pool(t, dials).rows` holds the proposals of `frame`: first and one past the last; None where it is
        not in the window.
        """
        span = self.span(t, dials)
        if frame not in span:
            return None
        slots = np.arange(span.start, frame + 1) % self._slots
        counts = np.minimum(self._support_counts[slots], dials.num_support)
        return int(counts[:-1].sum()), int(counts.sum())

    def pool(self, t: int, dials: Dials) -> SupportPool:
        """The support proposals that frame t looks at: the first K of every frame of its window.

        With `replicate` edges the first frame stands in for those before it and the newest for those that have not
        come, which is right only once the epoch has ended: a running stream asks when frame t + L is there.
        """
        span = self.span(t, dials)
        repeats = np.ones(len(span), np.float32)
        if dials.edges == "replicate":
            repeats[0] += max(dials.window - t, 0)
            repeats[-1] += max(t + dials.frames_ahead - self.newest, 0)
        slots = np.arange(span.start, span.stop) % self._slots
        counts = np.minimum(self._support_counts[slots], dials.num_support)
        starts = np.concatenate([[0], np.cumsum(counts)])
        rows = np.arange(starts[-1]) + np.repeat(slots * self._stride - starts[:-1], counts)
        multiplicity = np.repeat(repeats, counts)
        advanced, advanced_multiplicity = self._sample(rows, multiplicity, starts, dials)
        return SupportPool(
            boxes=self._boxes,
            features=self._features,
            keys=self._keys,
            values=self._values,
            refine_query=self._refine_query,
            rows=rows,
            multiplicity=multiplicity,
            advanced_rows=rows[advanced],
            advanced_multiplicity=advanced_multiplicity,
        )

    def _sample(self, rows: Index, multiplicity: Float, starts: Index, dials: Dials) -> tuple[Index, Float]:
        if not self._config.advanced:
            return np.zeros(0, np.int64), np.zeros(0, np.float32)
        return ops.sample_advanced(
            self._objectness[rows], multiplicity, starts, dials.advanced_ratio, dials.num_support, dials.sampling
        )
