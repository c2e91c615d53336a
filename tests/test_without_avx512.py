"""scripts/without_avx512.py: what a command's libraries find."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PROBE = """
import faulthandler, json, subprocess, sys
faulthandler.enable()
from numpy._core._multiarray_umath import __cpu_features__
import openvino
from rdn_engine.kernels import _C
from training.provenance import environment
child = [sys.executable, "-c", "from rdn_engine.kernels import _C; print(_C.isa)"]
print(json.dumps({
    "kernels": _C.isa, "numpy": [n for n, there in __cpu_features__.items() if there and "512" in n],
    "openvino": openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"),
    "child": subprocess.run(child, capture_output=True, text=True, check=True).stdout.strip(),
    "machine": environment()["machine"],
}))
"""
ILLEGAL = """
import ctypes, mmap
page = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
page.write(bytes([0x0f, 0x0b]))
ctypes.CFUNCTYPE(None)(ctypes.addressof(ctypes.c_char.from_buffer(page)))()
"""


def run(*command: str) -> subprocess.CompletedProcess[str]:
    told = [sys.executable, "scripts/without_avx512.py", *command]
    return subprocess.run(told, cwd=ROOT, capture_output=True, text=True, check=False, timeout=600)


def found(command: list[str]) -> dict[str, Any]:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=120)
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def test_no_library_finds_avx512_and_results_say_so() -> None:
    done = run(sys.executable, "-c", PROBE)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["kernels"] == told["child"] == told["machine"]["kernels"]
    assert "avx512" not in told["kernels"]
    assert told["numpy"] == []
    assert "BF16" not in told["openvino"]
    assert "AVX-512" in told["machine"]["hidden"]
    assert "hidden" not in found([sys.executable, "-c", PROBE])["machine"]


def test_the_command_s_exit_code_and_its_faults_are_its_own() -> None:
    assert run(sys.executable, "-c", "raise SystemExit(7)").returncode == 7
    assert run(sys.executable, "-c", "import ctypes; ctypes.string_at(0)").returncode == -11
    sent = run(sys.executable, "-c", "import os, signal; os.kill(os.getpid(), signal.SIGILL); print('goes on')")
    assert (sent.returncode, sent.stdout) == (-4, "")
    assert run(sys.executable, "-c", ILLEGAL).returncode == -4
    assert run().returncode == 2
    assert run("no-such-command").returncode == run("").returncode == 127
