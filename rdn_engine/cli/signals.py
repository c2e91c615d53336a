"""SIGINT, SIGTERM and SIGHUP end a pass between two frames, even where its source is silent."""

from __future__ import annotations

import atexit
import contextlib
import os
import queue
import signal
import sys
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from types import FrameType, TracebackType
from typing import Any, Self, TypeVar

T = TypeVar("T")

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_SHOW_CURSOR = b"\x1b[?25h"


class Interrupted(BaseException):
    """A signal came while a source was waited for, or before."""


class Interrupts:
    """What a process does on SIGINT, SIGTERM and SIGHUP while this context manager is open; those that it was started
    to ignore (`nohup`) stay ignored.

    At first a signal ends the process at once. Once `patient` is set, the first one is noted in `number` and stops
    `each`; the second ends the process at once, whatever it does. No signal raises anywhere else.

    Python runs its handlers between two bytecodes, which may be long in coming: a read of a silent camera, a frame of a
    slow model. So a thread, which the C half of a handler wakes, ends the process; and `each` reads in another one.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        """Of the first signal, once there was one"""
        self.patient = False
        """Whether there is something to finish"""
        self.reading = False
        """Whether a source is still being read, by a thread that cannot be stopped"""
        self._waiting = False
        self._before: dict[signal.Signals, Any] = {}
        self._calls: queue.SimpleQueue[Callable[[], Any] | None] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[tuple[Any, BaseException | None]] = queue.SimpleQueue()

    def __enter__(self) -> Self:
        kept = [s for s in _SIGNALS if signal.getsignal(s) is not signal.SIG_IGN]
        wake, self._wake = os.pipe()
        os.set_blocking(self._wake, False)
        self._watcher = threading.Thread(target=self._watch, args=(wake, kept), daemon=True)
        self._watcher.start()
        signal.set_wakeup_fd(self._wake, warn_on_full_buffer=False)
        self._before = {s: signal.signal(s, self._note) for s in kept}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(-1)
        os.close(self._wake)
        self._watcher.join()

    def end_without_reader(self, code: int) -> None:
        """When the interpreter ends, end the process there, if a thread is still reading.

        FFmpeg asks Python, a few times a second, whether a read is to go on. It would ask an interpreter that is gone.

        Args:
            code: of the exit.
        """
        if self.reading:
            atexit.register(self._end, code)

    def _end(self, code: int) -> None:
        if self.reading:
            for stream in (sys.stdout, sys.stderr):
                with contextlib.suppress(OSError, ValueError, AttributeError):  # closed, or none
                    stream.flush()
            os._exit(code)

    def each(self, items: Iterable[T]) -> Generator[T]:
        """The items, each taken by another thread, so that waiting for one can be broken off.

        Args:
            items: none of which is None.

        Raises:
            Interrupted: instead of the next item, once a signal came.
        """
        reader = threading.Thread(target=self._answer, daemon=True)
        reader.start()
        iterator = iter(items)
        try:
            while (item := self._wait(lambda: next(iterator, None))) is not None:
                yield item
        finally:
            self._calls.put(None)
            if not self.reading:
                reader.join()

    @contextlib.contextmanager
    def raising(self) -> Iterator[None]:
        """While the context lasts, the first signal raises Interrupted in the main thread, which waits in a library
        that looks at signals. Handlers that the library has put in the place of these go.

        Raises:
            Interrupted: where a signal came before.
        """
        for number in self._before:
            signal.signal(number, self._note)
        self._waiting = True
        try:
            if self.number is not None:
                raise Interrupted
            yield
        finally:
            self._waiting = False

    def _wait(self, call: Callable[[], T]) -> T:
        self._waiting = True
        try:
            # After the line above, so that a signal either is seen here or raises.
            if self.number is not None:
                raise Interrupted
            self.reading = True
            self._calls.put(call)
            answer, error = self._answers.get()
            self.reading = False
        finally:
            self._waiting = False
        if error is not None:
            raise error
        return answer  # type: ignore[no-any-return]

    def _answer(self) -> None:
        while (call := self._calls.get()) is not None:
            try:
                self._answers.put((call(), None))
            except BaseException as error:
                self._answers.put((None, error))

    def _note(self, number: int, _: FrameType | None) -> None:
        if self.number is None:
            self.number = number
            if self._waiting:
                raise Interrupted

    def _watch(self, wake: int, kept: list[signal.Signals]) -> None:
        came = 0
        while number := os.read(wake, 1):
            if number[0] in kept:
                came += 1
                if came > self.patient:
                    if os.isatty(2):
                        os.write(2, _SHOW_CURSOR)  # which a progress bar hides
                    os._exit(128 + number[0])
        os.close(wake)
