"""What this machine can do at most, measured: the two rates that a kernel's floor is made of."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from rdn_engine.kernels import _C

COPY_BYTES = 2**28  # far more than any cache holds
COMPILERS = ("c++", "g++", "clang++")
FLAGS = {"baseline": [], "avx2": ["-mavx2", "-mfma"], "avx512": ["-mavx512f", "-mavx512vl", "-mfma"]}
"""Instruction set -> what its kernels may use for multiply-adds of floats; avx512_bf16 has those of avx512"""


@dataclass(frozen=True)
class Rates:
    """One thread's; `gflops` counts a multiply-add as two."""

    copy_gbs: float
    """10^9 bytes a second, read and written, of a copy that no cache holds"""
    gflops: float
    """of the instruction set that the kernels run with"""
    isa_gflops: Mapping[str, float] = field(default_factory=dict)
    """of each instruction set that this machine and build have"""

    def floor_ms(self, moved: float, operations: float, isa: str | None = None) -> float:
        """Milliseconds below which nothing can move so many bytes and do so many operations, both at once.

        Args:
            moved: bytes.
            operations: of floats.
            isa: instruction set, one of `isa_gflops`; that of the kernels by default.
        """
        gflops = self.gflops if isa is None else self.isa_gflops[isa]
        return 1e3 * max(moved / (self.copy_gbs * 1e9), operations / (gflops * 1e9))


def cpu_rates() -> Rates:
    """Raises RuntimeError without a C++ compiler."""
    runs = _C.isa.removesuffix("_bf16")
    names = list(FLAGS)
    gflops = {isa: _fma_rate(FLAGS[isa]) for isa in names[: names.index(runs) + 1]}
    return Rates(_copy_rate(), gflops[runs], gflops)


def _copy_rate() -> float:
    source = np.ones(COPY_BYTES // 4, np.float32)
    target = np.zeros_like(source)
    best = 0.0
    for _ in range(7):
        begin = time.perf_counter()
        np.copyto(target, source)
        best = max(best, 2 * COPY_BYTES / (time.perf_counter() - begin) / 1e9)
    return best


def _fma_rate(instructions: list[str]) -> float:
    compiler = next((c for c in COMPILERS if shutil.which(c)), None)
    if compiler is None:
        raise RuntimeError(f"no C++ compiler for the peak rate; wanted one of {COMPILERS}")
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "peak.so"
        source = Path(__file__).with_name("peak.cpp")
        # -ffp-contract=fast: one instruction for a multiply and an add, which is what is to be counted.
        flags = ["-O3", *instructions, "-ffp-contract=fast", "-shared", "-fPIC"]
        subprocess.run([compiler, *flags, str(source), "-o", str(library)], check=True)
        rate = ctypes.CDLL(str(library)).fma_rate
    rate.restype, rate.argtypes = ctypes.c_double, [ctypes.c_long, ctypes.POINTER(ctypes.c_float)]
    sink = ctypes.c_float(0.999)
    # Short tries: whatever else runs on this core cannot have interrupted all of them.
    rates: list[float] = [rate(200_000, ctypes.byref(sink)) for _ in range(100)]
    return max(rates)
