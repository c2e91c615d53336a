"""What stands between the runtime and cupy and cuBLAS, as far as it can be checked without a GPU."""

from __future__ import annotations

import ctypes
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from rdn_engine import BackendUnavailable, cublas
from rdn_engine.cublas import Cublas
from rdn_engine.gpu_cupy import CupyGpu


def fake_cupy(count: Any) -> ModuleType:
    made = ModuleType("cupy")
    made.cuda = SimpleNamespace(runtime=SimpleNamespace(getDeviceCount=count))  # type: ignore[attr-defined]
    return made


def broken() -> int:
    raise RuntimeError("driver version is insufficient")


@pytest.mark.parametrize(
    ("cupy", "message"),
    [
        (None, r"device 'cuda' wants cupy .*pip install rdn-engine\[gpu\]"),
        (fake_cupy(broken), "device 'cuda' finds no GPU: driver version is insufficient"),
        (fake_cupy(lambda: 0), "device 'cuda' finds no GPU; wanted one or more"),
    ],
)
def test_what_is_missing_is_said(monkeypatch: pytest.MonkeyPatch, cupy: Any, message: str) -> None:
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    with pytest.raises(BackendUnavailable, match=message):
        CupyGpu()


class Library:
    """cuBLAS as its manual describes it: matrices stand column by column."""

    status = 0

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.cublasGetStatusString = lambda status: b"the library was not initialized"

    def __getattr__(self, name: str) -> Any:
        def call(*_: Any) -> int:
            self.calls.append(name)
            return self.status

        return call

    def cublasGemmEx(self, _: Any, transa: int, transb: int, m: int, n: int, k: int, *rest: Any) -> int:
        alpha, a, a_kind, lda, b, b_kind, ldb, beta, c, c_kind, ldc, compute, algorithm = rest
        assert (transa, transb, compute, algorithm) == (1, 0, 68, -1)
        assert (lda, ldb, ldc) == (k, k, m)
        assert (alpha._obj.value, beta._obj.value) == (1, 0)
        found = matrix(a, a_kind, m, k) @ matrix(b, b_kind, n, k).T
        matrix(c, c_kind, n, m)[...] = found.T
        return self.status


def matrix(address: Any, kind: int, columns: int, rows: int) -> np.ndarray:
    """A column-major matrix, as its transpose."""
    dtype = np.dtype({0: np.float32, 2: np.float16}[kind])
    memory = (ctypes.c_ubyte * (columns * rows * dtype.itemsize)).from_address(address.value)
    return np.frombuffer(memory, dtype).reshape(columns, rows)


@pytest.mark.parametrize(
    ("kind", "out_kind"), [(np.float32, np.float32), (np.float16, np.float16), (np.float16, np.float32)]
)
def test_products_are_those_of_rows_with_rows(monkeypatch: pytest.MonkeyPatch, kind: Any, out_kind: Any) -> None:
    library, rng = Library(), np.random.default_rng(0)
    monkeypatch.setattr(cublas, "load", lambda: library)
    blas = Cublas(1, 2, 3)
    assert library.calls == ["cublasCreate_v2", "cublasSetStream_v2", "cublasSetWorkspace_v2"]
    x, weight = rng.standard_normal((5, 8)).astype(kind), rng.standard_normal((3, 8)).astype(kind)
    out = np.empty((5, 3), out_kind)
    blas.product(x.ctypes.data, weight.ctypes.data, out.ctypes.data, (5, 3, 8), kind, out_kind)
    np.testing.assert_allclose(out, x.astype(np.float32) @ weight.astype(np.float32).T, rtol=5e-3, atol=5e-3)


def test_what_cublas_says_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    library = Library()
    monkeypatch.setattr(cublas, "load", lambda: library)
    library.status = 1
    with pytest.raises(RuntimeError, match="cuBLAS: the library was not initialized"):
        Cublas(1, 2, 3)
