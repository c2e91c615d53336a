"""A source, a sink and an encoder that tests hold in their hands."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from rdn_engine.capture import Capture
from rdn_engine.config import Dials, RDNConfig
from rdn_engine.detector import Detector
from rdn_engine.frame import Frame
from rdn_engine.host.features import EncodedFrame
from rdn_engine.host.model import HostModel
from rdn_engine.host.relation import FusedRelation
from rdn_engine.host.runtime import HostRuntime
from rdn_engine.kernels.cpu import Float
from rdn_engine.results import Detections
from rdn_engine.serve.events import Event
from rdn_engine.serve.scheduler import Scheduler
from rdn_engine.serve.served import ServedStream
from rdn_engine.serve.snapshot import StreamSnapshot
from tests.fakes import FakeEncoder, image, relation_weights, tiny_config

WAIT = 60.0
"""Seconds after which a test that waits has failed; a test that passes does not wait for them."""


def frame(index: int, level: int, *, doubtful: bool = False, clock: float | None = None, side: int = 16) -> Frame:
    capture = Capture(time.time(), 0, doubtful, 0, time.monotonic() if clock is None else clock)
    return Frame(image(level, side, side), index, index / 10, "camera", capture=capture)


def frames(levels: Iterable[int]) -> list[Frame]:
    return [frame(index, level) for index, level in enumerate(levels)]


class FakeSource:
    """A queue of frames; drops the oldest where it is longer than `limit`."""

    def __init__(self, on_frame: Callable[[], None], waiting: Iterable[Frame] = (), limit: int = 10**6) -> None:
        self._on_frame, self.limit = on_frame, limit
        self._lock = threading.Lock()
        self._queue: deque[Frame] = deque()
        self.ended, self.error = False, None
        self.captured = self.dropped = 0
        self.damaged, self.sessions = 3, 1
        self.lost_packets = 4
        self.failures = 2
        self.starts = self.closes = 0
        self.stops = True
        self.fails: Exception | None = None
        self.put(waiting)

    @property
    def waiting(self) -> int:
        return len(self._queue)

    def start(self) -> None:
        self.starts += 1

    def put(self, items: Iterable[Frame]) -> None:
        for one in items:
            with self._lock:
                self.captured += 1
                self._queue.append(one)
                if len(self._queue) > self.limit:
                    self._queue.popleft()
                    self.dropped += 1
            self._on_frame()

    def end(self, error: Exception | None = None) -> None:
        self.error, self.ended = error, True  # type: ignore[assignment]
        self._on_frame()

    def get(self, timeout: float | None) -> Frame | None:
        assert timeout == 0, "a worker waits for nobody"
        if self.fails is not None:
            raise self.fails
        with self._lock:
            return self._queue.popleft() if self._queue else None

    def close(self, timeout: float = 2.0) -> bool:
        """As a LiveSource, it counts what it gives up as dropped."""
        self.closes += 1
        with self._lock:
            self.dropped += len(self._queue)
            self._queue.clear()
        return self.stops


class Sink:
    """Keeps what comes; `hold` makes it wait in the call, `fails` is raised."""

    def __init__(self) -> None:
        self.results: list[Detections] = []
        self.free = threading.Event()
        self.free.set()
        self.called = threading.Semaphore(0)
        self.fails: BaseException | None = None

    def __call__(self, result: Detections) -> None:
        self.called.release()
        assert self.free.wait(WAIT)
        if self.fails is not None:
            raise self.fails
        self.results.append(result)

    def wait(self, calls: int) -> None:
        for _ in range(calls):
            assert self.called.acquire(timeout=WAIT)


class Camera:
    """A stream of a scheduler with its fakes."""

    def __init__(self, scheduler: Scheduler, name: str, given: list[Frame], dials: Dials | None = None) -> None:
        self.sink = Sink()
        self.source: FakeSource

        def open_source(on_frame: Callable[[], None]) -> FakeSource:
            self.source = FakeSource(on_frame, given)
            return self.source

        self.served: ServedStream = scheduler.add(name, open_source, self.sink, dials=dials)


class Log:
    """Keeps events; `wait` comes back with the first of a kind."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._changed = threading.Condition()

    def __call__(self, event: Event) -> None:
        with self._changed:
            self.events.append(event)
            self._changed.notify_all()

    def wait(self, kind: str, stream: str) -> Event:
        with self._changed:
            assert self._changed.wait_for(lambda: self.of(stream, kind), WAIT), [e.kind for e in self.events]
            return self.of(stream, kind)[0]

    def of(self, stream: str, *kinds: str) -> list[Event]:
        return [e for e in self.events if e.stream == stream and (not kinds or e.kind in kinds)]


class WatchedEncoder(FakeEncoder):
    """Tells of each frame that it encodes; the grey level says whose it is."""

    def __init__(self, config: RDNConfig) -> None:
        super().__init__(config.relation)
        self.watch: Callable[[int], None] = lambda level: None

    def __call__(
        self, images: Float, num_reference: int, num_support: int, lap: Callable[[str], None]
    ) -> list[EncodedFrame]:
        self.watch(round(float(images[0, 0, 0, 0])))
        return super().__call__(images, num_reference, num_support, lap)


def watched_detector(dials: Dials | None = None) -> tuple[Detector, WatchedEncoder]:
    """Real relations over proposals that carry the grey level of their frame."""
    config = tiny_config() if dials is None else tiny_config(dials=dials)
    encoder = WatchedEncoder(config)
    relation = FusedRelation(config, relation_weights(config), 1, "float32")
    return Detector(HostRuntime(HostModel(config, encoder, relation, threads=1))), encoder


@contextmanager
def serving(detector: Detector, **options: Any) -> Iterator[Scheduler]:
    scheduler = Scheduler(detector, **{"workers": 1} | options)
    try:
        yield scheduler
    finally:
        scheduler.close(drain=False, deadline_s=WAIT)


def alone(detector: Detector, given: Iterable[Frame], dials: Dials | None = None) -> list[Detections]:
    """What a stream gives that has the detector to itself."""
    with detector.open_stream(dials) as stream:
        ready = [result for one in given for result in stream.push(one)]
        return ready + stream.flush()


def same(left: list[Detections], right: list[Detections]) -> bool:
    """Equal to the bit, in every field."""
    return len(left) == len(right) and all(
        vars(a).keys() == vars(b).keys() and all(np.array_equal(vars(a)[k], vars(b)[k]) for k in vars(a))  # type: ignore[arg-type]
        for a, b in zip(left, right, strict=True)
    )


def balanced(s: StreamSnapshot) -> bool:
    """Every frame that came in is somewhere, once."""
    return s.frames_in == s.frames_out + sum(s.dropped.values()) + s.waiting + s.inside
