"""What scripts/gpu_pack.sh makes: the kernels' library, whole and linked by the bindings alone."""

from __future__ import annotations

import os
import re
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
  *find_spec*) cat "$FAKES/lacking" ;;
  *--target\\ rdn_cuda*) mkdir -p "$2" && touch "$2/librdn_cuda.so" ;;
  *pip\\ download*) truncate --size "$(cat "$FAKES/wheel")" "$(sed 's/.*--dest \\([^ ]*\\).*/\\1/' <<<"$*")/one.whl" ;;
  *packing.py*) mkdir "$3" && touch "$3/recipes.json" ;;
esac
"""


class Fakes:
    def __init__(self, folder: Path) -> None:
        self.folder, self.out = folder, folder / "made" / "packed"
        self.tools = folder / "tools"
        self.tools.mkdir()
        for name in ("cmake", "ninja", "nvcc", "c++", "python"):
            (self.tools / name).write_text(FAKE)
            (self.tools / name).chmod(0o755)

    def run(
        self, wheel: int = 1, failing: str = "", lacking: str = "", others: str = os.environ["PATH"]
    ) -> subprocess.CompletedProcess[str]:
        for name, text in {"calls": "", "wheel": str(wheel), "failing": failing, "lacking": lacking}.items():
            (self.folder / name).write_text(text)
        command = ["bash", str(SCRIPT), "--out", str(self.out), "--work", str(self.folder / "work"),
                   "--python", str(self.tools / "python")]  # fmt: skip
        environment = {"PATH": f"{self.tools}:{others}", "FAKES": str(self.folder)}
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    @property
    def calls(self) -> str:
        return (self.folder / "calls").read_text()

    def files(self) -> dict[str, bytes]:
        """Of the pack, and what lies beside it."""
        made = self.out.parent
        return {str(path.relative_to(made)): path.read_bytes() for path in made.rglob("*") if path.is_file()}


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
    before = fakes.files()
    done = fakes.run(wheel=(60 << 20) + 1)
    assert done.returncode == 1
    assert "more than the 60 MiB that travel" in done.stderr
    assert fakes.files() == before


@pytest.mark.parametrize("step", ["rdn_cuda", "check_cuda_library.py", "models.py", "packing.py", "download"])
def test_what_fails_leaves_no_folder_and_keeps_the_one_before(step: str, fakes: Fakes) -> None:
    done = fakes.run(failing=step)
    assert done.returncode != 0
    assert "MiB" not in done.stdout
    assert list(fakes.out.parent.iterdir()) == []
    assert fakes.run().returncode == 0
    before = fakes.files()
    assert fakes.run(wheel=2, failing=step).returncode != 0
    assert fakes.files() == before
    assert fakes.run(wheel=2).returncode == 0
    assert fakes.files() == before | {"packed/wheels/one.whl": b"\0\0"}


@pytest.mark.parametrize("name", ["thesis.txt", "sources"])
def test_a_folder_of_something_else_is_left_alone(name: str, fakes: Fakes) -> None:
    fakes.out.mkdir(parents=True)
    (fakes.out / name).write_text("the only copy")
    done = fakes.run()
    assert (done.returncode, done.stdout) == (2, "")
    assert f"--out is {fakes.out}, which holds something else than a pack" in done.stderr
    assert (fakes.out / name).read_text() == "the only copy"
    (fakes.out / name).unlink()
    assert fakes.run().returncode == 0, "an empty folder will do"
    fakes.out = fakes.out / "sources"
    assert f"--out is {fakes.out}, a file" in fakes.run().stderr


@pytest.mark.parametrize("tool", ["cmake", "ninja", "nvcc", "c++", "python"])
def test_a_tool_that_is_missing_is_said_before_anything_is_done(tool: str, fakes: Fakes) -> None:
    (fakes.tools / tool).unlink()
    for name in ("bash", "basename", "cat", "dirname"):
        (fakes.tools / name).symlink_to(shutil.which(name) or name)
    done = fakes.run(others="")  # this machine may have what is missing
    assert (done.returncode, done.stdout) == (2, "")
    assert re.search(rf"{re.escape(tool)}'? is not on PATH|/{tool}', which is no program", done.stderr)
    assert not fakes.out.parent.exists()


def test_packages_that_are_missing_are_said_before_anything_is_done(fakes: Fakes) -> None:
    done = fakes.run(lacking="pip onnx")
    assert (done.returncode, done.stdout) == (2, "")
    assert "python lacks pip onnx; wanted pip and the extras" in done.stderr
    assert "cmake" not in fakes.calls.replace("find_spec", "")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--fast",), "unknown argument --fast; wanted --out, --work"),
        (("--out",), "--out is given without a value; wanted --out FOLDER"),
        (("--out", ""), "--out is given without a value; wanted --out FOLDER"),
        (("--work", "--out", "x"), "--work is given without a value; wanted --work FOLDER"),
        (("--wheels",), "--wheels is given without a value; wanted --wheels NAMES"),
        (("--architecture", "9.0"), "--architecture is '9.0'; wanted a compute capability without its point"),
        (("--for", "python3.12"), "--for is 'python3.12'; wanted a version of Python, such as 3.12"),
        (("--python", "/no/python"), "--python is '/no/python', which is no program; wanted a Python"),
    ],
)
def test_a_wrong_argument_is_refused(arguments: tuple[str, ...], told: str) -> None:
    done = subprocess.run(["bash", str(SCRIPT), *arguments], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert told in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("script", ["gpu_pack.sh", "gpu_check.sh"])
@pytest.mark.parametrize("option", ["-h", "--help"])
def test_help_names_every_option(script: str, option: str) -> None:
    path = ROOT / "scripts" / script
    done = subprocess.run(["bash", str(path), option], cwd="/", capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    options = re.findall(r"^    (--\w+)\) value", path.read_text(), re.MULTILINE)
    assert len(options) >= 6
    for one in options:
        assert re.search(rf"^{one}  +\w", done.stdout, re.MULTILINE), one
        assert re.search(rf"scripts/{script} .*{one} [A-Za-z]+\b", done.stdout), one


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
