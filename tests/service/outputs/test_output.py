"""Lines between streams and a writer: each is written, waits, or is counted as dropped."""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rdn_engine.service.outputs import Output, OutputCounts, OutputOptions
from rdn_engine.service.outputs.writer import Attempt
from tests.service.outputs.doubles import (
    AWAY,
    BROKEN,
    WAIT,
    FakeWriter,
    Listener,
    balanced,
    indices,
    line,
    until,
    writing,
)


def test_lines_arrive_whole_in_order_and_once() -> None:
    writer = FakeWriter()
    with writing(writer, room=1000, batch=7) as output:
        for number in range(100):
            output.put("door", line(number, "door", ("cat", 0.5)))
        assert output.close(drain=True, deadline_s=WAIT)
        assert output.counts() == {"door": OutputCounts(put=100, written=100)}
    assert [json.loads(data) for _, data in writer.taken] == [line(n, "door", ("cat", 0.5)) for n in range(100)]
    assert max(len(lines) for _, lines in writer.calls) <= 7
    assert writer.closed


@pytest.mark.parametrize(("policy", "kept"), [("drop_oldest", [0, 7, 8, 9]), ("drop_latest", [0, 1, 2, 3])])
def test_without_room_the_policy_decides_behind_the_batch(policy: Any, kept: list[int]) -> None:
    writer = FakeWriter()
    writer.hold()
    with writing(writer, policy=policy, room=3, batch=1) as output:
        output.put("door", line(0))
        writer.wait_inside()
        for number in range(1, 10):
            output.put("door", line(number))
        assert output.counts() == {"door": OutputCounts(put=10, dropped={"full": 6}, waiting=4)}
        writer.release()
        assert output.close(drain=True, deadline_s=WAIT)
        assert output.counts() == {"door": OutputCounts(put=10, written=4, dropped={"full": 6})}
    assert writer.indices("door") == kept


def test_waiting_for_room_holds_one_stream_alone() -> None:
    writer = FakeWriter()
    writer.broken["door"] = BROKEN
    with writing(writer, policy="wait", room=2, batch=1) as output:
        blocked = threading.Thread(target=lambda: [output.put("door", line(n)) for n in range(10)])
        blocked.start()
        until(lambda: output.counts().get("door", OutputCounts()).waiting == 3)
        for number in range(50):
            output.put("yard", line(number, "yard"))
        until(lambda: output.counts()["yard"].written == 50)
        assert blocked.is_alive()
        assert output.counts()["door"] == OutputCounts(put=3, waiting=3)
        del writer.broken["door"]
        blocked.join(WAIT)
        assert output.close(drain=True, deadline_s=WAIT)
        assert output.counts()["door"] == OutputCounts(put=10, written=10)
    assert writer.indices("door") == list(range(10))


def test_streams_are_served_in_turn() -> None:
    writer = FakeWriter()
    writer.hold()
    with writing(writer, room=1000, batch=10) as output:
        for number in range(500):
            output.put("door", line(number))
        writer.wait_inside()
        output.put("yard", line(0, "yard"))
        writer.release()
        assert output.close(drain=True, deadline_s=WAIT)
    # One batch of the stream with many lines was being written when the other's line came.
    assert [name for name, _ in writer.calls].index("yard") == 1


def test_batch_that_failed_comes_again_as_it_was() -> None:
    writer = FakeWriter()
    writer.answers.extend([AWAY, BROKEN, Attempt(2, message="full")])
    writer.hold()
    with writing(writer, batch=5) as output:
        output.put("door", line(0))
        writer.wait_inside()
        for number in range(1, 20):
            output.put("door", line(number))
        writer.release()
        assert output.close(drain=True, deadline_s=WAIT)
    assert [indices(lines) for _, lines in writer.calls] == [
        [0], [0], [0], [1, 2, 3, 4, 5], [6, 7, 8, 9, 10], [11, 12, 13, 14, 15], [16, 17, 18, 19]
    ]  # fmt: skip
    assert writer.calls[0][1][0] is writer.calls[1][1][0]


