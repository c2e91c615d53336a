"""What goes on from frame to frame is two events."""

from __future__ import annotations

from rdn_engine.serve.events import Events
from rdn_engine.serve.troubles import CALM, Troubles
from tests.serve.doubles import WAIT, Log


def test_first_and_last_are_told() -> None:
    log = Log()
    events = Events(log)
    troubles = Troubles("a", events)
    error = OSError("full")
    for _ in range(5):
        troubles.bad("sink_failing", "the sink raised", error)
        for _ in range(CALM - 1):
            troubles.good("sink_failing", "refused")
    assert troubles.good("sink_failing") is None
    troubles.bad("sink_failing", "again")
    assert events.close(WAIT)
    assert [(e.kind, e.message) for e in log.events] == [
        ("sink_failing", "the sink raised"),
        ("recovered", "over: sink_failing"),
        ("sink_failing", "again"),
    ]
    assert log.events[0].error is error
    assert log.events[0].stream == "a"


def test_a_handler_that_raises_or_sleeps_loses_events_and_nothing_else() -> None:
    log = Log()

    def handler(event: object) -> None:
        log(event)  # type: ignore[arg-type]
        raise ValueError("no")

    events = Events(handler)
    events.say("added", "a", "one")
    events.say("ended", "a", "two")
    assert events.close(WAIT)
    assert [e.message for e in log.events] == ["one", "two"]
    assert events.lost == 2
