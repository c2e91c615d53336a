"""Many streams on one detector.

Each stream has a Stream, a source, a sink and an account of its own. Workers take turns with them: a turn is one frame
pushed, or the last results of a stream that ends. Turns are first come, first served (`RunQueue`), so a slow stream's
frame waits for at most one turn of each other stream, however fast those are. A stream's results are those of
`Detector.open_stream` alone, to the bit: turns share nothing but the model.

Frames of several streams are not encoded as one batch. On a CPU that pays nothing (docs/performance.md, the encoder
with several images a call), it would make the frame that came first wait for the others, and a `StreamBatch` wants the
set of its streams fixed.
"""

from __future__ import annotations

import atexit
import math
import threading
import time
import weakref
from collections.abc import Callable

from rdn_engine.config import Dials
from rdn_engine.cpus import available_cpus
from rdn_engine.detector import Detector
from rdn_engine.errors import StreamClosed
from rdn_engine.plain import LONGEST_WAIT, check
from rdn_engine.process import Home
from rdn_engine.serve.admission import MemoryBudget, StreamCost, stream_cost
from rdn_engine.serve.events import Event, Events
from rdn_engine.serve.listener import Listener
from rdn_engine.serve.options import StreamOptions
from rdn_engine.serve.push import Push
from rdn_engine.serve.run_queue import RunQueue
from rdn_engine.serve.served import ServedStream
from rdn_engine.serve.snapshot import SchedulerSnapshot
from rdn_engine.serve.source import OpenSource, Sink
from rdn_engine.serve.surroundings import Surroundings
from rdn_engine.stream.base import Stream

CLOSING_SECONDS = 2.0
"""Of a shutdown's deadline, at most half of it: what is kept for sources to close, when draining has taken the rest"""
_DEFAULT = StreamOptions()
_LAST_SECONDS = 10.0
"""At the end of the interpreter, for a stage that is being computed to come to its end"""
_running: weakref.WeakSet[Scheduler] = weakref.WeakSet()


