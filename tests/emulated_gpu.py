"""A GPU for the runtime, on the CPU: kernels run on the emulator, and nothing runs before somebody waits for it.

So a host that reads too early, a buffer that is overwritten while it is still wanted, or an order between queues that
nobody asked for, is seen as wrong numbers: what is waited for runs last with `others_first`, after all that may come
before it, and otherwise alone. A captured graph is the list of what was put on the queue, with the arguments that it
had then.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from rdn_engine.backends.graph import TensorSpec
from rdn_engine.kernels.cuda.boxes import Kernels
from rdn_engine.kernels.cuda.view import View, view_of, view_of_interface
from tests.cuda_machines import emulated_module

Work = Callable[[], None]


class EmulatedGpu:
    def __init__(self, descending: bool = False, *, others_first: bool = False) -> None:
        self._others_first = others_first
        module = emulated_module()
        module.set_descending(descending)
        self.queues: dict[int, EmulatedQueue] = {}
        self.kernels = Kernels(_DeferredModule(module, self), _view)
        self.memory: list[np.ndarray] = []  # what was freed may still be wanted by work that has not run
        self.room = 1 << 40  # bytes
        self.waits = 0
        self.queue()  # number 0, the default stream

    def current(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    def put(self, array: np.ndarray) -> np.ndarray:
        copy = self.allocate(array.shape, array.dtype)
        copy[...] = array
        return copy

    def pinned(self, shape: int | tuple[int, ...], dtype: Any) -> np.ndarray:
        return self.allocate(shape, dtype)

    def queue(self) -> EmulatedQueue:
        queue = EmulatedQueue(self, 100 * len(self.queues))  # 1 and 2 mean something to __cuda_array_interface__
        self.queues[queue.ptr] = queue
        return queue

    def event(self) -> EmulatedEvent:
        return EmulatedEvent(self)

    @contextlib.contextmanager
    def range(self, name: str) -> Iterator[None]:
        yield

    def wait(self, queue: EmulatedQueue, end: int) -> None:
        """The host waits until the queue has come to `end`."""
        self.waits += 1
        if self._others_first:
            for other in self.queues.values():
                if other is not queue:
                    other.run_until(other.put)
        queue.run_until(end)

    def allocate(self, shape: int | tuple[int, ...], dtype: Any) -> np.ndarray:
        """Aligned as device memory is, and full of NaNs."""
        assert not any(queue.captured is not None for queue in self.queues.values()), "memory asked for in a capture"
        shape = (shape,) if isinstance(shape, int) else tuple(shape)
        nbytes = math.prod(shape) * np.dtype(dtype).itemsize
        if nbytes > self.room:
            raise MemoryError(f"{nbytes} bytes")
        memory = np.full(nbytes + 64, 0xFF, np.uint8)
        self.memory.append(memory)
        start = -memory.ctypes.data % 64
        array: np.ndarray = memory[start : start + nbytes].view(dtype).reshape(shape)
        return array


class EmulatedQueue:
    def __init__(self, gpu: EmulatedGpu, ptr: int) -> None:
        self.ptr = ptr
        self.captured: list[Work] | None = None
        self.captures = self.launches = 0
        self.put = self._done = 0
        self._gpu = gpu
        self._work: dict[int, Work] = {}

    def enqueue(self, work: Work) -> None:
        if self.captured is not None:
            self.captured.append(work)
        else:
            self._work[self.put] = work
            self.put += 1

    def run_until(self, end: int) -> None:
        while self._done < end:
            work = self._work.pop(self._done)
            self._done += 1
            work()

    def empty(self, shape: int | tuple[int, ...], dtype: Any) -> np.ndarray:
        return self._gpu.allocate(shape, dtype)

    def zeros(self, shape: int | tuple[int, ...], dtype: Any) -> np.ndarray:
        array = self.empty(shape, dtype)
        self.enqueue(lambda: array.fill(0))
        return array

    def copy(self, to: np.ndarray, source: np.ndarray) -> None:
        assert to.flags.c_contiguous
        assert source.flags.c_contiguous

        def work() -> None:
            ctypes.memmove(to.ctypes.data, source.ctypes.data, to.nbytes)

        self.enqueue(work)

    def product(self, x: np.ndarray, weight: np.ndarray, out: np.ndarray) -> None:
        assert x.dtype == weight.dtype
        assert out.shape == (x.shape[0], weight.shape[0])

        def work() -> None:
            out[...] = x.astype(np.float32) @ weight.astype(np.float32).T

        self.enqueue(work)

    def follow(self, stream: int) -> None:
        assert self.captured is None
        other = self._gpu.queues[stream]
        end = other.put
        self.enqueue(lambda: other.run_until(end))

    def lead(self, stream: int) -> None:
        self._gpu.queues[stream].follow(self.ptr)

    def borrow(self, array: Any, stream: int) -> tuple[Any, set[int]]:
        named = array.__cuda_array_interface__["stream"]
        streams = {stream} if named is None else {stream, 0 if named == 1 else named}
        for one in streams:
            self.follow(one)
        return array, streams

    def wait(self) -> None:
        assert self.captured is None
        self._gpu.wait(self, self.put)

    def capture(self, work: Work) -> Work:
        self.captured = []
        try:
            work()
            graph = self.captured
        finally:
            self.captured = None
        self.captures += 1

        def launch() -> None:
            self.launches += 1
            for one in graph:
                self.enqueue(one)

        return launch


class EmulatedEvent:
    def __init__(self, gpu: EmulatedGpu) -> None:
        self._gpu = gpu
        self.token: tuple[EmulatedQueue, int] | None = None

    def record(self, stream: int) -> None:
        queue = self._gpu.queues[stream]
        assert queue.captured is None
        self.token = queue, queue.put

    def wait(self) -> None:
        if self.token is not None:
            self._gpu.wait(*self.token)

    def lead(self, stream: int) -> None:
        if self.token is not None:
            queue, end = self.token
            self._gpu.queues[stream].enqueue(lambda: queue.run_until(end))


class _DeferredModule:
    """The compiled kernels, whose `run` puts them on a queue."""

    def __init__(self, module: Any, gpu: EmulatedGpu) -> None:
        self._module, self._gpu = module, gpu

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._module, name)
        if not isinstance(found, type):
            return found
        return lambda **fields: _Deferred(found(**{k: _plain(v) for k, v in fields.items()}), self._gpu)


class _Deferred:
    def __init__(self, record: Any, gpu: EmulatedGpu) -> None:
        self.record, self._gpu = record, gpu

    def run(self, stream: int) -> None:
        self._gpu.queues[stream].enqueue(lambda: self.record.run(0))

    def prepare(self, stream: int) -> None:
        self._gpu.queues[stream].enqueue(lambda: self.record.prepare(0))

    def workspace_bytes(self) -> int:
        return int(self.record.workspace_bytes())


def _plain(value: Any) -> Any:
    if isinstance(value, _Deferred):
        return value.record
    return [_plain(one) for one in value] if isinstance(value, list) else value


def _view(array: Any) -> View:
    return view_of_interface(array.__array_interface__) if isinstance(array, np.ndarray) else view_of(array)


class EmulatedGraph:
    """A graph of the CPU, as one of the device."""

    def __init__(self, graph: Any, gpu: EmulatedGpu, kinds: Mapping[str, Any], *, capturable: bool = True) -> None:
        self.inputs, self.outputs = graph.inputs, graph.outputs
        self.graph, self.gpu, self.kinds, self.capturable = graph, gpu, kinds, capturable

    def bind(self, shapes: Mapping[str, tuple[int, ...]]) -> EmulatedBound:
        return EmulatedBound(self, shapes)


class EmulatedBound:
    def __init__(self, loaded: EmulatedGraph, shapes: Mapping[str, tuple[int, ...]]) -> None:
        self._loaded = loaded
        self.capturable = loaded.capturable
        self.inputs = {n: TensorSpec(tuple(s), np.dtype(loaded.kinds.get(n, np.float32))) for n, s in shapes.items()}
        found = loaded.graph({name: np.zeros(*spec) for name, spec in self.inputs.items()})
        self.outputs = {name: TensorSpec(array.shape, array.dtype) for name, array in found.items()}

    def run(self, feeds: Mapping[str, View], outputs: Mapping[str, View], stream: int) -> None:
        for views, specs in ((feeds, self.inputs), (outputs, self.outputs)):
            assert {name: (view.shape, view.dtype) for name, view in views.items()} == {**specs}

        def work() -> None:
            found = self._loaded.graph({name: array_at(view) for name, view in feeds.items()})
            for name, view in outputs.items():
                array_at(view)[...] = found[name]

        self._loaded.gpu.queues[stream].enqueue(work)


def array_at(view: View) -> np.ndarray:
    """The memory of a view of this GPU."""
    nbytes = math.prod(view.shape) * view.dtype.itemsize
    memory = memoryview((ctypes.c_ubyte * nbytes).from_address(view.pointer))
    array: np.ndarray = np.frombuffer(memory, np.dtype(view.dtype)).reshape(view.shape)
    return array


class Elsewhere:
    """An array of the device that another library made: all that is known of it is its interface."""

    def __init__(self, array: np.ndarray, stream: int | None = None, strides: tuple[int, ...] | None = None) -> None:
        self._array = array
        self.__cuda_array_interface__ = {
            "data": (array.ctypes.data, False), "shape": array.shape, "typestr": array.dtype.str, "strides": strides,
            "version": 3, "stream": stream,
        }  # fmt: skip
