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
from rdn_engine.backends.openvino.backend import openvino
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

TABLE = r"""
int has_avx512(void) {
    int a = 7, b, c = 0, d;
    __asm__ volatile("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
    return b >> 16 & 1;
}
__asm__(".text\n.globl table\n.balign 64\ntable:\n.fill 8, 2, 0x0607\n.byte 0x0f, 0xa2\n.fill 8, 2, 0x0607\n");
extern const unsigned char table[];
#include <stdio.h>
int main(void) { printf("%d %02x\n", has_avx512(), table[17]); return 0; }
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
    nested = run(sys.executable, "scripts/without_avx512.py", sys.executable, "-c", PROBE)
    assert nested.returncode == 0, nested.stderr
    assert run("no-such-command").returncode == run("").returncode == 127


def test_a_program_of_its_own_is_told_the_same_and_its_tables_stay(tmp_path: Path) -> None:
    """objdump takes what lies in the code for instructions; 06 and 07 are none in 64 bits."""
    (tmp_path / "a.c").write_text(TABLE)
    subprocess.run(["gcc", "-o", tmp_path / "a", tmp_path / "a.c"], check=True)
    done = run(str(tmp_path / "a"))
    assert done.stdout == "0 a2\n", done.stderr
