"""The memory of one stream: a ring of support proposals and a queue of reference frames that wait for their future."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from rdn_engine.config import Dials, RelationConfig
from rdn_engine.host.features import EncodedFrame, Kept, SupportPool, single
from rdn_engine.host.refinement import Refinement
from rdn_engine.kernels import cpu
from rdn_engine.kernels.arithmetic import round_up
from rdn_engine.kernels.cpu.arrays import Float, Index
from rdn_engine.stream.order import span
from rdn_engine.stream.room import room_for


class ReferenceProposals(NamedTuple):
    """The reference proposals of one frame."""

    boxes: Float
    """[n, 4] network-input pixels"""
    features: Float
    """[n, D]"""
    query: Float
    """[n, D]"""


class Window:
    """Fixed arrays for `capacity`: 2 T + 2 frames of K support proposals, T + 1 frames of N reference proposals.

    The window itself has 2 T + 1 frames; the one that has just left it stays, so that its part of running sums can be
    taken back. Frames are numbered 0, 1, ... from the last `reset`. Nothing here is allocated or freed while a stream
    runs.
    """

    def __init__(
        self,
        config: RelationConfig,
        capacity: Dials,
        products: cpu.Precision = "float32",
        ring: cpu.RingPrecision = "float32",
    ) -> None:
        """Allocate zeros.

        Args:
            config: of the model.
            capacity: the largest T, K and N of the dials. Of more advanced rows than its r has, some are refined from
                the whole window.
            products: of the relation stage; keys and values are kept in bfloat16 where they are.
            ring: of all other keys and values, of features and of queries.

        Raises:
            ConfigError: for a window that does not fit into memory.
        """
        self._config = config
        self._slots = 2 * capacity.window + 2
        self._room = round_up(capacity.num_support, cpu.PANEL)
        self._waiting = capacity.window + 1
        with room_for(capacity):
            self._allocate(config, capacity, "bfloat16" if products == "bfloat16" else ring, np.dtype(ring))
        self.newest = -1
        """Number of the last frame appended; -1 after a reset."""

    def _allocate(
        self, config: RelationConfig, capacity: Dials, stored: cpu.StoredPrecision, kept: np.dtype[Any]
    ) -> None:
        dim, heads, cached = config.dim, config.heads, config.num_cached
        slots, room = self._slots, self._room
        self._boxes = np.zeros((slots * room, 4), np.float32)
        self._objectness = np.zeros(slots * room, np.float32)
        self._features = np.zeros((slots * room, dim), kept)
        self._keys, self._values = cpu.empty_supports((cached, slots), room=room, config=config, precision=stored)
        self._key_length = np.zeros((cached, slots, heads), np.float32)
        self._refine_query = np.zeros((slots * room, dim if config.advanced else 0), kept)
        self._support_counts = np.zeros(slots, np.int64)
        advanced = math.ceil(capacity.advanced_ratio * capacity.num_support * (2 * capacity.window + 1))
        self._refinement = Refinement(config, slots=slots, room=room, places=advanced)

        queue = (self._waiting, capacity.num_reference)
        self._reference_boxes = np.zeros((*queue, 4), np.float32)
        self._reference_features = np.zeros((*queue, dim), kept)
        self._reference_query = np.zeros((*queue, dim if config.num_modules else 0), kept)
        self._reference_counts = np.zeros(self._waiting, np.int64)

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays; the same from the first frame to the last."""
        return self._refinement.nbytes + sum(a.nbytes for a in vars(self).values() if isinstance(a, np.ndarray))

    def reset(self) -> None:
        """Forget every frame; the next one appended is frame 0."""
        self.newest = -1
        self._refinement.forget()

    def append(self, frame: EncodedFrame) -> int:
        """Copy a frame in, over the oldest one, which no window reaches any more.

        Args:
            frame: at most N proposals of the capacity, the first K of them with keys and values.

        Returns:
            The number of the frame, from 0 since the last `reset`.
        """
        t = self.newest + 1
        k = len(frame.refine_query)
        slot = t % self._slots
        self._refinement.forget_slot(slot)
        rows = slice(slot * self._room, slot * self._room + k)
        self._boxes[rows] = frame.boxes[:k]
        self._objectness[rows] = frame.objectness[:k]
        _keep(frame.features[:k], self._features[rows])
        for i, (keys, values) in enumerate(zip(frame.keys, frame.values, strict=True)):
            cpu.pack_supports(keys, values, self._bank(i), slot=slot)
        _keep(frame.refine_query, self._refine_query[rows])
        self._support_counts[slot] = k

        n = len(frame.boxes)
        place = t % self._waiting
        self._reference_boxes[place, :n] = frame.boxes
        _keep(frame.features, self._reference_features[place, :n])
        _keep(frame.query, self._reference_query[place, :n])
        self._reference_counts[place] = n
        self.newest = t
        return t

    def _bank(self, module: int) -> cpu.SupportBank:
        boxes = self._boxes.reshape(self._slots, self._room, 4)
        return cpu.SupportBank(self._keys[module], self._values[module], self._key_length[module], boxes)

    def reference(self, t: int, num_reference: int) -> ReferenceProposals:
        """The reference proposals of a frame, in place where they are kept in float32.

        Args:
            t: number of the frame, one of the last T + 1 appended.
            num_reference: N, how many of them at most.
        """
        place = t % self._waiting
        rows = slice(min(num_reference, int(self._reference_counts[place])))
        return ReferenceProposals(
            self._reference_boxes[place, rows],
            single(self._reference_features[place, rows]),
            single(self._reference_query[place, rows]),
        )

    def support_rows(self, frame: int, t: int, dials: Dials) -> tuple[int, int] | None:
        """Where `pool(t, dials).rows` holds the proposals of a frame.

        Args:
            frame: number of the frame that is looked for.
            t: number of the reference frame.
            dials: with T, L and K of the window.

        Returns:
            The first row and one past the last; None where the frame is not in the window.
        """
        frames = span(t, self.newest, dials)
        if frame not in frames:
            return None
        slots = np.arange(frames.start, frame + 1) % self._slots
        counts = np.minimum(self._support_counts[slots], dials.num_support)
        return int(counts[:-1].sum()), int(counts.sum())

    def pool(self, t: int, dials: Dials) -> SupportPool:
        """The support proposals that a frame looks at: the first K of every frame of its window (paper, Algorithm 1).

        With `replicate` edges the first frame stands in for those before it and the newest for those that have not
        come, which is right only once the epoch has ended: a running stream asks when frame t + L is there.

        Args:
            t: number of the reference frame, one of the last T + 1 appended.
            dials: with T, L, K, r, sampling and edges.
        """
        frames = span(t, self.newest, dials)
        repeats = np.ones(len(frames), np.float32)
        if dials.edges == "replicate":
            repeats[0] += max(dials.window - t, 0)
            repeats[-1] += max(t + dials.frames_ahead - self.newest, 0)
        slots = np.arange(frames.start, frames.stop) % self._slots
        slot_counts = np.minimum(self._support_counts, dials.num_support)
        counts = slot_counts[slots]
        starts = np.concatenate([[0], np.cumsum(counts)])
        rows = np.arange(starts[-1]) + np.repeat(slots * self._room - starts[:-1], counts)
        advanced, advanced_multiplicity = self._sample(rows, np.repeat(repeats, counts), starts, dials)
        return SupportPool(
            boxes=self._boxes,
            features=self._features,
            keys=self._keys,
            values=self._values,
            key_length=self._key_length,
            refine_query=self._refine_query,
            slots=slots,
            counts=counts,
            repeats=repeats,
            slot_counts=slot_counts,
            advanced_rows=rows[advanced],
            advanced_multiplicity=advanced_multiplicity,
            refinement=self._refinement,
        )

    def _sample(self, rows: Index, multiplicity: Float, starts: Index, dials: Dials) -> tuple[Index, Float]:
        if not self._config.advanced:
            return np.zeros(0, np.int64), np.zeros(0, np.float32)
        return cpu.sample_advanced(self._objectness[rows], multiplicity, starts, dials=dials)


def _keep(rows: Float, to: Kept) -> None:
    """Copy rows into the ring."""
    if to.dtype == np.float16:
        cpu.narrow(rows, to)  # type: ignore[arg-type]
    else:
        to[...] = rows
