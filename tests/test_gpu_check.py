"""scripts/gpu_check.sh on a machine of fakes: phases in order, cuts, going on, what is left out, the time it takes.

Every program that it calls is a script that writes down how it was called, and so are `timeout` and `date` where time
matters. What they do on a GPU is not shown here.
"""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rdn_engine import kernels

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = ROOT / "scripts" / "gpu_check.sh"
READY = {"machine": 0, "wheels": 0, "build": 0, "model": 0}
PHASES = {"kernels_smoke": 1, "tiny": 1, "window": 1, "steady": 2, "against": 2, "streams": 3, "kernels": 3,
          "memcheck": 4, "racecheck": 4, "device_tests": 5, "suite": 5, "training": 6}  # fmt: skip
STEPS = ("machine", "wheels", "build", "kernels_smoke", "tiny", "model", *list(PHASES)[2:])
BEFORE_NINE_MINUTES = 540
# The word in a call that tells a step.
CALLS = {"machine": "nvidia-smi", "wheels": "pip install", "build": "--build", "kernels_smoke": "kernels_smoke.json",
         "tiny": "tiny.json", "model": "seeded.py", "window": "window.json", "steady": "steady_frame.py",
         "against": "--sweeps baseline ends", "streams": "--sweeps streams",
         "kernels": "benchmarks/kernel/kernels_cuda.py", "memcheck": "memcheck", "racecheck": "racecheck",
         "device_tests": " -k gpu", "suite": " -rs ",
         "training": "training_throughput.py"}  # fmt: skip

# Fails where a file says so, and waits to be cut off where another does; a module is missing where a file names it.
FAKE = """#!/bin/bash
me=$(basename "$0")
case "$*" in *gpu_results.py*) exec "$REAL" "$@" ;; esac
echo "$me RDN_REQUIRE_CUDA=$RDN_REQUIRE_CUDA $*" >>"$FAKES/calls"
if [ "$1" = -c ]; then
  for missing in $(cat "$FAKES/missing" 2>/dev/null); do case $2 in *"$missing"*) exit 1 ;; esac; done
fi
case "$me $*" in
  nvidia-smi*) echo "fake, 0.0" ;;
  *--cmakedir*) echo /fake/pybind11 ;;
  *.whl) echo "$2" ;;
esac
while read -r word; do case "$me $*" in *"$word"*) echo "it went wrong"; exit 1 ;; esac; done <"$FAKES/failing"
while read -r word; do case "$me $*" in *"$word"*) sleep 2 ;; esac; done <"$FAKES/cutting"
previous=
for word in "$@"; do
  case $previous$word in --output*.json) echo '{"found": 1}' >"$word" ;; esac
  previous=$word
done
exit 0
"""
# Every step takes all the time that it may.
SLOW = """#!/bin/bash
echo $(($(cat "$FAKES/clock") + $2)) >"$FAKES/clock"
exit "$(cat "$FAKES/code")"
"""
CLOCK = """#!/bin/bash
cat "$FAKES/clock"
"""


