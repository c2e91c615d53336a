"""The GPU: cupy owns memory and streams, cuBLAS the products."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from rdn_engine.device.cublas import Cublas
from rdn_engine.device.gpu import DEFAULT_STREAM
from rdn_engine.kernels.cuda.boxes import Kernels
from rdn_engine.kernels.cuda.load import load_cupy

_HOPPER = 90
_WORKSPACE = {False: 4 << 20, True: 32 << 20}  # bytes, as the library's documentation advises before and from Hopper on
_NAMED_DEFAULT = {1: DEFAULT_STREAM}  # what __cuda_array_interface__ calls the default stream


class CupyEvent:
    """An event of CUDA, without a time."""

    def __init__(self, cupy: Any) -> None:
        self._runtime = cupy.cuda.runtime
        self._event = cupy.cuda.Event(block=False, disable_timing=True)

    def record(self, stream: int) -> None:
        self._runtime.eventRecord(self._event.ptr, stream)

    def wait(self) -> None:
        self._event.synchronize()

    def lead(self, stream: int) -> None:
        self._runtime.streamWaitEvent(stream, self._event.ptr)


class CupyQueue:
    """A stream of CUDA, with cupy's memory pool and a cuBLAS handle of its own."""

    def __init__(self, cupy: Any, device: Any) -> None:
        self._cupy, self._device = cupy, device
        self._stream = cupy.cuda.Stream(non_blocking=True)
        self._order = cupy.cuda.Event(disable_timing=True)
        self._blas: Cublas | None = None

    @property
    def ptr(self) -> int:
        return int(self._stream.ptr)

    def empty(self, shape: int | tuple[int, ...], dtype: DTypeLike) -> Any:
        with self._stream:
            return self._cupy.empty(shape, dtype)

    def zeros(self, shape: int | tuple[int, ...], dtype: DTypeLike) -> Any:
        with self._stream:
            return self._cupy.zeros(shape, dtype)

    def copy(self, to: Any, source: Any) -> None:
        runtime = self._cupy.cuda.runtime
        runtime.memcpyAsync(_address(to), _address(source), to.nbytes, runtime.memcpyDefault, self.ptr)

    def product(self, x: Any, weight: Any, out: Any) -> None:
        (n, d), m = x.shape, weight.shape[0]
        if self._blas is None:
            # Its address stays the same for as long as the handle and the graphs that were captured with it.
            self._workspace = self.empty(_WORKSPACE[int(self._device.compute_capability) >= _HOPPER], np.uint8)
            self._blas = Cublas(self.ptr, _address(self._workspace), self._workspace.nbytes)
        if n:
            self._blas.product(_address(x), _address(weight), _address(out), (n, m, d), x.dtype, out.dtype)

    def follow(self, stream: int) -> None:
        runtime = self._cupy.cuda.runtime
        runtime.eventRecord(self._order.ptr, stream)
        runtime.streamWaitEvent(self.ptr, self._order.ptr)

    def lead(self, stream: int) -> None:
        runtime = self._cupy.cuda.runtime
        runtime.eventRecord(self._order.ptr, self.ptr)
        runtime.streamWaitEvent(stream, self._order.ptr)

    def borrow(self, array: Any, stream: int) -> tuple[Any, set[int]]:
        interface = getattr(array, "__cuda_array_interface__", None)
        streams = {stream}
        if interface is None:
            # The array's own library makes the current stream wait for what fills it.
            with self._stream:
                array = self._cupy.from_dlpack(array)
        elif interface.get("stream") is not None:
            named = interface["stream"]
            streams.add(_NAMED_DEFAULT.get(named, named))
        for one in streams:
            self.follow(one)
        return array, streams

    def wait(self) -> None:
        self._stream.synchronize()

    def capture(self, work: Callable[[], None]) -> Callable[[], None]:
        self._stream.begin_capture()
        try:
            work()
        finally:
            # Also where `work` fails: a stream that is left capturing takes nothing else.
            graph = self._stream.end_capture()
        graph.upload(self._stream)

        def launch() -> None:
            graph.launch(self._stream)

        return launch


class CupyGpu:
    """The current device of cupy."""

    def __init__(self, kernels: Kernels | None = None) -> None:
        """Take the device that is cupy's current one.

        Args:
            kernels: for tests, which have others; None takes the compiled ones.

        Raises:
            BackendUnavailable: without cupy, a device or the compiled kernels.
        """
        self._cupy = load_cupy("device 'cuda'")
        self._id = int(self._cupy.cuda.Device().id)
        self.kernels = kernels or Kernels()

    def current(self) -> AbstractContextManager[Any]:
        return self._cupy.cuda.Device(self._id)  # type: ignore[no-any-return]

    def put(self, array: NDArray[Any]) -> Any:
        copy = self._cupy.array(array, order="C")
        self._cupy.cuda.get_current_stream().synchronize()
        return copy

    def pinned(self, shape: int | tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        shape = (shape,) if isinstance(shape, int) else shape
        count = math.prod(shape)
        memory = self._cupy.cuda.alloc_pinned_memory(max(count, 1) * np.dtype(dtype).itemsize)
        return np.frombuffer(memory, dtype, count).reshape(shape)

    def queue(self) -> CupyQueue:
        return CupyQueue(self._cupy, self._cupy.cuda.Device(self._id))

    def event(self) -> CupyEvent:
        return CupyEvent(self._cupy)

    def range(self, name: str) -> AbstractContextManager[None]:
        nvtx = self._cupy.cuda.nvtx
        return _range(nvtx, name) if nvtx.available else contextlib.nullcontext()


@contextlib.contextmanager
def _range(nvtx: Any, name: str) -> Iterator[None]:
    nvtx.RangePush(name)
    try:
        yield
    finally:
        nvtx.RangePop()


def _address(array: Any) -> int:
    return int(array.ctypes.data if isinstance(array, np.ndarray) else array.data.ptr)
