"""What fails is one stream's: a stage, a source, a sink; counted, told once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace

import pytest

from rdn_engine.errors import VideoError
from rdn_engine.frame import Frame
from rdn_engine.serve.options import StreamOptions
from tests.fakes import DIALS
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
        camera.source.put(frames(range(3, 4)))
        log.wait("recovered", "door")  # with the first frame
        camera.source.put(frames(range(4, 40)))
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


@pytest.mark.parametrize("link", ["off", "boxes"])
def test_the_last_results_of_a_camera_that_goes_dark_come_at_once_and_are_the_same(link: str) -> None:
    dials = replace(DIALS, link=link, link_delay=2)  # type: ignore[arg-type]
    detector, _ = watched_detector()
    log = Log()
    given = [replace(one, capture=replace(one.capture, session=one.index // 9)) for one in frames(range(18))]  # type: ignore[type-var]
    with serving(detector, on_event=log) as scheduler:
        camera = Camera(scheduler, "door", given[:9], dials)
        camera.source.error = VideoError("connection refused")  # type: ignore[assignment]
        camera.source._on_frame()
        camera.sink.wait(9)
        camera.source._on_frame()
        assert camera.served.snapshot().inside <= 1  # the sink has been called, and comes back in a moment
        camera.source.error = None
        camera.source.put(given[9:])
        camera.source.end()
        assert camera.served.wait(WAIT)
    assert same(camera.sink.results, alone(detector, given, dials))
    assert camera.served.snapshot().epochs == 2


def test_a_frame_that_comes_between_two_questions_is_of_its_own_session() -> None:
    """It is there before the failure is seen, and goes into the window of the frames before it."""
    detector, _ = watched_detector()
    given = frames(range(4))

    class Failing(FakeSource):
        def get(self, timeout: float | None) -> Frame | None:
            frame = super().get(timeout)
            if frame is None and self.captured == 3:
                self.put(given[3:])
                self.error = VideoError("gone")  # type: ignore[assignment]
            return frame

    sink, sources = Sink(), []

    def open_source(on_frame: Callable[[], None]) -> FakeSource:
        sources.append(Failing(on_frame, given[:3]))
        return sources[0]

    with serving(detector) as scheduler:
        served = scheduler.add("door", open_source, sink)
        sink.wait(4)
        served.remove(drain=True)
        assert served.wait(WAIT)
    assert same(sink.results, alone(detector, given))
