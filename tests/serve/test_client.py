"""Clients that notice when their window is lost, by the wire of Ray Serve and by that of Triton."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rdn_engine.errors import (
    AdmissionRefused,
    ConfigError,
    FrameError,
    Overloaded,
    RDNError,
    ServerUnavailable,
)
from rdn_engine.frame import Frame
from rdn_engine.results import Detections
from rdn_engine.serve import client as module
from rdn_engine.serve.client import RemoteStream
from rdn_engine.serve.sessions import Request
from tests.fakes import fake_detector, image
from tests.serve.network import FAULTS, IDLE, Compared, Direct, Network

Open = Callable[[Network, str], RemoteStream]


def by_ray(network: Network, name: str = "a") -> RemoteStream:
    return RemoteStream(Compared(Direct(network), network.detector), name, timeout=30)


def by_triton(network: Network, name: str = "a") -> RemoteStream:
    pytest.importorskip("tritonclient.grpc")
    from rdn_engine.serve.triton import client as wire
    from tests.serve.triton.backend import InferenceServerClient

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(wire, "InferenceServerClient", lambda *_, **__: InferenceServerClient(network))
        stream = wire.open_triton_stream("nowhere", "rdn", name=name, timeout=30)
    stream._transport = Compared(stream._transport, network.detector)
    return stream


@pytest.fixture(params=[by_ray, by_triton])
def connect(request: pytest.FixtureRequest) -> Open:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture(autouse=True)
def _fails_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_AGAIN_SECONDS", 60.0)


def play(stream: RemoteStream, levels: range) -> list[Detections]:
    return [one for t in levels for one in stream.push(image(t))]


def fills(results: list[Detections]) -> list[tuple[int, int, int]]:
    return [(one.epoch, one.frame_index, one.pool_fill) for one in results]


def numbered(*levels: int, side: int = 16) -> list[Frame]:
    return [Frame(image(t, side, side), t, None, "a") for t in levels]


def test_a_stream_that_stays_is_a_local_stream(connect: Open) -> None:
    network = Network()
    stream = connect(network, "a")
    results = play(stream, range(9)) + stream.flush()
    local = fake_detector()[0].predict([image(t) for t in range(9)], stream=True)
    assert [(one.frame_index, one.pool_fill, one.source_id) for one in results] == [
        (one.frame_index, one.pool_fill, "a") for one in local
    ]
    assert (stream.epoch, stream.windows_lost, stream.lost, len(network.servers[0].sessions)) == (0, 0, 0, 0)


def test_what_a_frame_says_of_itself_arrives(connect: Open) -> None:
    stream = connect(Network(), "a")
    stream.push(Frame(image(0), 41, 2.5, "a"))
    stream.push(image(1), pts=2.6)
    stream.push(Frame(image(2), 45, 2.7, "a", pixel_aspect=2.0))
    results = stream.flush()
    assert [(one.frame_index, one.pts, one.epoch) for one in results] == [(45, 2.7, 1)]
    with pytest.raises(FrameError, match="aspect"):
        stream.push(Frame(image(2), 0, None, "a", pixel_aspect=-1.0))


@pytest.mark.parametrize(
    ("field", "value"),
    [("index", 1.5), ("index", "7"), ("index", -1), ("pts", math.nan), ("pts", "2.5"), ("pts", math.inf),
     ("pixel_aspect", "2"), ("pixel_aspect", math.nan), ("image", [[1]])],
)  # fmt: skip
def test_what_a_frame_may_not_say_is_refused_as_of_a_local_stream(connect: Open, field: str, value: Any) -> None:
    network = Network()
    stream, local = connect(network, "a"), network.detector.open_stream(source_id="a")
    good = Frame(image(0), 0, 0.0, "a")
    for one in (stream, local):
        one.push(good)
        with pytest.raises(FrameError, match="^(got list|" + field + " is )"):
            one.push(replace(good, **{field: value}))
    assert [one.to_dict() for one in stream.flush()] == [one.to_dict() for one in local.flush()]
    assert (stream.lost, stream.windows_lost) == (0, 0)


def test_a_number_that_no_tensor_holds_is_refused() -> None:
    with pytest.raises(FrameError, match=f"index is {2**63}; wanted at most"):
        by_triton(Network()).push(Frame(image(0), 2**63, None, "a"))


def test_what_is_asked_of_triton_in_one_push_has_one_timeout_together(monkeypatch: pytest.MonkeyPatch) -> None:
    network = Network()
    stream = by_triton(network)
    from rdn_engine.serve.triton import client as wire

    now, given = [0.0], []
    monkeypatch.setattr(wire.time, "monotonic", lambda: now[0])
    for name in ("get_model_config", "infer"):
        ask = getattr(stream._transport.transport._client, name)

        def late(*arguments: Any, client_timeout: float, ask: Any = ask, **others: Any) -> Any:
            given.append(client_timeout)
            now[0] += 7
            return ask(*arguments, **others)

        monkeypatch.setattr(stream._transport.transport._client, name, late)
    stream.push(image(0))
    network.servers[0].live.clear()  # Triton wants the START flag
    stream.push(image(1))
    assert given == pytest.approx([30, 23, 30, 23, 16])


def test_a_moved_stream_sees_a_new_epoch_and_what_was_lost(connect: Open) -> None:
    network = Network()
    stream = connect(network, "a")
    before = play(stream, range(6))
    network.at = 1
    after = play(stream, range(6, 11)) + stream.flush()
    assert fills(before) == [(0, 0, 3), (0, 1, 4), (0, 2, 5), (0, 3, 5)]
    assert fills(after) == [(1, 6, 3), (1, 7, 4), (1, 8, 5), (1, 9, 4), (1, 10, 3)]
    assert (stream.epoch, stream.windows_lost, stream.lost) == (1, 1, 2)


def test_a_stream_that_comes_back_does_not_meet_its_old_window(connect: Open) -> None:
    network = Network()
    stream = connect(network, "a")
    results = []
    for t in range(12):
        network.at = (t // 4) % 2
        results += stream.push(image(t))
    results += stream.flush()
    assert fills(results) == [
        (0, 0, 3), (0, 1, 4), (1, 4, 3), (1, 5, 4), (2, 8, 3), (2, 9, 4), (2, 10, 4), (2, 11, 3)
    ]  # fmt: skip
    assert (stream.windows_lost, stream.lost) == (2, 4)


def test_a_lost_answer_begins_a_new_window_and_its_frame_is_counted(connect: Open) -> None:
    network = Network()
    stream = connect(network, "a")
    network.fault = "lost answer"
    with pytest.raises(ServerUnavailable):
        stream.push(image(0))
    assert (stream.lost, stream.epoch) == (1, 0)
    play(stream, range(1, 5))
    network.fault = "lost answer"
    with pytest.raises(ServerUnavailable):
        stream.push(image(5))
    assert fills(play(stream, range(6, 10))) == [(1, 4, 3), (1, 5, 4)]
    assert (stream.lost, stream.epoch) == (4, 1)


def test_a_request_that_did_not_arrive_leaves_the_window(connect: Open) -> None:
    network = Network()
    stream = connect(network, "a")
    play(stream, range(2))
    network.fault = "lost call"
    with pytest.raises(ServerUnavailable):
        stream.push(image(2))
    assert fills(play(stream, range(3, 5))) == [(0, 0, 3), (0, 1, 4)]
    assert (stream.lost, stream.windows_lost) == (1, 0)


@pytest.mark.parametrize(("fault", "epoch"), [("lost call", 0), ("lost answer", 1)])
def test_a_request_is_sent_again(connect: Open, monkeypatch: pytest.MonkeyPatch, fault: str, epoch: int) -> None:
    monkeypatch.setattr(module, "_AGAIN_SECONDS", 0.0)
    network = Network()
    stream = connect(network, "a")
    play(stream, range(2))
    network.fault = fault
    stream.push(image(2))
    assert (stream.epoch, stream.lost) == (epoch, 2 * epoch)


def test_a_second_client_of_a_stream_takes_it_over() -> None:
    network = Network()
    first, second = by_ray(network), by_ray(network)
    first.push(image(0))
    second.push(image(1))
    first.push(image(2))
    assert (first.windows_lost, first.epoch, second.windows_lost) == (1, 1, 0)
    assert len(network.servers[0].sessions) == 1


def test_an_epoch_of_the_window_itself_is_counted_on(connect: Open) -> None:
    network = Network()
    stream = connect(network, "a")
    results = play(stream, range(4))
    results += [one for t in range(4) for one in stream.push(image(t, 20, 20))]
    network.at = 1
    results += play(stream, range(3))
    assert [one.epoch for one in results] == [0, 0, 0, 0, 1, 1, 2]


def test_what_is_no_image_changes_nothing(connect: Open) -> None:
    network = Network()
    stream = connect(network, "a")
    with pytest.raises(FrameError):
        stream.push(image(0, 4, 4))
    assert len(network.servers[0].sessions) == 0
    stream.push(image(0))
    with pytest.raises(FrameError):
        stream.push(image(1, 4, 4))
    stream.push(image(1))
    assert fills(stream.push(image(2))) == [(0, 0, 3)]
    assert (stream.epoch, stream.windows_lost, stream.lost) == (0, 0, 0)


def test_several_frames_in_a_call_are_those_frames(connect: Open) -> None:
    network = Network()
    stream = connect(network, "a")
    results = stream.push_many(numbered(0, 1, 2)) + stream.push_many([image(3)])
    assert fills(results) == [(0, 0, 3), (0, 1, 4)]
    network.at = 1
    results = stream.push_many(numbered(4, 5, 6, 7)) + stream.flush()
    assert fills(results) == [(1, 4, 3), (1, 5, 4), (1, 6, 4), (1, 7, 3)]
    assert stream.lost == 2
    with pytest.raises(ConfigError, match="frames"):
        stream.push_many([])


def test_frames_before_one_that_is_no_image_are_taken(connect: Open) -> None:
    network = Network()
    stream = connect(network, "a")
    stream.push_many(numbered(0, 1))
    with pytest.raises(FrameError):
        stream.push_many([*numbered(2, 3), *numbered(4, side=4), *numbered(5)])
    assert fills(stream.push_many(numbered(5))) == [(0, 0, 3), (0, 1, 4), (0, 2, 5)]
    other = connect(network, "b")
    with pytest.raises(FrameError):
        other.push_many([image(0), image(1), image(2), image(3, 4, 4)])
    assert fills(other.flush()) == [(0, 0, 3), (0, 1, 3), (0, 2, 3)]
    assert stream.windows_lost == other.windows_lost == 0


def test_a_server_that_is_busy_keeps_the_window() -> None:
    network = Network()
    direct = Direct(network)
    stream = RemoteStream(direct, "a", timeout=30)
    stream.push(image(0))
    direct.busy = True
    for _ in range(3):
        with pytest.raises(Overloaded, match="busy"):
            stream.push(image(1))
        with pytest.raises(Overloaded, match="busy"):
            stream.flush()
    direct.busy = False
    stream.push(image(1))
    assert fills(stream.push(image(2))) == [(0, 0, 3)]
    assert (stream.windows_lost, stream.lost) == (0, 0)


def test_a_refusal_says_what_was_wanted_and_what_is_left(connect: Open) -> None:
    alone = Network()
    connect(alone, "a").push(image(0))
    each = alone.servers[0].sessions.nbytes
    network = Network(byte_budget=2 * each + 7)
    streams = [connect(network, name) for name in "abc"]
    for stream in streams[:2]:
        stream.push(image(0))
    with pytest.raises(AdmissionRefused, match="stream 'c' wants") as refused:
        streams[2].push(image(0))
    assert (refused.value.wanted, refused.value.left) == (each, 7)
    streams[0].flush()
    streams[2].push(image(1))
    assert [one.frame_index for one in streams[2].flush()] == [0]
    streams[2].push(image(2))
    with pytest.raises(AdmissionRefused):
        streams[0].push(image(3))
    assert (len(network.servers[0].sessions), streams[2].lost) == (2, 0)


def test_a_stream_that_is_closed_gives_its_place_back(connect: Open) -> None:
    network = Network(max_streams=1)
    for name in "abc":
        with connect(network, name) as stream:
            stream.push(image(0))
    assert len(network.servers[0].sessions) == 0
    stream = connect(network, "a")
    stream.push(image(0))
    network.fault = "lost call"
    stream.close()
    assert len(network.servers[0].sessions) == 1, "it goes by its time"


def test_a_stage_that_fails_is_said_and_begins_anew(connect: Open) -> None:
    network = Network()
    stream = connect(network, "a")
    play(stream, range(3))
    network.fault = "stage"
    with pytest.raises(RDNError, match="MemoryError: no room"):
        stream.push(image(3))
    assert fills(play(stream, range(4, 8))) == [(1, 3, 3), (1, 4, 4)]
    assert stream.lost == 3


def test_windows_that_nobody_uses_go(connect: Open) -> None:
    network = Network()
    streams = [connect(network, str(i)) for i in range(3)]
    for stream in streams:
        stream.push(image(0))
        network.now += 4
    streams[0].push(image(1))  # 12 seconds after its first
    assert (streams[0].epoch, streams[0].lost) == (1, 1)
    assert streams[1].epoch == 0
    network.now += 5
    streams[0].push(image(2))
    assert len(network.servers[0].sessions) == 2
    for _ in range(200):
        connect(network, "abandoned").push(image(0))
        network.now += IDLE + 1
    streams[0].push(image(0))
    assert len(network.servers[0].sessions) == 1


def test_flush_of_a_lost_window_gives_nothing(connect: Open) -> None:
    network = Network()
    stream = connect(network, "a")
    stream.push(image(0))
    network.at = 1
    assert stream.flush() == []
    assert (stream.lost, stream.windows_lost) == (1, 1)
    stream.push(image(1))
    assert stream.epoch == 1


def test_results_that_are_ready_wait_for_a_flush_that_is_taken(connect: Open) -> None:
    network = Network()
    stream = connect(network, "a")
    with pytest.raises(FrameError):
        stream.push_many([*numbered(0, 1, 2, 3), *numbered(4, side=4)])
    network.fault = "lost call"
    with pytest.raises(ServerUnavailable):
        stream.flush()
    assert [one.frame_index for one in stream.flush()] == [0, 1, 2, 3]


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), float("inf"), "1"])
def test_a_timeout_is_checked(timeout: Any) -> None:
    with pytest.raises(ConfigError, match="timeout"):
        RemoteStream(Direct(Network()), "a", timeout=timeout)


EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("push"), st.integers(1, 4)),
        st.tuples(st.just("push"), st.integers(1, 4)),
        st.tuples(st.just("wrong"), st.integers(0, 2)),
        st.tuples(st.sampled_from(["resize", "flush", "move", "other"]), st.just(0)),
        st.tuples(st.just("die"), st.integers(0, 1)),
        st.tuples(st.just("wait"), st.integers(1, 12)),
        st.tuples(st.just("late"), st.integers(0, 99)),
        st.tuples(st.sampled_from(FAULTS), st.just(0)),
    ),
    max_size=40,
)


def frames_of(kind: str, level: int, number: int, side: int) -> list[Frame]:
    return numbered(*range(level, level + number), side=side) + (numbered(level, side=4) if kind == "wrong" else [])


@pytest.mark.parametrize("wire", [by_ray, by_triton])
@settings(deadline=None, max_examples=200)
@given(events=EVENTS, patient=st.booleans())
def test_every_frame_has_one_result_of_a_window_that_its_client_knows_or_is_lost(
    wire: Open, events: list[tuple[str, int]], patient: bool
) -> None:
    """Of the windows the transport asserts it."""
    network = Network(max_streams=1)
    stream = wire(network, "a")
    transport = stream._transport
    assert isinstance(transport, Compared)
    found: list[Detections] = []
    unknown = level = 0
    side = 16
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_AGAIN_SECONDS", 0.0 if patient else 60.0)
        for kind, number in events:
            if kind in ("push", "wrong", "flush"):
                frames = frames_of(kind, level, number, side)
                level += number
                try:
                    found += stream.flush() if kind == "flush" else stream.push_many(frames or numbered(0, side=4))
                except (FrameError, AdmissionRefused):
                    pass
                except RDNError:
                    unknown += transport.sending
            elif kind == "resize":
                side = 36 - side
            elif kind == "move":
                network.at = 1 - network.at
            elif kind == "die":
                network.servers[number] = network.server()
            elif kind == "wait":
                network.now += number
            elif kind == "other":
                network.servers[network.at].sessions.step([Request("b", frames=tuple(numbered(0)))])
            elif kind == "late" and network.sent:
                with suppress(Exception):  # Triton refuses some
                    network.sent[number % len(network.sent)](network.servers[number % 2])
            elif kind in FAULTS:
                network.fault = kind
            assert len(found) + len(stream._ready) + stream._waiting + stream.lost == transport.taken + unknown
        network.fault = ""
        found += stream.flush()
    assert len(found) + stream.lost == transport.taken + unknown
    epochs = [one.epoch for one in found]
    assert epochs == sorted(epochs)
