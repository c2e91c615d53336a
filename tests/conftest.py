"""The machines that CUDA tests run on; and no skips where a GPU must be there."""

from __future__ import annotations

import os
from collections.abc import Generator
from typing import Any

import pytest

from tests import cuda_machines, emulated_gpu

REQUIRE_CUDA = os.environ.get("RDN_REQUIRE_CUDA") == "1"


@pytest.fixture(params=cuda_machines.NAMES)
def machine(request: pytest.FixtureRequest) -> cuda_machines.Machine:
    """Every test with this fixture runs on the emulator in both orders, and on the GPU."""
    if request.param == "gpu":
        missing = cuda_machines.gpu_missing()
        if missing is not None:
            pytest.skip(f"needs a GPU: {missing}")
        return cuda_machines.Gpu()
    return cuda_machines.Emulated(descending=request.param == "emulated_descending")


@pytest.fixture(params=["emulated", "gpu"])
def gpu(request: pytest.FixtureRequest) -> Any:
    """What streams on a device run on: the emulator, and a GPU."""
    if request.param == "emulated":
        return emulated_gpu.EmulatedGpu()
    missing = cuda_machines.gpu_missing()
    if missing is not None:
        pytest.skip(f"needs a GPU: {missing}")
    from rdn_engine.device.cupy import CupyGpu

    return CupyGpu()


@pytest.fixture(params=["alone", "others first"])
def late(request: pytest.FixtureRequest) -> emulated_gpu.EmulatedGpu:
    """Work runs when it is waited for, with as little or as much of what else there is as may be."""
    return emulated_gpu.EmulatedGpu(others_first=request.param == "others first")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if REQUIRE_CUDA and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"RDN_REQUIRE_CUDA=1 allows no skip, but {item.nodeid} was skipped: {report.longrepr}"
    return report
