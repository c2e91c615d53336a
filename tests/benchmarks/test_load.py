"""Cameras with a fixed rate: what they deliver is accounted for, and drops where a core cannot do it."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.report.serve_tables import load_table
from benchmarks.serve.load import loop, play
from rdn_engine.detector import Detector

ENGINES = Path(__file__).parents[2] / "models" / "rdn_tiny" / "engines"


@pytest.fixture(scope="module")
def detector() -> Detector:
    return Detector.from_pretrained(ENGINES, threads=1)


def test_cameras_that_wait_lose_nothing(detector: Detector) -> None:
    ages, totals, seconds = play(detector, 1, 2, None, 24)
    assert totals == {"in": 48, "out": 48, "dropped": 0}
    assert len(ages) == 48 - 2 * 2 * detector.config.dials.window
    assert min(ages) > 0
    assert seconds > 0


def test_cameras_that_are_too_fast_drop(detector: Detector) -> None:
    _, totals, _ = play(detector, 0, 2, 1e-4, 60)
    assert totals["in"] == 120 == totals["out"] + totals["dropped"]
    assert totals["dropped"] > 0


def test_loop_gives_frames_of_slow_cameras_and_drops_those_of_fast_ones(detector: Detector) -> None:
    skipped = 2 * detector.config.dials.window
    slow = loop(detector, 0, 1, 0.1, skipped + 20)
    assert 1 <= len(slow) <= 20
    assert min(slow) > 0
    fast = loop(detector, 0, 2, 1e-4, 60)
    assert len(fast) < 2 * (60 - skipped)


def test_table_has_a_row_for_each_load(monkeypatch: pytest.MonkeyPatch) -> None:
    row = {
        "streams": 4, "look_ahead": 2, "load": 2.0, "frame_ms": 10.0, "results": 9, "in": 20, "out": 12, "dropped": 8,
        "age_ms": {"p50": 30.0, "p99": 41.0, "max": 50.0}, "p99_over_p50": 1.367, "p99_frame_times": 4.1,
        "loop": {"results": 9, "age_ms": {"p50": 29.0, "p99": 40.0, "max": 41.0}, "p99_over_p50": 1.379,
                 "p99_frame_times": 4.0},
    }  # fmt: skip
    result = {"rows": [row], "room": 2, "machine": {"cpu": "one"}, "commit": "c" * 40, "command": "load.py"}
    monkeypatch.setattr("benchmarks.report.serve_tables.load", lambda name: result)
    assert "| 4 | 2 | 2.00 | 10.0 | 20 | 12 | 8 | 30.0 | 41.0 | 1.37 | 1.38 | 4.10 | 4.00 |" in load_table()
