"""A writer and a listener that tests hold in their hands."""

from __future__ import annotations

import json
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rdn_engine.service.outputs import Output, OutputCounts, OutputOptions, OutputTrouble
from rdn_engine.service.outputs.writer import Attempt

WAIT = 60.0
"""Seconds after which a test that waits has failed; a test that passes does not wait for them."""
QUICK: dict[str, Any] = {"first_delay": 0.01, "longest_delay": 0.02}
"""Options of an output that tries again at once"""


AWAY = Attempt(0, message="nobody is there", everywhere=True)
BROKEN = Attempt(0, message="this one cannot be written")


def line(number: int, stream: str = "door", *found: tuple[str, float]) -> dict[str, Any]:
    """A result as an output gets it; found: class and confidence of each detection."""
    rows = [
        {"xyxy": [1.0, 2.0, 3.0, 4.5], "confidence": confidence, "class_id": 0, "class_name": name}
        for name, confidence in found
    ]
    return {"stream": stream, "age": 0.125, "frame_index": number, "epoch": 0, "detections": rows}


def until(happened: Callable[[], bool]) -> None:
    """Wait for something that nobody tells."""
    end = time.monotonic() + WAIT
    while not happened():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.005)


def indices(lines: Iterable[bytes]) -> list[int]:
    """Which lines these are."""
    return [json.loads(one)["frame_index"] for one in lines]


def balanced(counts: OutputCounts) -> bool:
    return counts.put == counts.written + sum(counts.dropped.values()) + counts.waiting


class Listener:
    """Keeps what an output says."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self.heard: list[tuple[OutputTrouble, str]] = []

    def __call__(self, kind: OutputTrouble, message: str) -> None:
        with self._changed:
            self.heard.append((kind, message))
            self._changed.notify_all()

    @property
    def kinds(self) -> list[OutputTrouble]:
        return [kind for kind, _ in self.heard]

    def wait(self, kind: OutputTrouble) -> str:
        """The first message of a kind."""
        with self._changed:
            assert self._changed.wait_for(lambda: kind in self.kinds, WAIT), self.heard
            return next(message for one, message in self.heard if one == kind)


class FakeWriter:
    """Takes what it is given, once the test lets it, unless the test has an answer of its own for that call."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, list[bytes]]] = []
        self.answers: deque[Attempt | Exception] = deque()
        """To the next calls; after them all lines are taken"""
        self.broken: dict[str, Attempt] = {}
        """Answers for streams, as long as they are here"""
        self.taken: list[tuple[str, bytes]] = []
        self.forgotten: list[str] = []
        self.closed = False
        self.stops = True
        """Whether `stop` ends a call"""
        self._changed = threading.Condition()
        self._free: float = float("inf")
        self.inside = 0

    def indices(self, stream: str) -> list[int]:
        """Lines of a stream that were taken, in order."""
        return indices(data for name, data in self.taken if name == stream)

    def hold(self) -> None:
        """Let no call end from now on."""
        with self._changed:
            self._free = 0

    def release(self, calls: float = float("inf")) -> None:
        """Let calls end."""
        with self._changed:
            self._free += calls
            self._changed.notify_all()

    def wait_inside(self) -> None:
        """Wait until a call is held."""
        with self._changed:
            assert self._changed.wait_for(lambda: self.inside > 0, WAIT)

    def write(self, stream: str, lines: Sequence[bytes]) -> Attempt:
        with self._changed:
            self.calls.append((stream, list(lines)))
            self.inside += 1
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._free > 0)
            self._free -= 1
            self.inside -= 1
            attempt: Attempt | Exception | None = self.broken.get(stream)
            if attempt is None:
                attempt = self.answers.popleft() if self.answers else Attempt(len(lines))
        if isinstance(attempt, Exception):
            raise attempt
        done = min(attempt.done, len(lines))
        refused = min(attempt.refused, done)
        attempt = Attempt(done, refused, attempt.message, attempt.everywhere, attempt.after)
        self.taken += [(stream, one) for one in lines[refused:done]]
        return attempt

    def forget(self, stream: str) -> None:
        self.forgotten.append(stream)

    def stop(self) -> None:
        if self.stops:
            self.release()

    def close(self) -> None:
        self.closed = True


@contextmanager
def writing(writer: FakeWriter, listener: Listener | None = None, **options: Any) -> Iterator[Output]:
    """An output over a writer, closed whatever happens."""
    output = Output("out", writer, OutputOptions(**{**QUICK, **options}), listener or Listener())
    try:
        yield output
    finally:
        writer.release()
        output.close(drain=False, deadline_s=WAIT)
