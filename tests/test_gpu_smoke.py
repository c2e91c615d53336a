"""scripts/gpu_smoke.py on the emulator, and without the packages that a machine with a GPU may lack."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.kernel.kernels_cuda import CASES
from scripts import gpu_smoke

ROOT = Path(__file__).resolve().parents[1]
QUICK = ["--device", "cpu", "--quick"]
LACKING = ("av", "rich", "typer", "supervision", "faster_coco_eval")
# Modules of the phases that must run on a machine with little more than torch and cupy.
FIRST_PHASES = ("benchmarks.frame.seeded", "benchmarks.frame.steady_frame", "benchmarks.frame.latency",
                "benchmarks.frame.workers", "benchmarks.frame.baseline", "benchmarks.frame.device_side",
                "benchmarks.kernel.kernels_cuda", "scripts.gpu_results", "training.checkpoints.files")  # fmt: skip

WITHOUT = """
import importlib, importlib.abc, sys
class Lacking(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {lacking}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Lacking())
"""


def without(code: str) -> subprocess.CompletedProcess[str]:
    """Run code where LACKING cannot be imported."""
    script = WITHOUT.format(lacking=set(LACKING)) + code
    return subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)


def test_every_check_passes_on_the_emulator_without_what_may_be_lacking(tmp_path: Path) -> None:
    path = tmp_path / "smoke.json"
    arguments = [*QUICK, "--output", str(path)]
    done = without(f"import scripts.gpu_smoke as smoke; sys.exit(smoke.main({arguments!r}))")
    assert done.returncode == 0, done.stdout + done.stderr
    table = json.loads(path.read_text())
    names = [row["what"] for row in table["rows"]]
    assert names[: 1 + len(CASES)] == ["device", *(f"kernel {name}" for name in CASES)]
    assert names[-2:] == ["rdn_tiny", "window of rdn_tiny/engines"]
    assert all(row["passed"] for row in table["rows"])
    told = {row["what"]: row["told"] for row in table["rows"]}
    assert "100.0% in common with the CPU, wanted 95%, 1 CUDA graph captured" in told["rdn_tiny"]
    assert "1 CUDA graph captured" in told["stream, per_frame, float16"]
    assert done.stdout.count("passed") == len(names)


def test_the_first_phases_import_nothing_that_may_be_lacking() -> None:
    done = without(f"[importlib.import_module(name) for name in {FIRST_PHASES}]")
    assert done.returncode == 0, done.stderr


def test_what_is_blocked_is_blocked() -> None:
    assert "No module named 'av'" in without("import av").stderr


def test_a_check_that_fails_ends_none_of_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(place: object, name: str) -> str:
        if name == "gates":
            raise RuntimeError("CUDA: an illegal memory access was encountered")
        return "fine"

    monkeypatch.setattr(gpu_smoke, "kernel", broken)
    path = tmp_path / "smoke.json"
    assert gpu_smoke.main([*QUICK, "--only", "kernels", "--output", str(path)]) == 1
    rows = {row["what"]: row for row in json.loads(path.read_text())["rows"]}
    assert [name for name, row in rows.items() if not row["passed"]] == ["kernel gates"]
    assert rows["kernel gates"]["told"] == "RuntimeError: CUDA: an illegal memory access was encountered"
    assert "in broken" in rows["kernel gates"]["why"]


def test_rows_are_written_as_they_come() -> None:
    written: list[int] = []

    def cut() -> str:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        gpu_smoke.run(iter([("one", lambda: "fine"), ("two", cut)]), lambda rows: written.append(len(rows)))
    assert written == [1]


def test_a_window_is_held_to_what_a_cpu_found_before(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    expected, output = tmp_path / "expected.npz", str(tmp_path / "window.json")
    assert gpu_smoke.main([*QUICK, "--write-expected", str(expected)]) == 0
    check = [*QUICK, "--only", "window", "--expected", str(expected), "--output", output]
    assert gpu_smoke.main(check) == 0
    with np.load(expected) as archive:
        rows, dials = archive["rows"], archive["dials"]
    moved = rows + np.array([0.5, 0.5, 0.5, 0.5, 0, 0])
    np.savez(expected, rows=moved, dials=dials)
    assert gpu_smoke.main(check) == 1
    assert f"{len(rows)} boxes, 0.0% in common with the CPU, wanted 95%" in capsys.readouterr().out
    np.savez(expected, rows=rows, dials=np.array("other dials"))
    assert gpu_smoke.main(check) == 1
    assert "was found with other dials" in capsys.readouterr().out


def test_a_stream_without_a_captured_graph_does_not_pass() -> None:
    with pytest.raises(AssertionError, match="no CUDA graph was captured"):
        gpu_smoke._graphs(0)
