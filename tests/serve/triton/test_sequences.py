"""The table of sequences behind Triton: what begins, ends, expires or is refused, and that no window is a wrong one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rdn_engine.detector import Detector
from rdn_engine.errors import AdmissionRefused, ConfigError, FrameError
from rdn_engine.host.runtime import HostRuntime
from rdn_engine.results import Detections
from rdn_engine.serve.triton.options import TritonOptions
from rdn_engine.serve.triton.sequences import Answer, Request, Sequences
from tests.fakes import FakeRelation, fake_detector, image

IDLE = 10.0


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def table(*, wall_ns: Callable[[], int] = lambda: 1000, **options: object) -> tuple[Sequences, Clock]:
    clock = Clock()
    given = TritonOptions(**{"idle_seconds": IDLE, **options})  # type: ignore[arg-type]
    return Sequences(fake_detector()[0], given, clock=clock, wall_ns=wall_ns), clock


def one(sequences: Sequences, name: str, level: int | None = None, *, start: bool = False, end: bool = False) -> Answer:
    [answer] = sequences.step([Request(name, start, end, None if level is None else image(level))])
    return answer


def indices(answer: Answer) -> list[int]:
    assert answer.error is None
    return [result.frame_index for result in answer.results]


def test_a_sequence_gives_what_its_stream_gives() -> None:
    sequences, _ = table()
    stream = fake_detector()[0].open_stream(source_id="cam")
    for t in range(6):
        answer = one(sequences, "cam", t, start=t == 0)
        assert [r.to_dict() for r in answer.results] == [r.to_dict() for r in stream.push(image(t))]
    assert [r.to_dict() for r in one(sequences, "cam", end=True).results] == [r.to_dict() for r in stream.flush()]
    assert len(sequences) == sequences.nbytes == 0


def test_a_last_frame_may_come_with_the_end() -> None:
    sequences, _ = table()
    assert indices(one(sequences, "cam", 0, start=True, end=True)) == [0]
    assert len(sequences) == 0


def test_number_and_time_of_a_frame_are_the_clients() -> None:
    sequences, _ = table(dials={"look_ahead": 0})
    [answer] = sequences.step([Request("cam", True, False, image(0), 41, 2.5)])
    [result] = answer.results
    assert (result.frame_index, result.pts, result.source_id) == (41, 2.5, "cam")
    assert indices(one(sequences, "cam", 1)) == [1], "without a number, that of the session"
    [answer] = sequences.step([Request("cam", image=image(2), pixel_aspect=2.0)])
    assert answer.results[0].epoch == 1, "pixels of another shape begin an epoch, as in a local stream"
    [answer] = sequences.step([Request("cam", image=image(2), pixel_aspect=-1.0)])
    assert isinstance(answer.error, FrameError)


def test_start_begins_anew_though_nothing_ended() -> None:
    sequences, _ = table(dials={"look_ahead": 0})
    first, second, third = (one(sequences, "cam", t, start=t != 1) for t in range(3))
    assert first.session == second.session < third.session
    assert [r.pool_fill for a in (first, second, third) for r in a.results] == [1, 2, 1]
    assert len(sequences) == 1


def test_a_sequence_without_a_start_or_after_its_time_has_another_session() -> None:
    sequences, clock = table(dials={"look_ahead": 0})
    first = one(sequences, "cam", 0)
    clock.now = IDLE - 0.1
    assert one(sequences, "cam").session == first.session, "a request without a frame keeps it alive"
    clock.now += IDLE - 0.1
    assert one(sequences, "cam", 1).results[0].pool_fill == 2
    clock.now += IDLE
    later = one(sequences, "cam", 2)
    assert later.session > first.session
    assert later.results[0].pool_fill == 1


def test_sessions_of_a_server_that_was_started_again_are_others() -> None:
    before, after = table(wall_ns=lambda: 1000)[0], table(wall_ns=lambda: 2000)[0]
    assert one(before, "cam", 0).session == 1000
    assert one(before, "cam", 1, start=True).session == 1001, "even within one tick of the clock"
    assert one(after, "cam", 2).session == 2000


def test_one_more_than_may_be_open_is_refused_until_there_is_room() -> None:
    sequences, clock = table(max_sequences=2)
    assert all(a.error is None for a in sequences.step([Request(n, True, False, image(0)) for n in "ab"]))
    refused = one(sequences, "c", 0, start=True)
    assert isinstance(refused.error, AdmissionRefused)
    assert "sequence 'c' is one more than the 2 that may be open" in str(refused.error)
    assert isinstance(one(sequences, "c", 1).error, AdmissionRefused), "it is not let in by going on"
    assert one(sequences, "a", 1, start=True).error is None, "one that is open may begin anew"
    clock.now = IDLE
    assert one(sequences, "c", 2, start=True).error is None
    assert len(sequences) == 1


def test_bytes_are_bounded() -> None:
    sequences, _ = table()
    one(sequences, "a", 0)
    each = sequences.nbytes
    assert each >= fake_detector()[0].open_stream().nbytes
    tight, _ = table(byte_budget=2 * each)
    answers = tight.step([Request(n, True, False, image(0)) for n in "abc"])
    assert [type(a.error) for a in answers] == [type(None), type(None), AdmissionRefused]
    assert tight.nbytes == 2 * each
    with pytest.raises(AdmissionRefused, match=r"0\.00 of 0\.00 MiB are left"):
        table(byte_budget=1)


def test_wrong_frames_leave_a_sequence_and_the_others_of_its_batch_as_they_were() -> None:
    sequences, _ = table(dials={"look_ahead": 0})
    one(sequences, "a", 0, start=True)
    bad, good = sequences.step([Request("a", image=np.zeros((3, 3, 3), np.uint8)), Request("b", True, image=image(0))])
    assert isinstance(bad.error, FrameError)
    assert indices(good) == [0]
    assert one(sequences, "a", 1).results[0].pool_fill == 2


def test_a_stage_that_fails_ends_the_session_of_its_sequence_alone() -> None:
    detector, _, _ = fake_detector()
    assert isinstance(detector.runtime, HostRuntime)
    relation = FakeRelation()
    model = replace(detector.runtime.model, relation=relation)
    options = TritonOptions(dials={"look_ahead": 0})
    sequences = Sequences(Detector(HostRuntime(model)), options, clock=Clock(), wall_ns=lambda: 1)
    first = one(sequences, "cam", 0)
    relation.fail = True
    assert isinstance(one(sequences, "cam", 1).error, MemoryError)
    assert len(sequences) == 0
    relation.fail = False
    again = one(sequences, "cam", 2)
    assert again.session > first.session
    assert again.results[0].pool_fill == 1


def test_a_number_is_another_sequence_than_the_text_of_it() -> None:
    sequences, _ = table(dials={"look_ahead": 0})
    for t in range(2):
        answers = sequences.step([Request(name, t == 0, False, image(t)) for name in (5, "5")])
        assert [[(r.source_id, r.pool_fill) for r in a.results] for a in answers] == [[("5", t + 1)]] * 2
        assert answers[0].session != answers[1].session
    each = sequences.nbytes // 2
    assert len(sequences) == 2
    sequences.step([Request(5, end=True)])
    assert sequences.nbytes == each


def test_requests_of_one_sequence_in_a_batch_are_answered_in_turn() -> None:
    """Its end and another beginning, say: the others of the batch are as they would be."""
    sequences, _ = table(dials={"look_ahead": 0})
    one(sequences, "a", 0, start=True)
    batch = [Request("a", end=True), Request("b", True, image=image(0)), Request("a", True, image=image(1))]
    end, other, again = sequences.step(batch)
    assert indices(end) == []
    assert indices(other) == indices(again) == [0]
    assert again.session > end.session
    two = sequences.step([Request("a", image=image(t)) for t in (2, 3)])
    assert [indices(answer) for answer in two] == [[1], [2]]


def test_warm_up_leaves_nothing_and_dials_are_checked_at_once() -> None:
    sequences, _ = table(max_sequences=1)
    sequences.warm_up(3)
    sequences.warm_up(0)
    assert len(sequences) == 0
    with pytest.raises(ConfigError, match="windw"):
        table(dials={"windw": 3})
    with pytest.raises(ConfigError, match="the whole video"):
        table(dials={"link": "boxes", "link_delay": 2**31 - 1})
    with pytest.raises(ConfigError, match="idle_seconds"):
        TritonOptions(idle_seconds=0)
    assert TritonOptions.from_json(TritonOptions(threads=2).to_json()) == TritonOptions(threads=2)


EVENTS = st.lists(
    st.tuples(
        st.lists(st.sampled_from("abc"), min_size=1, max_size=3, unique=True),
        st.sampled_from(["push", "push", "push", "start", "end", "wait"]),
    ),
    max_size=40,
)


@settings(deadline=None, max_examples=60)
@given(EVENTS)
def test_no_result_is_of_a_window_that_its_session_does_not_have(events: list[tuple[list[str], str]]) -> None:
    """Any order of starts, frames, ends and pauses: each session gives what a stream of its own gives, to the bit."""
    most = 2
    sequences, clock = table(max_sequences=most)
    detector = fake_detector()[0]
    alone: dict[str, tuple[int, object]] = {}
    largest = 0
    for level, (names, event) in enumerate(events):
        if event == "wait":
            clock.now += 0.6 * IDLE
            continue
        requests = [Request(n, event == "start", event == "end", image(level % 200)) for n in names]
        for request, answer in zip(requests, sequences.step(requests), strict=True):
            name = request.sequence
            if answer.error is not None:
                assert isinstance(answer.error, AdmissionRefused)
                alone.pop(name, None)
                continue
            if request.start or name not in alone or alone[name][0] != answer.session:
                assert answer.session > largest
                largest = answer.session
                alone[name] = answer.session, detector.open_stream(source_id=name)
            stream = alone[name][1]
            wanted: list[Detections] = stream.push(request.image)  # type: ignore[attr-defined]
            if request.end:
                wanted += stream.flush()  # type: ignore[attr-defined]
                del alone[name]
            assert [r.to_dict() for r in answer.results] == [r.to_dict() for r in wanted]
        assert len(sequences) <= most