class Scheduler:
    """Serves streams from their sources to their sinks, until `close`. Any thread may call it."""

    def __init__(
        self,
        detector: Detector,
        *,
        workers: int | None = None,
        byte_budget: int | None = None,
        on_event: Callable[[Event], None] | None = None,
        on_push: Callable[[Push], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start the workers.

        Args:
            detector: shared by the streams. With threads=1 and a worker a CPU more frames are done than by one worker
                whose calls take all CPUs.
            workers: threads that push, each one stream's frame at a time; None takes the CPUs over `detector.threads`.
            byte_budget: bytes that all streams may hold at most; None admits every stream.
            on_event: takes what happens, from a thread of its own.
            on_push: takes what each push was, from a thread of its own; None costs nothing.
            clock: seconds; another one for tests.

        Raises:
            ConfigError: for workers or a byte_budget below 1.
        """
        check(isinstance(detector, Detector), "detector", detector, "a Detector")
        workers = max(available_cpus() // detector.threads, 1) if workers is None else workers
        check(_is_count(workers), "workers", workers, "1 or more")
        check(byte_budget is None or _is_count(byte_budget), "byte_budget", byte_budget, "bytes, 1 or more, or None")
        check(on_event is None or callable(on_event), "on_event", on_event, "a function, or None")
        check(on_push is None or callable(on_push), "on_push", on_push, "a function, or None")
        check(callable(clock), "clock", clock, "a function that gives seconds")
        self._home = Home("this scheduler")
        self._detector = detector
        self._clock = clock
        self._lock = threading.Lock()
        self._adding: set[str] = set()
        self._streams: dict[str, ServedStream] = {}
        self._ended = 0
        self._closed = False
        self._next_expiry = 0.0
        self._budget = MemoryBudget(byte_budget)
        self._turns: RunQueue[ServedStream] = RunQueue()
        self._events = Events(on_event)
        self._pushes = Listener("rdn-pushes", on_push)
        self._around = Surroundings(
            self._turns.wake, self._admit, self._end, self._events, self._pushes, self._home, clock
        )
        self._turns_began: list[float | None] = [None] * workers
        self._workers = [
            threading.Thread(target=self._work, args=(i,), name=f"rdn-worker-{i}", daemon=True) for i in range(workers)
        ]
        for worker in self._workers:
            worker.start()
        _running.add(self)

    def cost(
        self, dials: Dials | None = None, *, capacity: Dials | None = None, options: StreamOptions = _DEFAULT
    ) -> StreamCost:
        """What a stream would hold at most, before it is added.

        Args:
            dials, capacity, options: as `add`.

        Raises:
            ConfigError: as `add`.
        """
        self._home.check()
        check(isinstance(options, StreamOptions), "options", options, "StreamOptions")
        with self._detector.open_stream(dials, capacity=capacity) as stream:
            return self._cost(stream, stream.dials, options)

    def add(
        self,
        name: str,
        open_source: OpenSource,
        sink: Sink,
        *,
        dials: Dials | None = None,
        capacity: Dials | None = None,
        options: StreamOptions = _DEFAULT,
    ) -> ServedStream:
        """Admit a stream and start its source.

        Args:
            name: unlike that of any other stream that has not ended.
            open_source: makes the source, once the stream is admitted.
            sink: gets the results in order, from a thread of this stream.
            dials, capacity: as `Detector.open_stream`.
            options: bounds of the stream.

        Returns:
            The stream, which runs.

        Raises:
            AdmissionRefused: where the byte budget has no room for it.
            ConfigError: for a name that is taken, and as `Detector.open_stream`.
            StreamClosed: after `close`.

        What `open_source` raises comes through, and nothing was added. A source that cannot be started ends its stream.
        """
        self._home.check()
        check(isinstance(name, str), "name", name, "text")
        check(callable(open_source), "open_source", open_source, "a function that makes a source")
        check(callable(sink), "sink", sink, "a function that takes results")
        check(isinstance(options, StreamOptions), "options", options, "StreamOptions")
        with self._lock:
            self._check_open()
            taken = name in self._streams or name in self._adding
            check(not taken, "name", name, "another than those of the streams that run")
            self._adding.add(name)
        try:
            served = self._open(name, open_source, sink, dials, capacity, options)
        except BaseException:
            with self._lock:
                self._adding.discard(name)
            raise
        with self._lock:
            self._adding.discard(name)
            self._streams[name] = served
            closed, self._next_expiry = self._closed, 0.0
        if closed:
            served.abandon()
            raise StreamClosed("this scheduler was closed while the stream was added")
        self._events.say("added", name, f"holds {served.nbytes} bytes at most")
        served.start()
        return served

    def streams(self) -> dict[str, ServedStream]:
        """The streams that have not ended, by name, in the order they were added."""
        self._home.check()
        with self._lock:
            return dict(self._streams)

    def snapshot(self) -> SchedulerSnapshot:
        """All counters now."""
        streams = tuple(stream.snapshot() for stream in self.streams().values())
        now = self._clock()
        turns = [now - began for began in self._turns_began if began is not None]
        return SchedulerSnapshot(
            streams=streams,
            ended=self._ended,
            admitted_bytes=self._budget.taken,
            byte_budget=self._budget.limit,
            workers=len(self._workers),
            longest_turn=max(turns, default=0.0),
            events_lost=self._events.lost,
            pushes_lost=self._pushes.lost,
        )

    def close(self, *, drain: bool, deadline_s: float) -> bool:
        """End all streams and the workers, within a time, whatever sinks, sources and stages do.

        Args:
            drain: as `ServedStream.remove`. Where draining takes too long, the rest is dropped.
            deadline_s: seconds, 0 or more. What is not over then is left to its thread, and its frames are counted as
                dropped.

        Returns:
            Whether everything was over in time. In a forked child nothing of it runs, and nothing is done.
        """
        if not self._home.here:
            return True
        check(isinstance(drain, bool), "drain", drain, "True or False")
        check(
            _is_number(deadline_s) and 0 <= deadline_s <= LONGEST_WAIT,
            "deadline_s",
            deadline_s,
            f"seconds, 0..{LONGEST_WAIT:g}",
        )
        end = time.monotonic() + deadline_s
        with self._lock:
            self._closed = True
            streams = list(self._streams.values())
        for stream in streams:
            stream.remove(drain=drain)
        if drain and not _wait(streams, end - min(CLOSING_SECONDS, deadline_s / 2)):
            for stream in streams:
                stream.remove(drain=False, reason="deadline")
        in_time = _wait(streams, end)
        for stream in streams:
            stream.abandon()
        self._turns.close()
        for worker in self._workers:
            worker.join(max(end - time.monotonic(), 0.0))
        told = self._events.close(max(end - time.monotonic(), 0.0))
        told &= self._pushes.close(max(end - time.monotonic(), 0.0))
        return in_time and told and not any(worker.is_alive() for worker in self._workers)

    def _work(self, number: int) -> None:
        while True:
            stream = self._turns.take(self._expire())
            if stream is not None:
                self._turns_began[number] = self._clock()
                more = stream.step()
                self._turns_began[number] = None
                self._turns.done(stream, more)
            elif self._closed:
                return

    def _expire(self) -> float | None:
        """End the streams that are idle; gives the seconds until the next one may be, None where none may."""
        now = self._clock()
        with self._lock:
            if now >= self._next_expiry:
                self._next_expiry = min((s.expire(now) for s in self._streams.values()), default=math.inf)
            wait = self._next_expiry - now
        return None if wait == math.inf else max(wait, 0.0)

    def _open(
        self,
        name: str,
        open_source: OpenSource,
        sink: Sink,
        dials: Dials | None,
        capacity: Dials | None,
        options: StreamOptions,
    ) -> ServedStream:
        """Admit a stream and make its source, which may take its time; where anything fails nothing is left of it."""
        stream = self._detector.open_stream(dials, capacity=capacity, source_id=name)
        try:
            nbytes = self._admit(name, stream, stream.dials, options)
            served = ServedStream(name, stream, nbytes, sink, options, self._around)
            served.open(open_source)
        except BaseException:
            self._budget.release(name)
            stream.close()
            raise
        return served

    def _admit(self, name: str, stream: Stream, dials: Dials, options: StreamOptions) -> int:
        cost = self._cost(stream, dials, options)
        self._budget.reserve(name, cost)
        return cost.total

    def _cost(self, stream: Stream, dials: Dials, options: StreamOptions) -> StreamCost:
        config = self._detector.config
        # Those that `Memory.relate` gives: a detector alone and cosine_score have none.
        features = 0 if config.alone or config.cosine_score else config.relation.dim
        return stream_cost(stream, dials, config.detection.max_detections, options, features=features)

    def _end(self, stream: ServedStream) -> None:
        with self._lock:
            if self._streams.get(stream.name) is stream:
                del self._streams[stream.name]
                self._ended += 1
                self._budget.release(stream.name)

    def _check_open(self) -> None:
        if self._closed:
            raise StreamClosed("this scheduler was closed")


def _wait(streams: list[ServedStream], end: float) -> bool:
    """Whether all streams have ended by then, `time.monotonic`."""
    return all(stream.wait(max(end - time.monotonic(), 0.0)) for stream in streams)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


@atexit.register
def _close_all() -> None:
    """A worker that comes out of native code when the interpreter is gone ends the process with an abort."""
    for scheduler in list(_running):
        scheduler.close(drain=False, deadline_s=_LAST_SECONDS)
