"""Every push is told of, with what it took."""

from __future__ import annotations

import threading

import pytest

from rdn_engine.errors import ConfigError
from rdn_engine.serve.push import Push
from rdn_engine.serve.scheduler import Scheduler
from tests.fakes import DIALS
from tests.serve.doubles import WAIT, Camera, alone, frame, frames, same, serving, watched_detector


def test_every_push_is_told_of() -> None:
    detector, encoder = watched_detector()
    pushes: list[Push] = []

    def watch(level: int) -> None:
        if level == 3:
            raise MemoryError("no room")

    encoder.watch = watch
    given = frames(range(6))
    given[1] = frame(1, 1, side=8)
    scheduler = Scheduler(detector, workers=1, on_push=pushes.append)
    camera = Camera(scheduler, "door", given)
    camera.source.end()
    assert camera.served.wait(WAIT)
    assert scheduler.close(drain=True, deadline_s=WAIT)
    assert [(p.stream, p.frame_index, p.epoch) for p in pushes] == [("door", i, 0) for i in range(6)]
    assert [None if p.error is None else type(p.error).__name__ for p in pushes] == [
        None, "FrameError", None, "MemoryError", None, None,
    ]  # fmt: skip
    assert sum(p.results for p in pushes) == 4 - DIALS.frames_ahead
    assert [p.capture for p in pushes] == [f.capture for f in given]
    assert pushes[1].stages == {}
    seconds = camera.served.snapshot().seconds
    for stage in ("preprocess", "backbone"):
        assert sum(p.stages.get(stage, 0.0) for p in pushes) == pytest.approx(seconds[stage])
    assert all(sum(p.stages.values()) <= p.seconds for p in pushes)


def test_a_hook_that_raises_or_stands_still_changes_nothing() -> None:
    detector, _ = watched_detector()
    held = threading.Event()

    def stuck(push: Push) -> None:
        held.wait(WAIT)
        raise ValueError("no")

    given = frames(range(9))
    with serving(detector, on_push=stuck) as scheduler:
        camera = Camera(scheduler, "door", given)
        camera.source.end()
        assert camera.served.wait(WAIT)
        assert same(camera.sink.results, alone(detector, given))
        held.set()
    assert scheduler.snapshot().pushes_lost == 9


def test_a_hook_is_a_function() -> None:
    with pytest.raises(ConfigError, match="on_push is 3; wanted a function, or None"):
        Scheduler(watched_detector()[0], on_push=3)  # type: ignore[arg-type]
