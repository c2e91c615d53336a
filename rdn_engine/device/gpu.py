"""What a device does for a stream besides running kernels: memory, order, products, captured graphs.

Arrays of a device have `shape`, `dtype`, `nbytes`, slices and `reshape` like numpy's, which are views. `gpu_cupy.py`
has the real one; tests have one that runs on the CPU, as late as a GPU might.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Protocol

from numpy.typing import DTypeLike, NDArray

from rdn_engine.kernels.cuda.boxes import Kernels

DEFAULT_STREAM = 0
"""The stream that CUDA, torch and cupy use where nothing else was said."""


class Event(Protocol):
    def record(self, stream: int) -> None:
        """Stands for what `stream` has now."""
        ...

    def wait(self) -> None:
        """The host waits for what this stands for; for nothing where it was never recorded."""
        ...

    def lead(self, stream: int) -> None:
        """What `stream` gets from now on waits in the same way."""
        ...


class Queue(Protocol):
    """A stream of CUDA (here `stream` is a video's), and the memory that its work uses."""

    @property
    def ptr(self) -> int:
        """Address of the cudaStream_t."""
        ...

    def empty(self, shape: int | tuple[int, ...], dtype: DTypeLike) -> Any:
        """Memory that is this queue's: freed, it is used again in the order of its work."""
        ...

    def zeros(self, shape: int | tuple[int, ...], dtype: DTypeLike) -> Any: ...

    def copy(self, to: Any, source: Any) -> None:
        """As many bytes as `to` has; each side is an array of the device or one from `Gpu.pinned`."""
        ...

    def product(self, x: Any, weight: Any, out: Any) -> None:
        """out [n, m] = x [n, d] weight [m, d]^T, summed in float32. x and weight of one type, out of it or float32."""
        ...

    def follow(self, stream: int) -> None:
        """What comes next on this queue comes after what `stream` has now."""
        ...

    def lead(self, stream: int) -> None:
        """What `stream` gets from now on comes after what this queue has now."""
        ...

    def borrow(self, array: Any, stream: int) -> tuple[Any, set[int]]:
        """Someone else's device array in place, to be read by this queue after what `stream` has now, and the stream
        that the array's own interface names. With both, which may not overwrite it before `lead` was called for them.
        """
        ...

    def wait(self) -> None:
        """The host waits for all of it."""
        ...

    def capture(self, work: Callable[[], None]) -> Callable[[], None]:
        """A CUDA graph of what `work` puts on this queue; nothing of it runs yet. Each call starts it once."""
        ...


class Gpu(Protocol):
    @property
    def kernels(self) -> Kernels: ...

    def current(self) -> AbstractContextManager[Any]:
        """Whatever is done with this device and its queues wants to be done in here."""
        ...

    def put(self, array: NDArray[Any]) -> Any:
        """A copy on the device, complete on return."""
        ...

    def pinned(self, shape: int | tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """Memory of the host that queues copy to and from while the host goes on."""
        ...

    def queue(self) -> Queue: ...

    def event(self) -> Event: ...

    def range(self, name: str) -> AbstractContextManager[Any]:
        """A named span in the profiler (NVTX)."""
        ...


class CapturedWork:
    """Work that is the same every time but for what it reads from device memory.

    Run as it is the first time, when libraries allocate what they need; captured the second time.
    """

    def __init__(self, queue: Queue, work: Callable[[], None]) -> None:
        self._queue, self._work = queue, work
        self._warm = False
        self._launch: Callable[[], None] | None = None

    def __call__(self) -> None:
        if self._launch is None and self._warm:
            self._launch = self._queue.capture(self._work)
        (self._launch or self._work)()
        self._warm = True
