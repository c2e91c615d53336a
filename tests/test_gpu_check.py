"""scripts/gpu_check.sh on a machine of fakes: its steps, their order, what is left out, and going on after a stop.

Every program that it calls is a script that writes down how it was called. What they do on a GPU is not shown here.
"""

from __future__ import annotations

import ast
import os
import re
import subprocess
from pathlib import Path

import pytest

from rdn_engine import kernels

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = ROOT / "scripts" / "gpu_check.sh"
STEPS = ("machine", "build", "device_tests", "suite", "memcheck", "racecheck", "kernels", "model", "steady", "latency",
         "streams", "training")  # fmt: skip

# Fails where a file says so; a module is missing where a file names it.
FAKE = """#!/bin/bash
echo "$(basename "$0") RDN_REQUIRE_CUDA=$RDN_REQUIRE_CUDA $*" >>"$FAKES/calls"
if [ "$1" = -c ]; then
  for missing in $(cat "$FAKES/missing" 2>/dev/null); do case $2 in *"$missing"*) exit 1 ;; esac; done
fi
case "$(basename "$0") $*" in
  nvidia-smi*) echo "fake, 0.0" ;;
  *--cmakedir*) echo /fake/pybind11 ;;
esac
for word in $(cat "$FAKES/failing" 2>/dev/null); do case "$*" in *"$word"*) echo "it went wrong"; exit 1 ;; esac; done
previous=
for word in "$@"; do
  case $previous$word in --output*.json) echo "{}" >"$word" ;; esac
  previous=$word
done
exit 0
"""


class Fakes:
    def __init__(self, folder: Path) -> None:
        self.folder, self.out, self.work = folder, folder / "out", folder / "work"
        for name in ("nvidia-smi", "nvcc", "cmake", "compute-sanitizer", "python"):
            (folder / name).write_text(FAKE)
            (folder / name).chmod(0o755)

    def run(self, *arguments: str, failing: str = "", missing: str = "") -> subprocess.CompletedProcess[str]:
        (self.folder / "calls").write_text("")
        (self.folder / "failing").write_text(failing)
        (self.folder / "missing").write_text(missing)
        command = ["bash", str(SCRIPT), "--out", str(self.out), "--work", str(self.work),
                   "--python", str(self.folder / "python"), *arguments]  # fmt: skip
        environment = {"PATH": f"{self.folder}:{os.environ['PATH']}", "FAKES": str(self.folder)}
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    @property
    def calls(self) -> list[str]:
        return (self.folder / "calls").read_text().splitlines()


@pytest.fixture
def fakes(tmp_path: Path) -> Fakes:
    return Fakes(tmp_path)


def passed(done: subprocess.CompletedProcess[str]) -> list[str]:
    return re.findall(r"^(\w+): passed in", done.stdout, re.MULTILINE)


def test_every_step_runs_once_and_no_skip_is_allowed(fakes: Fakes) -> None:
    done = fakes.run()
    assert done.returncode == 0, done.stdout
    assert passed(done) == list(STEPS)
    tests = [call for call in fakes.calls if "-m pytest" in call]
    assert len(tests) == 4
    assert all("RDN_REQUIRE_CUDA=1" in call for call in tests)
    assert sum(call.startswith("compute-sanitizer") for call in tests) == 2
    again = fakes.run()
    assert again.returncode == 0
    assert re.findall(r"^(\w+): passed before", again.stdout, re.MULTILINE) == list(STEPS)
    assert not [call for call in fakes.calls if "-m pytest" in call]


def test_results_of_this_run_and_of_those_before_it_are_handed_out(fakes: Fakes) -> None:
    done = fakes.run(failing="benchmarks/frame/steady_frame.py")
    assert done.returncode == 1
    assert sorted(p.name for p in fakes.out.iterdir()) == [
        "gpu_check.log", "kernels_cuda.json", "latency_cuda.json", "latency_streams_cuda.json",
        "training_throughput.json"]  # fmt: skip
    assert "it went wrong" in (fakes.out / "gpu_check.log").read_text()
    fakes.out = fakes.folder / "next"
    assert fakes.run().returncode == 0
    assert len(list(fakes.out.glob("*.json"))) == 5


