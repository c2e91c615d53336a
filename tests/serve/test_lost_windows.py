"""Clients that notice when their window is lost, by the wire of Ray Serve and by that of Triton."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rdn_engine.errors import (
    AdmissionRefused,
    FrameError,
    RDNError,
    ServerUnavailable,
)
from rdn_engine.frame import Frame
from rdn_engine.results import Detections
from rdn_engine.serve import client as module
from rdn_engine.serve.sessions import Request
from tests.fakes import image
from tests.serve.network import FAULTS, IDLE, Compared, Network
from tests.serve.remote import Open, by_ray, by_triton, fills, numbered, play

pytestmark = pytest.mark.usefixtures("fails_at_once")


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