def test_first_lines_of_a_batch_may_be_over_before_the_rest() -> None:
    writer = FakeWriter()
    writer.answers.extend([Attempt(1), Attempt(2, message="full"), Attempt(1, 1, "never")])
    writer.hold()
    with writing(writer, batch=4) as output:
        for number in range(5):
            output.put("door", line(number))
            writer.wait_inside()
        writer.release()
        assert output.close(drain=True, deadline_s=WAIT)
        assert output.counts()["door"] == OutputCounts(put=5, written=4, dropped={"refused": 1})
    assert [indices(lines) for _, lines in writer.calls] == [[0], [1, 2, 3, 4], [3, 4], [4]]


def test_streams_of_one_name_are_written_one_after_another() -> None:
    writer = FakeWriter()
    writer.answers.append(ValueError("why"))
    writer.hold()
    with writing(writer, batch=1) as output:
        for number in range(3):  # each ends with its line on the way
            output.put("door", line(number))
            writer.wait_inside()
            output.forget("door", drop=False)
        writer.release()
        assert output.close(drain=True, deadline_s=WAIT)
    assert writer.indices("door") == [0, 1, 2]


def test_stream_that_cannot_be_written_leaves_the_others_alone() -> None:
    writer, listener = FakeWriter(), Listener()
    writer.broken["door"] = BROKEN
    with writing(writer, listener, batch=1) as output:
        output.put("door", line(0))
        assert listener.wait("failing") == "output 'out', stream 'door': this one cannot be written"
        for number in range(20):
            output.put("yard", line(number, "yard"))
        until(lambda: output.counts()["yard"].written == 20)
        assert output.trouble == "output 'out', stream 'door': this one cannot be written"
        del writer.broken["door"]
        listener.wait("recovered")
        assert output.trouble is None
    assert listener.kinds == ["failing", "recovered"]


def test_receiver_that_is_away_is_not_asked_for_each_stream() -> None:
    writer, listener = FakeWriter(), Listener()
    writer.answers.append(AWAY)
    with writing(writer, listener, first_delay=3600, longest_delay=3600) as output:
        output.put("door", line(0))
        listener.wait("failing")
        output.put("yard", line(0, "yard"))
        assert output.counts()["yard"].waiting == 1
        # Who closes does not wait for the next try.
        assert output.close(drain=True, deadline_s=WAIT)
    assert [name for name, _ in writer.calls] == ["door", "door", "yard"]
    assert listener.kinds == ["failing", "recovered"]


def test_trouble_is_told_once_and_its_end_once() -> None:
    writer, listener = FakeWriter(), Listener()
    writer.answers.extend([AWAY] * 5 + [BROKEN] * 5 + [Attempt(1, 1, "never")])
    with writing(writer, listener) as output:
        output.put("door", line(0))
        until(lambda: output.counts()["door"].dropped == {"refused": 1})
        assert output.trouble == "output 'out', stream 'door': never"
        output.put("door", line(1))
        listener.wait("recovered")
    assert listener.kinds == ["failing", "recovered"]
    assert len(writer.calls) == 12


def test_line_that_is_never_taken_is_trouble_until_the_next_one() -> None:
    writer, listener = FakeWriter(), Listener()
    writer.answers.append(Attempt(1, 1, "never"))
    with writing(writer, listener) as output:
        output.put("door", line(0))
        assert listener.wait("refused") == "output 'out', stream 'door': never"
        output.put("door", line(1))
        listener.wait("recovered")
        assert output.counts()["door"] == OutputCounts(put=2, written=1, dropped={"refused": 1})


def test_listener_that_raises_ends_nothing() -> None:
    writer = FakeWriter()
    writer.answers.append(AWAY)

    def fail(kind: str, message: str) -> None:
        raise RuntimeError("the listener's own")

    output = Output("out", writer, OutputOptions(first_delay=0.01), fail)
    output.put("door", line(0))
    assert output.close(drain=True, deadline_s=WAIT)
    assert output.counts()["door"].written == 1


def test_writer_that_raises_is_tried_again_and_not_quoted() -> None:
    writer, listener = FakeWriter(), Listener()
    writer.answers.append(ValueError("http://user:hush@host/"))
    with writing(writer, listener) as output:
        output.put("door", line(0))
        message = listener.wait("failing")
        assert "hush" not in message
        assert "ValueError at " in message
        listener.wait("recovered")
        assert output.counts()["door"].written == 1


