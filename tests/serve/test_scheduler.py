"""Streams that share a detector give what each gives alone, in fair turns."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rdn_engine.detector import Detector
from rdn_engine.errors import ConfigError, StreamClosed
from rdn_engine.frame import Frame
from rdn_engine.serve.scheduler import Scheduler
from tests.fakes import DIALS
from tests.serve.doubles import (
    WAIT,
    Camera,
    FakeSource,
    Log,
    Sink,
    alone,
    balanced,
    frame,
    frames,
    same,
    serving,
    watched_detector,
)
from training.data.synthetic import SyntheticVideos

TINY = Path(__file__).parents[2] / "models" / "rdn_tiny" / "engines"


@pytest.mark.parametrize("workers", [1, 3])
def test_every_stream_gives_what_it_gives_alone(workers: int) -> None:
    detector, _ = watched_detector()
    given = {f"c{i}": frames(range(10 * i, 10 * i + 3 + 5 * i)) for i in range(5)}
    dials = {"c0": replace(DIALS, window=1), "c1": replace(DIALS, link="boxes", link_delay=2)}
    with serving(detector, workers=workers) as scheduler:
        cameras = {name: Camera(scheduler, name, some, dials.get(name)) for name, some in given.items()}
        for camera in cameras.values():
            camera.source.end()
            assert camera.served.wait(WAIT)
    for name, camera in cameras.items():
        assert same(camera.sink.results, alone(detector, given[name], dials.get(name))), name
        final = camera.served.snapshot()
        assert (final.state, final.end_reason, final.error) == ("ended", "ended", None)
        assert (final.frames_in, final.frames_out, final.inside) == (len(given[name]), len(given[name]), 0)
        assert balanced(final)
        assert (final.epochs, final.damaged, final.sessions, final.failures) == (1, 3, 1, 2)
        assert final.lost_packets == 4
        assert sum(final.ages.counts) == len(given[name])
        assert final.seconds["relation"] > 0
        assert (camera.source.starts, camera.source.closes) == (1, 1)


def test_others_come_go_and_turn_their_dials_and_a_stream_does_not_notice() -> None:
    detector, encoder = watched_detector()
    steady, turned = frames(range(40)), frames(range(100, 130))
    reached, go_on = threading.Event(), threading.Event()

    def watch(level: int) -> None:
        if level == 109:
            reached.set()
            assert go_on.wait(WAIT)

    encoder.watch = watch
    low = replace(DIALS, window=1, num_support=2, num_reference=3, advanced_ratio=0.5)
    log = Log()
    with serving(detector, on_event=log) as scheduler:
        other = Camera(scheduler, "other", turned[:10])
        camera = Camera(scheduler, "camera", steady[:20])
        assert reached.wait(WAIT)
        with pytest.raises(TimeoutError):
            other.served.set_dials(low, 0.0)
        go_on.set()
        log.wait("dials", "other")
        assert other.served.snapshot().dials == low
        other.source.put(turned[10:])
        gone = Camera(scheduler, "gone", frames(range(200, 210)))
        gone.served.remove(drain=False)
        camera.source.put(steady[20:])
        last = frames(range(210, 220))
        late = Camera(scheduler, "late", last)
        for one in (other, camera, late):
            one.source.end()
            assert one.served.wait(WAIT)
        assert gone.served.wait(WAIT)
    encoder.watch = lambda level: None
    assert same(camera.sink.results, alone(detector, steady))
    assert same(late.sink.results, alone(detector, last))
    with detector.open_stream() as stream:
        before = [result for one in turned[:10] for result in stream.push(one)]
        stream.dials = low
        after = [result for one in turned[10:] for result in stream.push(one)] + stream.flush()
    assert same(other.sink.results, before + after)


@settings(deadline=None, max_examples=25)
@given(st.lists(st.tuples(st.integers(0, 50), st.integers(1, 4)), min_size=6, max_size=12))
def test_a_slow_stream_waits_for_one_round(arrivals: list[tuple[int, int]]) -> None:
    """Stream 0 has frames at any time. Grey levels are the streams' numbers; what arrives while push p runs is put
    there by p's own thread.
    """
    detector, encoder = watched_detector()
    sources: list[FakeSource] = []
    order: list[int] = []
    waiting: dict[int, int] = {}  # push during which the oldest frame that waits arrived, by stream
    unfair: list[str] = []
    fast = frames([0] * 60)
    begin, drained = threading.Event(), threading.Event()

    def watch(level: int) -> None:
        assert begin.wait(WAIT)
        p = len(order)
        order.append(level)
        if order.count(0) == len(fast):
            drained.set()
        if level:
            between = order[waiting.pop(level) + 1 : p]
            if len(set(between)) < len(between):  # an assertion here would be a stage that fails
                unfair.append(f"{level} waited while another had two turns: {between}")
        for at, stream in arrivals:
            if at == p:
                sources[stream].put([frame(p, stream)])
                if stream not in waiting:
                    waiting[stream] = p

    encoder.watch = watch
    with serving(detector) as scheduler:

        def open_source(on_frame: Callable[[], None]) -> FakeSource:
            sources.append(FakeSource(on_frame, fast if not sources else ()))
            return sources[-1]

        # Two frames at once in one stream would make its second one wait for the first: that is its own.
        arrivals[:] = list(dict.fromkeys(arrivals))
        served = [scheduler.add(str(i), open_source, Sink()) for i in range(5)]
        begin.set()
        assert drained.wait(WAIT)
        for one in served:
            one.remove(drain=True)
        for one in served:
            assert one.wait(WAIT)
    assert unfair == []


def test_a_name_is_free_again_once_its_stream_has_ended() -> None:
    detector, _ = watched_detector()
    with serving(detector) as scheduler:
        first = Camera(scheduler, "door", frames(range(3)))
        with pytest.raises(ConfigError, match="name is 'door'"):
            Camera(scheduler, "door", [])
        assert list(scheduler.streams()) == ["door"]
        first.served.remove(drain=True)
        assert first.served.wait(WAIT)
        assert scheduler.streams() == {}
        assert scheduler.snapshot().ended == 1
        Camera(scheduler, "door", [])


def test_wrong_dials_raise_where_they_were_set_and_change_nothing() -> None:
    detector, _ = watched_detector()
    given = frames(range(8))
    with serving(detector) as scheduler:
        camera = Camera(scheduler, "door", given)
        with pytest.raises(ConfigError, match="room for 2"):
            camera.served.set_dials(replace(DIALS, window=9), WAIT)
        camera.source.end()
        assert camera.served.wait(WAIT)
        with pytest.raises(StreamClosed, match="door"):
            camera.served.set_dials(DIALS)
    assert same(camera.sink.results, alone(detector, given))


@pytest.mark.parametrize(
    ("options", "message"), [({"workers": 0}, "workers is 0"), ({"byte_budget": 0}, "byte_budget is 0")]
)
def test_wrong_options_are_refused(options: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Scheduler(watched_detector()[0], **options)  # type: ignore[arg-type]


def test_what_goes_in_doubtful_is_counted_and_detected_on() -> None:
    detector, _ = watched_detector()
    log = Log()
    given = [frame(i, i, doubtful=i in (2, 3)) for i in range(6)]
    with serving(detector, on_event=log) as scheduler:
        camera = Camera(scheduler, "door", given)
        camera.source.end()
        final = log.wait("ended", "door").final
    assert final is not None
    assert (final.doubtful, final.frames_out) == (2, 6)
    assert [e.kind for e in log.events] == ["added", "ended"]
    assert [r.capture.doubtful for r in camera.sink.results if r.capture] == [False, False, True, True, False, False]


def test_the_trained_model_gives_what_it_gives_alone() -> None:
    detector = Detector.from_pretrained(TINY, threads=1)
    dials = replace(detector.config.dials, window=2)
    videos = SyntheticVideos("test", 3, 6)
    given = [[Frame(image, i, i / 10, str(v)) for i, image in enumerate(videos[v].frames)] for v in range(3)]
    with serving(detector, workers=2) as scheduler:
        cameras = [Camera(scheduler, str(v), some, dials) for v, some in enumerate(given)]
        for camera in cameras:
            camera.source.end()
            assert camera.served.wait(WAIT)
    for camera, some in zip(cameras, given, strict=True):
        assert same(camera.sink.results, alone(detector, some, dials))
        assert sum(map(len, camera.sink.results)) > 0
