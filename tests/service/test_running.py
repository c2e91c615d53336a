"""Dials of a stream of a service that come into effect, or are refused, after nobody waits for them any more."""

from __future__ import annotations

from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import pytest

from rdn_engine.config import Dials
from rdn_engine.errors import AdmissionRefused, StreamClosed
from rdn_engine.service.config import stream_settings
from rdn_engine.service.running import RunningStream

DIALS = Dials(window=2, link_delay=3)


class Asked:
    """Stands for the scheduler's stream: its dials are decided by the test."""

    def __init__(self) -> None:
        self.futures: list[Future[None]] = []

    def ask_dials(self, dials: Dials) -> Future[None]:
        self.futures.append(Future())
        return self.futures[-1]


@pytest.fixture
def asked() -> Asked:
    return Asked()


@pytest.fixture
def running(asked: Asked) -> RunningStream:
    settings = stream_settings("gate", {"source": "rtsp://camera", "dials": {"link_delay": 3}})
    stream = RunningStream("gate", settings, DIALS, DIALS, 0, {}, live=True)
    stream.stream = SimpleNamespace(ask_dials=asked.ask_dials)  # type: ignore[assignment]
    return stream


def started_again_with(running: RunningStream) -> dict[str, Any]:
    return running.again().dials


def test_what_is_refused_late_is_taken_back(running: RunningStream, asked: Asked) -> None:
    assert not running.turn({"link_delay": 900}, 0)
    assert started_again_with(running) == {"link_delay": 900}, "not refused yet"
    asked.futures[0].set_exception(AdmissionRefused("no room", wanted=9, left=1))
    assert started_again_with(running) == {"link_delay": 3}
    assert running.dials == DIALS


def test_what_comes_into_effect_late_stays(running: RunningStream, asked: Asked) -> None:
    assert not running.turn({"link_delay": 9}, 0)
    asked.futures[0].set_result(None)
    assert started_again_with(running) == {"link_delay": 9}


def test_later_dials_stand_on_earlier_ones(running: RunningStream, asked: Asked) -> None:
    assert not running.turn({"link_delay": 900}, 0)
    assert not running.turn({"window": 1}, 0)
    for future in asked.futures:
        future.set_exception(AdmissionRefused("no room", wanted=9, left=1))
    assert started_again_with(running) == {"link_delay": 3}
    assert not running.turn({"link_delay": 900}, 0)
    assert not running.turn({"link_delay": 5}, 0)
    asked.futures[2].set_exception(AdmissionRefused("no room", wanted=9, left=1))
    asked.futures[3].set_result(None)
    assert started_again_with(running) == {"link_delay": 5}


def test_a_stream_that_ended_first_is_started_again_with_them(running: RunningStream, asked: Asked) -> None:
    assert not running.turn({"link_delay": 5}, 0)
    asked.futures[0].set_exception(StreamClosed("gate has ended"))
    assert started_again_with(running)["link_delay"] == 5


def test_what_is_refused_at_once_changes_nothing(running: RunningStream, asked: Asked) -> None:
    def refuse(dials: Dials) -> Future[None]:
        refused: Future[None] = Future()
        refused.set_exception(AdmissionRefused("no room", wanted=9, left=1))
        return refused

    running.stream = SimpleNamespace(ask_dials=refuse)  # type: ignore[assignment]
    with pytest.raises(AdmissionRefused):
        running.turn({"link_delay": 900}, 1)
    assert started_again_with(running) == {"link_delay": 3}
