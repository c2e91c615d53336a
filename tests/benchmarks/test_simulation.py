"""Simulated fleets: cases whose outcome can be told without a simulation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.serve.simulation import BUSY, Fleet, asked, compared, main, simulate


def test_a_camera_alone_waits_for_nothing() -> None:
    found = simulate(Fleet(1, 10.0, 1, {1: 0.02}, transport=0.004), 100.0)
    assert found.frames == 1000 == pytest.approx(found.answered, abs=1), "the last may be under way"
    assert (found.dropped, found.epochs, found.batch) == (0, 0, 1)
    assert found.age_p50 == pytest.approx(0.024)
    assert found.age_p99 == pytest.approx(0.024)
    assert found.busy == pytest.approx(0.2, rel=0.01)


def test_overload_answers_what_an_instance_can_and_drops_the_rest() -> None:
    found = simulate(Fleet(8, 20.0, 1, {1: 0.02, 2: 0.03, 4: 0.05}), 100.0)
    assert found.answered == pytest.approx(100 * 4 / 0.05, rel=0.02), "full calls, one after the other"
    assert found.answered + found.dropped == pytest.approx(found.frames, abs=2 * 8), "or under way, or waiting"
    assert found.batch == pytest.approx(4, rel=0.01)
    assert found.busy == pytest.approx(1, rel=0.01)


def test_more_instances_share_the_cameras() -> None:
    found = simulate(Fleet(8, 20.0, 4, {1: 0.02}), 100.0)
    assert found.dropped == 0
    assert found.busy == pytest.approx(8 * 20 * 0.02 / 4, rel=0.01)


def test_calls_between_those_measured_lie_on_a_line_and_smaller_ones_on_the_first() -> None:
    fleet = Fleet(1, 1.0, 1, {2: 0.2, 4: 0.3})
    assert [fleet.seconds_of(n) for n in (1, 2, 3, 4)] == pytest.approx([0.1, 0.2, 0.25, 0.3])


def test_failures_begin_epochs_lose_nothing_but_time_and_leave_windows_to_be_filled() -> None:
    """About ten failures of each instance; a frame that was under way is answered after the restart."""
    fleet = Fleet(6, 5.0, 2, {1: 0.01}, window=4, days_between_failures=100 / 86400, restart_seconds=5.0)
    found = simulate(fleet, 1000.0, seed=3)
    assert found.epochs % 3 == 0, "all three cameras of an instance at once"
    assert 12 <= found.epochs <= 120
    assert found.partial == pytest.approx(4 * found.epochs, abs=4 * 6)
    assert found.dropped == pytest.approx(found.epochs * (5 * 5.0 - 2), rel=0.1), "of five seconds all but two frames"
    assert simulate(fleet, 1000.0, seed=3) == found


def measured(**row: Any) -> dict[str, Any]:
    """A camera of ten frames a second before calls of 20 ms, as scale_triton.json has it."""
    real = {"cameras": 1, "rate": 10.0, "load": 0.2, "seconds": 50.0, "warm": 5.0, "phases": [0.05], "answered": 450,
            "age_p50": 0.02, "age_p99": 0.04}  # fmt: skip
    return {
        "calls": {"call_seconds": {"1": 0.02}, "transport_seconds": 0.0}, "cameras": {"rows": [real | row]},
        "restarted": {"seconds_until_ready": 4.0}, "window": 8,
    }  # fmt: skip


def test_small_cases_are_compared_with_what_was_measured() -> None:
    [row] = compared(measured())
    assert row["answered"]["ratio"] == pytest.approx(1, rel=0.01)
    assert row["age_p50"]["ratio"] == pytest.approx(1)
    assert row["age_p99"]["ratio"] == pytest.approx(0.5)


def test_a_fleet_has_as_many_instances_as_its_share_of_time_wants() -> None:
    rows = asked(measured(), 30, [5.0], 20.0)
    assert [row["instances"] for row in rows] == [5, 4, 4], "30 x 5 x 0.02 s are 3 instances that never rest"
    assert [row["share"] for row in rows] == list(BUSY)
    for row in rows:
        assert row["busy"] == pytest.approx(3 / row["instances"], rel=0.05)
        assert row["answered"] <= row["frames"] == pytest.approx(30 * 5 * 18, rel=0.01)


def test_nothing_is_asked_where_the_small_case_is_not_met(tmp_path: Path) -> None:
    path = tmp_path / "measured.json"
    path.write_text(json.dumps(measured(age_p50=0.03)), encoding="utf-8")
    with pytest.raises(SystemExit, match="age_p50"):
        main(["--measured", str(path), "--cameras", "3", "--seconds", "5"])
    path.write_text(json.dumps(measured()), encoding="utf-8")
    output = tmp_path / "simulation.json"
    assert main(["--measured", str(path), "--cameras", "3", "--seconds", "5", "--output", str(output)]) == 0
    assert len(json.loads(output.read_text(encoding="utf-8"))["fleet"]) == 2 * len(BUSY)
