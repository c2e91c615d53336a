"""The CUDA kernels compile without a warning, and the committed table says what they use. Needs nvcc, no GPU."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from scripts import cuda_resources

ROOT = Path(__file__).resolve().parents[3]
TABLE = ROOT / "benchmarks" / "results" / "cuda_resources.json"
HOT = ("pool_channels_last", "filter_rows", "filter_columns", "suppress_candidates", "find_gates", "attend", "combine")

needs_nvcc = pytest.mark.skipif(shutil.which("nvcc") is None, reason="needs nvcc")


# The smallest file that uses tensor cores, on the oldest and the newest architecture that take another path.
@needs_nvcc
@pytest.mark.parametrize(("name", "architecture"), [("gates.cu", 75), ("gates.cu", 120), ("window.cu", 90)])
def test_compiles_without_warnings(name, architecture):
    used = cuda_resources.compile_kernels(ROOT / "csrc" / "cuda" / name, architecture)
    assert used
    assert all(kernel["registers"] > 0 for kernel in used.values())


def test_the_table_has_every_file_and_architecture():
    kernels = json.loads(TABLE.read_text())["kernels"]
    launching = {source.name for source in cuda_resources.sources() if "launch(" in source.read_text()}
    assert set(kernels) == launching
    wanted = {f"sm_{architecture}" for architecture in cuda_resources.RELEASED}
    for file in kernels.values():
        assert all(set(by_architecture) == wanted for by_architecture in file.values())


def test_hot_kernels_do_not_spill():
    kernels = {name: used for file in json.loads(TABLE.read_text())["kernels"].values() for name, used in file.items()}
    hot = {name: used for name, used in kernels.items() if name.split("<")[0] in HOT}
    assert {name.split("<")[0] for name in hot} == set(HOT)
    spilled = {(name, sm) for name, used in hot.items() for sm, one in used.items() if one["spilled"]}
    assert not spilled


def test_the_report_of_ptxas_is_read():
    report = """
ptxas info    : Compiling entry function '_ZN3rdn4cuda6attendILi64EEEvf' for 'sm_90'
ptxas info    : Function properties for _ZN3rdn4cuda6attendILi64EEEvf
    8 bytes stack frame, 4 bytes spill stores, 12 bytes spill loads
ptxas info    : Used 164 registers, used 1 barriers
"""
    assert cuda_resources.parse(report) == {"attend<64>": {"registers": 164, "stack": 8, "spilled": 16}}


def test_released_architectures_are_those_of_the_build():
    [line] = [line for line in (ROOT / "CMakeLists.txt").read_text().splitlines() if "set(RDN_CUDA_RELEASED" in line]
    numbers = tuple(int(word.split("-")[0]) for word in line.strip(")").split()[1:])
    assert numbers == cuda_resources.RELEASED


def test_a_skip_is_a_failure_where_a_gpu_must_be(tmp_path):
    (tmp_path / "conftest.py").write_text((ROOT / "tests" / "conftest.py").read_text())
    (tmp_path / "test_one.py").write_text("import pytest\ndef test_one(): pytest.skip('no GPU here')\n")
    for required, code in (("0", 0), ("1", 1)):
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_one.py"]
        paths = f"{ROOT}:{ROOT / 'tests'}"
        environment = {"RDN_REQUIRE_CUDA": required, "PYTHONPATH": paths, "PATH": "/usr/bin:/bin"}
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == code, done.stdout
