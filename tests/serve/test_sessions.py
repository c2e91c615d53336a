"""The windows of a server: what begins, ends, expires or is refused, and that none is ever taken for another."""

from __future__ import annotations

import os
import pickle
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rdn_engine.config import WHOLE_VIDEO
from rdn_engine.detector import Detector
from rdn_engine.errors import AdmissionRefused, ConfigError, FrameError, RDNError
from rdn_engine.frame import Frame
from rdn_engine.host.runtime import HostRuntime
from rdn_engine.serve.sessions import Reply, Request, Sessions, process_of
from rdn_engine.stream.base import Stream
from tests.fakes import DIALS, FakeRelation, fake_detector, image

IDLE = 10.0
NO_WAIT = replace(DIALS, look_ahead=0)


class Server:
    """Sessions, and clients that repeat what replies said, and know nothing more."""

    def __init__(self, detector: Detector | None = None, **options: Any) -> None:
        self.now = 0.0
        given = {"dials": DIALS, "idle_seconds": IDLE, **options}
        self.sessions = Sessions(detector or fake_detector()[0], clock=lambda: self.now, **given)
        self.known: dict[str | int, tuple[int | None, int]] = {}

    def __len__(self) -> int:
        return len(self.sessions)

    def request(self, name: str | int, *levels: int, new: bool = False, end: bool = False) -> Request:
        session, number = (None, 0) if new else self.known.get(name, (None, 0))
        frames = tuple(Frame(image(t), number + i, None, str(name)) for i, t in enumerate(levels))
        return Request(name, session, number, frames, end)

    def step(self, *requests: Request) -> list[Reply]:
        replies = self.sessions.step(requests)
        for request, reply in zip(requests, replies, strict=True):
            number = request.number if reply.session == request.session and request.session else 0
            self.known[request.stream] = reply.session, number + reply.taken
        return replies

    def ask(self, name: str | int, *levels: int, new: bool = False, end: bool = False) -> Reply:
        [reply] = self.step(self.request(name, *levels, new=new, end=end))
        return reply


def indices(reply: Reply) -> list[int]:
    assert reply.error is None
    return [result.frame_index for result in reply.results]


def fills(reply: Reply) -> list[int]:
    return [result.pool_fill for result in reply.results]


def test_a_stream_gives_what_a_local_one_gives() -> None:
    server = Server()
    local = fake_detector()[0].open_stream(source_id="cam")
    for t in range(6):
        assert [r.to_dict() for r in server.ask("cam", t).results] == [r.to_dict() for r in local.push(image(t))]
    assert [r.to_dict() for r in server.ask("cam", end=True).results] == [r.to_dict() for r in local.flush()]
    assert len(server) == server.sessions.nbytes == 0


def test_frames_may_come_together_and_with_the_end() -> None:
    server = Server()
    assert indices(server.ask("cam", 0, 1, 2, 3)) == [0, 1]
    assert indices(server.ask("cam", 4, end=True)) == [2, 3, 4]
    assert indices(server.ask("other", 0, end=True)) == [0]
    assert len(server) == 0


def test_number_time_and_pixels_of_a_frame_are_the_clients() -> None:
    server = Server(dials=NO_WAIT)
    first = Frame(image(0), 41, 2.5, "cam")
    [reply] = server.step(Request("cam", frames=(first,)))
    [result] = reply.results
    assert (result.frame_index, result.pts, result.source_id) == (41, 2.5, "cam")
    [reply] = server.step(Request("cam", reply.session, 1, (replace(first, pixel_aspect=2.0),)))
    assert reply.results[0].epoch == 1, "pixels of another shape begin an epoch, as in a local stream"
    [reply] = server.step(Request("cam", reply.session, 2, (replace(first, pixel_aspect=-1.0),)))
    assert isinstance(reply.error, FrameError)


def test_a_client_that_knows_no_window_begins_one_though_nothing_ended() -> None:
    server = Server(dials=NO_WAIT)
    first, second, third = (server.ask("cam", t, new=t != 1) for t in range(3))
    assert first.session == second.session != third.session
    assert [fills(one) for one in (first, second, third)] == [[1], [2], [1]]
    assert len(server) == 1


@pytest.mark.parametrize("number", [0, 1, 3])
def test_a_frame_out_of_its_turn_begins_a_window(number: int) -> None:
    server = Server(dials=NO_WAIT)
    before = server.ask("cam", 0, 1)
    [after] = server.step(replace(server.request("cam", 2), number=number))
    assert after.session not in (None, before.session)
    assert fills(after) == [1]


