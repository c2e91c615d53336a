"""What a device does for a stream besides running kernels: memory, order, products, captured graphs.

Arrays of a device have `shape`, `dtype`, `nbytes`, slices and `reshape` like numpy's, which are views. `cupy.py` has
the real one; tests have one that runs on the CPU, as late as a GPU might.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol

from numpy.typing import DTypeLike, NDArray

if TYPE_CHECKING:
    from rdn_engine.kernels.cuda.boxes import Kernels


DEFAULT_STREAM = 0
"""The stream that CUDA, torch and cupy use where nothing else was said."""


class Event(Protocol):
    """A mark in the work of a stream; `stream` is the address of a cudaStream_t."""

    def record(self, stream: int) -> None:
        """Stand for what a stream has now, and no longer for what this stood for before.

        Args:
            stream: whose work is marked.
        """
        ...

    def wait(self) -> None:
        """The host waits for what this stands for; for nothing where it was never recorded."""
        ...

    def lead(self, stream: int) -> None:
        """Let a stream wait for what this stands for; for nothing where it was never recorded.

        Args:
            stream: what it gets from now on waits; the host does not.
        """
        ...


class Queue(Protocol):
    """A stream of CUDA, and the memory that its work uses. `stream` is the address of another cudaStream_t."""

    @property
    def ptr(self) -> int:
        """Address of the cudaStream_t."""
        ...

    def empty(self, shape: int | tuple[int, ...], dtype: DTypeLike) -> Any:
        """Memory that is this queue's: freed, it is used again in the order of its work.

        Args:
            shape, dtype: of the array.

        Returns:
            A dense device array of any content.
        """
        ...

    def zeros(self, shape: int | tuple[int, ...], dtype: DTypeLike) -> Any:
        """As `empty`, filled with zeros in the order of the queue's work."""
        ...

    def copy(self, to: Any, source: Any) -> None:
        """Copy as many bytes as `to` has, in the order of the queue's work.

        Args:
            to, source: dense arrays, each of the device or from `Gpu.pinned`.
        """
        ...

    def product(self, x: Any, weight: Any, out: Any) -> None:
        """out = x weight^T, summed in float32.

        Args:
            x: [n, d] on the device, float32 or float16.
            weight: [m, d] on the device, of the same type.
            out: [n, m] on the device, of the same type or float32.
        """
        ...

    def follow(self, stream: int) -> None:
        """Put what comes next on this queue after what a stream has now.

        Args:
            stream: that goes before.
        """
        ...

    def lead(self, stream: int) -> None:
        """Put what a stream gets from now on after what this queue has now.

        Args:
            stream: that goes after.
        """
        ...

    def borrow(self, array: Any, stream: int) -> tuple[Any, set[int]]:
        """Take someone else's device array in place, to be read by this queue.

        Args:
            array: has `__cuda_array_interface__` or `__dlpack__`.
            stream: that fills it; what it has now goes before.

        Returns:
            The array, and `stream` with the one that the array's own interface names. These may not overwrite it before
            `lead` was called for them.
        """
        ...

    def wait(self) -> None:
        """The host waits for all of it."""
        ...

    def capture(self, work: Callable[[], None]) -> Callable[[], None]:
        """Make a CUDA graph.

        Args:
            work: puts work on this queue, none of which runs yet.

        Returns:
            Starts the graph once at each call.
        """
        ...


class Gpu(Protocol):
    """A device: its memory and its queues."""

    @property
    def kernels(self) -> Kernels:
        """The compiled kernels, for arrays of this device."""
        ...

    def current(self) -> AbstractContextManager[Any]:
        """Whatever is done with this device and its queues wants to be done in here."""
        ...

    def put(self, array: NDArray[Any]) -> Any:
        """Copy an array to the device, complete on return.

        Args:
            array: of the host.
        """
        ...

    def pinned(self, shape: int | tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """Memory of the host that queues copy to and from while the host goes on.

        Args:
            shape, dtype: of the array.

        Returns:
            A dense array of any content.
        """
        ...

    def queue(self) -> Queue:
        """A new stream of CUDA, which waits for no other by itself."""
        ...

    def event(self) -> Event:
        """A new mark, never recorded."""
        ...

    def range(self, name: str) -> AbstractContextManager[Any]:
        """A named span in the profiler (NVTX); nothing where there is none.

        Args:
            name: of the span.
        """
        ...


class CapturedWork:
    """Work that is the same every time but for what it reads from device memory.

    Run as it is the first time, when libraries allocate what they need; captured the second time.
    """

    def __init__(self, queue: Queue, work: Callable[[], None]) -> None:
        """Remember the work; nothing runs yet.

        Args:
            queue: that the work is put on.
            work: puts it there; it reads and fills the same addresses each time.
        """
        self._queue, self._work = queue, work
        self._warm = False
        self._launch: Callable[[], None] | None = None

    def __call__(self) -> None:
        if self._launch is None and self._warm:
            self._launch = self._queue.capture(self._work)
        (self._launch or self._work)()
        self._warm = True
