"""What is going on now can be seen while it goes on."""

from __future__ import annotations

import threading
import time

from tests.serve.doubles import WAIT, Camera, Log, frames, serving, watched_detector


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
