"""What this machine can do at most, measured: the two rates that a kernel's floor is made of."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

COPY_BYTES = 2**28  # far more than any cache holds
COMPILERS = ("c++", "g++", "clang++")


@dataclass(frozen=True)
class Rates:
    """One thread's; `gflops` counts a multiply-add as two."""

    copy_gbs: float
    """10^9 bytes a second, read and written, of a copy that no cache holds"""
    gflops: float

    def floor_ms(self, moved: float, operations: float) -> float:
        """Milliseconds below which nothing can move so many bytes and do so many operations, both at once."""
        return 1e3 * max(moved / (self.copy_gbs * 1e9), operations / (self.gflops * 1e9))


def cpu_rates() -> Rates:
    """Raises RuntimeError without a C++ compiler."""
    return Rates(copy_gbs=_copy_rate(), gflops=_fma_rate())


def _copy_rate() -> float:
    source = np.ones(COPY_BYTES // 4, np.float32)
    target = np.zeros_like(source)
    best = 0.0
    for _ in range(7):
        begin = time.perf_counter()
        np.copyto(target, source)
        best = max(best, 2 * COPY_BYTES / (time.perf_counter() - begin) / 1e9)
    return best


def _fma_rate() -> float:
    compiler = next((c for c in COMPILERS if shutil.which(c)), None)
    if compiler is None:
        raise RuntimeError(f"no C++ compiler for the peak rate; wanted one of {COMPILERS}")
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "peak.so"
        source = Path(__file__).with_name("peak.cpp")
        # -ffp-contract=fast: one instruction for a multiply and an add, which is what is to be counted.
        flags = ["-O3", "-march=native", "-ffp-contract=fast", "-shared", "-fPIC"]
        subprocess.run([compiler, *flags, str(source), "-o", str(library)], check=True)
        rate = ctypes.CDLL(str(library)).fma_rate
    rate.restype, rate.argtypes = ctypes.c_double, [ctypes.c_long, ctypes.POINTER(ctypes.c_float)]
    sink = ctypes.c_float(0.999)
    # Short tries: whatever else runs on this core cannot have interrupted all of them.
    rates: list[float] = [rate(200_000, ctypes.byref(sink)) for _ in range(100)]
    return max(rates)
