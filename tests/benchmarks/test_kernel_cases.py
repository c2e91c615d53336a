"""The peers that the kernels of boxes are timed against compute the same."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from benchmarks.kernel.box_cases import detect, follow, suppress
from benchmarks.kernel.case import Case


@pytest.mark.parametrize("make", [detect, follow, suppress])
def test_the_module_beside_a_kernel_finds_what_it_finds(make: Callable[[], Case]) -> None:
    case = make()
    with torch.inference_mode():
        theirs = case.module(*case.inputs)
    found = [one.numpy() for one in (theirs if isinstance(theirs, tuple) else (theirs,))]
    assert case.compare(case.ours(), found) <= case.tolerance
