"""What stands between the runtime and cupy and cuBLAS, over doubles of both: what can be shown without a GPU."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from rdn_engine import BackendUnavailable
from rdn_engine.detector import Detector
from rdn_engine.device import cublas
from rdn_engine.device.batch import DeviceStreamBatch
from rdn_engine.device.cublas import Cublas
from rdn_engine.device.cupy import CupyGpu
from rdn_engine.device.encoder import DeviceGraphs
from rdn_engine.device.model import DeviceModel
from rdn_engine.device.relation import DevicePrecision, DeviceRelation
from rdn_engine.device.runtime import DeviceRuntime
from rdn_engine.device.stream import DeviceStream
from rdn_engine.kernels.cuda.boxes import Kernels
from rdn_engine.kernels.cuda.view import view_of
from tests.device_models import KINDS, Model, assert_same, frames, small_config, small_model
from tests.emulated_cupy import EmulatedCupy, Library
from tests.emulated_gpu import EmulatedGpu, EmulatedGraph


def fake_cupy(count: Any) -> ModuleType:
    made = ModuleType("cupy")
    made.cuda = SimpleNamespace(runtime=SimpleNamespace(getDeviceCount=count))  # type: ignore[attr-defined]
    return made


def broken() -> int:
    raise RuntimeError("driver version is insufficient")


@pytest.mark.parametrize(
    ("cupy", "message"),
    [
        (None, r"device 'cuda' wants cupy .*pip install cupy-cuda13x"),
        (fake_cupy(broken), "device 'cuda' finds no CUDA device: driver version is insufficient"),
        (fake_cupy(lambda: 0), "device 'cuda' finds no CUDA device; wanted one or more"),
    ],
)
def test_what_is_missing_is_said(monkeypatch: pytest.MonkeyPatch, cupy: Any, message: str) -> None:
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    with pytest.raises(BackendUnavailable, match=message):
        CupyGpu()


@pytest.fixture
def emulated(monkeypatch: pytest.MonkeyPatch) -> EmulatedGpu:
    """Where `import cupy` and cuBLAS lead to the emulator."""
    gpu = EmulatedGpu()
    cupy: Any = EmulatedCupy(gpu)
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    monkeypatch.setattr(cublas, "load", lambda: Library(gpu))
    return gpu


def detector_of(
    model: Model, emulated: EmulatedGpu, precision: DevicePrecision = "float32"
) -> Detector[DeviceStream, DeviceStreamBatch]:
    gpu = CupyGpu(Kernels(emulated.kernels.module, view_of))
    graphs = DeviceGraphs(*(EmulatedGraph(graph, emulated, KINDS) for graph in (model.backbone, model.roi_head)))
    relation = DeviceRelation(gpu, model.config, model.weights, precision)
    return Detector(DeviceRuntime(DeviceModel(gpu, model.config, graphs, relation), 1))


def test_a_stream_on_cupy_gives_what_the_cpu_gives(emulated: EmulatedGpu) -> None:
    model = small_model(small_config())
    detector = detector_of(model, emulated)
    there, here = detector.open_stream(), model.on_cpu().open_stream()
    for frame in frames(5):
        for got, wanted in zip(there.push(frame), here.push(frame), strict=True):
            assert_same(got, wanted)
    for got, wanted in zip(there.flush(), here.flush(), strict=True):
        assert_same(got, wanted)
    assert sum(queue.captures for queue in emulated.queues.values()) == 1
    assert {"push", "backbone", "relation"} <= set(sys.modules["cupy"].ranges)


def test_a_batch_and_results_on_cupy(emulated: EmulatedGpu) -> None:
    model = small_model(small_config())
    batch = detector_of(model, emulated, "float16").open_streams(["a", "b"])
    reader = emulated.queue()
    for now in zip(frames(3), frames(3, seed=1), strict=True):
        for ready in batch.push_device(now):
            for result in ready:
                copy = np.empty((7, 4), np.float32)
                with result.on(reader.ptr) as found:
                    reader.copy(copy, found.xyxy)
                reader.wait()
                host = result.cpu()
                np.testing.assert_array_equal(copy[: len(host)], host.xyxy)
                assert len(host) > 0


class OnDevice:
    """A tensor that knows DLPack only."""

    def __init__(self, array: np.ndarray) -> None:
        self.on_host = array

    def __dlpack__(self, **_: Any) -> Any:
        raise AssertionError("cupy asks for it")

    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, 0


def test_tensors_enter_by_dlpack(emulated: EmulatedGpu) -> None:
    model, (frame,) = small_model(small_config()), frames(1)
    there, here = detector_of(model, emulated).open_stream(), model.on_cpu().open_stream()
    there.push_device(OnDevice(frame)), here.push(frame)
    [got], [wanted] = there.flush(), here.flush()
    assert_same(got, wanted)


@pytest.mark.parametrize("kinds", [(np.float32, np.float32), (np.float16, np.float16), (np.float16, np.float32)])
def test_products_are_those_of_rows_with_rows(monkeypatch: pytest.MonkeyPatch, kinds: tuple[Any, Any]) -> None:
    kind, out_kind = kinds
    library, rng = Library(), np.random.default_rng(0)
    monkeypatch.setattr(cublas, "load", lambda: library)
    blas = Cublas(1, 2, 3)
    assert library.calls == ["create", "stream", "workspace"]
    x, weight = rng.standard_normal((5, 8)).astype(kind), rng.standard_normal((3, 8)).astype(kind)
    out = np.empty((5, 3), out_kind)
    blas.product(x.ctypes.data, weight.ctypes.data, out.ctypes.data, (5, 3, 8), kind, out_kind)
    np.testing.assert_allclose(out, x.astype(np.float32) @ weight.astype(np.float32).T, rtol=5e-3, atol=5e-3)
    del blas
    assert library.calls[-1] == "destroy"


def test_what_cublas_says_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cublas, "load", lambda: Library(status=1))
    with pytest.raises(RuntimeError, match="cuBLAS: the library was not initialized"):
        Cublas(1, 2, 3)
