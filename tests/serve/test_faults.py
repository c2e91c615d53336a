"""A short part of `make faults`: real servers fail, and every frame is accounted for."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.serve.faults import FAULTS, Fate, run
from tests.cameras.processes import needs_rtsp

ENGINES = Path(__file__).parents[2] / "models" / "rdn_tiny" / "engines"


def tried(name: str) -> Fate:
    if FAULTS[name][1]:
        needs_rtsp()
    [fate] = run(ENGINES, [name], seconds=1.0, streams=4, flap_seconds=1.0)
    assert fate.exact
    assert fate.frames_in == fate.frames_out + sum(fate.dropped.values())
    return fate


@pytest.mark.parametrize("name", ["killed", "hung"])
def test_a_server_that_goes_and_comes_is_another_session_and_epoch(name: str) -> None:
    fate = tried(name)
    assert (fate.sessions, fate.epochs) == (2, 2)
    assert fate.failures >= 1


@pytest.mark.parametrize("name", ["401", "404"])
def test_a_camera_that_refuses_gives_nothing(name: str) -> None:
    fate = tried(name)
    assert (fate.frames_in, fate.sessions, fate.epochs) == (0, 0, 0)
    assert fate.failures > 2
    assert name in fate.said


def test_a_password_of_signs() -> None:
    assert tried("password").sessions == 1


def test_damaged_bytes() -> None:
    fate = tried("jpeg")
    assert fate.damaged + fate.doubtful > 0


def test_lost_packets() -> None:
    fate = tried("loss")
    assert fate.lost_packets > 0
    assert fate.doubtful > 0


def test_a_consumer_that_stops_reading() -> None:
    fate = tried("reader")
    assert fate.dropped["source"] > 0
    assert fate.sessions == 1


def test_streams_that_flap_do_not_touch_the_others() -> None:
    flapping, others = run(ENGINES, ["flapping"], seconds=1.0, streams=4, flap_seconds=1.0)
    assert flapping.exact
    assert others.exact
    assert flapping.sessions > 1
    assert (others.sessions, others.failures, others.epochs) == (3, 0, 3)


def test_a_full_disk_loses_no_line() -> None:
    fate = tried("disk")
    assert fate.dropped["source"] > 0, "the source's own policy, while nothing could be written"


def test_a_service_that_is_told_to_stop() -> None:
    assert tried("sigterm").frames_out > 80
