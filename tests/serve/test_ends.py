"""What fails or ends is one stream's, and its frames are counted to the last."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from rdn_engine.errors import ConfigError, StreamClosed, VideoError
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


def failing(encoder: WatchedEncoder, bad: Callable[[int], bool]) -> None:
    def watch(level: int) -> None:
        if bad(level):
            raise MemoryError(f"no room for {level}")

    encoder.watch = watch


def test_a_stage_that_fails_now_and_then_costs_its_frames_alone() -> None:
    detector, encoder = watched_detector()
    failing(encoder, lambda level: level in (3, 7, 11))
    log, many, few = Log(), frames(range(40)), frames(range(100, 110))
    with serving(detector, on_event=log) as scheduler:
        bad, good = Camera(scheduler, "bad", many), Camera(scheduler, "good", few)
        for camera in (bad, good):
            camera.source.end()
            assert camera.served.wait(WAIT)
    encoder.watch = lambda level: None
    assert same(good.sink.results, alone(detector, few))
    assert same(bad.sink.results, alone(detector, [f for f in many if f.index not in (3, 7, 11)]))
    final = bad.served.snapshot()
    assert (final.frames_in, final.frames_out, final.dropped["failed"], final.end_reason) == (40, 37, 3, "ended")
    assert [e.kind for e in log.of("bad")] == ["added", "failing", "recovered", "ended"]
    assert "no room for 3" in log.of("bad", "failing")[0].message
    assert [e.kind for e in log.of("good")] == ["added", "ended"]


def test_a_stage_that_fails_for_good_ends_its_stream_with_the_results_it_can_give() -> None:
    detector, encoder = watched_detector()
    failing(encoder, lambda level: 5 <= level < 100)
    log, many, few = Log(), frames(range(12)), frames(range(100, 110))
    with serving(detector, on_event=log) as scheduler:
        bad, good = Camera(scheduler, "bad", many), Camera(scheduler, "good", few)
        final = log.wait("ended", "bad").final
        good.source.end()
        assert good.served.wait(WAIT)
    encoder.watch = lambda level: None
    assert final is not None
    assert (final.end_reason, final.frames_in, final.frames_out) == ("failed", 12, 5)
    assert final.dropped["failed"] == 7
    assert final.error == "MemoryError('no room for 7')"
    assert same(bad.sink.results, alone(detector, many[:5]))
    assert same(good.sink.results, alone(detector, few))
    assert bad.source.closes == 1


def test_last_results_that_fail_are_counted_and_the_others_come() -> None:
    detector, _ = watched_detector()
    stage, fails = detector.runtime.model, threading.Event()  # type: ignore[attr-defined]
    relation = stage.relation

    def related(*arguments: object, **named: object) -> object:
        if fails.is_set():
            raise MemoryError("no room for results")
        return relation(*arguments, **named)

    related.precision = relation.precision  # type: ignore[attr-defined]
    object.__setattr__(stage, "relation", related)
    log = Log()
    with serving(detector, on_event=log) as scheduler:
        camera = Camera(scheduler, "door", frames(range(6)))
        camera.sink.wait(4)
        fails.set()
        camera.source.end()
        final = log.wait("ended", "door").final
    assert final is not None
    assert (final.end_reason, final.frames_out, final.dropped["failed"], final.dropped["removed"]) == ("ended", 4, 2, 0)
    assert [e.kind for e in log.events] == ["added", "failing", "ended"]


def test_a_frame_that_is_no_image_is_refused_and_counted() -> None:
    detector, _ = watched_detector()
    log = Log()
    given = frames(range(6))
    given[2], given[4] = frame(2, 2, side=8), frame(4, 4, side=8)
    with serving(detector, on_event=log) as scheduler:
        camera = Camera(scheduler, "door", given)
        camera.source.end()
        final = log.wait("ended", "door").final
    assert final is not None
    assert (final.frames_out, final.dropped["refused"], final.frames_in) == (4, 2, 6)
    assert [e.kind for e in log.events] == ["added", "refused", "ended"]
    assert same(camera.sink.results, alone(detector, [f for f in given if f.image.shape[0] == 16]))


@pytest.mark.parametrize("how", ["ended", "raised"])
def test_a_source_that_fails_ends_its_stream_after_what_it_gave(how: str) -> None:
    detector, _ = watched_detector()
    log = Log()
    error, given = VideoError("the camera is gone"), frames(range(5))
    with serving(detector, on_event=log) as scheduler:
        camera = Camera(scheduler, "door", given)
        camera.sink.wait(3)  # what is left is in the window
        if how == "ended":
            camera.source.end(error)
        else:
            camera.source.fails = error
            camera.source._on_frame()
        event = log.wait("ended", "door")
    assert event.error is error
    assert event.final is not None
    assert (event.final.end_reason, event.final.frames_out, event.final.frames_in) == ("source", 5, 5)
    assert same(camera.sink.results, alone(detector, given))


def test_a_source_that_connects_again_is_down_and_recovers() -> None:
    detector, _ = watched_detector()
    log = Log()
    error = VideoError("connection refused")
    with serving(detector, on_event=log) as scheduler:
        camera = Camera(scheduler, "door", frames(range(3)))
        camera.sink.wait(1)
        camera.source.error = error  # type: ignore[assignment]
        for _ in range(3):
            camera.source._on_frame()
        assert log.wait("source_down", "door").error is error
        camera.source.error = None
        camera.source.put(frames(range(3, 40)))
        log.wait("recovered", "door")
        camera.source.stops = False
        camera.source.end()
        log.wait("ended", "door")
    assert [e.kind for e in log.events] == ["added", "source_down", "recovered", "source_stuck", "ended"]
    assert camera.served.snapshot().frames_out == 40


def test_a_source_that_cannot_start_ends_its_stream() -> None:
    detector, _ = watched_detector()
    log = Log()

    class Broken(FakeSource):
        def start(self) -> None:
            raise VideoError("no route")

    with serving(detector, on_event=log) as scheduler:
        served = scheduler.add("door", Broken, Sink())
        assert served.wait(WAIT)
        event = log.wait("ended", "door")
    assert event.final is not None
    assert (event.final.end_reason, event.final.error) == ("source", "VideoError('no route')")


@pytest.mark.parametrize("error", [OSError("the disk is full"), SystemExit(1)])
def test_a_sink_that_raises_loses_those_results_alone(error: BaseException) -> None:
    detector, _ = watched_detector()
    log, given = Log(), frames(range(9))
    with serving(detector, on_event=log) as scheduler:
        bad, good = Camera(scheduler, "bad", []), Camera(scheduler, "good", given)
        bad.sink.fails = error
        bad.source.put(frames(range(9)))
        bad.source.end()
        assert bad.served.wait(WAIT)
        good.source.end()
        assert good.served.wait(WAIT)
    final = bad.served.snapshot()
    assert (final.frames_in, final.frames_out, final.dropped["sink"]) == (9, 0, 9)
    assert [e.kind for e in log.of("bad")] == ["added", "sink_failing", "ended"]
    assert same(good.sink.results, alone(detector, given))


def test_a_sink_that_stands_still_holds_up_its_own_stream_alone() -> None:
    detector, _ = watched_detector()
    log = Log()
    sink, sources = Sink(), []
    sink.free.clear()

    def open_source(on_frame: Callable[[], None]) -> FakeSource:
        sources.append(FakeSource(on_frame))
        return sources[-1]

    with serving(detector, on_event=log) as scheduler:
        stuck = scheduler.add("stuck", open_source, sink, options=StreamOptions(results=2))
        for one in frames(range(5)):
            sources[0].put([one])
            if one.index == 2:
                sink.wait(1)  # frame 0's result is in the sink's hands
        log.wait("sink_full", "stuck")
        given = frames(range(9))
        good = Camera(scheduler, "good", given)
        good.source.end()
        assert good.served.wait(WAIT)
        sources[0].limit = 2
        sources[0].put(frames(range(10, 20)))
        now = stuck.snapshot()
        assert (now.frames_in, now.frames_out, now.waiting, now.inside) == (15, 0, 2, 5)
        assert now.dropped["source"] == 8
        assert balanced(now)
        sink.free.set()
        sources[0].end()
        assert stuck.wait(WAIT)
    final = stuck.snapshot()
    assert (final.frames_in, final.frames_out, sum(final.dropped.values())) == (15, 7, 8)
    assert [r.frame_index for r in sink.results] == [0, 1, 2, 3, 4, 8, 9]
    assert same(good.sink.results, alone(detector, given))


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
