"""What a stream on a device starts, waits for and holds."""

from __future__ import annotations

import gc
import weakref
from dataclasses import replace
from typing import Any

import pytest

from rdn_engine import ConfigError, StreamClosed
from rdn_engine.config import RelationConfig
from tests.device_models import (
    AT_ONCE,
    DIALS,
    assert_same,
    basic_model,
    device_array,
    frames,
    small_config,
    small_model,
)
from tests.emulated_gpu import EmulatedGpu, EmulatedQueue


def test_a_steady_frame_is_one_graph_that_nobody_waits_for() -> None:
    gpu = EmulatedGpu()
    model = small_model(small_config())
    stream = model.on(gpu).open_stream()
    video = [device_array(gpu, frame) for frame in frames(9)]
    for frame in video[:4]:
        stream.push_device(frame)
    waits, memory = gpu.waits, len(gpu.memory)
    before = launches(gpu)
    for frame in video[4:]:
        stream.push_device(frame)
    assert (gpu.waits, len(gpu.memory)) == (waits, memory)
    assert launches(gpu) == before + 5
    for frame in video[:2]:
        stream.push(frame)
    assert gpu.waits == waits + 2


def launches(gpu: EmulatedGpu) -> int:
    return sum(queue.launches for queue in gpu.queues.values() if isinstance(queue, EmulatedQueue))


def test_graphs_are_captured_anew_when_a_dial_moves_and_replaced_nowhere_else() -> None:
    gpu, model, video = EmulatedGpu(), small_model(small_config()), frames(5)
    stream = model.on(gpu).open_stream()
    captures = []
    for dials in (DIALS, replace(DIALS, num_support=2)):
        stream.dials = dials
        for frame in video:
            stream.push(frame)
        captures.append(sum(queue.captures for queue in gpu.queues.values()))
    assert captures == [1, 2]


def test_backends_that_cannot_be_captured_run_as_they_are() -> None:
    gpu, model, video = EmulatedGpu(), basic_model(), frames(4)
    there, here = model.on(gpu, capturable=False).open_stream(), model.on_cpu().open_stream()
    for frame in video:
        assert_same(there.push(frame)[0], here.push(frame)[0])
    assert launches(gpu) == 3


def test_memory_is_known(gpu: Any) -> None:
    model, video = basic_model(), frames(6)
    stream = model.on(gpu).open_stream()
    stream.push(video[0])
    known = stream.nbytes
    for frame in video:
        stream.push(frame)
    assert stream.nbytes == known > 10_000


def test_what_does_not_fit_is_said_and_the_stream_goes_on_with_less() -> None:
    gpu, model, video = EmulatedGpu(), small_model(small_config()), frames(4)
    detector, plenty = model.on(gpu), gpu.room
    gpu.room = 1000
    with pytest.raises(ConfigError, match=r"a stream for T = 1, K = 3, N = 6, r = 0.67 does not fit .*\d+ bytes"):
        detector.open_stream()
    gpu.room = plenty
    there, here = detector.open_stream(), model.on_cpu().open_stream()
    there.push(video[0])
    gpu.room = 1000
    there.dials = replace(DIALS, advanced_ratio=1.0)
    with pytest.raises(ConfigError, match=r"r = 1.0 does not fit"):
        there.push(video[1])
    gpu.room, there.dials = plenty, DIALS
    results = [result for frame in video[2:] for result in there.push(frame)] + there.flush()
    wanted = [result for frame in video for result in here.push(frame)] + here.flush()
    for got, one in zip(results, wanted, strict=True):
        assert_same(got, one)


def test_time_is_told_apart(gpu: Any) -> None:
    stream = basic_model().on(gpu).open_stream(replace(AT_ONCE, link="boxes"))
    for frame in frames(3):
        stream.push(frame)
    assert stream.timings.frames == 3
    assert set(stream.timings.seconds) == {"launch", "wait", "linking"}
    assert all(seconds > 0 for seconds in stream.timings.seconds.values())


def test_memory_is_given_back_at_once() -> None:
    """Not when the garbage collector finds a cycle: what comes next may want it."""
    gpu, model = EmulatedGpu(), small_model(small_config())
    stream = model.on(gpu).open_stream()
    for frame in frames(4):
        stream.push(frame)
    gc.disable()
    try:
        steps = [weakref.ref(stream._steps), weakref.ref(stream._steps._relation)]  # type: ignore[union-attr, arg-type]
        stream.dials = replace(DIALS, num_support=2)
        stream.push(frames(5)[4])
        assert [one() for one in steps] == [None, None]
        last = weakref.ref(stream._steps)  # type: ignore[arg-type]
        stream.close()
        assert last() is None
    finally:
        gc.enable()


def test_what_a_device_does_not_do_is_said_when_it_is_asked_for(gpu: Any) -> None:
    model = basic_model()
    detector = model.on(gpu)
    stream = detector.open_stream(replace(AT_ONCE, link="boxes"))
    for unlinked in (lambda: stream.push_device(frames(1)[0]), stream.flush_device):
        with pytest.raises(ConfigError, match="link is 'boxes'; links are made on the host"):
            unlinked()
    with pytest.raises(ConfigError, match="window \\(T\\) is 3; this stream has room for 1"):
        stream.dials = replace(AT_ONCE, window=3)
    for turned in ({"interval": 2}, {"still": 1.5}):
        [(name, value)] = turned.items()
        wanted = f"{name} is {value:g}; a DeviceStream encodes every frame: wanted [10], or device 'cpu'"
        with pytest.raises(ConfigError, match=wanted):
            stream.dials = replace(AT_ONCE, **turned)  # type: ignore[arg-type]
        with pytest.raises(ConfigError, match=wanted):
            detector.open_stream(replace(AT_ONCE, **turned))  # type: ignore[arg-type]
    stream.close()
    with pytest.raises(StreamClosed):
        stream.push(frames(1)[0])
    many = replace(model.config, detection=replace(model.config.detection, max_detections=4000))
    with pytest.raises(ConfigError, match="max_detections is 4000; device 'cuda' takes up to 2048"):
        small_model(many).on(gpu).open_stream()
    with pytest.raises(ConfigError, match=r"num_reference \(N\) is 3000; device 'cuda' takes up to 2048"):
        detector.open_stream(capacity=replace(AT_ONCE, num_reference=3000))
    odd = small_config(RelationConfig(48, 1))
    with pytest.raises(ConfigError, match="heads have 48 channels"):
        small_model(odd).on(gpu, "float16")
