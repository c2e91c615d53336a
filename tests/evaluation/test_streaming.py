"""Delays and streaming AP from traces, by hand."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from rdn_engine.errors import DatasetError, ResultError
from rdn_engine.evaluation.annotated import Annotated
from rdn_engine.evaluation.coco_vid import Annotation, Category, Dataset, Frame, Video
from rdn_engine.evaluation.join import Joined, join
from rdn_engine.evaluation.lines import Line
from rdn_engine.evaluation.streaming import streaming
from rdn_engine.evaluation.trace import Push, Times, read_trace, replay
from rdn_engine.results import Detections

LENGTH = 12
SIDE = 20


def pushes(look_ahead: int, ms: float, pts: float | None = 0.1) -> list[Push]:
    """Of a stream whose results come `look_ahead` frames late; the flush takes no time."""
    made = [
        Push("clip.mp4", t, None if pts is None else pts * t, ms, (t - look_ahead,) if t >= look_ahead else ())
        for t in range(LENGTH)
    ]
    return [*made, Push("", None, None, 0.0, tuple(range(LENGTH - look_ahead, LENGTH)))]


def moments(look_ahead: int, ms: float, fps: float | None = None) -> NDArray[np.float64]:
    found = replay(pushes(look_ahead, ms), fps)
    return np.array([(found["clip.mp4", t].captured, found["clip.mp4", t].ready) for t in range(LENGTH)])


def test_a_result_waits_for_later_frames_and_for_the_machine() -> None:
    assert moments(0, 30) == pytest.approx(np.array([(0.1 * t, 0.1 * t + 0.03) for t in range(LENGTH)]))
    # The end of the video does not make the last two come sooner.
    assert moments(2, 30) == pytest.approx(np.array([(0.1 * t, 0.1 * t + 0.23) for t in range(LENGTH)]))
    assert moments(0, 30, fps=20) == pytest.approx(np.array([(0.05 * t, 0.05 * t + 0.03) for t in range(LENGTH)]))


def test_a_machine_that_is_too_slow_falls_behind() -> None:
    assert moments(0, 150) == pytest.approx(np.array([(0.1 * t, 0.15 * (t + 1)) for t in range(LENGTH)]))


def test_times_that_go_back_or_are_missing_want_a_rate() -> None:
    with pytest.raises(DatasetError, match=r"frame 0 of clip\.mp4 has no time; wanted times that grow, or --fps"):
        replay(pushes(0, 1, pts=None), None)
    with pytest.raises(DatasetError, match=r"frame 1 of clip.mp4 has the time -1 after 0"):
        replay(pushes(0, 1, pts=-1), None)
    assert replay(pushes(0, 1, pts=None), 10)["clip.mp4", 3] == Times(pytest.approx(0.3), pytest.approx(0.301))
    with pytest.raises(DatasetError, match="gives a result of frame 7, which was not pushed before"):
        replay([replace(pushes(0, 1)[0], results=(7,))], None)


def test_a_trace_comes_back_from_its_file(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text("".join(json.dumps(push.to_dict()) + "\n" for push in pushes(2, 1.5)))
    assert read_trace(path) == pushes(2, 1.5)
    for change, message in (
        ({"ms": -1}, "line.ms is -1"),
        ({"ms": "fast"}, "line.ms is 'fast'"),
        ({"x": 1}, "unknown"),
    ):
        path.write_text(json.dumps(pushes(0, 1)[0].to_dict() | change))
        with pytest.raises(ResultError, match=rf"t.jsonl:1: .*{message}"):
            read_trace(path)


def moving(step: float, first: int = 0, found: Sequence[int] = range(LENGTH)) -> tuple[Annotated, Joined]:
    """A square that moves along, there from frame `first` on, and found perfectly in some frames."""
    data = Dataset([Category(1, "cat")], [Video(1, "clip")])
    data.frames = [Frame(t + 1, 1, t, f"{t}.png", 400, 40) for t in range(LENGTH)]
    boxes = [(step * t, 0.0, step * t + SIDE - 1, SIDE - 1.0) for t in range(LENGTH)]
    data.annotations = [Annotation(t + 1, t + 1, 1, boxes[t], 5) for t in range(first, LENGTH)]
    lines = []
    for t in range(LENGTH):
        rows = np.array([boxes[t]] if t in found and t >= first else [], np.float32).reshape(-1, 4)
        result = Detections(
            xyxy=rows,
            confidence=np.full(len(rows), 0.9, np.float32),
            class_id=np.zeros(len(rows), np.int64),
            tracker_id=None,
            class_names=("cat",),
            frame_index=t,
            pts=None,
            source_id="clip.mp4",
            height=40,
            width=400,
            pool_fill=1,
            lookahead=0,
            epoch=0,
        )
        lines.append(Line(f"x:{t + 1}", result))
    return Annotated("drawn", data), join(lines, data, {})


def test_late_results_lose_what_has_moved_on() -> None:
    """A result is a frame old at best: a square that moves by a quarter of its side overlaps itself by 0.6."""
    for step, look_ahead, wanted in ((5, 0, 11 / 12), (5, 1, 0), (0.5, 1, 10 / 12), (0, 2, 9 / 12), (12, 0, 0)):
        annotated, joined = moving(step)
        live = streaming(joined, annotated, replay(pushes(look_ahead, 30), None), [30])
        assert live["AP50"] == pytest.approx(100 * wanted), (step, look_ahead)
        assert live["delay_ms"]["median"] == pytest.approx(100 * look_ahead + 30)
        assert live["frame_ms"] == pytest.approx(100)
        assert live["keeps_up"]


def test_average_delay_counts_from_the_first_sight_to_the_result() -> None:
    annotated, joined = moving(1, first=2, found=range(5, LENGTH))
    for look_ahead, ms in ((0, 30), (2, 60)):
        live = streaming(joined, annotated, replay(pushes(look_ahead, ms), None), [ms])
        assert live["average_delay_ms"] == pytest.approx(300 + 100 * look_ahead + ms)
    live = streaming(joined, annotated, replay(pushes(0, 200), None), [200])
    assert not live["keeps_up"]
    # Never found: until the frame after the last, and as long as results take.
    annotated, joined = moving(1, first=2, found=())
    live = streaming(joined, annotated, replay(pushes(1, 30), None), [30])
    assert live["average_delay_ms"] == pytest.approx(1000 + 130)


def test_a_trace_of_another_run_is_refused() -> None:
    annotated, joined = moving(1)
    with pytest.raises(DatasetError, match=r"no trace has the result of frame 4 of clip.mp4"):
        streaming(joined, annotated, replay(pushes(0, 1)[:4], None), [1])
