"""A short part of `make faults`: real servers fail, and every frame is accounted for."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.serve.faults import FAULTS, Fate, run
from rdn_engine.detector import Detector
from tests.cameras.processes import needs_rtsp

ENGINES = Path(__file__).parents[2] / "models" / "rdn_tiny" / "engines"


@pytest.fixture(scope="module")
def detector() -> Detector:
    return Detector.from_pretrained(ENGINES, threads=1)


def tried(detector: Detector, name: str) -> Fate:
    if FAULTS[name][1]:
        needs_rtsp()
    [fate] = run(detector, [name], seconds=1.0, streams=4, flap_seconds=1.0)
    assert fate.exact
    assert fate.frames_in == fate.frames_out + sum(fate.dropped.values())
    return fate


@pytest.mark.parametrize("name", ["killed", "hung"])
def test_a_server_that_goes_and_comes_is_another_session_and_epoch(detector: Detector, name: str) -> None:
    fate = tried(detector, name)
    assert (fate.sessions, fate.epochs) == (2, 2)
    assert fate.failures >= 1


@pytest.mark.parametrize("name", ["401", "404"])
def test_a_camera_that_refuses_gives_nothing(detector: Detector, name: str) -> None:
    fate = tried(detector, name)
    assert (fate.frames_in, fate.sessions, fate.epochs) == (0, 0, 0)
    assert fate.failures > 2
    assert name in fate.said


def test_a_password_of_signs(detector: Detector) -> None:
    assert tried(detector, "password").sessions == 1


def test_damaged_bytes(detector: Detector) -> None:
    fate = tried(detector, "jpeg")
    assert fate.damaged + fate.doubtful > 0


def test_lost_packets(detector: Detector) -> None:
    fate = tried(detector, "loss")
    assert fate.lost_packets > 0
    assert fate.doubtful > 0


def test_a_consumer_that_stops_reading(detector: Detector) -> None:
    fate = tried(detector, "reader")
    assert fate.dropped["source"] > 0
    assert fate.sessions == 1


def test_streams_that_flap_do_not_touch_the_others(detector: Detector) -> None:
    flapping, others = run(detector, ["flapping"], seconds=1.0, streams=4, flap_seconds=1.0)
    assert flapping.exact
    assert others.exact
    assert flapping.sessions > 1
    assert (others.sessions, others.failures, others.epochs) == (3, 0, 3)
