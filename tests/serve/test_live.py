"""Real sources under the scheduler: what they capture is in the account to the last frame."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from rdn_engine.media.live import LiveOptions, LiveSource
from tests.media.clips import encode
from tests.media.test_live import Camera as Connections
from tests.serve.doubles import WAIT, Log, Sink, alone, same, serving, watched_detector


def test_a_file_goes_through_whole(tmp_path: Path) -> None:
    detector, _ = watched_detector()
    path = encode(tmp_path / "a.mp4", frames=20)
    options = LiveOptions(policy="wait", real_time=False)
    sink, log = Sink(), Log()
    with serving(detector, on_event=log) as scheduler:
        served = scheduler.add("door", lambda wake: LiveSource(path, options, on_change=wake), sink)
        assert served.wait(WAIT)
    final = served.snapshot()
    assert (final.end_reason, final.frames_in, final.frames_out, sum(final.dropped.values())) == ("ended", 20, 20, 0)
    assert (sum(final.ages.counts), final.sessions, final.epochs) == (20, 1, 1)
    assert [e.kind for e in log.events] == ["added", "ended"]
    live = LiveSource(path, options)
    live.start()
    again = []
    while (frame := live.get()) is not None:
        again.append(frame)
    expected = alone(detector, again)
    # Each reading has its own moments.
    assert same(*([replace(r, capture=None) for r in results] for results in (sink.results, expected)))


def test_a_camera_that_comes_back_begins_an_epoch_and_every_frame_is_counted() -> None:
    detector, _ = watched_detector()
    sink, log = Sink(), Log()
    connections = Connections([0, 1, -2, 3], "refused", [0, 1, 2], [0])
    options = LiveOptions(policy="wait", first_delay=0.01, longest_delay=0.01)
    with serving(detector, on_event=log) as scheduler:
        served = scheduler.add(
            "door", lambda wake: LiveSource("rtsp://u:p@cam/1", options, on_change=wake, opener=connections), sink
        )
        log.wait("source_down", "door")
        sink.wait(8)  # also what waits for later frames comes when its session fails, and not with the next one
        served.remove(drain=True)
        assert served.wait(WAIT)
    final = served.snapshot()
    assert (final.frames_in, final.frames_out, sum(final.dropped.values())) == (8, 8, 0)
    assert (final.sessions, final.epochs, final.damaged, final.doubtful) == (3, 3, 3, 1)
    assert final.failures >= 4
    assert [(r.epoch, r.capture.session) for r in sink.results if r.capture] == [(0, 0)] * 4 + [(1, 1)] * 3 + [(2, 2)]
    assert [r.frame_index for r in sink.results] == list(range(8))


def test_frames_that_nobody_takes_in_time_are_the_sources() -> None:
    detector, encoder = watched_detector()
    sink, captured = Sink(), threading.Event()
    options = LiveOptions(policy="drop_oldest", room=2, first_delay=3600.0, longest_delay=3600.0)

    def open_source(wake: Callable[[], None]) -> LiveSource:
        def changed() -> None:
            wake()
            if live.failures:
                captured.set()

        live = LiveSource("rtsp://cam/1", options, on_change=changed, opener=Connections(list(range(50))))
        return live

    encoder.watch = lambda level: None if captured.wait(WAIT) else pytest.fail("the camera gave too little")
    with serving(detector) as scheduler:
        served = scheduler.add("door", open_source, sink)
        assert captured.wait(WAIT)
        served.remove(drain=True)
        assert served.wait(WAIT)
    final = served.snapshot()
    # One was in the worker's hands, two waited; or none was yet.
    assert final.frames_out in (2, 3)
    assert (final.frames_in, final.dropped["source"]) == (50, 50 - final.frames_out)
    assert [r.frame_index for r in sink.results][-2:] == [48, 49]
    assert sum(r.capture.dropped for r in sink.results if r.capture) == final.dropped["source"]
