"""Tables of Triton and of capacity: what they say follows from what was measured, and without it they say so."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.report import store, triton_tables
from benchmarks.report.store import Unmeasured
from benchmarks.serve.triton_checks import rows

ABOUT = {
    "date": "2026-01-01", "commit": "c" * 40, "command": "one.py", "versions": {"numpy": "2"},
    "machine": {"cpu": "one", "cores": 2, "kernels": "avx2"},
}  # fmt: skip
COST = {"streams": 1, "rounds": [1.0, 1.1], "ms_a_frame": {"local": {"p50": 10.0}, "triton": {"p50": 10.5}},
        "triton_over_local": {"p50": 1.05, "min": 1.0, "max": 1.1}}  # fmt: skip
SCALE = {
    "rows": [{"what": "crowd", "wanted": "16 refused", "got": "15 refused", "held": False}],
    "overhead": COST | {"streams": 8}, "overhead_one": COST, **ABOUT,
}  # fmt: skip
R101 = {"sweeps": {"T": {"points": {"18": {"ms": {"p50": 1000.0}}}}}} | ABOUT
RESULTS: dict[str, Any] = {
    "scale_triton.json": SCALE,
    "decode.json": {"size": [1080, 1920], "mbit_a_second": 8.0, "ms": {"p50": 4.0}, **ABOUT},
    "latency_r101_int8.json": R101,
    "latency_r101_float32.json": R101,
    "simulation.json": {
        "small": [{"cameras": 8, "rate": 5.0, "load": 0.6,
                   "answered": {"measured": 100, "simulated": 99, "ratio": 0.99},
                   "age_p50": {"measured": 0.02, "simulated": 0.021, "ratio": 1.05},
                   "age_p99": {"measured": 0.04, "simulated": 0.03, "ratio": 0.75}}],
        "fleet": [{"cameras": 1000, "rate": 5.0, "instances": 80, "busy": 0.6, "batch": 1.2, "dropped": 5,
                   "frames": 1000, "age_p50": 0.012, "age_p99": 0.05, "epochs": 12, "partial": 2, "answered": 995}],
        **ABOUT,
    },
}  # fmt: skip


def test_tables_say_what_was_measured_and_what_follows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton_tables, "load", RESULTS.__getitem__)
    triton = triton_tables.BLOCKS["triton"]()
    assert "| triton | crowd | 16 refused | 15 refused | FAILED |" in triton
    assert "| 8 streams | 10.00 | 10.50 | 1.050 | 1.000 to 1.100 | 2 |" in triton
    small = triton_tables.BLOCKS["capacity-small"]()
    assert "| age p50, ms | 20.0 | 21.0 | 1.050 |" in small
    assert (
        "| 1,000 x 5/s | 80 | 0.60 | 1.2 | 0.50% | 12 | 50 | 12 | 0.201% |"
        in triton_tables.BLOCKS["capacity-cameras"]()
    )
    assert "| 1,000 | 1,000 x 5/s | 6,667 |" in triton_tables.BLOCKS["capacity-larger"]()
    # 1 PB at 4 Mbit/s is 2e9 s, 5e10 frames; 4 ms each of decoding are 6.3 core-years; 1 s of every fifth, 317.
    assert "| 5 | 1e+10 | 6.3 | 317 | 11.8 |" in triton_tables.BLOCKS["capacity-archive"]()


def test_what_was_not_measured_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(name: str) -> store.Results:
        raise Unmeasured(name)

    monkeypatch.setattr(triton_tables, "load", nothing)
    for block in triton_tables.BLOCKS.values():
        assert block().startswith("Not measured yet. Wants `benchmarks/results/")


FOUND = {
    "equal": {"streams": 32, "frames": 200, "equal_to_the_bit": 6398, "largest_difference": 2e-6, "frames_a_call": 7.9},
    "refused": {"streams": 80, "most": 64, "refused": 16, "let_in_later": 16, "seconds_to_refuse": 0.5},
    "restarted": {"streams": 16, "frames": 120, "changed_epoch": 16, "wrong": 0, "lost": 128, "seconds_until_ready": 4},
    "abandoned": {"streams": 2000, "mib": [1, 260], "growth_in_second_half_mib": 0.4},
}  # fmt: skip


@pytest.mark.parametrize(
    ("check", "change"),
    [
        ("equal", {"largest_difference": 0.1}),
        ("equal", {"frames_a_call": 1.0}),
        ("refused", {"refused": 15}),
        ("refused", {"let_in_later": 15}),
        ("restarted", {"changed_epoch": 15}),
        ("restarted", {"wrong": 1}),
        ("abandoned", {"growth_in_second_half_mib": 30}),
    ],
)
def test_a_check_that_does_not_hold_is_said_to(check: str, change: dict[str, Any]) -> None:
    assert all(row["held"] for row in rows(FOUND))
    broken = rows({**FOUND, check: {**FOUND[check], **change}})
    assert [row["held"] for row in broken].count(False) == 1
