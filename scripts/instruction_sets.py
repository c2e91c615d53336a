"""Parity and kernels under the lower instruction sets that every library can be told to use, one by one.

    python scripts/instruction_sets.py [--only ONEDNN_MAX_CPU_ISA=SSE41 ...] [-- pytest arguments]

Prints what each library says that it uses, so that a variable which does nothing here is seen to do nothing, and
whether the tests pass; exits 1 where some do not. Kernels this machine lacks are left out, as RDN_ISA refuses them.

Seen with torch 2.14 (oneDNN 3.12, MKL 2024.2) and NumPy 2.4 (OpenBLAS 0.3.31) on a processor with AVX2:
RDN_ISA                 kernels of this project; an unknown or unsupported name is an error
ATEN_CPU_CAPABILITY     torch's own loops: default (SSE) or avx2; an unknown name is a warning
ONEDNN_MAX_CPU_ISA      torch's convolutions: SSE41, AVX, AVX2, ..; DNNL_MAX_CPU_ISA is the older name and still works
MKL_CBWR                torch's matrix products: COMPATIBLE. AVX2 and SSE4_2 are ignored where the maker is not Intel
MKL_ENABLE_INSTRUCTIONS ignored there, too
OPENBLAS_CORETYPE       NumPy's matrix products: Haswell (AVX2), Sandybridge (AVX), Nehalem (SSE4.2), Prescott (SSE3; it
                        calls itself Katmai)
NPY_DISABLE_CPU_FEATURES NumPy's own loops: X86_V3 since 2.4, AVX2 FMA3 before; a name it does not know does nothing
ONNX Runtime has no such variable; scripts/without_avx512.py hides instruction sets from it and all others.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

SETTINGS = (
    "",
    "RDN_ISA=baseline",
    "RDN_ISA=avx2",
    "ATEN_CPU_CAPABILITY=default",
    "ATEN_CPU_CAPABILITY=avx2",
    "ONEDNN_MAX_CPU_ISA=SSE41",
    "ONEDNN_MAX_CPU_ISA=AVX",
    "ONEDNN_MAX_CPU_ISA=AVX2",
    "DNNL_MAX_CPU_ISA=SSE41",
    "MKL_CBWR=COMPATIBLE",
    "MKL_CBWR=AVX2",
    "MKL_ENABLE_INSTRUCTIONS=SSE4_2",
    "OPENBLAS_CORETYPE=Haswell",
    "OPENBLAS_CORETYPE=Nehalem",
    "OPENBLAS_CORETYPE=Prescott",
    "NPY_DISABLE_CPU_FEATURES=X86_V3",
    "RDN_ISA=baseline ATEN_CPU_CAPABILITY=default ONEDNN_MAX_CPU_ISA=SSE41 MKL_CBWR=COMPATIBLE "
    "OPENBLAS_CORETYPE=Prescott NPY_DISABLE_CPU_FEATURES=X86_V3",
)
"""Environment variables of a run, separated by spaces."""

TESTS = [
    "tests/test_parity.py",
    "tests/test_verify.py",
    "tests/host/test_cosine.py",
    "tests/host/test_cosine_memory.py",
    "tests/host/test_cosine_parity.py",
    "tests/host/test_refinement.py",
    "tests/kernels/cpu",
]

PROBE = """
import ctypes, pathlib, numpy, torch
from numpy._core._multiarray_umath import __cpu_dispatch__, __cpu_features__
from rdn_engine.kernels import _C
print("@ kernels", _C.isa, "| torch", torch.backends.cpu.get_cpu_capability(), end=" | ")
folder = pathlib.Path(numpy.__file__).parents[1] / "numpy.libs"
for path in folder.glob("libscipy_openblas*"):
    name = ctypes.CDLL(str(path)).scipy_openblas_get_corename64_
    name.restype = ctypes.c_char_p
    print("OpenBLAS", name().decode(), end=" | ")
print("NumPy", *[n for n in __cpu_dispatch__ if __cpu_features__[n]] or ["least"])
torch.randn(64, 64) @ torch.randn(64, 64)
with torch.no_grad():
    torch.nn.Conv2d(64, 64, 3)(torch.randn(1, 64, 40, 40))  # smaller ones do not go to oneDNN
"""


def environment(setting: str) -> dict[str, str]:
    return os.environ | dict(part.split("=", 1) for part in setting.split())


def in_use(setting: str) -> str | None:
    """What every library says that it uses; None where RDN_ISA names kernels that this machine lacks."""
    told = environment(setting) | {"ONEDNN_VERBOSE": "1", "MKL_VERBOSE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", PROBE], env=told, cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        if "RDN_ISA is" in done.stderr:
            return None
        raise RuntimeError(f"{setting}: {done.stderr}")
    lines = done.stdout.splitlines()
    own = next(line[2:] for line in lines if line.startswith("@ "))
    onednn = next((line.split("isa:")[1] for line in lines if "info,cpu,isa:" in line), "says nothing")
    mkl = next(
        (line.split("CNR:")[1].split()[0] for line in lines if "GEMM" in line and "CNR:" in line), "says nothing"
    )
    return f"{own} | oneDNN {onednn} | MKL reproducibility {mkl}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", default=SETTINGS, metavar="NAME=VALUE", help="default: all of them")
    parser.add_argument("tests", nargs="*", default=TESTS, help="what pytest is to run, after --")
    arguments = parser.parse_args()
    failed = []
    for setting in arguments.only:
        title = setting or "nothing set"
        found = in_use(setting)
        if found is None:
            print(f"{title}\n    left out: this machine has no such kernels", flush=True)
            continue
        start = time.monotonic()
        command = [sys.executable, "-m", "pytest", *arguments.tests]
        done = subprocess.run(command, env=environment(setting), cwd=ROOT, capture_output=True, text=True, check=False)
        last = done.stdout.rstrip().splitlines()[-1] if done.stdout.strip() else done.stderr
        print(f"{title}\n    {found}\n    {last} ({time.monotonic() - start:.0f} s)", flush=True)
        if done.returncode != 0:
            failed.append(title)
            print(done.stdout[-4000:])
    print(f"failed: {failed}" if failed else "all passed")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
