"""ONNX Runtime 1.32.0's Linux wheels write into the home folder when they are imported, except where CI is set:
findings/onnxruntime_telemetry_at_import.sh. Nothing of it through us, unless the user asked."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ENGINES = ROOT / "models" / "rdn_tiny" / "engines"

USES = {
    "detector": f"import rdn_engine; rdn_engine.Detector.from_pretrained({str(ENGINES)!r})",
    "command": f"import sys; sys.argv[1:] = ['info', {str(ENGINES)!r}]; from rdn_engine.cli.app import app; "
    "app(standalone_mode=False)",
    "export": "import export.calibration",
    **{
        f"benchmarks/kernel/{name}": f"import runpy; runpy.run_path({str(ROOT / 'benchmarks' / 'kernel' / name)!r})"
        for name in ("kernels.py", "relation.py")
    },
}

SWITCH = "rdn_engine.backends.onnxruntime"
"""What is imported before ONNX Runtime wherever that is; tests/conftest.py does it for the tests."""

PACKAGES = (ROOT / "rdn_engine" / "backends" / "onnxruntime", ROOT / "export")
"""Their own `__init__` imports SWITCH."""


def run(code: str, home: Path, **variables: str) -> str:
    """Prints the variable that ONNX Runtime reads."""
    kept = {name: value for name, value in os.environ.items() if name not in ("CI", "ORT_DISABLE_TELEMETRY")}
    environment = (
        kept | {"HOME": str(home), "XDG_CACHE_HOME": str(home / ".cache"), "PYTHONPATH": str(ROOT)} | variables
    )
    code += "; import os; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()[-1]


@pytest.mark.parametrize("use", USES)
def test_nothing_is_written_into_the_home_folder(use: str, tmp_path: Path) -> None:
    assert run(USES[use], tmp_path) == "1"
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_user_s_own_value_wins(tmp_path: Path) -> None:
    assert run(USES["detector"], tmp_path, ORT_DISABLE_TELEMETRY="0") == "0"


def test_a_home_that_cannot_be_written_is_no_matter(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir(mode=0o500)
    assert run(USES["detector"], home) == "1"


def imported(path: Path) -> list[str]:
    """Every module that a file imports, in the order of its lines."""
    nodes = [
        n for n in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(n, ast.Import | ast.ImportFrom)
    ]
    names = []
    for node in sorted(nodes, key=lambda node: node.lineno):
        names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
    return names


def test_every_file_switches_it_off_before_it_imports_it() -> None:
    places = [ROOT / name for name in ("rdn_engine", "training", "export", "benchmarks", "scripts", "examples")]
    files = [path for place in places for path in place.rglob("*.py")]
    users, early = [], []
    for path in files:
        names = imported(path)
        first = next((i for i, name in enumerate(names) if name.split(".")[0] == "onnxruntime"), None)
        if first is None:
            continue
        users.append(path)
        if not any(path.is_relative_to(package) for package in PACKAGES) and SWITCH not in names[:first]:
            early.append(str(path))
    assert len(users) > 5
    assert early == []
    assert SWITCH in imported(ROOT / "export" / "__init__.py")
    assert SWITCH in imported(ROOT / "tests" / "conftest.py")
