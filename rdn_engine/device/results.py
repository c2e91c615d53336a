"""Results that stay on the device, and their way to the host."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, fields
from typing import Any, NamedTuple, NoReturn

import numpy as np
from numpy.typing import NDArray

from rdn_engine.device.gpu import DEFAULT_STREAM, Event, Gpu, Queue
from rdn_engine.errors import RDNError
from rdn_engine.results import Detections, FrameFacts
from rdn_engine.stream.links import Linkable


class DeviceArrays(NamedTuple):
    """Arrays of the device, with `__cuda_array_interface__` and `__dlpack__`; m = max_detections rows, zeros past the
    count.
    """

    xyxy: Any
    """float32 [m, 4] corners in pixels of the frame, highest confidence first"""
    confidence: Any
    """float32 [m] in 0..1"""
    class_id: Any
    """int32 [m]; 0 is the first foreground class"""
    proposal: Any
    """int32 [m] reference proposal that each comes from"""
    count: Any
    """int32 [1] detections that there are"""


class ResultRing:
    """Room for the results of one stream: the one that is being made, and the latest `kept`, here and on the host."""

    def __init__(self, gpu: Gpu, queue: Queue, most: int, kept: int) -> None:
        """Allocate everything but the room for weights.

        Args:
            gpu: the device.
            queue: that results are made on.
            most: detections of a result, at most.
            kept: results that stay.
        """
        self.kept, self._most, self._queue, self._gpu = kept, most, queue, gpu
        nbytes = 28 * most + 16
        self._made = queue.zeros(nbytes, np.uint8)
        self._device = queue.zeros((kept, nbytes), np.uint8)
        self._host = gpu.pinned((kept, nbytes), np.uint8)
        self._copied = [gpu.event() for _ in range(kept)]
        self._read: list[list[Event]] = [[] for _ in range(kept)]
        self._results = 0
        self._omega: NDArray[np.float32] = np.zeros((kept, 0, 0), np.float32)
        self._looks: NDArray[Any] = np.zeros((kept, 0, 0), np.float32)

    def make_room(self, omega: Any, looks: Any) -> None:
        """Make room on the host for weights and features that results bring along.

        Args:
            omega: [N, W] on the device, of the size that comes; None for none.
            looks: [m, D] likewise.
        """
        if omega is not None and self._omega.shape[1:] != omega.shape:
            self._omega = self._gpu.pinned((self.kept, *omega.shape), np.float32)
        if looks is not None and self._looks.shape[1:] != looks.shape:
            self._looks = self._gpu.pinned((self.kept, *looks.shape), looks.dtype)

    @property
    def nbytes(self) -> int:
        """Bytes on the device; always the same."""
        return int(self._made.nbytes + self._device.nbytes)

    @property
    def made(self) -> DeviceArrays:
        """What the kernels fill; the same for every result."""
        return _arrays(self._made, self._most)

    def keep(self, omega: Any = None, looks: Any = None) -> int:
        """Put what was made aside, and send it to the host, without a wait.

        Args:
            omega: [N, W] weights on the device that go along; None for none.
            looks: [m, D] features on the device of the first m boxes that go along; None for none.

        Returns:
            The number of the result, from 0.
        """
        number = self._results
        slot = number % self.kept
        for read in self._read[slot]:
            read.lead(self._queue.ptr)
        self._read[slot].clear()
        self._queue.copy(self._device[slot], self._made)
        self._queue.copy(self._host[slot], self._made)
        if omega is not None:
            self._queue.copy(self._omega[slot], omega)
        if looks is not None:
            self._queue.copy(self._looks[slot], looks)
        self._copied[slot].record(self._queue.ptr)
        self._results += 1
        return number

    @contextlib.contextmanager
    def on(self, number: int, stream: int) -> Iterator[DeviceArrays]:
        """Lend a result to work on another stream.

        Args:
            number: of the result.
            stream: address of the cudaStream_t that the block's work is put on; it waits for the result, and later
                results wait for it before they take the place.

        Returns:
            A context manager of the arrays, which are good for work that is put on `stream` within the block.

        Raises:
            RDNError: on entry, for a result that made room for later ones.
        """
        slot = self._slot(number)
        self._copied[slot].lead(stream)
        try:
            yield _arrays(self._device[slot], self._most)
        finally:
            read = self._gpu.event()
            read.record(stream)
            self._read[slot].append(read)

    def wait(self, number: int) -> DeviceArrays:
        """Wait for a result on the host.

        Args:
            number: of the result.

        Returns:
            The same arrays in memory of the host, until `kept` later results were made.

        Raises:
            RDNError: for a result that made room for later ones.
        """
        slot = self._slot(number)
        self._copied[slot].wait()
        return _arrays(self._host[slot], self._most)

    def omega(self, number: int) -> NDArray[np.float32]:
        """The weights that went along with a result; to be called after `wait`.

        Args:
            number: of a result that was kept with weights.

        Returns:
            [N, W] in memory of the host, until `kept` later results were made.

        Raises:
            RDNError: for a result that made room for later ones.
        """
        omega: NDArray[np.float32] = self._omega[self._slot(number)]
        return omega

    def looks(self, number: int) -> NDArray[Any]:
        """The features that went along with a result; as `omega`.

        Args:
            number: of a result that was kept with features.

        Returns:
            [m, D] in memory of the host, until `kept` later results were made.

        Raises:
            RDNError: for a result that made room for later ones.
        """
        looks: NDArray[Any] = self._looks[self._slot(number)]
        return looks

    def _slot(self, number: int) -> int:
        if number < self._results - self.kept:
            raise RDNError(f"this result made room for later ones: a stream keeps the last {self.kept} on the device")
        return number % self.kept


def _arrays(memory: Any, most: int) -> DeviceArrays:
    ends = np.cumsum([16 * most, 4 * most, 4 * most, 4 * most, 4]).tolist()
    kinds = (np.float32, np.float32, np.int32, np.int32, np.int32)
    xyxy, *rest = (
        memory[start:end].view(kind) for start, end, kind in zip([0, *ends[:-1]], ends, kinds, strict=True)
    )  # fmt: skip
    return DeviceArrays(xyxy.reshape(most, 4), *rest)


@dataclass(frozen=True, eq=False, kw_only=True)
class DeviceDetections(FrameFacts):
    """The detections of one frame, on the device, as soon as the work that makes them was started.

    They stay there until as many later results of their stream as `kept` says.
    """

    _results: ResultRing
    _number: int
    _related: bool
    """Whether weights for the next frame's boxes went along."""
    _looked: bool
    """Whether features of the boxes' proposals went along."""

    def __reduce__(self) -> NoReturn:
        raise RDNError("a result on the device cannot be pickled; its cpu() gives one that can")

    @property
    def kept(self) -> int:
        """How many results of the stream stay on the device."""
        return self._results.kept

    def on(self, stream: int = DEFAULT_STREAM) -> AbstractContextManager[DeviceArrays]:
        """Lend the arrays to work on a stream, without a wait of the host.

        Args:
            stream: address of the cudaStream_t that the block's work is put on.

        Returns:
            A context manager of the arrays, which are good for work that is put on `stream` within the block.

        Raises:
            RDNError: on entry, where the result made room for later ones.
        """
        return self._results.on(self._number, stream)

    def cpu(self) -> Detections:
        """Copy the result to the host; waits until it is there.

        Raises:
            RDNError: where the result made room for later ones.
        """
        return self.linkable().found

    def linkable(self) -> Linkable:
        """`cpu` with what links its boxes to those of the next frame.

        Raises:
            RDNError: where the result made room for later ones.
        """
        found = self._results.wait(self._number)
        count = int(found.count[0])
        detections = Detections(
            xyxy=found.xyxy[:count].copy(),
            confidence=found.confidence[:count].copy(),
            class_id=found.class_id[:count].astype(np.int64),
            tracker_id=None,
            **{field.name: getattr(self, field.name) for field in fields(FrameFacts)},
        )
        omega = self._results.omega(self._number).copy() if self._related else None
        features = self._results.looks(self._number)[:count].astype(np.float32) if self._looked else None
        return Linkable(detections, found.proposal[:count].astype(np.int64), omega, features)
