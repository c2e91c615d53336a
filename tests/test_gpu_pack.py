"""What scripts/gpu_pack.sh makes: the kernels' library, whole and linked by the bindings alone."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pybind11
import pytest

from scripts import check_cuda_library
from scripts.check_cuda_library import HEADER, faults, launchers, resources

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = ROOT / "scripts" / "gpu_pack.sh"

FAKE = """#!/bin/bash
echo "$(basename "$0") $*" >>"$FAKES/calls"
for word in $(cat "$FAKES/failing"); do case "$*" in *"$word"*) exit 1 ;; esac; done
case "$*" in
  *--target\\ rdn_cuda*) mkdir -p "$2" && touch "$2/librdn_cuda.so" ;;
  *pip\\ download*) truncate --size "$(cat "$FAKES/wheel")" "$(sed 's/.*--dest \\([^ ]*\\).*/\\1/' <<<"$*")/one.whl" ;;
  *packing.py*) mkdir "$3" && touch "$3/recipes.json" ;;
esac
"""


class Fakes:
    def __init__(self, folder: Path) -> None:
        self.folder, self.out = folder, folder / "packed"
        for name in ("cmake", "python"):
            (folder / name).write_text(FAKE)
            (folder / name).chmod(0o755)

    def run(self, wheel: int, failing: str = "") -> subprocess.CompletedProcess[str]:
        for name, text in {"calls": "", "wheel": str(wheel), "failing": failing}.items():
            (self.folder / name).write_text(text)
        command = ["bash", str(SCRIPT), "--out", str(self.out), "--work", str(self.folder / "work"),
                   "--python", str(self.folder / "python")]  # fmt: skip
        environment = {"PATH": f"{self.folder}:{os.environ['PATH']}", "FAKES": str(self.folder)}
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture
def fakes(tmp_path: Path) -> Fakes:
    return Fakes(tmp_path)


def test_the_folder_has_everything_and_its_size_is_printed(fakes: Fakes) -> None:
    done = fakes.run(wheel=3 << 20)
    assert done.returncode == 0, done.stdout + done.stderr
    assert {path.name for path in fakes.out.iterdir()} >= {"librdn_cuda.so", "model", "wheels", "sources"}
    assert f"{fakes.out}: 3.0 MiB; with the " in done.stdout
    state = subprocess.run(
        ["scripts/gpu_sources.sh", "csrc/cuda", "csrc/include"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert (fakes.out / "sources").read_text() == state.stdout


def test_more_than_60_mib_is_refused(fakes: Fakes) -> None:
    assert fakes.run(wheel=(60 << 20) - 200).returncode == 0
    done = fakes.run(wheel=(60 << 20) + 1)
    assert done.returncode == 1
    assert "is larger than 60 MiB" in done.stdout
    assert not fakes.out.exists()


@pytest.mark.parametrize("step", ["rdn_cuda", "check_cuda_library.py", "models.py", "packing.py", "download"])
def test_a_folder_is_not_made_from_what_failed(step: str, fakes: Fakes) -> None:
    done = fakes.run(wheel=1, failing=step)
    assert done.returncode != 0
    assert "MiB" not in done.stdout


def test_the_launchers_are_those_of_the_header() -> None:
    text = """
const char* status_text(Status status);
Status run(const RoiPool& args, Stream stream);
std::size_t workspace_bytes(const RelationGates& args);  // of queries.count and supports.count
"""
    assert launchers(text) == {
        "rdn::cuda::status_text(int)",
        "rdn::cuda::run(rdn::cuda::RoiPool const&, CUstream_st*)",
        "rdn::cuda::workspace_bytes(rdn::cuda::RelationGates const&)",
    }
    bound = (ROOT / "csrc" / "bindings" / "cuda.cpp").read_text()
    kinds = {name.split("::")[-1].split(" ")[0] for name in launchers(HEADER.read_text()) if "::run(" in name}
    assert kinds == {kind for kind in kinds if kind in bound}
    assert len(kinds) >= 15


def test_the_report_of_cuobjdump_is_read() -> None:
    report = """
