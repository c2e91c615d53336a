"""How a stream ends, and what a shutdown keeps and counts, whatever hangs."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from rdn_engine.errors import ConfigError, StreamClosed
from rdn_engine.serve.options import StreamOptions
from rdn_engine.serve.scheduler import Scheduler
from tests.serve.doubles import (
    WAIT,
    Camera,
    FakeSource,
    Log,
    Sink,
    WatchedEncoder,
    alone,
    balanced,
    frame,
    frames,
    same,
    serving,
    watched_detector,
)


class Gate:
    """Stops a worker in the encoder at a grey level."""

    def __init__(self, encoder: WatchedEncoder, level: int) -> None:
        self.reached, self.free, self._level = threading.Event(), threading.Event(), level
        encoder.watch = self._watch

    def _watch(self, level: int) -> None:
        if level == self._level:
            self.reached.set()
            assert self.free.wait(WAIT)


def test_removed_with_drain_gives_what_came_until_then() -> None:
    detector, encoder = watched_detector()
    gate = Gate(encoder, 2)
    given = frames(range(6))
    with serving(detector) as scheduler:
        camera = Camera(scheduler, "door", given)
        assert gate.reached.wait(WAIT)
        camera.served.remove(drain=True)
        assert camera.served.snapshot().state == "draining"
        camera.source.put([frame(6, 6), frame(7, 7)])
        gate.free.set()
        assert camera.served.wait(WAIT)
    final = camera.served.snapshot()
    assert (final.frames_in, final.frames_out, final.dropped["removed"]) == (8, 6, 2)
    assert final.end_reason == "removed"
    assert same(camera.sink.results, alone(detector, given))


def test_removed_without_drain_counts_what_it_gives_up() -> None:
    detector, encoder = watched_detector()
    gate = Gate(encoder, 5)
    with serving(detector) as scheduler:
        camera = Camera(scheduler, "door", frames(range(9)))
        assert gate.reached.wait(WAIT)
        camera.sink.wait(3)
        camera.served.remove(drain=False)
        gate.free.set()
        assert camera.served.wait(WAIT)
    final = camera.served.snapshot()
    assert (final.frames_in, final.frames_out, final.dropped["removed"]) == (9, 3, 6)
    assert [r.frame_index for r in camera.sink.results] == [0, 1, 2]


def test_a_drop_overtakes_a_drain_whose_sink_stands_still() -> None:
    detector, _ = watched_detector()
    with serving(detector) as scheduler:
        camera = Camera(scheduler, "door", frames(range(9)))
        camera.sink.wait(1)
        camera.sink.free.clear()
        camera.source.end()
        while camera.served.snapshot().state != "closing":
            camera.served.wait(0.001)
        camera.served.remove(drain=False)
        camera.sink.free.set()
        assert camera.served.wait(WAIT)
    final = camera.served.snapshot()
    assert final.frames_out == len(camera.sink.results) < 9
    assert (final.end_reason, final.dropped["removed"]) == ("removed", 9 - final.frames_out)


def test_a_stream_whose_frames_wait_is_not_idle() -> None:
    detector, _ = watched_detector()
    now, sink = [100.0], Sink()
    sink.free.clear()
    log = Log()
    source: list[FakeSource] = []

    def open_source(on_frame: Callable[[], None]) -> FakeSource:
        source.append(FakeSource(on_frame, frames(range(9))))
        return source[0]

    with serving(detector, on_event=log, clock=lambda: now[0]) as scheduler:
        served = scheduler.add("door", open_source, sink, options=StreamOptions(results=1, idle_seconds=10.0))
        log.wait("sink_full", "door")
        now[0] = 200.0
        other = Camera(scheduler, "other", [])  # every stream that comes has all looked at again
        other.source.end()
        assert other.served.wait(WAIT)
        assert served.snapshot().end_reason is None
        sink.free.set()
        source[0].end()
        assert served.wait(WAIT)
    assert served.snapshot().frames_out == 9


def test_a_stream_without_frames_ends_and_gives_its_results() -> None:
    detector, _ = watched_detector()
    log, now = Log(), [100.0]
    with serving(detector, on_event=log, clock=lambda: now[0]) as scheduler:
        source: list[FakeSource] = []

        def open_source(on_frame: Callable[[], None]) -> FakeSource:
            source.append(FakeSource(on_frame, frames(range(4))))
            return source[0]

        sink = Sink()
        served = scheduler.add("door", open_source, sink, options=StreamOptions(idle_seconds=10.0))
        sink.wait(2)
        now[0] = 109.0
        served.wake()
        for_ever = Camera(scheduler, "for ever", [])
        now[0] = 110.5
        served.wake()  # the workers would come to it by themselves, ten seconds of the real clock later
        final = log.wait("ended", "door").final
        assert for_ever.served.snapshot().state == "running"
    assert final is not None
    assert (final.end_reason, final.frames_in, final.frames_out) == ("idle", 4, 4)


def test_idle_streams_end_by_the_real_clock() -> None:
    detector, _ = watched_detector()
    with serving(detector) as scheduler:
        assert scheduler.add("door", FakeSource, Sink(), options=StreamOptions(idle_seconds=0.01)).wait(WAIT)


def test_close_drains() -> None:
    detector, _ = watched_detector()
    log = Log()
    scheduler = Scheduler(detector, workers=2, on_event=log)
    given = [frames(range(20 * i, 20 * i + 12)) for i in range(4)]
    cameras = [Camera(scheduler, str(i), some) for i, some in enumerate(given)]
    assert scheduler.close(drain=True, deadline_s=WAIT)
    for camera, some in zip(cameras, given, strict=True):
        assert same(camera.sink.results, alone(detector, some))
        assert camera.served.snapshot().end_reason == "removed"
        assert camera.source.closes == 1
    assert scheduler.close(drain=True, deadline_s=0.0)
    with pytest.raises(StreamClosed):
        Camera(scheduler, "late", [])
    assert [e.kind for e in log.events].count("ended") == 4


def test_close_drops() -> None:
    detector, encoder = watched_detector()
    gate = Gate(encoder, 4)
    scheduler = Scheduler(detector, workers=1)
    camera = Camera(scheduler, "door", frames(range(9)))
    assert gate.reached.wait(WAIT)
    closing = threading.Thread(target=lambda: scheduler.close(drain=False, deadline_s=WAIT))
    closing.start()
    gate.free.set()
    closing.join(WAIT)
    final = camera.served.snapshot()
    assert (final.state, final.frames_in, sum(final.dropped.values())) == ("ended", 9, 9 - final.frames_out)


def test_a_drain_that_takes_too_long_becomes_a_drop_that_is_over_in_time() -> None:
    detector, encoder = watched_detector()
    gate = Gate(encoder, 3)

    class Freeing(FakeSource):
        def close(self, timeout: float = 2.0) -> bool:
            gate.free.set()
            return super().close(timeout)

    scheduler = Scheduler(detector, workers=1)
    camera = Camera(scheduler, "door", frames(range(9)))
    camera.source.__class__ = Freeing
    assert gate.reached.wait(WAIT)
    assert scheduler.close(drain=True, deadline_s=3.0)
    final = camera.served.snapshot()
    assert (final.end_reason, final.frames_in, balanced(final)) == ("deadline", 9, True)
    assert final.dropped["deadline"] == 9 - final.frames_out


@pytest.mark.parametrize("stuck", ["sink", "stage", "source"])
def test_close_ends_in_time_whatever_hangs(stuck: str) -> None:
    detector, encoder = watched_detector()
    gate = Gate(encoder, 5 if stuck == "stage" else 1000)
    hold = threading.Event()
    log = Log()

    class Slow(FakeSource):
        def close(self, timeout: float = 2.0) -> bool:
            return hold.wait(WAIT)

    scheduler = Scheduler(detector, workers=1, on_event=log)
    camera = Camera(scheduler, "door", frames(range(4)))
    if stuck == "source":
        camera.source.__class__ = Slow
    if stuck == "sink":
        camera.sink.wait(2)
        camera.sink.free.clear()
    camera.source.put([frame(4, 4), frame(5, 5), frame(6, 6)])
    if stuck == "stage":
        assert gate.reached.wait(WAIT)
    assert not scheduler.close(drain=True, deadline_s=0.05)
    final = log.wait("ended", "door").final
    assert final is not None
    assert camera.served.snapshot() == final
    assert (final.state, final.end_reason, final.frames_in) == ("ended", "deadline", 7)
    assert balanced(final)
    given = len(camera.sink.results)
    assert given in (final.frames_out, final.frames_out + 1)  # the one in the sink's hands
    gate.free.set()
    hold.set()
    camera.sink.free.set()
    for thread in threading.enumerate():
        if thread.name.startswith("rdn-"):
            thread.join(WAIT)
    assert len(camera.sink.results) <= given + 1
    assert camera.served.snapshot() == final


def test_dials_of_a_stream_that_ends_meanwhile_are_refused() -> None:
    detector, encoder = watched_detector()
    gate = Gate(encoder, 1)
    with serving(detector) as scheduler:
        camera = Camera(scheduler, "door", frames(range(2)))
        assert gate.reached.wait(WAIT)
        scheduler_thread = threading.Thread(target=lambda: scheduler.close(drain=False, deadline_s=0.0))
        with pytest.raises(TimeoutError):
            camera.served.set_dials(detector.config.dials, 0.0)
        refused: list[BaseException] = []

        def turn() -> None:
            try:
                camera.served.set_dials(detector.config.dials, WAIT)
            except StreamClosed as error:
                refused.append(error)

        turning = threading.Thread(target=turn)
        turning.start()
        scheduler_thread.start()
        turning.join(WAIT)
        scheduler_thread.join(WAIT)
        gate.free.set()
    assert len(refused) == 1


@pytest.mark.parametrize("options", [{"results": 0}, {"idle_seconds": 0.0}, {"max_failures": 0}, {"picture_bytes": -1}])
def test_bounds_have_ranges(options: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=f"options.{next(iter(options))}"):
        StreamOptions(**options)  # type: ignore[arg-type]


def test_deadline_has_a_range() -> None:
    with serving(watched_detector()[0]) as scheduler, pytest.raises(ConfigError, match="deadline_s is -1"):
        scheduler.close(drain=True, deadline_s=-1)
