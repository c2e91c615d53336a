"""Sessions of replicas, and clients that notice when their window is lost."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rdn_engine.errors import AdmissionRefused, ConfigError, FrameError, Overloaded, RDNError
from rdn_engine.frame import Frame
from rdn_engine.results import Detections
from rdn_engine.serve.ray.client import RayStream
from rdn_engine.serve.ray.sessions import Call, Reply, Sessions
from rdn_engine.stream.base import Stream
from tests.fakes import DIALS, fake_detector, image
from tests.serve.contents import telling_detector


class Replicas:
    """Two replicas, and a router that the test moves."""

    def __init__(self, **options: object) -> None:
        self.now = 0.0
        self._options = options
        self.each = [self.make(), self.make()]
        self.at = 0
        self.refusal: Reply | None = None
        self.lose_answer = False

    def make(self) -> Sessions:
        return Sessions(fake_detector()[0], DIALS, clock=lambda: self.now, **self._options)  # type: ignore[arg-type]

    def call(self, call: Call) -> Reply:
        if self.refusal is not None:
            return self.refusal
        reply = self.each[self.at].call(call)
        if self.lose_answer:
            raise RDNError("no answer")
        return reply


def local(levels: range) -> list[Detections]:
    return list(fake_detector()[0].predict([image(t) for t in levels], stream=True))


def fills(results: list[Detections]) -> list[tuple[int, int, int]]:
    return [(one.epoch, one.frame_index, one.pool_fill) for one in results]


def test_a_session_that_stays_is_a_local_stream() -> None:
    replicas = Replicas()
    client = RayStream(replicas.call, "a")
    results = [one for t in range(9) for one in client.push(image(t))] + client.flush()
    assert [(one.frame_index, one.pool_fill, one.source_id) for one in results] == [
        (one.frame_index, one.pool_fill, "a") for one in local(range(9))
    ]
    assert (client.epoch, client.moves, client.lost, len(replicas.each[0])) == (0, 0, 0, 0)


def test_a_moved_session_sees_a_new_epoch_and_what_was_lost() -> None:
    replicas = Replicas()
    client = RayStream(replicas.call, "a")
    before = [one for t in range(6) for one in client.push(image(t))]
    replicas.at = 1
    after = [one for t in range(6, 11) for one in client.push(image(t))] + client.flush()
    assert fills(before) == [(0, 0, 3), (0, 1, 4), (0, 2, 5), (0, 3, 5)]
    assert fills(after) == [(1, 6, 3), (1, 7, 4), (1, 8, 5), (1, 9, 4), (1, 10, 3)]
    assert (client.epoch, client.moves, client.lost) == (1, 1, 2)


def test_a_session_that_comes_back_does_not_meet_its_old_window() -> None:
    replicas = Replicas()
    client = RayStream(replicas.call, "a")
    results = []
    for t in range(12):
        replicas.at = (t // 4) % 2
        results += client.push(image(t))
    results += client.flush()
    assert fills(results) == [
        (0, 0, 3), (0, 1, 4), (1, 4, 3), (1, 5, 4), (2, 8, 3), (2, 9, 4), (2, 10, 4), (2, 11, 3)
    ]  # fmt: skip
    assert (client.moves, client.lost) == (2, 4)


def test_a_lost_answer_begins_a_new_window() -> None:
    replicas = Replicas()
    client = RayStream(replicas.call, "a")
    for t in range(4):
        client.push(image(t))
    replicas.lose_answer = True
    with pytest.raises(RDNError, match="no answer"):
        client.push(image(4))
    replicas.lose_answer = False
    results = [one for t in range(5, 9) for one in client.push(image(t))]
    assert fills(results) == [(1, 4, 3), (1, 5, 4)]
    assert client.lost == 2


def test_a_second_client_of_a_session_takes_it_over() -> None:
    replicas = Replicas()
    first, second = RayStream(replicas.call, "a"), RayStream(replicas.call, "a")
    first.push(image(0))
    second.push(image(1))
    first.push(image(2))
    assert (first.moves, first.epoch, second.moves) == (1, 1, 0)
    assert len(replicas.each[0]) == 1


def test_an_epoch_of_the_window_itself_is_counted_on() -> None:
    replicas = Replicas()
    client = RayStream(replicas.call, "a")
    results = [one for t in range(4) for one in client.push(image(t))]
    results += [one for t in range(4) for one in client.push(image(t, 20, 20))]
    replicas.at = 1
    results += [one for t in range(3) for one in client.push(image(t))]
    assert [one.epoch for one in results] == [0, 0, 0, 0, 1, 1, 2]


def test_what_is_no_image_changes_nothing() -> None:
    replicas = Replicas()
    client = RayStream(replicas.call, "a")
    with pytest.raises(FrameError):
        client.push(image(0, 4, 4))
    assert len(replicas.each[0]) == 0
    client.push(image(0))
    with pytest.raises(FrameError):
        client.push(image(1, 4, 4))
    client.push(image(1))
    assert fills(client.push(image(2))) == [(0, 0, 3)]
    assert (client.epoch, client.moves) == (0, 0)


def numbered(*levels: int, side: int = 16) -> list[Frame]:
    return [Frame(image(t, side, side), t, None, "a") for t in levels]


def test_several_frames_in_a_call_are_those_frames() -> None:
    replicas = Replicas()
    client = RayStream(replicas.call, "a")
    results = client.push_many(numbered(0, 1, 2)) + client.push_many([image(3)])
    assert fills(results) == [(0, 0, 3), (0, 1, 4)]
    replicas.at = 1
    results = client.push_many(numbered(4, 5, 6, 7)) + client.flush()
    assert fills(results) == [(1, 4, 3), (1, 5, 4), (1, 6, 4), (1, 7, 3)]
    assert client.lost == 2
    with pytest.raises(ConfigError, match="frames"):
        client.push_many([])


def test_frames_before_one_that_is_no_image_are_taken() -> None:
    replicas = Replicas()
    client = RayStream(replicas.call, "a")
    client.push_many(numbered(0, 1))
    with pytest.raises(FrameError):
        client.push_many([*numbered(2, 3), *numbered(4, side=4), *numbered(5)])
    assert fills(client.push_many(numbered(5))) == [(0, 0, 3), (0, 1, 4), (0, 2, 5)]
    other = RayStream(replicas.call, "b")
    with pytest.raises(FrameError):
        other.push_many([*numbered(0, 1, 2), *numbered(3, side=4)])
    assert fills(other.flush()) == [(0, 0, 3), (0, 1, 3), (0, 2, 3)]
    assert client.moves == other.moves == 0


def test_a_replica_that_is_busy_keeps_the_window() -> None:
    replicas = Replicas()
    client = RayStream(replicas.call, "a")
    client.push(image(0))
    replicas.refusal = Reply("anything", refusal="overloaded", message="busy")
    for _ in range(3):
        with pytest.raises(Overloaded, match="busy"):
            client.push(image(1))
        with pytest.raises(Overloaded, match="busy"):
            client.flush()
    replicas.refusal = None
    client.push(image(1))
    assert fills(client.push(image(2))) == [(0, 0, 3)]
    assert client.moves == 0


def test_sessions_have_a_budget_of_bytes() -> None:
    one = Sessions(fake_detector()[0], DIALS)
    one.call(Call("a", None, 0, ()))
    assert one.nbytes == 0
    RayStream(one.call, "a").push(image(0))
    replicas = Replicas(byte_budget=2 * one.nbytes)
    clients = [RayStream(replicas.call, name) for name in "abc"]
    for client in clients[:2]:
        client.push(image(0))
    with pytest.raises(AdmissionRefused, match="stream 'c' wants"):
        clients[2].push(image(0))
    clients[0].flush()
    clients[2].push(image(0))
    with pytest.raises(AdmissionRefused):
        clients[0].push(image(0))
    assert len(replicas.each[0]) == 2


def test_windows_that_nobody_uses_go() -> None:
    replicas = Replicas(idle_seconds=10)
    clients = [RayStream(replicas.call, str(i)) for i in range(3)]
    for client in clients:
        client.push(image(0))
        replicas.now += 4
    clients[0].push(image(1))  # 12 seconds after its first
    assert clients[0].epoch == 1
    assert clients[1].epoch == 0
    replicas.now += 5
    clients[0].push(image(2))
    assert len(replicas.each[0]) == 2
    for _ in range(2000):
        RayStream(replicas.call, "abandoned").push(image(0))
        replicas.now += 11
    clients[0].push(image(0))
    assert len(replicas.each[0]) == 1


def test_flush_of_a_lost_window_gives_nothing() -> None:
    replicas = Replicas()
    client = RayStream(replicas.call, "a")
    client.push(image(0))
    replicas.at = 1
    assert client.flush() == []
    assert (client.lost, client.moves) == (1, 1)
    client.push(image(1))
    assert client.epoch == 1


def test_results_that_are_ready_wait_for_a_flush_that_is_taken() -> None:
    replicas = Replicas()
    client = RayStream(replicas.call, "a")
    with pytest.raises(FrameError):
        client.push_many([*numbered(0, 1, 2, 3), *numbered(4, side=4)])
    replicas.refusal = Reply("anything", refusal="overloaded", message="busy")
    with pytest.raises(Overloaded):
        client.flush()
    replicas.refusal = None
    assert [one.frame_index for one in client.flush()] == [0, 1, 2, 3]


class Unreliable:
    """Two replicas behind a network that loses answers, repeats calls, some of them late, and a router that moves.

    What each window gives is compared with what a stream of its own gives of the frames that its client knows to be in
    it.
    """

    def __init__(self) -> None:
        self.now = 0.0
        self.detector = telling_detector()
        self.each = [self.make(), self.make()]
        self.at = 0
        self.fault = ""
        self.sent: list[Call] = []
        self.taken = 0
        self._alone: dict[str, Stream] = {}

    def make(self) -> Sessions:
        return Sessions(self.detector, DIALS, idle_seconds=10, clock=lambda: self.now)

    def call(self, call: Call) -> Reply:
        self.sent.append(call)
        fault, self.fault = self.fault, ""
        if fault == "overloaded":
            return Reply(call.session, refusal="overloaded", message="busy")
        if fault == "lost call":
            raise RDNError("no answer")
        reply = self.each[self.at].call(call)
        if fault == "lost answer":
            raise RDNError("no answer")
        if fault == "retry":
            self.at = 1 - self.at
            reply = self.each[self.at].call(call)
        if fault == "repeat":
            reply = self.each[self.at].call(call)
        self._compare(call, reply)
        return reply

    def _compare(self, call: Call, reply: Reply) -> None:
        if reply.session is None:
            assert not reply.results
            return
        if reply.began:
            assert reply.session not in self._alone
            self._alone[reply.session] = self.detector.open_stream(DIALS, source_id=call.name)
        stream = self._alone[reply.session]
        wanted = [one for frame in call.frames[: reply.taken] for one in stream.push(frame)]
        wanted += [] if call.frames else stream.flush()
        assert [one.to_dict() for one in reply.results] == [one.to_dict() for one in wanted]
        self.taken += reply.taken


FAULTS = ["overloaded", "lost call", "lost answer", "retry", "repeat"]
EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("push"), st.integers(1, 4)),
        st.tuples(st.just("push"), st.integers(1, 4)),
        st.tuples(st.just("wrong"), st.integers(0, 2)),
        st.tuples(st.just("resize"), st.just(0)),
        st.tuples(st.just("flush"), st.just(0)),
        st.tuples(st.just("move"), st.just(0)),
        st.tuples(st.just("die"), st.integers(0, 1)),
        st.tuples(st.just("wait"), st.integers(1, 12)),
        st.tuples(st.just("late"), st.integers(0, 99)),
        st.tuples(st.sampled_from(FAULTS), st.just(0)),
    ),
    max_size=40,
)


@settings(deadline=None, max_examples=200)
@given(EVENTS)
def test_no_result_is_of_a_window_that_its_client_does_not_know(events: list[tuple[str, int]]) -> None:
    network = Unreliable()
    client = RayStream(network.call, "a")
    found: list[Detections] = []
    level, side = 0, 16

    def tried(step: Callable[[], list[Detections]]) -> None:
        with suppress(RDNError):
            found.extend(step())

    for kind, number in events:
        if kind in ("push", "wrong"):
            frames = numbered(*range(level, level + number), side=side)
            level += number
            frames += numbered(level, side=4) if kind == "wrong" else []
            tried(partial(client.push_many, frames))
        elif kind == "resize":
            side = 36 - side
        elif kind == "flush":
            tried(client.flush)
        elif kind == "move":
            network.at = 1 - network.at
        elif kind == "die":
            network.each[number] = network.make()
        elif kind == "wait":
            network.now += number
        elif kind == "late" and network.sent:
            network.each[number % 2].call(network.sent[number % len(network.sent)])
        elif kind in FAULTS:
            network.fault = kind
        assert len(client._ready) + len(found) + client._waiting + client.lost == network.taken
    network.fault = ""
    found.extend(client.flush())
    assert len(found) + client.lost == network.taken
    epochs = [one.epoch for one in found]
    assert epochs == sorted(epochs)
