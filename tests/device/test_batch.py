"""Streams on a device whose frames are encoded together."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from rdn_engine import ConfigError, FrameError
from tests.device_models import (
    DIALS,
    assert_same,
    basic_model,
    frames,
    small_config,
    small_model,
)
from tests.emulated_gpu import EmulatedGpu


def test_streams_of_a_batch_are_as_streams_alone(gpu: Any) -> None:
    """Three videos, of which one has no frame now and then; dials move; another size."""
    model = small_model(small_config())
    batch = model.on(gpu).open_streams(["a", "b", "c"])
    alone = [model.on_cpu().open_stream(source_id=name) for name in "abc"]
    videos = [frames(5, seed=seed) for seed in range(3)]
    for t in range(5):
        now = [None if t == 2 and i == 1 else video[t] for i, video in enumerate(videos)]
        if t == 3:
            batch.dials = replace(DIALS, num_reference=4, num_support=2)
            for one in alone:
                one.dials = batch.dials
        for got, stream, frame in zip(batch.push(now, [t / 25] * 3), alone, now, strict=True):
            wanted = [] if frame is None else stream.push(frame, t / 25)
            for one, other in zip(got, wanted, strict=True):
                assert_same(one, other)
    large = frames(2, 60, 50)
    for frame in large:
        for got, stream in zip(batch.push([frame] * 3), alone, strict=True):
            for one, other in zip(got, stream.push(frame), strict=True):
                assert_same(one, other)
    for got, stream in zip(batch.flush(), alone, strict=True):
        for one, other in zip(got, stream.flush(), strict=True):
            assert_same(one, other)


def test_a_batch_may_run_ahead(late: EmulatedGpu) -> None:
    """One encoder for all: the next batch waits until every stream has taken its part of this one."""
    model, videos = basic_model(), [frames(5, seed=seed) for seed in range(2)]
    batch = model.on(late).open_streams(["a", "b"])
    started = [batch.push_device(now) for now in zip(*videos, strict=True)]
    for i, (name, video) in enumerate(zip("ab", videos, strict=True)):
        here = model.on_cpu().open_stream(source_id=name)
        for found, frame in zip(started, video, strict=True):
            assert_same(found[i][0].cpu(), here.push(frame)[0])


def test_a_batch_with_a_bad_frame_takes_none_of_them(gpu: Any) -> None:
    model, video = basic_model(), frames(2)
    batch, alone = model.on(gpu).open_streams(["a", "b"]), model.on_cpu().open_stream(source_id="a")
    with pytest.raises(FrameError, match="got list"):
        batch.push([video[0], [1]])
    with pytest.raises(FrameError, match="a batch wants one size"):
        batch.push([video[0], frames(1, 60, 50)[0]])
    with pytest.raises(ConfigError, match="got 1 frames; this batch has 2 streams"):
        batch.push([video[0]])
    for frame in video:
        [[got], [_]] = batch.push([frame, frame])
        assert_same(got, alone.push(frame)[0])
    with pytest.raises(ConfigError, match="0 streams"):
        model.on(gpu).open_streams([])


def test_streams_pushed_as_each_are_as_streams_alone_and_fail_alone(gpu: Any) -> None:
    model = basic_model()
    detector = model.on(gpu)
    streams = [detector.open_stream(source_id=name) for name in "ab"]
    alone = [model.on_cpu().open_stream(source_id=name) for name in "ab"]
    videos = [frames(4, seed=seed) for seed in range(2)]
    for now in zip(*videos, strict=True):
        for got, stream, frame in zip(detector.push_each(streams, now), alone, now, strict=True):
            assert isinstance(got, list)
            for one, other in zip(got, stream.push(frame), strict=True):
                assert_same(one, other)
    wrong, right = detector.push_each(streams, [videos[0][0][0], videos[1][0]])
    assert isinstance(wrong, FrameError)
    assert isinstance(right, list)
    assert [stream.accepted for stream in streams] == [4, 5]
