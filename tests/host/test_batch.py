"""Streams on the host that take a frame each: what each gives is what it gives alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from rdn_engine import ConfigError, Detections, Detector, FrameError, Stream, StreamBatch, StreamClosed
from rdn_engine.host.batch import TRIALS, EncoderCalls, HostStreamBatch
from rdn_engine.host.features import EncodedFrame, RelationOutput
from rdn_engine.host.runtime import HostRuntime
from rdn_engine.kernels.cpu import Float
from rdn_engine.stream.timings import STAGES
from tests.device_models import assert_same, frames, small_config, small_model
from tests.fakes import DIALS, FakeEncoder, FakeRelation, fake_detector, image, tiny_config

NAMES = ("left", "right", "top")


def assert_equal(got: list[Detections], wanted: list[Detections], tolerance: float) -> None:
    for ours, theirs in zip(got, wanted, strict=True):
        assert_same(ours, theirs, tolerance)


# A product of more rows may be summed in another order.
@pytest.mark.parametrize(("together", "tolerance"), [(True, 1e-3), (False, 0.0)])
def test_each_stream_gives_what_it_gives_alone(
    together: bool, tolerance: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Frames come and stay out, and one stream's frames are of another size."""
    monkeypatch.setattr(EncoderCalls, "together", together)
    detector = small_model(small_config()).on_cpu()
    videos = [frames(8, seed=0), frames(8, seed=1), frames(8, 64, 96, seed=2)]
    alone = [detector.open_stream(source_id=name) for name in NAMES]
    with detector.open_streams(NAMES) as batch:
        assert len(batch) == 3
        for t in range(8):
            now = [None if (t + s) % 3 == 2 else video[t] for s, video in enumerate(videos)]
            times = [t / 25 + s for s in range(3)]
            for got, stream, one, pts in zip(batch.push(now, times), alone, now, times, strict=True):
                assert_equal(got, [] if one is None else stream.push(one, pts), tolerance)
        for got, stream in zip(batch.flush(), alone, strict=True):
            assert_equal(got, stream.flush(), tolerance)
    with pytest.raises(StreamClosed):
        batch.push([None, videos[1][0], None])


class Counting(FakeEncoder):
    """Remembers how many images each call had."""

    def __call__(
        self, images: Float, num_reference: int, num_support: int, lap: Callable[[str], None]
    ) -> list[EncodedFrame]:
        self.calls.append(len(images))
        return super().__call__(images, num_reference, num_support, lap)

    calls: list[int]


def counted() -> tuple[Detector, Counting]:
    config = tiny_config()
    detector, _, _ = fake_detector(config)
    encoder = Counting(config.relation)
    encoder.calls = []
    assert isinstance(detector.runtime, HostRuntime)
    return Detector(HostRuntime(replace(detector.runtime.model, encoder=encoder))), encoder


def calls_of(detector: Detector) -> EncoderCalls:
    assert isinstance(detector.runtime, HostRuntime)
    return detector.runtime.encoder_calls


def test_both_ways_are_timed_before_one_is_kept() -> None:
    detector, encoder = counted()
    batch, calls = detector.open_streams(NAMES[:2]), calls_of(detector)
    for t in range(TRIALS):
        assert calls.together is None
        batch.push([image(t), image(t)])
        batch.push([image(t), image(t)])
    assert encoder.calls == [2, 1, 1] * TRIALS
    assert calls.together is not None
    encoder.calls.clear()
    batch.push([image(9), image(9)])
    assert encoder.calls == ([2] if calls.together else [1, 1])


def test_a_round_that_could_not_be_shared_times_nothing() -> None:
    detector, encoder = counted()
    batch = detector.open_streams(NAMES[:2])
    for t in range(3 * TRIALS):
        batch.push([image(t), None])
    assert calls_of(detector).together is None
    assert encoder.calls == [1] * (3 * TRIALS)


def test_each_stream_is_charged_its_share_of_the_time() -> None:
    detector, _ = counted()
    batch = detector.open_streams(NAMES[:2])
    for t in range(4):
        batch.push([image(t), image(t)])
    assert isinstance(batch, HostStreamBatch)
    for stream in batch.streams:
        assert stream.timings.frames == 4
        assert all(stream.timings.seconds[stage] > 0 for stage in STAGES if stage not in ("still", "postprocess"))


def test_a_wrong_frame_leaves_every_stream_as_it_was() -> None:
    detector, _ = counted()
    batch = detector.open_streams(NAMES[:2], replace(DIALS, look_ahead=0))
    with pytest.raises(FrameError, match="uint8"):
        batch.push([image(0), np.zeros((4, 4), np.float32)])
    [left], [right] = batch.push([image(1), image(1)])
    assert (left.frame_index, right.frame_index, left.pool_fill) == (0, 0, 1)
    with pytest.raises(ConfigError, match=r"got 1 frames; this batch has 2 streams"):
        batch.push([image(2)])
    with pytest.raises(ConfigError, match="batch of 0 streams"):
        detector.open_streams([])


class Failing(FakeRelation):
    """Fails once, at a call that counts from 1."""

    fails_at = 0

    def __call__(self, *arguments: Any) -> RelationOutput:
        self.fails_at -= 1
        if self.fails_at == 0:
            raise MemoryError("no room")
        return super().__call__(*arguments)


def failing(at: int, look_ahead: int | None = None) -> tuple[StreamBatch[Stream], Failing]:
    detector, _, _ = fake_detector()
    assert isinstance(detector.runtime, HostRuntime)
    relation = Failing()
    relation.fails_at = at
    model = replace(detector.runtime.model, relation=relation)
    return Detector(HostRuntime(model)).open_streams(NAMES[:2], replace(DIALS, look_ahead=look_ahead)), relation


