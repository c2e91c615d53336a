"""Sources that misbehave are one stream's trouble: workers, other streams and the shutdown go on."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rdn_engine.errors import ConfigError, VideoError
from rdn_engine.frame import Frame
from rdn_engine.media.live import LiveOptions, LiveSource
from rdn_engine.serve.guarded import GuardedSource
from rdn_engine.serve.options import StreamOptions
from tests.media.clips import encode
from tests.serve.doubles import WAIT, FakeSource, Sink, frames, serving, watched_detector

ENGINES = Path(__file__).parents[2] / "models" / "rdn_tiny" / "engines"


def broken(name: str, error: BaseException) -> type[FakeSource]:
    """A source of which one question raises."""

    def ask(self: FakeSource) -> Any:
        raise error

    return type("Broken", (FakeSource,), {name: property(ask, lambda self, value: None)})


def test_a_broken_source_gives_its_last_answers_and_has_ended() -> None:
    source = FakeSource(lambda: None, frames([1, 2]))
    guarded = GuardedSource(source)
    assert (guarded.waiting, guarded.captured, guarded.ended, guarded.broken) == (2, 2, False, False)
    source.fails = ValueError("gone")
    assert guarded.get() is None
    assert (guarded.captured, guarded.ended, guarded.broken) == (2, True, True)
    assert guarded.error is source.fails


def test_what_is_no_source_is_refused_by_what_it_lacks() -> None:
    with pytest.raises(ConfigError, match="open_source gave NoneType, which lacks ended, error"):
        GuardedSource(None)


def test_add_refuses_what_is_no_source_and_the_name_stays_free() -> None:
    with serving(watched_detector()[0]) as scheduler:
        with pytest.raises(ConfigError, match="open_source gave NoneType"):
            scheduler.add("door", lambda wake: None, Sink())  # type: ignore[arg-type, return-value]
        assert scheduler.snapshot().streams == ()
        scheduler.add("door", lambda wake: FakeSource(wake), Sink())


@pytest.mark.parametrize("error", [RuntimeError("no"), SystemExit(1)], ids=["exception", "exit"])
@pytest.mark.parametrize("name", ["waiting", "dropped", "captured", "ended", "error"])
def test_a_question_that_fails_ends_its_stream_alone(name: str, error: BaseException) -> None:
    with serving(watched_detector()[0]) as scheduler:
        bad = scheduler.add("bad", broken(name, error), Sink(), options=StreamOptions(idle_seconds=3600))
        sink = Sink()
        sources: list[FakeSource] = []

        def open_source(wake: Callable[[], None]) -> FakeSource:
            sources.append(FakeSource(wake, frames(range(10))))
            return sources[0]

        good = scheduler.add("good", open_source, sink)
        sources[0].end()
        assert good.wait(WAIT)
        assert len(sink.results) == 10
        bad.remove(drain=False)
        assert bad.wait(WAIT)
        scheduler.snapshot()


def test_a_stage_that_exits_its_thread_costs_no_worker() -> None:
    detector, encoder = watched_detector()
    with serving(detector) as scheduler:
        encoder.watch = leave
        bad = scheduler.add("bad", lambda wake: FakeSource(wake, frames(range(5))), Sink())
        assert bad.wait(WAIT)
        assert bad.snapshot().end_reason == "failed"
        encoder.watch = lambda level: None
        sink = Sink()
        source = FakeSource(lambda: None)

        def open_source(wake: Callable[[], None]) -> FakeSource:
            nonlocal source
            source = FakeSource(wake, frames(range(5)))
            return source

        good = scheduler.add("good", open_source, sink)
        source.end()
        assert good.wait(WAIT)
        assert len(sink.results) == 5


def leave(*_: object) -> None:
    raise SystemExit(1)


def test_a_frame_that_is_being_taken_while_a_drain_begins_is_computed() -> None:
    sink = Sink()
    with serving(watched_detector()[0]) as scheduler:

        class Removing(FakeSource):
            def get(self, timeout: float | None) -> Frame | None:
                taken = super().get(timeout)
                if taken is not None and taken.index == 3:
                    streams[0].remove(drain=True)
                return taken

        streams: list[Any] = []
        sources: list[FakeSource] = []

        def open_source(wake: Callable[[], None]) -> FakeSource:
            sources.append(Removing(wake))
            return sources[0]

        streams.append(scheduler.add("door", open_source, sink))
        sources[0].put(frames(range(10)))
        assert streams[0].wait(WAIT)
        final = streams[0].snapshot()
        assert (final.frames_out + final.dropped["removed"], final.frames_in) == (10, 10)
        assert final.frames_out >= 4


def test_a_live_source_is_one_stream_s(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mp4")
    with serving(watched_detector()[0]) as scheduler:
        live: list[LiveSource] = []

        def shared(wake: Callable[[], None]) -> LiveSource:
            if not live:
                live.append(LiveSource(path, LiveOptions("wait", real_time=False), on_change=wake))
            return live[0]

        sink = Sink()
        first = scheduler.add("first", shared, sink)
        second = scheduler.add("second", shared, Sink())
        assert second.wait(WAIT)
        assert isinstance(second.snapshot().error, str)
        assert "was started before" in second.snapshot().error  # type: ignore[operator]
        assert first.wait(WAIT)
        assert len(sink.results) == 20
    with pytest.raises(VideoError, match="was started before"):
        live[0].start()


@pytest.mark.parametrize("deadline", [float("inf"), 1e10, -1.0, "a", None, True])
def test_a_deadline_that_is_none_is_refused_before_anything_is_closed(deadline: Any) -> None:
    with serving(watched_detector()[0]) as scheduler:
        with pytest.raises(ConfigError, match="deadline_s is"):
            scheduler.close(drain=True, deadline_s=deadline)
        scheduler.add("door", lambda wake: FakeSource(wake), Sink())


LEFT_RUNNING = """
import sys, time
from rdn_engine import Detector, LiveOptions, LiveSource, Scheduler

scheduler = Scheduler(Detector.from_pretrained(sys.argv[1], threads=1), workers=2)
options = LiveOptions(policy="wait", real_time=False)
results = []
for name in ("a", "b", "c"):
    scheduler.add(name, lambda wake: LiveSource(sys.argv[2], options, on_change=wake), results.append)
while not results:
    time.sleep(0.01)
print("computing")
"""


def test_a_scheduler_that_is_left_running_does_not_abort_the_interpreter(tmp_path: Path) -> None:
    """Its workers are in native code when the script ends."""
    path = encode(tmp_path / "a.mp4", frames=200)
    command = [sys.executable, "-c", LEFT_RUNNING, str(ENGINES), str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout) == (0, "computing\n"), done.stderr