Fatbin elf code:
================
arch = sm_90
Resource usage:
 Common:
  GLOBAL:28 CONSTANT[4]:224
 Function _ZN3rdn4cuda6attendILi64EEEvf:
  REG:164 STACK:0 SHARED:1024 LOCAL:0 CONSTANT[0]:752 TEXTURE:0 SURFACE:0 SAMPLER:0

Fatbin ptx code:
================
arch = sm_120
"""
    assert resources(report) == {"sm_90": {"attend<64>": 164}, "sm_120": {}}


def test_a_library_that_lacks_a_launcher_or_wants_python_is_not_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check_cuda_library, "cuobjdump", lambda: None)
    (tmp_path / "a.cpp").write_text(
        '#include "rdn/cuda_ops.h"\nextern "C" int PyErr_Occurred();\n'
        "namespace rdn::cuda { Status run(const Resize&, Stream) { return PyErr_Occurred(); } }\n"
    )
    library = tmp_path / "librdn_cuda.so"
    command = ["c++", "-std=c++17", "-shared", "-fPIC", f"-I{ROOT / 'csrc/include'}", "-o", str(library)]
    subprocess.run([*command, str(tmp_path / "a.cpp")], check=True)
    found = faults(library, 90)
    assert "wants PyErr_Occurred" in found
    assert "does not define rdn::cuda::run(rdn::cuda::RoiPool const&, CUstream_st*)" in found
    assert "does not define rdn::cuda::run(rdn::cuda::Resize const&, CUstream_st*)" not in found


@pytest.mark.long
@pytest.mark.skipif(shutil.which("nvcc") is None, reason="needs nvcc")
def test_the_library_is_whole_and_the_bindings_link_with_it_alone(tmp_path: Path) -> None:
    """As gpu_pack.sh builds it, and as gpu_check.sh links it, where there is no toolkit."""

    def cmake(build: str, target: str, *options: str, path: str) -> Path:
        folder = tmp_path / build
        configure = ["cmake", "-S", str(ROOT), "-B", str(folder), "-G", "Ninja", "-DRDN_CUDA=on", *options,
                     f"-DPython_EXECUTABLE={sys.executable}", f"-Dpybind11_DIR={pybind11.get_cmake_dir()}"]  # fmt: skip
        for command in (configure, ["cmake", "--build", str(folder), "--target", target]):
            done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | {"PATH": path})
            assert done.returncode == 0, done.stdout + done.stderr
        return folder

    library = cmake("library", "rdn_cuda", "-DRDN_CUDA_ARCHITECTURES=90-real", path=os.environ["PATH"])
    assert faults(library / "librdn_cuda.so", 90) == []
    no_toolkit = os.pathsep.join(
        one for one in os.environ["PATH"].split(os.pathsep) if not os.path.exists(os.path.join(one, "nvcc"))
    )
    tools = tmp_path / "tools"
    tools.mkdir()
    for tool in ("cmake", "ninja"):
        (tools / tool).symlink_to(shutil.which(tool) or tool)
    bindings = cmake(
        "bindings",
        "_cuda",
        f"-DRDN_CUDA_LIBRARY={library / 'librdn_cuda.so'}",
        "-DCMAKE_BUILD_TYPE=Debug",
        path=os.pathsep.join([str(tools), no_toolkit]),
    )
    shutil.rmtree(library)
    moved = tmp_path / "moved"
    moved.mkdir()
    for path in (*bindings.glob("_cuda*.so"), bindings / "librdn_cuda.so"):
        shutil.move(path, moved)
    # Both in one process, as where the tests run on a GPU.
    code = (
        "import _cuda; from tests.cuda_machines import emulated_module; print(_cuda.__file__); "
        "print(*(type(m.Queries(boxes=None, rows=None, count=3)).__module__ for m in (_cuda, emulated_module())))"
    )
    environment = os.environ | {"PYTHONPATH": f"{moved}:{ROOT}"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert str(moved) in done.stdout, done.stderr
    assert done.stdout.split()[-2:] == ["_cuda", "_cuda_emulated"], done.stderr
