"""The memory of one stream on the device: a ring of support proposals, a queue of reference frames, and two numbers."""

from __future__ import annotations

import numpy as np
from numpy.typing import DTypeLike

from rdn_engine.config import Dials, RelationConfig
from rdn_engine.device.encoder import EncodedOnDevice
from rdn_engine.device.gpu import Gpu, Queue
from rdn_engine.kernels import cuda
from rdn_engine.kernels.arithmetic import round_up
from rdn_engine.kernels.cuda.ring import RingRows
from rdn_engine.kernels.cuda.window import Ring

GROUP = 16
"""Supports come in groups of so many, for tensor cores."""


def in_groups(count: int) -> int:
    """`count` up to a whole number of groups."""
    return round_up(count, GROUP)


class DeviceReference:
    """The reference proposals of one frame, by themselves: N rows, of which `count` are there.

    `count` is int32 [1], `boxes` float32 [N, 4] in network-input pixels, `features` and `query` are [N, D].
    """

    def __init__(self, queue: Queue, rows: int, dim: int, query_dim: int, kind: DTypeLike) -> None:
        """Allocate zeros.

        Args:
            queue: of the stream.
            rows: N.
            dim: D of the features.
            query_dim: D of the query; 0 without a relation module.
            kind: of features and query, float32 or float16.
        """
        self.count = queue.zeros(1, np.int32)
        self.boxes = queue.zeros((rows, 4), np.float32)
        self.features = queue.zeros((rows, dim), kind)
        self.query = queue.zeros((rows, query_dim), kind)


class DeviceWindow:
    """As `Window`, with 2 T + 1 slots. Everything here starts as zeros and stays where it is.

    A slot has `stride` rows, K in whole groups; R = slots x stride rows in all, P cached modules. `numbers` is int64
    [2]: the reference frame and the newest one. `counts` is int32 [slots]: the support proposals of each. `boxes` is
    float32 [R, 4] in network-input pixels, `objectness` float32 [R]. `features` and `refine_query` are [R, D], `keys`
    and `values` [P, R, D], of the type that the relation stage stores.
    """

    def __init__(self, gpu: Gpu, queue: Queue, config: RelationConfig, capacity: Dials, kind: DTypeLike) -> None:
        """Allocate zeros.

        Args:
            gpu: the device.
            queue: of the stream.
            config: of the model.
            capacity: the largest T, K and N of the dials.
            kind: of features, queries, keys and values, float32 or float16.

        Raises:
            MemoryError: where the device has no room.
        """
        self._gpu, self._queue, self._config = gpu, queue, config
        self.slots, self.stride = 2 * capacity.window + 1, in_groups(capacity.num_support)
        self._waiting, self._room = capacity.window + 1, capacity.num_reference
        self._support = capacity.num_support
        self._kind = kind
        rows, dim, cached = self.slots * self.stride, config.dim, config.num_cached
        zeros = queue.zeros
        self.numbers = zeros(2, np.int64)
        self.counts = zeros(self.slots, np.int32)
        self.boxes = zeros((rows, 4), np.float32)
        self.objectness = zeros(rows, np.float32)
        self.features = zeros((rows, dim), kind)
        self.keys = zeros((cached, rows, dim), kind)
        self.values = zeros((cached, rows, dim), kind)
        self.refine_query = zeros((rows, dim if config.advanced else 0), kind)
        waiting = self._waiting * self._room
        self._reference_counts = zeros(self._waiting, np.int32)
        self._reference_boxes = zeros((waiting, 4), np.float32)
        self._reference_features = zeros((waiting, dim), kind)
        self._reference_query = zeros((waiting, dim if config.num_modules else 0), kind)

    @property
    def nbytes(self) -> int:
        """Bytes on the device; always the same."""
        return sum(int(a.nbytes) for a in vars(self).values() if hasattr(a, "nbytes"))

    def ring(self, dials: Dials) -> Ring:
        """What the window kernels read, for the frame and the newest one that `set_numbers` named.

        Args:
            dials: with T, L, K and the edge rule, within the capacity.
        """
        return Ring(
            frame=self.numbers[0:1],
            newest=self.numbers[1:2],
            counts=self.counts,
            stride=self.stride,
            dials=dials,
        )

    def set_numbers(self, frame: int, newest: int) -> None:
        """Say which frames the next work is about. It is never captured, because this is what moves from frame to
        frame.

        Args:
            frame: number of the reference frame in its epoch.
            newest: number of the last frame in the window.
        """
        cuda.set_numbers(self._gpu.kernels, self.numbers, frame=frame, newest=newest, stream=self._queue.ptr)

    def append(self, frame: EncodedOnDevice) -> None:
        """Copy a frame into the slot of the newest one, over the one that no window reaches any more.

        Args:
            frame: whose number `set_numbers` named as the newest.
        """
        k = self._support
        support = [RingRows(frame.boxes[:, :k], self.boxes[None], self.stride)]
        support.append(RingRows(frame.objectness[:, :k], self.objectness.reshape(1, -1, 1), self.stride))
        support.append(RingRows(frame.features[:, :k], self.features[None], self.stride))
        queue = [
            RingRows(frame.boxes, self._reference_boxes[None], self._room),
            RingRows(frame.features, self._reference_features[None], self._room),
        ]
        if self._config.num_modules:
            queue.append(RingRows(frame.query, self._reference_query[None], self._room))
            support.append(RingRows(frame.keys, self.keys, self.stride))
            support.append(RingRows(frame.values, self.values, self.stride))
        if self._config.advanced:
            support.append(RingRows(frame.refine_query, self.refine_query[None], self.stride))
        newest = self.numbers[1:2]
        for rows, counts in ((support, self.counts), (queue, self._reference_counts)):
            cuda.copy_ring(
                self._gpu.kernels,
                rows,
                number=newest,
                count=frame.count,
                ring_counts=counts,
                store=True,
                stream=self._queue.ptr,
            )

    def reference(self, rows: int) -> DeviceReference:
        """Room for the first proposals of a frame.

        Args:
            rows: N.
        """
        return DeviceReference(self._queue, rows, self._config.dim, self._reference_query.shape[1], self._kind)

    def load(self, to: DeviceReference) -> None:
        """Copy the reference proposals of the frame that `set_numbers` named.

        Args:
            to: of `reference`; takes the first of them, as many as it has rows.
        """
        rows = [
            RingRows(to.boxes[None], self._reference_boxes[None], self._room),
            RingRows(to.features[None], self._reference_features[None], self._room),
        ]
        if self._config.num_modules:
            rows.append(RingRows(to.query[None], self._reference_query[None], self._room))
        cuda.copy_ring(
            self._gpu.kernels,
            rows,
            number=self.numbers[0:1],
            count=to.count,
            ring_counts=self._reference_counts,
            store=False,
            most=to.boxes.shape[0],
            stream=self._queue.ptr,
        )
