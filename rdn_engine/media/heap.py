"""Memory that decoders have freed, given back to the system."""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Callable

SECONDS = 2.0
"""Between two times at least: it looks at the whole heap, some milliseconds"""


class Heap:
    """The process's heap. glibc keeps what a decoder freed, in the arenas of threads that have ended: a process whose
    cameras come and go grows by some MiB with each, up to several times of what it uses.
    """

    def __init__(self, trim: Callable[[int], int] | None, clock: Callable[[], float] = time.monotonic) -> None:
        """trim: `malloc_trim(3)` of glibc; None where there is none, and nothing is done. clock: seconds."""
        self._trim, self._clock = trim, clock
        self._lock = threading.Lock()
        self._next = 0.0

    def give_back(self) -> None:
        """Call it when much was freed; it does something once in SECONDS."""
        with self._lock:
            if self._trim is None or self._clock() < self._next:
                return
            self._next = self._clock() + SECONDS
        self._trim(0)


HEAP = Heap(getattr(ctypes.CDLL(None), "malloc_trim", None))
"""Of this process; ctypes lets other threads run meanwhile"""
