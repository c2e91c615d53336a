"""What benchmarks/kernels_cuda.py times is right: every case at a small size, checked as before a timing."""

from __future__ import annotations

import pytest
from cuda_machines import Machine

from benchmarks.kernels_cuda import CASES, Sizes

SMALL = Sizes(1, (30, 44), (20, 33), (4, 6), 60, 12, 16, 3, 2, 32, 64, 32, 32)


@pytest.mark.parametrize("name", list(CASES))
def test_a_case_is_right_before_it_is_timed(machine: Machine, name: str) -> None:
    work = CASES[name](machine, SMALL, 0)
    work.run(0)
    work.check()
    assert work.nbytes > 0
