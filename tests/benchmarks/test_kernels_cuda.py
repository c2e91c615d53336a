"""What benchmarks/kernel/kernels_cuda.py times is right: every case at a small size, checked as before a timing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.kernel.kernels_cuda import CASES, SMALL, main
from tests.cuda_machines import Machine


@pytest.mark.parametrize("name", list(CASES))
def test_a_case_is_right_before_it_is_timed(machine: Machine, name: str) -> None:
    work = CASES[name](machine, SMALL, 0)
    work.run(0)
    work.check()
    assert work.nbytes > 0


def test_it_runs_on_the_emulator_and_compares_no_times(tmp_path: Path) -> None:
    path = tmp_path / "kernels.json"
    main(["--device", "cpu", "--quick", "--output", str(path)])
    results = json.loads(path.read_text())
    assert (results["device"], results["ceilings"]) == ("cpu", {})
    assert results["kernels"].keys() == CASES.keys()
    assert all(k.keys() == {"microseconds", "bytes", "operations"} for k in results["kernels"].values())