def test_a_run_goes_on_where_it_failed(fakes: Fakes) -> None:
    done = fakes.run(failing="memcheck benchmarks/frame/steady_frame.py")
    assert done.returncode == 1
    assert passed(done) == [step for step in STEPS if step not in ("memcheck", "steady")]
    assert re.search(r"memcheck: FAILED \(1\).*\nit went wrong", done.stdout)
    done = fakes.run()
    assert (done.returncode, passed(done)) == (0, ["memcheck", "steady"])


@pytest.mark.parametrize(("failing", "ended"), [("--query-gpu", "machine"), ("--build", "build")])
def test_nothing_is_tested_that_was_not_built(failing: str, ended: str, fakes: Fakes) -> None:
    done = fakes.run(failing=failing)
    assert done.returncode == 1
    assert f"{ended}: FAILED" in done.stdout
    assert not [call for call in fakes.calls if "-m pytest" in call]


def test_when_the_time_is_over_it_says_so(fakes: Fakes) -> None:
    done = fakes.run("--seconds", "0")
    assert done.returncode == 1
    assert "machine: NOT RUN, the 0 seconds are over" in done.stdout
    assert fakes.calls == []


def test_what_is_left_out_is_named(fakes: Fakes) -> None:
    rtx = [
        f"tests/backends/tensorrt/test_backend.py::{name}"
        for name in taking(ROOT / "tests" / "backends" / "tensorrt" / "test_backend.py", "builder")
    ]
    done = fakes.run(missing="tensorrt_rtx supervision")
    [suite] = [call for call in fakes.calls if "--ignore" in call]
    for name in (*rtx, "tests/backends/tensorrt/test_backend.py::test_types_are_those_of_the_real_bindings"):
        assert f": {name}\n" in done.stdout
        assert f" --deselect={name}" in suite
    assert "left out, wants supervision: tests/test_results.py" in done.stdout
    assert " --ignore=tests/test_results.py" in suite
    fakes.work = fakes.folder / "complete"
    complete = fakes.run()
    assert not any(name in complete.stdout for name in rtx)
    assert "left out, wants the network: tests/test_install.py" in complete.stdout


def taking(path: Path, fixture: str) -> list[str]:
    """Names of the tests that take a fixture."""
    functions = [n for n in ast.parse(path.read_text()).body if isinstance(n, ast.FunctionDef)]
    return [f.name for f in functions if f.name.startswith("test_") and fixture in {a.arg for a in f.args.args}]


def test_every_test_and_script_it_names_is_there() -> None:
    text = SCRIPT.read_text()
    named = re.findall(r"(tests/[\w/]+\.py)(?:::(\w+))?", text)
    assert len(named) >= 10
    for name, test in named:
        assert test in (ROOT / name).read_text()
    groups = re.findall(r"tests/([\w/]+)\{(.*?)\}\.py", text)
    assert len(groups) == 3
    for name, group in groups:
        assert all((ROOT / "tests" / f"{name}{part}.py").exists() for part in group.split(","))
    scripts = re.findall(r"(?<!tests/)benchmarks/[\w/]+\.py", text)
    assert len(scripts) >= 5
    assert all((ROOT / script).exists() for script in scripts)


def test_the_compiled_modules_go_where_they_are_imported_from() -> None:
    [folder] = re.findall(r'OUTPUT_DIRECTORY=\$PWD/(.*?)"', SCRIPT.read_text())
    assert ROOT / folder == Path(kernels.__file__).parent


@pytest.mark.parametrize("arguments", [("--fast",), ("--out",)])
def test_a_wrong_argument_is_refused(arguments: tuple[str, ...]) -> None:
    done = subprocess.run(["bash", str(SCRIPT), *arguments], capture_output=True, text=True, check=False, timeout=20)
    assert done.returncode != 0
    assert not done.stdout or "wanted --out FOLDER" in done.stdout