def indices(results: list[list[Detections]]) -> list[list[int]]:
    return [[r.frame_index for r in ready] for ready in results]


def test_a_step_that_fails_in_one_stream_loses_no_frame() -> None:
    """The relation stage of the first stream fails once: the other takes its frame, and all come out in the end."""
    batch, _ = failing(3, look_ahead=0)
    assert indices(batch.push([image(0), image(0)])) == [[0], [0]]
    with pytest.raises(MemoryError, match="no room") as caught:
        batch.push([image(1), image(1)])
    assert caught.value.__notes__ == ["in stream 0 of the batch"]
    assert indices(batch.push([image(2), image(2)])) == [[1, 2], [1, 2]]


def test_a_flush_that_fails_in_one_stream_gives_everything_the_next_time() -> None:
    batch, _ = failing(3)
    for t in range(2):
        batch.push([image(t), image(t)])
    with pytest.raises(MemoryError, match="no room") as caught:
        batch.flush()
    assert caught.value.__notes__ == ["in stream 1 of the batch"]
    assert indices(batch.flush()) == [[0, 1], [0, 1]]


def test_where_an_old_epoch_cannot_be_finished_no_stream_takes_its_frame() -> None:
    batch, _ = failing(2)
    batch.push([image(0), image(0)])
    wide = image(1, 32, 32)
    with pytest.raises(MemoryError):
        batch.push([wide, wide])
    batch.push([wide, wide])
    assert indices(batch.flush()) == [[1], [1]]


def test_what_is_ready_comes_though_its_stream_has_no_frame() -> None:
    batch, _ = failing(1, look_ahead=0)
    with pytest.raises(MemoryError):
        batch.push([image(0), image(0)])
    assert indices(batch.push([image(1), None])) == [[0, 1], [0]]


def test_a_closed_batch_takes_nothing_and_names_are_a_list() -> None:
    detector, _, _ = fake_detector()
    batch = detector.open_streams(NAMES[:2])
    with pytest.raises(ConfigError, match=r"pts is 0\.5; wanted a list with one for each of 2 streams"):
        batch.push([image(0), image(0)], 0.5)  # type: ignore[arg-type]
    batch.close()
    with pytest.raises(StreamClosed):
        batch.push([None, None])
    with pytest.raises(ConfigError, match="source_ids is 'cam'; wanted a list of names"):
        detector.open_streams("cam")
    with pytest.raises(ConfigError, match="source_ids are 'door' at 0 and 2; wanted another name for each stream"):
        detector.open_streams(["door", "yard", "door"])


def test_dials_and_memory_are_those_of_all_streams() -> None:
    detector, _, _ = fake_detector()
    batch = detector.open_streams(NAMES)
    assert batch.nbytes == 3 * detector.open_stream().nbytes
    batch.dials = replace(DIALS, look_ahead=0)
    assert [len(r) for r in batch.push([image(0)] * 3)] == [1, 1, 1]


def test_streams_of_any_set_are_pushed_as_each_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Frames of one call may want other numbers of proposals, and a stream may be in one call and not in the next."""
    monkeypatch.setattr(EncoderCalls, "together", True)
    detector = small_model(small_config()).on_cpu()
    dials = detector.config.dials
    few = replace(dials, num_reference=dials.num_reference - 1, num_support=dials.num_support - 1)
    settings = (dials, few, dials)
    streams, alone = ([detector.open_stream(one, source_id=str(i)) for i, one in enumerate(settings)] for _ in range(2))
    videos = [frames(9, seed=seed) for seed in range(3)]
    for t in range(9):
        places = [place for place in range(3) if (t + place) % 3]
        got = detector.push_each([streams[p] for p in places], [videos[p][t] for p in places])
        for place, ready in zip(places, got, strict=True):
            assert isinstance(ready, list)
            assert_equal(ready, alone[place].push(videos[place][t]), 1e-3)
    with pytest.raises(ConfigError, match="a stream comes twice"):
        detector.push_each([streams[0]] * 2, [image(0)] * 2)
    with pytest.raises(ConfigError, match="of another detector"):
        small_model(small_config()).on_cpu().push_each(streams[:1], [image(0)])
    with pytest.raises(ConfigError, match="got 1 frames; wanted one for each of 2 streams"):
        detector.push_each(streams[:2], [image(0)])


def test_what_fails_in_one_stream_is_no_others() -> None:
    """A wrong picture; then the relation stage of one stream, once its frame was taken, which is not taken twice."""
    plain, _, _ = fake_detector()
    failing = Failing()
    assert isinstance(plain.runtime, HostRuntime)
    detector = Detector(HostRuntime(replace(plain.runtime.model, relation=failing)))
    left, right = (detector.open_stream(replace(DIALS, look_ahead=0), source_id=name) for name in NAMES[:2])
    wrong, [first] = detector.push_each([left, right], [np.zeros(3), image(0)])  # type: ignore[misc]
    assert isinstance(wrong, FrameError)
    assert (left.rejected, right.rejected) == (1, 0)
    assert (first.source_id, first.frame_index) == ("right", 0)
    failing.fails_at = 2
    ready = detector.push_each([left, right], [image(1), image(1)])
    assert [[r.frame_index for r in one] for one in ready if isinstance(one, list)] == [[0], [1]]
    assert (left.accepted, right.accepted) == (1, 2)
    failing.fail = True
    ready = detector.push_each([left, right], [image(2), image(2)])
    assert [type(one) for one in ready] == [MemoryError, MemoryError]
    assert (left.accepted, right.accepted) == (2, 3)
    failing.fail = False
    ready = detector.push_each([left, right], [image(3), image(3)])
    assert [[r.frame_index for r in one] for one in ready if isinstance(one, list)] == [[1, 2], [2, 3]]
