"""As much of cupy and cuBLAS as `rdn_engine/device` and the backends call, over the emulated GPU and its queues.

Arguments are those of the libraries' own documentation, so that a wrong order, a copy in the wrong direction or a
product of the wrong matrix is seen as wrong numbers.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np

from tests.emulated_gpu import EmulatedEvent, EmulatedGpu, EmulatedQueue


class Array(np.ndarray):
    """Says that it is on a device."""

    @property
    def data(self) -> Any:
        return SimpleNamespace(ptr=self.ctypes.data)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return self.__array_interface__


class Stream:
    def __init__(self, cupy: EmulatedCupy, queue: EmulatedQueue) -> None:
        self._cupy, self._queue, self.ptr = cupy, queue, queue.ptr

    def __enter__(self) -> Stream:
        self._cupy.current.append(self)
        return self

    def __exit__(self, *_: object) -> None:
        self._cupy.current.pop()

    def synchronize(self) -> None:
        self._queue.wait()

    def wait_event(self, event: Event) -> None:
        event.event.lead(self.ptr)

    def begin_capture(self) -> None:
        assert self._queue.captured is None
        self._queue.captured = []

    def end_capture(self) -> Graph:
        work, self._queue.captured = self._queue.captured, None
        self._queue.captures += 1
        assert work is not None
        return Graph(self._cupy.gpu, work)


class Event:
    def __init__(self, cupy: EmulatedCupy, number: int) -> None:
        self.ptr, self.event = number, cupy.gpu.event()

    def record(self, stream: Stream) -> None:
        self.event.record(stream.ptr)

    def synchronize(self) -> None:
        self.event.wait()


class Graph:
    def __init__(self, gpu: EmulatedGpu, work: list[Callable[[], None]]) -> None:
        self._gpu, self._work = gpu, work

    def upload(self, stream: Stream) -> None:
        assert stream.ptr in self._gpu.queues

    def launch(self, stream: Stream) -> None:
        queue = self._gpu.queues[stream.ptr]
        queue.launches += 1
        for one in self._work:
            queue.enqueue(one)


class EmulatedCupy:
    def __init__(self, gpu: EmulatedGpu) -> None:
        self.gpu = gpu
        self._numbers = itertools.count(1)
        self._events: dict[int, EmulatedEvent] = {}
        self.current = [Stream(self, gpu.queues[0])]
        self.ranges: list[str] = []
        runtime = SimpleNamespace(
            getDeviceCount=lambda: 1, memcpyDefault=4, memcpyAsync=self._copy,
            eventRecord=lambda event, stream: self._events[event].record(stream),
            streamWaitEvent=lambda stream, event: self._events[event].lead(stream),
        )  # fmt: skip
        self.cuda = SimpleNamespace(
            Device=Device, Event=self._event, Stream=lambda non_blocking: Stream(self, gpu.queue()), runtime=runtime,
            ExternalStream=lambda ptr: Stream(self, gpu.queues[ptr]),
            alloc_pinned_memory=lambda count: memoryview(gpu.allocate(count, np.uint8)),
            get_current_stream=lambda: self.current[-1],
            nvtx=SimpleNamespace(available=True, RangePush=self.ranges.append, RangePop=lambda: None),
        )  # fmt: skip

    def empty(self, shape: Any, dtype: Any) -> Array:
        return self.gpu.allocate(shape, dtype).view(Array)

    def zeros(self, shape: Any, dtype: Any) -> Array:
        array = self.empty(shape, dtype)
        array[...] = 0
        return array

    def array(self, array: np.ndarray, order: str) -> Array:
        assert order == "C"
        copy = self.empty(array.shape, array.dtype)
        copy[...] = array
        return copy

    def asarray(self, array: np.ndarray) -> Array:
        return self.array(array, "C")

    def asnumpy(self, array: Array, stream: Stream) -> np.ndarray:
        stream.synchronize()
        return np.array(array).view(np.ndarray)

    def from_dlpack(self, array: Any) -> Array:
        return np.from_dlpack(array.on_host).view(Array)

    def _copy(self, to: int, source: int, count: int, kind: int, stream: int) -> None:
        assert kind == 4
        self.gpu.queues[stream].enqueue(lambda: ctypes.memmove(to, source, count) and None)

    def _event(self, *, disable_timing: bool, block: bool = False) -> Event:
        made = Event(self, next(self._numbers))
        self._events[made.ptr] = made.event
        return made


class Device(contextlib.AbstractContextManager["Device"]):
    compute_capability = "90"

    def __init__(self, number: int = 0) -> None:
        self.id = number

    def __exit__(self, *_: object) -> None:
        pass


class Library:
    """cuBLAS: matrices stand column by column, and its work is on the stream that it was given."""

    def __init__(self, gpu: EmulatedGpu | None = None, status: int = 0) -> None:
        self._gpu, self._status = gpu, status
        self.calls: list[str] = []
        self.cublasGetStatusString = lambda status: b"the library was not initialized"

    def cublasCreate_v2(self, handle: Any) -> int:
        self.calls.append("create")
        handle._obj.value = 7
        return self._status

    def cublasSetStream_v2(self, handle: Any, stream: Any) -> int:
        self.calls.append("stream")
        self._stream = stream.value or 0
        return self._status

    def cublasSetWorkspace_v2(self, handle: Any, workspace: Any, size: Any) -> int:
        self.calls.append("workspace")
        assert workspace.value
        assert size.value
        return self._status

    def cublasDestroy_v2(self, handle: Any) -> int:
        self.calls.append("destroy")
        return self._status

    def cublasGemmEx(self, handle: Any, transa: int, transb: int, m: int, n: int, k: int, *rest: Any) -> int:
        alpha, a, a_kind, lda, b, b_kind, ldb, beta, c, c_kind, ldc, compute, algorithm = rest
        assert handle.value == 7
        assert (transa, transb, compute, algorithm) == (1, 0, 68, -1)
        assert (lda, ldb, ldc) == (k, k, m)
        assert (alpha._obj.value, beta._obj.value) == (1, 0)

        def work() -> None:
            found = _matrix(a, a_kind, m, k).astype(np.float32) @ _matrix(b, b_kind, n, k).astype(np.float32).T
            _matrix(c, c_kind, n, m)[...] = found.T

        if self._gpu is None:
            work()
        else:
            self._gpu.queues[self._stream].enqueue(work)
        return self._status


def _matrix(address: Any, kind: int, columns: int, rows: int) -> np.ndarray:
    """A column-major matrix, as its transpose."""
    dtype = np.dtype({0: np.float32, 2: np.float16}[kind])
    memory = (ctypes.c_ubyte * (columns * rows * dtype.itemsize)).from_address(address.value)
    return np.frombuffer(memory, dtype).reshape(columns, rows)
