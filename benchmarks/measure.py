"""What every measurement shares: numbers of a sample, memory and energy of a process, the allocator of both sides."""

from __future__ import annotations

import ctypes
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

ALLOCATOR = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "60000000000"}
"""glibc otherwise returns large arrays to the system at every free, which slows the baseline down, hardly ours."""
PERCENTILES = (50, 90, 99)

POWERCAP = Path("/sys/class/powercap")


def percentile(values: Sequence[float], percent: float) -> float:
    """Linear between the two nearest of the sorted values, as numpy's default; values must not be empty."""
    ordered = sorted(values)
    place = (len(ordered) - 1) * percent / 100
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def summary(values: Sequence[float]) -> dict[str, float]:
    """min, p50, p90, p99, max, and `spread`: half the distance of the quartiles over the median."""
    named = {"min": min(values), **{f"p{p}": percentile(values, p) for p in PERCENTILES}, "max": max(values)}
    middle = statistics.median(values)
    named["spread"] = (percentile(values, 75) - percentile(values, 25)) / 2 / middle if middle else 0.0
    return {name: round(value, 6) for name, value in named.items()}


def ratios(theirs: Sequence[float], ours: Sequence[float]) -> list[float]:
    """How many times longer one side took than the other, round by round.

    Args:
        theirs, ours: as many times of each side.
    """
    return [a / b for a, b in zip(theirs, ours, strict=True)]


def environment_of(threads: int) -> dict[str, str]:
    """Variables of a measured process: BLAS and OpenMP read them as they start."""
    return {**ALLOCATOR, **{f"{name}_NUM_THREADS": str(threads) for name in ("OMP", "OPENBLAS", "MKL")}}


def peak_megabytes() -> float:
    """Largest resident size of this process; getrusage would count what its parent held when it forked."""
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) / 1024


class Energy(NamedTuple):
    """A counter of joules, or why there is none."""

    read: Callable[[], float] | None
    source: str


def energy_counter(device: str) -> Energy:
    """Joules since some moment: of all CPU packages (RAPL), or of the first GPU (NVML) for device `cuda`."""
    return _nvml() if device == "cuda" else _rapl()


def _rapl() -> Energy:
    packages = sorted(POWERCAP.glob("intel-rapl:?"))
    if not packages:
        return Energy(None, f"no energy counter of a CPU package under {POWERCAP}")
    try:
        limits = [int((p / "max_energy_range_uj").read_text()) for p in packages]
        last = [int((p / "energy_uj").read_text()) for p in packages]
    except OSError as error:
        return Energy(None, f"energy counters cannot be read: {error}")
    total = 0.0

    def read() -> float:
        nonlocal total, last
        now = [int((p / "energy_uj").read_text()) for p in packages]
        # A counter starts again at 0 when it reaches its range.
        total += sum((n - b) % (limit + 1) for n, b, limit in zip(now, last, limits, strict=True)) / 1e6
        last = now
        return total

    return Energy(read, f"RAPL, {len(packages)} CPU package(s), everything that ran on them included")


def _nvml() -> Energy:
    try:
        nvml = ctypes.CDLL("libnvidia-ml.so.1")
    except OSError as error:
        return Energy(None, f"NVML is not there: {error}")
    handle, millijoules = ctypes.c_void_p(), ctypes.c_ulonglong()
    if nvml.nvmlInit_v2() or nvml.nvmlDeviceGetHandleByIndex_v2(0, ctypes.byref(handle)):
        return Energy(None, "NVML finds no GPU")

    def read() -> float:
        if nvml.nvmlDeviceGetTotalEnergyConsumption(handle, ctypes.byref(millijoules)):
            raise OSError("NVML gives no energy of this GPU")
        return millijoules.value / 1e3

    try:
        read()
    except OSError as error:
        return Energy(None, str(error))
    return Energy(read, "NVML, first GPU, everything that ran on it included")