def test_what_keeps_or_ends_a_window_names_it() -> None:
    server = Server()
    session = server.ask("cam", 0).session
    for wrong in (Request("cam", 7, 1, end=True), Request("cam", session, 2, end=True), Request("cam", 7, 1)):
        assert server.sessions.step([wrong]) == [Reply(None)]
    assert len(server) == 1
    assert server.ask("cam").session == session
    assert server.ask("cam", new=True, end=True) == Reply(None), "without its results"
    assert server.ask("nobody") == Reply(None)
    assert len(server) == 0


def test_a_window_has_its_time() -> None:
    server = Server(dials=NO_WAIT)
    first = server.ask("cam", 0)
    server.now = IDLE - 0.1
    assert server.ask("cam").session == first.session, "a request without a frame keeps it"
    server.now += IDLE - 0.1
    assert fills(server.ask("cam", 1)) == [2]
    server.now += IDLE
    later = server.ask("cam", 2)
    assert later.session not in (None, first.session)
    assert fills(later) == [1]


def test_no_two_servers_have_the_same_sessions() -> None:
    sessions = [Server().ask("cam", 0).session for _ in range(20)]
    assert len(set(sessions)) == 20
    assert all(one and 0 < one < 2**63 and process_of(one) == os.getpid() for one in sessions)


