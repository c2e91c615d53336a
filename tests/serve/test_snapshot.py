"""What is going on now can be seen while it goes on."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable

from rdn_engine.frame import Frame
from rdn_engine.serve.served import ServedStream
from rdn_engine.serve.snapshot import StreamSnapshot
from tests.serve.doubles import WAIT, Camera, FakeSource, Log, Sink, balanced, frames, serving, watched_detector


def test_a_stage_that_hangs_is_seen() -> None:
    detector, encoder = watched_detector()
    now, reached, free = [100.0], threading.Event(), threading.Event()

    def watch(level: int) -> None:
        if level == 1:
            reached.set()
            assert free.wait(WAIT)

    encoder.watch = watch
    with serving(detector, clock=lambda: now[0]) as scheduler:
        assert scheduler.snapshot().longest_turn == 0.0
        camera = Camera(scheduler, "door", frames(range(3)))
        assert reached.wait(WAIT)
        now[0] = 107.0
        snapshot = scheduler.snapshot()
        assert (snapshot.longest_turn, snapshot.streams[0].turn_seconds) == (7.0, 7.0)
        camera.served.abandon()
        snapshot = scheduler.snapshot()
        assert (snapshot.streams, snapshot.longest_turn) == ((), 7.0)
        free.set()
        other = Camera(scheduler, "other", frames(range(3)))
        other.source.end()
        assert other.served.wait(WAIT)
    assert scheduler.snapshot().longest_turn == 0.0
    assert other.served.snapshot().turn_seconds == 0.0


def test_a_sink_that_hangs_is_seen_and_the_last_result_is_known() -> None:
    detector, _ = watched_detector()
    now = [100.0]
    with serving(detector, clock=lambda: now[0]) as scheduler:
        camera = Camera(scheduler, "door", [])
        before = camera.served.snapshot()
        assert (before.sink_seconds, before.last_age, before.last_result_time) == (0.0, None, None)
        camera.sink.free.clear()
        camera.source.put(frames(range(3)))
        camera.sink.wait(1)
        now[0] = 109.0
        assert camera.served.snapshot().sink_seconds == 9.0
        wall = time.time()
        camera.sink.free.set()
        camera.source.end()
        assert camera.served.wait(WAIT)
    final = camera.served.snapshot()
    assert final.sink_seconds == 0.0
    assert final.last_age is not None
    assert final.last_age >= 0.0
    assert final.last_result_time is not None
    assert final.last_result_time >= wall


def test_troubles_of_now_are_listed() -> None:
    detector, _ = watched_detector()
    log = Log()
    with serving(detector, on_event=log) as scheduler:
        camera = Camera(scheduler, "door", [])
        camera.sink.fails = OSError("full")
        camera.source.put(frames(range(3)))
        log.wait("sink_failing", "door")
        assert camera.served.snapshot().troubles == ("sink_failing",)
        camera.sink.fails = None
        camera.source.put(frames(range(3, 60)))
        log.wait("recovered", "door")
        assert camera.served.snapshot().troubles == ()
        assert scheduler.snapshot().streams[0].last_age is not None


def counts(s: StreamSnapshot) -> list[float]:
    """All that may only grow."""
    whole = [s.frames_in, s.frames_out, s.doubtful, s.damaged, s.sessions, s.failures, s.epochs]
    return [*whole, *s.dropped.values(), *s.ages.counts, *s.seconds.values()]


def test_no_count_steps_back_wherever_a_frame_is() -> None:
    detector, _ = watched_detector()
    seen: list[StreamSnapshot] = []
    served: list[ServedStream] = []

    class Watched(FakeSource):
        """Looked at while a frame is in nobody's queue, and while it gives up what waits."""

        def get(self, timeout: float | None) -> Frame | None:
            self.look()
            frame = super().get(timeout)
            self.look()
            return frame

        def close(self, timeout: float = 2.0) -> bool:
            self.look()
            stopped = super().close(timeout)
            self.look()
            return stopped

        def look(self) -> None:
            seen.append(served[0].snapshot())

    sources: list[Watched] = []

    def open_source(on_frame: Callable[[], None]) -> FakeSource:
        sources.append(Watched(on_frame))
        sources[0].limit = 3
        return sources[0]

    sink = Sink()
    with serving(detector) as scheduler:
        served.append(scheduler.add("door", open_source, sink))
        sources[0].put(frames(range(20)))
        sink.wait(1)
        sink.free.clear()
        sources[0].put(frames(range(20, 50)))
        served[0].remove(drain=False)
        sink.free.set()
        assert served[0].wait(WAIT)
    seen.append(served[0].snapshot())
    assert all(balanced(one) for one in seen)
    assert len({one.frames_in for one in seen}) > 1
    for before, after in itertools.pairwise(seen):
        assert all(a <= b for a, b in zip(counts(before), counts(after), strict=True)), (before, after)


def test_a_source_that_counts_back_or_nonsense_is_not_believed() -> None:
    detector, _ = watched_detector()
    with serving(detector) as scheduler:
        camera = Camera(scheduler, "door", frames(range(5)))
        camera.sink.wait(3)
        camera.source.captured = 0
        first = camera.served.snapshot()
        camera.source.captured = None  # type: ignore[assignment]
        camera.served.snapshot()  # it asks
        camera.source._on_frame()
        assert camera.served.wait(WAIT)
    final = camera.served.snapshot()
    assert balanced(first)
    assert balanced(final)
    assert (final.end_reason, final.frames_in, final.frames_out) == ("source", 5, 5)
    assert final.error is not None
    assert "captured of the source is None" in final.error
