"""Clients of a remote stream: what they send and what is refused, by the wire of Ray Serve and by that of Triton."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from rdn_engine.errors import (
    AdmissionRefused,
    ConfigError,
    FrameError,
    Overloaded,
)
from rdn_engine.frame import Frame
from rdn_engine.serve.client import RemoteStream
from tests.fakes import fake_detector, image
from tests.serve.network import Direct, Network
from tests.serve.remote import Open, by_triton, fills, numbered, play

pytestmark = pytest.mark.usefixtures("fails_at_once")


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


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), float("inf"), "1"])
def test_a_timeout_is_checked(timeout: Any) -> None:
    with pytest.raises(ConfigError, match="timeout"):
        RemoteStream(Direct(Network()), "a", timeout=timeout)
