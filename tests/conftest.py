"""The machines that CUDA tests run on; and no skips where a GPU must be there."""

from __future__ import annotations

import os
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import rdn_engine.backends.onnxruntime  # noqa: F401  before a test imports ONNX Runtime, which would write at home
from tests import cuda_machines, emulated_gpu

if TYPE_CHECKING:
    from tests.parity_truth import Truth
    from training.model.rdn import RDN

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


# Here, because float64 takes half a minute and two files compare with it; imported there, because torch is large.
@pytest.fixture(scope="session")
def parity_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.parity_truth import write_checkpoint

    return write_checkpoint(tmp_path_factory.mktemp("parity") / "rdn_parity.pth")


@pytest.fixture(scope="session")
def parity_model(parity_checkpoint: Path) -> RDN:
    """In float32; not to be changed."""
    from tests.parity_truth import load_model

    return load_model(parity_checkpoint)


@pytest.fixture(scope="session")
def truth(parity_model: RDN) -> Truth:
    """Float64 of the parity data and what may differ from it."""
    from tests.parity_truth import expected_results, find_truth

    return find_truth(parity_model, expected_results())


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.get_closest_marker("long") is None)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if REQUIRE_CUDA and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"RDN_REQUIRE_CUDA=1 allows no skip, but {item.nodeid} was skipped: {report.longrepr}"
    return report
