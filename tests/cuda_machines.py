"""Where the CUDA kernels run in tests: on a GPU, or thread by thread on the CPU (csrc/emulator), the same files."""

from __future__ import annotations

import fcntl
import functools
import hashlib
import importlib.machinery
import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from rdn_engine.kernels.cuda.boxes import Kernels
from rdn_engine.kernels.cuda.view import View, view_of, view_of_interface

ROOT = Path(__file__).resolve().parents[1]
NAMES = ("emulated", "emulated_descending", "gpu")


class Emulated:
    """Numpy arrays; `descending` runs threads and blocks in the opposite order."""

    def __init__(self, descending: bool) -> None:
        module = emulated_module()
        module.set_descending(descending)
        self.kernels = Kernels(module, _view_numpy)

    def put(self, array: np.ndarray) -> Any:
        """A copy that is aligned as device memory is."""
        array = np.ascontiguousarray(array)
        memory = np.empty(array.nbytes + 64, np.uint8)
        start = -memory.ctypes.data % 64
        copy = memory[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
        copy[...] = array
        return copy

    def get(self, array: Any) -> np.ndarray:
        return np.array(array)


class Gpu:
    def __init__(self) -> None:
        import cupy

        self._cupy = cupy
        self.kernels = Kernels(viewer=view_of)

    def put(self, array: np.ndarray) -> Any:
        return self._cupy.asarray(np.ascontiguousarray(array))

    def get(self, array: Any) -> np.ndarray:
        copy: np.ndarray = self._cupy.asnumpy(array)
        return copy


Machine = Emulated | Gpu


def fill(machine: Machine, shape: Any, dtype: Any = np.float32) -> Any:
    """Memory full of NaNs or nonsense: what a kernel leaves out is seen."""
    array = np.empty(shape, dtype)
    array.view(np.uint8)[...] = 0xFF
    return machine.put(array)


def gpu_missing() -> str | None:
    """Why there is no GPU to test on; None where there is one."""
    try:
        import cupy

        if cupy.cuda.runtime.getDeviceCount() == 0:
            return "no CUDA device"
        Kernels()
    except Exception as error:  # each library fails in its own way where there is no driver
        return f"{type(error).__name__}: {error}"
    return None


def _view_numpy(array: Any) -> View:
    if not isinstance(array, np.ndarray):
        raise ValueError(f"wanted an array on a CUDA device, got {type(array).__name__}")
    return view_of_interface(array.__array_interface__)


@functools.cache
def emulated_module() -> ModuleType:
    """The kernels compiled by the host's compiler, kept under build/ as long as their sources do not change."""
    sources = [path for path in sorted((ROOT / "csrc/cuda").glob("*.cu")) if path.stem != "status"]
    sources += [ROOT / "csrc/emulator/emulator.cpp", ROOT / "csrc/bindings/cuda.cpp"]
    headers = [*(ROOT / "csrc/include/rdn").glob("*.h"), *(ROOT / "csrc/cuda").glob("*.cuh")]
    headers.append(ROOT / "csrc/emulator/emulator.h")
    digest = hashlib.sha256(sys.version.encode())
    for path in (*sources, *sorted(headers)):
        digest.update(path.read_bytes())
    folder = ROOT / "build" / "emulated" / digest.hexdigest()[:16]
    module = folder / f"_cuda_emulated{sysconfig.get_config_var('EXT_SUFFIX')}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Workers of one test run ask at the same time: one compiles, the others wait.
    with (folder.parent / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not module.exists():
            for other in folder.parent.glob("*/"):
                shutil.rmtree(other)
            folder.mkdir()
            with ThreadPoolExecutor(os.cpu_count()) as pool:
                objects = list(pool.map(lambda source: _compile(source, folder), sources))
            _run("c++", "-shared", *objects, "-o", str(module))
    loader = importlib.machinery.ExtensionFileLoader("_cuda_emulated", str(module))
    spec = importlib.util.spec_from_loader("_cuda_emulated", loader)
    assert spec is not None
    loaded = importlib.util.module_from_spec(spec)
    loader.exec_module(loaded)
    return loaded


def _compile(source: Path, folder: Path) -> str:
    import pybind11

    target = str(folder / f"{source.name}.o")
    includes = [ROOT / "csrc", ROOT / "csrc/include", pybind11.get_include(), sysconfig.get_paths()["include"]]
    warnings = ("-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas")  # #pragma unroll is nvcc's
    # A fortified longjmp takes a switch of stacks for an attack.
    flags = ("-std=c++17", "-O1", "-fPIC", "-fvisibility=hidden", "-ffp-contract=off", "-U_FORTIFY_SOURCE")
    defines = ("-DRDN_EMULATED", "-DRDN_MODULE=_cuda_emulated")
    _run(
        "c++", "-x", "c++", *flags, *warnings, *defines, *(f"-I{i}" for i in includes), "-c", str(source), "-o", target
    )
    return target


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stderr}"
