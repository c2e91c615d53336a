"""The dial `interval` of a stream on the host: which frames are encoded, and when the others come out."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from rdn_engine import ConfigError, Detections, Dials, Frame
from rdn_engine.capture import Capture
from rdn_engine.cli import app as cli
from rdn_engine.host.features import EncodedFrame
from rdn_engine.kernels.cpu.arrays import Float
from tests.fakes import DIALS, SIDE, fake_detector, image
from tests.stream.moving import MovingEncoder, bases, indices, large, lefts, moving_detector, steady, surely

ENGINES = Path(__file__).parents[2] / "models" / "rdn_tiny" / "engines"


# Which frames are encoded


def test_every_nth_frame_is_encoded_and_the_window_counts_those() -> None:
    detector, encoder, relation = fake_detector()
    with detector.open_stream(replace(DIALS, interval=3)) as stream:
        for t in range(16):
            stream.push(image(t))
        stream.flush()
        assert stream.timings.frames == len(encoder.asked) == 6
        assert stream.accepted == 16
    assert relation.levels == [0, 3, 6, 9, 12, 15]
    assert sorted(relation.windows[2]) == [0, 3, 6, 9, 12]


@settings(deadline=None, max_examples=60)
@given(
    st.integers(1, 5), st.integers(0, 2), st.sampled_from(["off", "boxes", "seq_nms"]), st.integers(0, 4),
    st.lists(st.sampled_from(["frame", "frame", "frame", "wide", "back", "flush", "turn", "same"]), max_size=40),
    st.data(),
)  # fmt: skip
def test_every_frame_comes_out_once_in_order_whatever_happens(
    interval: int, look_ahead: int, link: str, delay: int, steps: list[str], data: st.DataObject
) -> None:
    detector, _, _ = fake_detector()
    dials = replace(DIALS, interval=interval, look_ahead=look_ahead, link=link, link_delay=delay)  # type: ignore[arg-type]
    stream, found, pushed, pts, level = detector.open_stream(dials), [], 0, 0.0, 0
    epochs: list[int] = []
    for step in steps:
        if step == "flush":
            found += stream.flush()
            assert len(found) == pushed
            continue
        if step == "turn":
            stream.dials = replace(
                stream.dials,
                interval=data.draw(st.integers(1, 5)),
                look_ahead=data.draw(st.integers(0, 2)),
                link_delay=data.draw(st.integers(0, 4)),
                still=data.draw(st.sampled_from([0.0, 2.0])),
                still_run=data.draw(st.integers(1, 3)),
            )
            continue
        pts = pts - 5 if step == "back" else pts + 0.04
        level = level if step == "same" else (level + 40) % 200
        frame = image(level, 32, 32) if step == "wide" else image(level)
        found += stream.push(Frame(frame, pushed, pts, "cam"))
        epochs.append(stream.epoch)
        pushed += 1
    found += stream.flush()
    assert indices(found) == list(range(pushed))
    assert [r.epoch for r in found] == epochs
    for epoch in set(epochs):
        assert next(r for r in found if r.epoch == epoch).encoded
    assert sum(r.encoded for r in found) == stream.timings.frames
    assert all((r.tracker_id is not None) == (link != "off") for r in found)


@pytest.mark.parametrize("look_ahead", [1, 2])
def test_a_frame_between_waits_for_the_step_behind_it(look_ahead: int) -> None:
    detector, _, _ = moving_detector()
    with detector.open_stream(replace(DIALS, interval=2, look_ahead=look_ahead)) as stream:
        came = {t: indices(stream.push(large(t))) for t in range(9)}
    for t in range(9):
        step = t - 2 * look_ahead
        # With a step comes the frame before it.
        assert came[t] == ([i for i in (step - 1, step) if i >= 0] if t % 2 == 0 else [])


def test_boxes_lie_on_the_line_between_their_steps() -> None:
    detector, encoder, _ = moving_detector()
    with detector.open_stream(replace(DIALS, interval=3, look_ahead=1)) as stream:
        results = [r for t in range(7) for r in stream.push(large(t))] + stream.flush()
    assert encoder.levels == [0, 3, 6]
    assert lefts(results) == pytest.approx(list(range(7)), abs=1e-5)
    assert bases(results) == ["encoded", "interpolated", "interpolated"] * 2 + ["encoded"]
    assert all(r.pool_fill >= 1 and r.lookahead == 1 for r in results)


def test_boxes_go_on_as_they_moved_where_results_do_not_wait() -> None:
    detector, _, _ = moving_detector()
    with detector.open_stream(replace(DIALS, interval=3, look_ahead=0)) as stream:
        results = []
        for t in range(9):
            ready = stream.push(large(t))
            assert indices(ready) == [t]
            results += ready
    # Before the second step nobody knows that anything moves; then some of it may be jitter, and the flat pictures say
    # that it is where it was likely to go.
    first, sure = steady(3, 0), surely(results[3], 3)
    second = steady(6, first + 3 * sure)
    faster = surely(results[6], 6 - first) * (6 - first) / 3
    wanted = [0, 0, 0, 3, first + sure, first + 2 * sure, 6, second + faster, second + 2 * faster]
    assert lefts(results) == pytest.approx(wanted, abs=1e-4)
    assert bases(results)[:3] == ["encoded", "extrapolated", "extrapolated"]


def test_the_last_frame_of_an_epoch_is_encoded_so_that_all_lie_between_two() -> None:
    """By a flush, and by what begins another epoch; whoever pushed a frame may have used its array again."""
    detector, encoder, _ = moving_detector()
    buffer = large(0)
    results = []
    with detector.open_stream(replace(DIALS, interval=3)) as stream:
        for t in (0, 9, 9, 3, 5):
            buffer[:] = t
            results += stream.push(buffer)
        buffer[:] = 0
        results += stream.flush()
        for t in range(2):
            results += stream.push(large(t))
        results += stream.push(image(5, SIDE * 2, SIDE * 2))
    assert encoder.levels == [0, 3, 5, 0, 5, 1]
    assert bases(results) == ["encoded", "interpolated", "interpolated", "encoded", "encoded", "encoded", "encoded"]
    assert lefts(results) == pytest.approx([0, 1, 2, 3, 5, 0, 1], abs=1e-5)


def test_a_last_frame_that_fails_to_be_encoded_is_tried_again() -> None:
    detector, encoder, _ = moving_detector()
    with detector.open_stream(replace(DIALS, interval=2)) as stream:
        results = stream.push(large(0)) + stream.push(large(3))
        encoder.fail = True
        with pytest.raises(MemoryError):
            stream.flush()
        encoder.fail = False
        results += stream.flush()
    assert lefts(results) == pytest.approx([0, 3], abs=1e-5)
    assert bases(results) == ["encoded", "encoded"]


def test_no_frame_is_still_after_a_last_one_whose_epoch_did_not_end() -> None:
    """The frame that a failed flush encoded was not compared with; what looks like the one before it is not it."""
    detector, _, relation = moving_detector()
    with detector.open_stream(replace(DIALS, interval=2, still=1.0, look_ahead=1)) as stream:
        results = stream.push(large(1)) + stream.push(large(8))
        relation.fail = True
        with pytest.raises(MemoryError):
            stream.flush()
        relation.fail = False
        results += stream.push(large(8)) + stream.push(large(1)) + stream.flush()
    assert indices(results) == [0, 1, 2, 3]
    assert lefts(results)[3] == pytest.approx(1, abs=1e-5)
    assert bases(results)[3] == "encoded"


def test_an_epoch_that_was_finished_stays_so_where_another_stream_of_the_batch_fails() -> None:
    class Failing(MovingEncoder):
        def __call__(self, images: Float, *args: Any, **named: Any) -> list[EncodedFrame]:
            self.fail = round(float(images[0, 0, 0, 0])) == 7
            return super().__call__(images, *args, **named)

    detector, encoder, _ = moving_detector()
    with detector.open_streams(["a", "b"], replace(DIALS, interval=3, look_ahead=1)) as batch:
        found = batch.push([large(1), large(2)])
        batch.push([None, large(7)])
        encoder.__class__ = Failing
        with pytest.raises(MemoryError):
            batch.push([image(5, 32, 32), image(6, 32, 32)])
        encoder.__class__, encoder.fail = MovingEncoder, False
        # Stream a gets a frame like those of the epoch that is over, in place of the one that was not taken.
        for more in (batch.push([large(4), None]), batch.flush()):
            found = [a + b for a, b in zip(found, more, strict=True)]
        assert [stream.accepted for stream in batch.streams] == [2, 2]
    assert [indices(results) for results in found] == [[0, 1], [0, 1]]
    assert [r.epoch for r in found[0]] == [0, 1]
    assert lefts(found[0]) == pytest.approx([1, 4], abs=1e-5)


def test_a_frame_that_has_its_result_is_not_encoded_at_the_end() -> None:
    detector, encoder, _ = moving_detector()
    with detector.open_stream(replace(DIALS, interval=2, look_ahead=1)) as stream:
        for t in range(2):
            stream.push(large(t))
        stream.dials = replace(stream.dials, look_ahead=0)
        encoder.fail = True
        with pytest.raises(MemoryError):
            stream.push(large(2))
        encoder.fail = False
        results = stream.flush()
    assert encoder.levels == [0]
    assert bases(results) == ["encoded", "extrapolated"]


@pytest.mark.parametrize(
    ("pts", "numbers", "wanted"),
    [
        ((0.0, 0.3, 0.4), (0, 1, 2), 2.25),  # by time, where there is one
        ((None, None, None), (10, 11, 14), 0.75),  # else by the place in the source: frames between were lost
        ((0.0, None, 0.4), (10, 11, 14), 0.75),
        ((1.0, 1.0, 1.0), (7, 7, 7), 1.5),  # a clock that stands still says nothing
        ((-1.7e308, 1.7e308, 1.7e308), (10, 11, 14), 0.75),  # nor does one that goes farther than numbers do
    ],
)
def test_what_lies_between_is_told_by_the_best_clock(
    pts: tuple[float | None, ...], numbers: tuple[int, ...], wanted: float
) -> None:
    detector, _, _ = moving_detector()
    with detector.open_stream(replace(DIALS, interval=2)) as stream:
        for level, number, when in zip((0, 9, 3), numbers, pts, strict=True):
            stream.push(Frame(large(level), number, when, "cam"))
        results = stream.flush()
    assert lefts(results)[1] == pytest.approx(wanted, abs=1e-5)


def test_results_say_of_which_frame_they_are() -> None:
    detector, _, _ = moving_detector()
    capture = [Capture(time=1e9 + t, dropped=t, doubtful=t == 1, session=0) for t in range(3)]
    with detector.open_stream(replace(DIALS, interval=2)) as stream:
        for t in range(3):
            stream.push(Frame(large(t), 5 + t, t / 25, f"cam/{t}", capture=capture[t]))
        results = stream.flush()
    assert indices(results) == [5, 6, 7]
    assert [r.pts for r in results] == [0, 1 / 25, 2 / 25]
    assert [r.source_id for r in results] == ["cam/0", "cam/1", "cam/2"]
    assert [r.capture for r in results] == capture
    assert json.loads(json.dumps(results[1].to_dict()))["basis"] == "interpolated"
    assert Detections.from_dict(results[1].to_dict()).basis == "interpolated"


@pytest.mark.parametrize("link", ["boxes", "relations", "seq_nms"])
def test_a_tube_goes_through_the_frames_between(link: str) -> None:
    detector, _, _ = moving_detector()
    dials = replace(DIALS, interval=2, look_ahead=0, link=link, link_delay=1)  # type: ignore[arg-type]
    with detector.open_stream(dials) as stream:
        results = [r for t in range(7) for r in stream.push(large(t // 2))]
        assert indices(results) == [0, 1, 2, 3, 4]  # D counts steps, and the frames between wait with them
        results += stream.flush()
    assert lefts(results) == pytest.approx([t / 2 for t in range(7)], abs=1e-5)
    assert {tuple(r.tracker_id.tolist()) for r in results if r.tracker_id is not None} == {(1,)}


def test_turning_the_interval_takes_effect_with_the_next_frame() -> None:
    detector, encoder, _ = moving_detector()
    with detector.open_stream(replace(DIALS, interval=4)) as stream:
        for t in range(6):
            stream.push(large(t))
        stream.dials = replace(stream.dials, interval=1)
        for t in range(6, 8):
            stream.push(large(t))
        stream.dials = replace(stream.dials, interval=2)
        for t in range(8, 11):
            stream.push(large(t))
    assert encoder.levels == [0, 4, 6, 7, 9]


def test_what_no_longer_waits_comes_with_the_next_push() -> None:
    detector, _, _ = moving_detector()
    with detector.open_stream(replace(DIALS, interval=3, look_ahead=1)) as stream:
        for t in range(4):
            stream.push(large(t))
        stream.dials = replace(stream.dials, look_ahead=0)
        results = stream.push(large(4))
    assert indices(results) == [1, 2, 3, 4]
    assert bases(results) == ["interpolated", "interpolated", "encoded", "extrapolated"]


def test_a_result_that_failed_is_tried_again() -> None:
    detector, _, relation = moving_detector()
    with detector.open_stream(replace(DIALS, interval=2, look_ahead=0)) as stream:
        results = stream.push(large(0)) + stream.push(large(1))
        relation.fail = True
        with pytest.raises(MemoryError):
            stream.push(large(2))
        with pytest.raises(MemoryError):
            stream.push(large(3))
        relation.fail = False
        results += stream.push(large(4)) + stream.push(large(5))
    # The push of 3 failed before it took its frame: the next one pushed is the frame between.
    assert indices(results) == [0, 1, 2, 3, 4]
    assert [r.encoded for r in results] == [True, False, True, False, True]


def test_a_batch_gives_each_stream_what_it_would_have_alone() -> None:
    dials = replace(DIALS, interval=3, look_ahead=1, still=1.0, still_run=2)
    levels = {"a": [0, 1, 2, 3, 3, 3, 3, 7, 8, 8], "b": [5, 5, 5, 5, 4, 3, 2, 1, 0, 0]}
    alone = {}
    for name, those in levels.items():
        with moving_detector()[0].open_stream(dials, source_id=name) as stream:
            alone[name] = [r for level in those for r in stream.push(large(level))] + stream.flush()
    together: dict[str, list[Detections]] = {"a": [], "b": []}
    with moving_detector()[0].open_streams(list(levels), dials) as batch:
        for frames in zip(*levels.values(), strict=True):
            for ready in batch.push([large(level) for level in frames]):
                for result in ready:
                    together[result.source_id].append(result)
        for ready in batch.flush():
            for result in ready:
                together[result.source_id].append(result)
    for name in levels:
        assert [r.to_dict() for r in together[name]] == [r.to_dict() for r in alone[name]]


# The dials


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({"interval": 0}, "interval is 0; wanted 1..4096"),
        ({"interval": 1.5}, "interval is 1.5"),
        ({"still": -1}, "still is -1"),
        ({"still": 300}, "still is 300"),
        ({"still_run": 0}, "still_run is 0"),
    ],
)
def test_dials_out_of_range_are_named(given: dict[str, float], wanted: str) -> None:
    with pytest.raises(ConfigError, match=wanted):
        Dials().turned(given)


def test_predict_has_the_dials(tmp_path: Path) -> None:
    from rdn_engine.media.writer import VideoWriter
    from training.data.synthetic import SyntheticVideos

    video, lines = tmp_path / "clip.mp4", tmp_path / "out.jsonl"
    with VideoWriter(video, 25) as writer:
        for t, frame in enumerate(SyntheticVideos("test", 1, 7)[0].frames):
            writer.write(frame, t / 25)
    arguments = ["predict", str(video), "--engines", str(ENGINES), "--output", str(lines), "--json", "--interval", "3"]
    result = CliRunner().invoke(cli.app, arguments)
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["encoded"] == 3
    read = [Detections.from_dict(json.loads(line)) for line in lines.read_text().splitlines()]
    assert bases(read) == ["encoded", "interpolated", "interpolated"] * 2 + ["encoded"]