def test_one_more_than_may_be_open_is_refused_until_there_is_room() -> None:
    server = Server(max_streams=2)
    assert all(one.error is None for one in server.step(server.request("a", 0), server.request("b", 0)))
    refused = server.ask("c", 0)
    assert isinstance(refused.error, AdmissionRefused)
    assert "stream 'c' is one more than the 2 that may be open" in str(refused.error)
    assert (refused.error.wanted, refused.error.left) == (server.sessions.nbytes // 2, 0)
    assert isinstance(server.ask("c", 1).error, AdmissionRefused), "it is not let in by going on"
    assert server.ask("a", 1, new=True).error is None, "one that is open may begin anew"
    server.now = IDLE
    assert server.ask("c", 2).error is None
    assert len(server) == 1


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("last", [(), (1,)])
def test_a_stream_that_ends_leaves_its_place_to_one_of_its_batch(last: tuple[int, ...], order: int) -> None:
    server = Server(max_streams=2)
    server.step(server.request("a", 0), server.request("b", 0))
    requests = [server.request("a", *last, end=True), server.request("b", 1), server.request("c", 5)][::order]
    replies = dict(zip("abc", server.step(*requests)[::order], strict=True))
    assert indices(replies["a"]) == [0, *last]
    assert all(one.error is None for one in replies.values())
    assert server.ask("c", 6).session == replies["c"].session
    fourth, fifth = server.step(server.request("d", 0, end=True), server.request("e", 0))
    assert isinstance(fourth.error, AdmissionRefused), "b and c have not ended"
    assert isinstance(fifth.error, AdmissionRefused)


def test_the_place_of_a_stream_whose_stage_fails_is_free_for_its_batch() -> None:
    detector, relation = failing_detector()
    server = Server(detector, dials=NO_WAIT, max_streams=1)
    server.ask("a", 0)
    relation.fail = True
    failed, other = server.step(server.request("a", 1), server.request("b", 0))
    assert "MemoryError" in str(failed.error)
    assert "MemoryError" in str(other.error), "it was let in"


def test_bytes_are_bounded() -> None:
    server = Server()
    server.ask("a", 0)
    each = server.sessions.nbytes
    assert each >= fake_detector()[0].open_stream().nbytes
    tight = Server(byte_budget=2 * each + 7)
    replies = tight.step(*(tight.request(name, 0) for name in "abc"))
    assert [type(one.error) for one in replies] == [type(None), type(None), AdmissionRefused]
    assert isinstance(replies[2].error, AdmissionRefused)
    assert (replies[2].error.wanted, replies[2].error.left) == (each, 7)
    assert tight.sessions.nbytes == 2 * each
    with pytest.raises(AdmissionRefused, match=r"0\.00 of 0\.00 MiB are left"):
        Server(byte_budget=1)


def test_a_refusal_goes_to_another_process_with_its_numbers() -> None:
    refused = pickle.loads(pickle.dumps(Reply(None, error=AdmissionRefused("no room", wanted=7, left=3)))).error
    assert (str(refused), refused.wanted, refused.left) == ("no room", 7, 3)


def test_wrong_frames_leave_a_window_and_the_others_of_their_batch_as_they_were() -> None:
    server = Server(dials=NO_WAIT)
    server.ask("a", 0)
    wrong = Frame(np.zeros((3, 3, 3), np.uint8), 0, None, "a")
    bad, good = server.step(replace(server.request("a"), frames=(wrong,)), server.request("b", 0))
    assert isinstance(bad.error, FrameError)
    assert indices(good) == [0]
    assert fills(server.ask("a", 1)) == [2]
    [new] = server.step(Request("c", frames=(wrong,)))
    assert (new.session, type(new.error), len(server)) == (None, FrameError, 2)
    [last] = server.step(replace(server.request("a", end=True), frames=(wrong,)))
    assert (type(last.error), len(server)) == (FrameError, 1), "it has ended all the same"


def failing_detector() -> tuple[Detector, FakeRelation]:
    runtime = fake_detector()[0].runtime
    assert isinstance(runtime, HostRuntime)
    relation = FakeRelation()
    return Detector(HostRuntime(replace(runtime.model, relation=relation))), relation


def test_a_stage_that_fails_ends_the_window_of_its_stream_alone() -> None:
    detector, relation = failing_detector()
    server = Server(detector, dials=NO_WAIT)
    first = server.ask("cam", 0)
    relation.fail = True
    failed = server.ask("cam", 1)
    assert type(failed.error) is RDNError, "an error that every client knows"
    assert "MemoryError: no room" in str(failed.error)
    assert (failed.session, len(server)) == (None, 0)
    relation.fail = False
    again = server.ask("cam", 2)
    assert again.session not in (None, first.session)
    assert fills(again) == [1]


def test_a_number_is_another_stream_than_the_text_of_it() -> None:
    server = Server(dials=NO_WAIT)
    for t in range(2):
        replies = server.step(server.request(5, t), server.request("5", t))
        assert [[(r.source_id, r.pool_fill) for r in one.results] for one in replies] == [[("5", t + 1)]] * 2
        assert replies[0].session != replies[1].session
    each = server.sessions.nbytes // 2
    assert len(server) == 2
    server.ask(5, end=True)
    assert server.sessions.nbytes == each


def test_requests_of_one_stream_in_a_batch_are_answered_in_turn() -> None:
    """Its end and another beginning, say: the others of the batch are as they would be."""
    server = Server(dials=NO_WAIT)
    server.ask("a", 0)
    end, other, again = server.step(
        server.request("a", end=True), server.request("b", 0), server.request("a", 1, new=True)
    )
    assert indices(end) == []
    assert indices(other) == indices(again) == [0]
    assert again.session not in (None, end.session)
    request = server.request("a", 2)
    assert [indices(one) for one in server.step(request, replace(request, number=2))] == [[1], [1]]


def test_warm_up_leaves_nothing_and_dials_are_checked_at_once() -> None:
    server = Server()
    server.sessions.warm_up(3, 2)
    server.sessions.warm_up(0, 1)
    assert len(server) == server.sessions.nbytes == 0
    detector, relation = failing_detector()
    relation.fail = True
    with pytest.raises(MemoryError):
        Server(detector).sessions.warm_up(3, 2)
    with pytest.raises(ConfigError, match="the whole video"):
        Server(dials=replace(DIALS, link="boxes", link_delay=WHOLE_VIDEO))


EVENTS = st.lists(
    st.tuples(
        st.lists(st.sampled_from("abc"), min_size=1, max_size=4),
        st.sampled_from(["push", "push", "push", "new", "stale", "keep", "end", "wait"]),
        st.integers(0, 2),
    ),
    max_size=40,
)


@settings(deadline=None, max_examples=150)
@given(EVENTS)
def test_no_result_is_of_a_window_that_its_session_does_not_have(events: list[tuple[list[str], str, int]]) -> None:
    """Any order of frames, ends, pauses and mistakes of clients: each session gives what a stream of its own gives."""
    most = 2
    server = Server(max_streams=most)
    detector = fake_detector()[0]
    alone: dict[int, Stream] = {}
    for level, (names, event, count) in enumerate(events):
        if event == "wait":
            server.now += 0.6 * IDLE
            continue
        levels = [] if event == "keep" else [(3 * level + i) % 200 for i in range(count)]
        requests = [server.request(name, *levels, new=event == "new", end=event == "end") for name in names]
        if event == "stale":
            requests = [replace(one, number=one.number + count - 1) for one in requests]
        for request, reply in zip(requests, server.step(*requests), strict=True):
            if reply.session is None:
                assert not reply.results
                assert isinstance(reply.error, AdmissionRefused) or not request.frames
                continue
            if reply.session not in alone:
                assert request.frames
                alone[reply.session] = detector.open_stream(source_id=str(request.stream))
            stream = alone[reply.session]
            if reply.session == request.session:
                assert stream.accepted == request.number
            else:
                assert not stream.accepted
            wanted = [one for frame in request.frames for one in stream.push(frame)]
            wanted += stream.flush() if request.end else []
            assert [r.to_dict() for r in reply.results] == [r.to_dict() for r in wanted]
        assert len(server) <= most