class Fakes:
    def __init__(self, folder: Path) -> None:
        self.folder, self.out, self.work, self.packed = folder, folder / "out", folder / "work", folder / "packed"
        for name in ("nvidia-smi", "nvcc", "cmake", "compute-sanitizer", "python"):
            self.program(name, FAKE)
        (self.packed / "wheels").mkdir(parents=True)
        (self.packed / "wheels" / "one-1-py3-none-any.whl").touch()
        (self.packed / "librdn_cuda.so").touch()
        state = subprocess.run(
            ["scripts/gpu_sources.sh", "csrc/cuda", "csrc/include"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        (self.packed / "sources").write_text(state.stdout)

    def program(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text)
        (self.folder / name).chmod(0o755)

    def start(self, *arguments: str, failing: str = "", missing: str = "", cutting: str = "") -> subprocess.Popen[str]:
        """failing, cutting: words of calls, a line each."""
        for name, text in {"calls": "", "failing": failing, "missing": missing, "cutting": cutting}.items():
            (self.folder / name).write_text(f"{text}\n" if text and name != "missing" else text)
        packed = ("--packed", str(self.packed)) if self.packed.exists() else ()
        command = ["bash", str(SCRIPT), "--out", str(self.out), "--work", str(self.work), *packed,
                   "--python", str(self.folder / "python"), *arguments]  # fmt: skip
        environment = {
            "PATH": f"{self.folder}:{os.environ['PATH']}",
            "FAKES": str(self.folder),
            "REAL": sys.executable,
        }
        return subprocess.Popen(
            command,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self, *arguments: str, **words: str) -> subprocess.CompletedProcess[str]:
        process = self.start(*arguments, **words)
        stdout, _ = process.communicate()
        return subprocess.CompletedProcess(process.args, process.returncode, stdout)

    def cut(self, word: str) -> None:
        """Kill the script while a call with this word runs."""
        process = self.start(cutting=word)
        while not any(word in call for call in self.calls):
            assert process.poll() is None, process.communicate()[0]
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.communicate()

    @property
    def calls(self) -> list[str]:
        return (self.folder / "calls").read_text().splitlines()

    def rows(self) -> dict[str, str]:
        """Step -> result, of all phases that were handed out."""
        phases = [json.loads(path.read_text()) for path in sorted(self.out.glob("phase*.json"))]
        return {row["what"]: row["result"] for phase in phases for row in phase["rows"]}


@pytest.fixture
def fakes(tmp_path: Path) -> Fakes:
    return Fakes(tmp_path)


def passed(done: subprocess.CompletedProcess[str]) -> list[str]:
    return re.findall(r"^(\w+): passed in", done.stdout, re.MULTILINE)


def test_phases_run_in_order_once_and_no_skip_is_allowed(fakes: Fakes) -> None:
    done = fakes.run()
    assert done.returncode == 0, done.stdout
    assert passed(done) == list(STEPS)
    for number in range(7):
        phase = json.loads((fakes.out / f"phase{number}.json").read_text())
        wanted = [step for step, of in (READY | PHASES).items() if of == number]
        assert {row["what"]: row["result"] for row in phase["rows"]} == dict.fromkeys(wanted, "passed")
        assert phase["phase"] == number
        measuring = set(wanted) - {"device_tests", "suite", *READY}
        assert phase["results"] == {step: {"found": 1} for step in measuring}
    assert len(list(fakes.out.iterdir())) == 8, "no more files come back from some machines"
    tests = [call for call in fakes.calls if "-m pytest" in call]
    assert len(tests) == 2
    assert all("RDN_REQUIRE_CUDA=1" in call for call in tests)
    assert len([call for call in fakes.calls if call.startswith("compute-sanitizer")]) == 2
    again = fakes.run()
    assert again.returncode == 0
    assert re.findall(r"^(\w+): passed before", again.stdout, re.MULTILINE) == list(STEPS)
    assert not [call for call in fakes.calls if "--output" in call or "-m pytest" in call]


@pytest.mark.parametrize("step", STEPS)
def test_a_cut_leaves_what_was_there_and_the_next_run_goes_on(step: str, fakes: Fakes) -> None:
    place = STEPS.index(step)
    fakes.cut(CALLS[step])
    if place:
        ready = [s for s in STEPS[:place] if fakes.rows()[s] == "passed"]
        assert ready == list(STEPS[:place])
        assert fakes.rows()[step] == "not run"
    done = fakes.run()
    assert (done.returncode, passed(done)) == (0, list(STEPS[place:])), done.stdout
    assert set(fakes.rows().values()) == {"passed"}


@pytest.mark.parametrize("out", ["next", "the same"])
def test_a_run_on_another_machine_goes_on_from_the_phases_of_the_one_before(out: str, fakes: Fakes) -> None:
    fakes.cut(CALLS["streams"])
    first, fakes.work = fakes.out, fakes.folder / "another"
    if out != "the same":
        fakes.out = fakes.folder / out
    done = fakes.run("--after", str(first))
    assert done.returncode == 0, done.stdout
    here = [step for step in STEPS if step in READY or STEPS.index(step) >= STEPS.index("streams")]
    assert passed(done) == here
    assert set(fakes.rows().values()) == {"passed"}
    assert json.loads((fakes.out / "phase2.json").read_text())["results"]["steady"] == {"found": 1}


def test_phases_of_other_sources_are_not_taken(fakes: Fakes) -> None:
    assert fakes.run().returncode == 0
    phase = fakes.out / "phase1.json"
    phase.write_text(json.dumps(json.loads(phase.read_text()) | {"sources": "cuda-000000000000"}))
    first, fakes.work, fakes.out = fakes.out, fakes.folder / "another", fakes.folder / "next"
    done = fakes.run("--after", str(first))
    assert f"{phase} is of other sources, or damaged: nothing taken from it" in done.stdout
    assert passed(done) == [step for step in STEPS if step in READY or PHASES[step] == 1]


@pytest.mark.parametrize("step", PHASES)
def test_a_step_that_fails_stops_no_other_and_is_tried_again_last(step: str, fakes: Fakes) -> None:
    done = fakes.run(failing=CALLS[step])
    assert done.returncode == 1
    assert passed(done) == [other for other in STEPS if other != step]
    assert re.search(rf"^{step}: FAILED \(1\).*\n(.*\n)*it went wrong", done.stdout, re.MULTILINE)
    assert fakes.rows() == dict.fromkeys(STEPS, "passed") | {step: "failed"}
    phase = json.loads((fakes.out / f"phase{PHASES[step]}.json").read_text())
    [row] = [row for row in phase["rows"] if row["what"] == step]
    assert row["end"][-1] == "it went wrong"
    assert "it went wrong" in (fakes.out / "gpu_check.log").read_text()
    done = fakes.run()
    assert (done.returncode, passed(done)) == (0, [step])


def test_what_has_not_run_comes_before_what_has_failed(fakes: Fakes) -> None:
    fakes.run(failing=CALLS["tiny"])
    for step in ("suite", "training"):
        next(fakes.work.glob(f"*/{step}.step")).unlink()
    assert passed(fakes.run()) == ["suite", "training", "tiny"]


@pytest.mark.parametrize("step", ["machine", "build", "model"])
def test_only_what_needs_a_step_waits_for_it(step: str, fakes: Fakes) -> None:
    done = fakes.run(failing=CALLS[step])
    assert done.returncode == 1
    waiting = re.findall(r"^(\w+): NOT RUN, it needs", done.stdout, re.MULTILINE)
    if step == "model":
        assert waiting == ["window", "steady", "against", "streams"]
    else:
        assert set(PHASES) <= set(waiting)
        assert not [call for call in fakes.calls if "--output" in call or "-m pytest" in call]


@pytest.mark.parametrize("code", [0, 124])
def test_phases_one_to_three_fit_into_nine_minutes_however_long_each_step_takes(code: int, fakes: Fakes) -> None:
    fakes.program("timeout", SLOW)
    fakes.program("date", CLOCK)
    (fakes.folder / "clock").write_text("1000")
    (fakes.folder / "code").write_text(str(code))
    if code:
        # Every step but those that others need: what made this machine ready took all its time, and passed.
        fakes.program("timeout", SLOW.replace("exit ", 'case "$*" in *.json*) ;; *) exit 0 ;; esac\nexit '))
    done = fakes.run()
    assert int((fakes.folder / "clock").read_text()) - 1000 < BEFORE_NINE_MINUTES
    started = {*passed(done), *re.findall(r"^(\w+): FAILED", done.stdout, re.MULTILINE)}
    assert set(READY) <= started
    reached = {PHASES[step] for step in started - set(READY)}
    assert {1, 2, 3} <= reached
    assert re.search(r"training: NOT RUN, the 520 seconds are over", done.stdout)
    (fakes.folder / "clock").write_text("1000")
    done = fakes.run()
    assert not set(READY) & set(passed(done)), "the second call has all its time for what is left"
    assert int((fakes.folder / "clock").read_text()) - 1000 < BEFORE_NINE_MINUTES


def test_when_the_time_is_over_it_says_so(fakes: Fakes) -> None:
    done = fakes.run("--seconds", "0")
    assert done.returncode == 1
    assert "machine: NOT RUN, the 0 seconds are over" in done.stdout
    assert fakes.calls == []
    assert set(fakes.rows().values()) == {"not run"}


def test_a_packed_library_of_other_sources_is_not_linked(fakes: Fakes) -> None:
    (fakes.packed / "sources").write_text("0" * 64)
    assert fakes.run().returncode == 0
    [configured] = [call for call in fakes.calls if call.startswith("cmake") and "-S ." in call]
    assert "RDN_CUDA_ARCHITECTURES=native" in configured
    assert "RDN_CUDA_LIBRARY" not in configured
    assert "is of other sources than csrc/cuda" in (fakes.out / "gpu_check.log").read_text()


def test_a_packed_library_that_does_not_load_is_compiled_there(fakes: Fakes) -> None:
    done = fakes.run(failing="RDN_CUDA_LIBRARY")
    assert passed(done) == list(STEPS)
    assert "RDN_CUDA_ARCHITECTURES=native" in [c for c in fakes.calls if c.startswith("cmake") and "-S ." in c][-1]


def test_without_a_pack_the_model_is_made_there(fakes: Fakes) -> None:
    shutil.rmtree(fakes.packed)
    fakes.run()
    assert [call for call in fakes.calls if "models.py" in call]
    assert not [call for call in fakes.calls if "seeded.py" in call or "--expected" in call or "pip install" in call]


def test_what_is_left_out_is_named(fakes: Fakes) -> None:
    rtx = [
        f"tests/backends/tensorrt/test_backend.py::{name}"
        for name in taking(ROOT / "tests" / "backends" / "tensorrt" / "test_backend.py", "builder")
    ]
    done = fakes.run(missing="tensorrt_rtx supervision 'av'")
    [suite] = [call for call in fakes.calls if CALLS["suite"] in call]
    for name in (*rtx, "tests/backends/tensorrt/test_backend.py::test_types_are_those_of_the_real_bindings"):
        assert f": {name}\n" in done.stdout
        assert f" --deselect={name}" in suite
    assert "left out, wants supervision: tests/test_results.py" in done.stdout
    assert " --ignore=tests/test_results.py" in suite
    assert "left out where a test wants them: av\n" in done.stdout
    assert passed(done) == list(STEPS)
    fakes.work = fakes.folder / "complete"
    complete = fakes.run()
    assert not any(name in complete.stdout for name in rtx)
    assert "left out, wants the network: tests/test_install.py" in complete.stdout
    assert "left out where" not in complete.stdout


def taking(path: Path, fixture: str) -> list[str]:
    """Names of the tests that take a fixture."""
    functions = [n for n in ast.parse(path.read_text()).body if isinstance(n, ast.FunctionDef)]
    return [f.name for f in functions if f.name.startswith("test_") and fixture in {a.arg for a in f.args.args}]


def test_a_test_that_wants_a_missing_package_is_skipped_by_name(tmp_path: Path) -> None:
    """Also where a process that it started wants it, and where its module cannot be imported; no other failure is."""
    (tmp_path / "conftest.py").write_text((ROOT / "tests" / "conftest.py").read_text())
    (tmp_path / "test_module.py").write_text("import absent\ndef test_one(): pass\n")
    (tmp_path / "test_others.py").write_text(
        "import subprocess, sys\n"
        "def test_function(): import absent\n"
        "def test_process(): subprocess.run([sys.executable, '-c', 'import absent.part'], check=True)\n"
        "def test_other(): import missing_too\n"
    )
    command = [sys.executable, "-m", "pytest", "-q", "-rsf", "-p", "no:cacheprovider", "."]
    environment = {"RDN_REQUIRE_CUDA": "1", "RDN_MISSING": "absent", "PYTHONPATH": f"{ROOT}", "PATH": "/usr/bin:/bin"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stdout
    assert "1 failed, 3 skipped" in done.stdout
    assert "FAILED test_others.py::test_other" in done.stdout
    assert done.stdout.count("left out, wants absent") == 3


def test_every_test_and_script_it_names_is_there() -> None:
    text = SCRIPT.read_text()
    named = re.findall(r"(tests/[\w/]+\.py)(?:::(\w+))?", text)
    assert len(named) >= 10
    for name, test in named:
        assert test in (ROOT / name).read_text()
    groups = re.findall(r"tests/([\w/]+)\{(.*?)\}\.py", text)
    assert len(groups) == 2
    for name, group in groups:
        assert all((ROOT / "tests" / f"{name}{part}.py").exists() for part in group.split(","))
    scripts = re.findall(r"(?<!tests/)(?:benchmarks|scripts)/[\w/]+\.(?:py|sh)", text)
    assert len(set(scripts)) >= 8
    assert all((ROOT / script).exists() for script in scripts)


def test_the_compiled_modules_go_where_they_are_imported_from() -> None:
    [folder] = re.findall(r'OUTPUT_DIRECTORY=\$PWD/(.*?)"', SCRIPT.read_text())
    assert ROOT / folder == Path(kernels.__file__).parent


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--fast",), "unknown argument --fast; wanted --out, --work"),
        (("--out",), "--out is given without a value; wanted --out FOLDER"),
        (("--after", "--out", "x"), "--after is given without a value; wanted --after FOLDER"),
        (("--packed", ""), "--packed is given without a value; wanted --packed FOLDER"),
        (("--packed", "/nowhere"), "--packed is /nowhere, which has no librdn_cuda.so; wanted the folder that"),
        (("--after", "/nowhere"), "--after is /nowhere, which has no phase0.json to phase6.json; wanted --out of"),
        (("--seconds", "9m"), "--seconds is '9m'; wanted a whole number"),
        (("--device", "gpu"), "--device is 'gpu'; wanted cuda or cpu"),
        (("--python", "/no/python"), "--python is '/no/python', which is no program; wanted a Python"),
    ],
)
def test_a_wrong_argument_is_refused(arguments: tuple[str, ...], told: str, tmp_path: Path) -> None:
    command = ["bash", str(SCRIPT), "--work", str(tmp_path / "work"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20)
    assert (done.returncode, done.stdout) == (2, "")
    assert told in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "work").exists()