def test_what_the_filter_leaves_out_is_counted_apart() -> None:
    writer = FakeWriter()
    options = {"min_confidence": 0.5, "class_names": ("cat", "dog"), "only_with_detections": True}
    with writing(writer, **options) as output:
        given_line = line(0, "door", ("cat", 0.9), ("cat", 0.4), ("bird", 0.9), ("dog", 0.5))
        output.put("door", given_line)
        output.put("door", line(1, "door", ("bird", 0.9), ("dog", 0.49)))
        output.put("door", line(2))
        assert output.close(drain=True, deadline_s=WAIT)
        assert output.counts()["door"] == OutputCounts(put=1, written=1, filtered=2)
        assert output.totals() == OutputCounts(put=1, written=1, filtered=2)
    assert [json.loads(data) for _, data in writer.taken] == [line(0, "door", ("cat", 0.9), ("dog", 0.5))]
    assert len(given_line["detections"]) == 4


STREAMS = ("a", "b", "c")
STEP = st.one_of(
    st.tuples(st.just("put"), st.sampled_from(STREAMS)),
    st.tuples(st.just("answer"), st.builds(
        lambda done, refused, everywhere: Attempt(done, min(done, refused), "why", everywhere),
        st.integers(0, 3), st.integers(0, 3), st.booleans(),
    )),
    st.tuples(st.just("raise"), st.just(ValueError("why"))),
    st.tuples(st.just("go on"), st.integers(1, 4)),
    st.tuples(st.just("forget"), st.tuples(st.sampled_from(STREAMS), st.booleans())),
)  # fmt: skip


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    steps=st.lists(STEP, max_size=40), policy=st.sampled_from(["drop_oldest", "drop_latest"]),
    room=st.integers(1, 4), batch=st.integers(1, 3), drain=st.booleans(),
)  # fmt: skip
def test_account_adds_up_whatever_happens(
    steps: list[tuple[str, Any]], policy: Any, room: int, batch: int, drain: bool
) -> None:
    writer = FakeWriter()
    writer.hold()
    put = 0
    with writing(writer, policy=policy, room=room, batch=batch) as output:
        for kind, value in steps:
            if kind == "put":
                output.put(value, line(put, value))
                put += 1
            elif kind in ("answer", "raise"):
                writer.answers.append(value)
            elif kind == "go on":
                writer.release(value)
            else:
                output.forget(value[0], drop=value[1])
            counts, totals = output.counts(), output.totals()
            assert all(balanced(one) for one in counts.values()), counts
            assert all(one.waiting <= room + batch for one in counts.values())
            assert totals.put == put
            assert balanced(totals)
        writer.release()
        whole = output.close(drain=drain, deadline_s=WAIT)
        totals = output.totals()
        assert (totals.put, totals.waiting) == (put, 0)
        assert balanced(totals)
        assert whole == ("closed" not in totals.dropped)
        assert not (drain and "closed" in totals.dropped)
        assert totals.written == len(writer.taken) == len(set(writer.taken))
    for stream in STREAMS:
        assert writer.indices(stream) == sorted(writer.indices(stream))


def test_account_adds_up_at_every_moment_under_load() -> None:
    writer = FakeWriter()
    writer.answers.extend([AWAY, Attempt(1, 1, "never"), BROKEN, Attempt(2, message="full")] * 10)
    names = [f"s{index}" for index in range(6)]
    with writing(writer, policy="wait", room=3, batch=4, first_delay=0.01, longest_delay=0.01) as output:
        threads = [
            threading.Thread(target=lambda name=name: [output.put(name, line(n, name)) for n in range(100)])
            for name in names
        ]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            assert all(balanced(one) for one in output.counts().values())
            assert balanced(output.totals())
        assert output.close(drain=True, deadline_s=WAIT)
        totals = output.totals()
        assert totals.put == 600
        assert totals.written == len(set(writer.taken)) == len(writer.taken)
        assert totals.written + totals.dropped["refused"] == 600
    for name in names:
        assert writer.indices(name) == sorted(writer.indices(name))
