"""Ends of an output, of a stream and of a process: whoever waits is let go, and every line is counted."""

from __future__ import annotations

import os
import threading

import pytest

from rdn_engine.errors import RDNError
from rdn_engine.service.outputs import OutputCounts
from tests.service.outputs.doubles import AWAY, BROKEN, WAIT, FakeWriter, Listener, balanced, line, until, writing


@pytest.mark.parametrize("way", ["close", "forget"])
def test_whoever_waits_for_room_is_let_go(way: str) -> None:
    writer = FakeWriter()
    writer.broken["door"] = BROKEN
    with writing(writer, policy="wait", room=1, batch=1) as output:
        output.put("door", line(0))
        until(lambda: bool(writer.calls))
        output.put("door", line(1))
        blocked = threading.Thread(target=output.put, args=("door", line(2)))
        blocked.start()
        if way == "forget":
            output.forget("door", drop=True)
            blocked.join(WAIT)
            until(lambda: output.totals().waiting == 0)
            assert output.totals().dropped == {"removed": 3}
        else:
            assert not output.close(drain=False, deadline_s=WAIT)
            blocked.join(WAIT)
            assert output.totals().dropped == {"closed": 3}
        assert not blocked.is_alive()
        assert balanced(output.totals())


def test_close_without_draining_keeps_only_what_is_being_written() -> None:
    writer = FakeWriter()
    writer.hold()
    with writing(writer, batch=2) as output:
        output.put("door", line(0))
        writer.wait_inside()
        for number in range(1, 5):
            output.put("door", line(number))
        output.put("yard", line(0, "yard"))
        ended: list[bool] = []
        closing = threading.Thread(target=lambda: ended.append(output.close(drain=False, deadline_s=WAIT)))
        closing.start()
        until(lambda: output.counts()["yard"].dropped == {"closed": 1})
        assert output.counts()["door"] == OutputCounts(put=5, dropped={"closed": 4}, waiting=1)
        output.put("door", line(5))
        writer.release()
        closing.join(WAIT)
        assert ended == [False]
        assert output.counts()["door"] == OutputCounts(put=6, written=1, dropped={"closed": 5})


@pytest.mark.parametrize("drain", [True, False])
@pytest.mark.parametrize("stops", [True, False])
def test_close_ends_while_the_writer_hangs(drain: bool, stops: bool) -> None:
    writer = FakeWriter()
    writer.hold()
    writer.stops = stops
    with writing(writer) as output:
        for number in range(5):
            output.put("door", line(number))
            writer.wait_inside()
        assert not output.close(drain=drain, deadline_s=0.4)
        final = output.counts()["door"]
        assert final == OutputCounts(put=5, dropped={"closed": 5})
        writer.release()  # what comes of it now changes nothing that was told
        until(lambda: writer.closed)
        assert output.counts()["door"] == final


def test_close_while_nothing_can_be_written_ends_and_counts() -> None:
    writer, listener = FakeWriter(), Listener()
    writer.broken["door"] = AWAY
    with writing(writer, listener) as output:
        output.put("door", line(0))
        listener.wait("failing")
        assert not output.close(drain=True, deadline_s=0.3)
        assert output.counts()["door"] == OutputCounts(put=1, dropped={"closed": 1})
        output.put("door", line(1))
        output.put("late", line(0, "late"))
        assert output.counts()["late"] == OutputCounts(put=1, dropped={"closed": 1})
        until(lambda: writer.closed)


def test_stream_that_comes_again_has_an_account_of_its_own() -> None:
    writer = FakeWriter()
    writer.hold()
    with writing(writer, batch=1) as output:
        for number in range(3):
            output.put("door", line(number))
        writer.wait_inside()
        assert output.forget("door") == OutputCounts(put=3, waiting=3)
        output.put("door", line(3))
        assert output.counts()["door"] == OutputCounts(put=1, waiting=1)
        assert output.totals() == OutputCounts(put=4, waiting=4)
        writer.release()
        until(lambda: output.counts()["door"] == OutputCounts(put=1, written=1))
        assert output.totals() == OutputCounts(put=4, written=4)
        output.forget("door")
        until(lambda: len(writer.forgotten) == 2)
        assert output.counts() == {}
        assert output.totals() == OutputCounts(put=4, written=4)
        assert output.forget("never there") == OutputCounts()
    assert writer.indices("door") == [0, 1, 2, 3]


def test_trouble_of_a_stream_ends_with_it() -> None:
    writer, listener = FakeWriter(), Listener()
    writer.broken["door"] = BROKEN
    with writing(writer, listener, longest_delay=0.01) as output:
        output.put("door", line(0))
        listener.wait("failing")
        output.forget("door", drop=True)
        listener.wait("recovered")
        assert output.trouble is None
        assert output.totals() == OutputCounts(put=1, dropped={"removed": 1})


@pytest.mark.parametrize("way", ["close", "forget"])
def test_batch_that_fails_after_it_was_given_up_is_dropped(way: str) -> None:
    writer = FakeWriter()
    writer.hold()
    writer.broken["door"] = AWAY
    with writing(writer) as output:
        output.put("door", line(0))
        writer.wait_inside()
        if way == "forget":
            output.forget("door", drop=True)
            writer.release()
            until(lambda: output.totals() == OutputCounts(put=1, dropped={"removed": 1}))
        else:
            closing = threading.Thread(target=output.close, kwargs={"drain": False, "deadline_s": WAIT})
            closing.start()
            output.put("door", line(1))
            until(lambda: output.counts()["door"].dropped == {"closed": 1})
            writer.release()
            closing.join(WAIT)
            assert output.totals() == OutputCounts(put=2, dropped={"closed": 2})
        assert len(writer.calls) == 1


def test_forked_child_does_not_wait_for_a_thread_that_is_not_there() -> None:
    writer = FakeWriter()
    with writing(writer, policy="wait", room=1, batch=1) as output:
        child = os.fork()
        if child == 0:
            code = 1
            try:
                output.put("door", line(0))
            except RDNError:
                code = 0 if output.close(drain=True, deadline_s=WAIT) else 2
            os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        output.put("door", line(0))
        assert output.close(drain=True, deadline_s=WAIT)
