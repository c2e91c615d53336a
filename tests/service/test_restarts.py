"""When streams that failed are started again."""

from __future__ import annotations

from rdn_engine.service.config import LONGEST_RESTART, StreamSettings
from rdn_engine.service.restarts import Restarts

SETTINGS = StreamSettings("clip.mp4", restart_seconds=4.0)


def test_delay_doubles_up_to_its_limit() -> None:
    delays = []
    for failures in (1, 2, 3, 50, 5000):
        restarts = Restarts()
        assert restarts.later("a", SETTINGS, failures, now=100.0)
        delays.append(restarts.seconds(100.0)["a"])
    assert delays == [4.0, 8.0, 16.0, LONGEST_RESTART, LONGEST_RESTART]


def test_each_is_due_once_and_in_time() -> None:
    restarts = Restarts()
    restarts.later("a", SETTINGS, 1, now=0.0)
    restarts.later("b", SETTINGS, 2, now=0.0)
    assert restarts.due(3.9) == []
    assert restarts.due(4.0) == [("a", SETTINGS, 1)]
    assert restarts.names() == {"b"}
    assert restarts.seconds(10.0) == {"b": 0.0}
    assert restarts.due(10.0) == [("b", SETTINGS, 2)]
    assert restarts.due(10.0) == []


def test_cancelled_and_unwanted_ones_are_not_started() -> None:
    restarts = Restarts()
    restarts.later("a", SETTINGS, 1, now=0.0)
    assert restarts.cancel("a")
    assert not restarts.cancel("a")
    assert not restarts.later("b", StreamSettings("clip.mp4", restart_seconds=None), 1, now=0.0)
    assert restarts.due(1e9) == []
