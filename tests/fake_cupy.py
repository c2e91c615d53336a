"""As much of cupy as the backends use, on host memory: what they ask of a stream is written down in `log`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np

from rdn_engine.kernels.cuda.view import View, view_of


class Array(np.ndarray):
    """Says that it is on a device."""

    @property
    def data(self) -> Any:
        return SimpleNamespace(ptr=self.ctypes.data)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return self.__array_interface__


def put(array: Any) -> Array:
    return np.array(array, order="C").view(Array)


def views(arrays: dict[str, Any]) -> dict[str, View]:
    return {name: view_of(array) for name, array in arrays.items()}


class Stream:
    def __init__(self, cupy: FakeCupy, ptr: int) -> None:
        self._cupy, self.ptr = cupy, ptr

    def __enter__(self) -> Stream:
        self._cupy.current.append(self)
        return self

    def __exit__(self, *_: object) -> None:
        self._cupy.current.pop()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Stream) and other.ptr == self.ptr

    def wait_event(self, event: Event) -> None:
        self._cupy.log.append(("wait", self.ptr, event.recorded_on))

    def synchronize(self) -> None:
        self._cupy.log.append(("synchronize", self.ptr))


class Event:
    def __init__(self, cupy: FakeCupy) -> None:
        self._cupy = cupy
        self.recorded_on: int | None = None

    def record(self, stream: Stream) -> None:
        self.recorded_on = stream.ptr
        self._cupy.log.append(("record", stream.ptr))


class FakeCupy:
    def __init__(self) -> None:
        self.log: list[tuple[Any, ...]] = []
        self.current = [Stream(self, 0)]
        self._streams = 100
        self.cuda = SimpleNamespace(
            Device=lambda: _Device(),
            Stream=self._stream,
            ExternalStream=lambda ptr: Stream(self, ptr),
            Event=lambda disable_timing: Event(self),
            get_current_stream=lambda: self.current[-1],
        )

    def _stream(self, non_blocking: bool) -> Stream:
        self._streams += 1
        return Stream(self, self._streams)

    def empty(self, shape: Any, dtype: Any) -> Array:
        """Full of nonsense, so that what is not written shows."""
        found = np.empty(shape, dtype)
        found.view(np.uint8)[...] = 0x7F
        return put(found)

    def zeros(self, shape: Any, dtype: Any) -> Array:
        return put(np.zeros(shape, dtype))

    def asarray(self, array: Any) -> Array:
        return put(array)

    def asnumpy(self, array: Any, stream: Stream) -> np.ndarray:
        self.log.append(("copy", stream.ptr))
        return np.array(array).view(np.ndarray)


class _Device(contextlib.AbstractContextManager["_Device"]):
    id = 0

    def __exit__(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def nothing(*_: Any, **__: Any) -> Iterator[None]:
    yield
