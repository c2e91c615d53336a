"""ONNX Runtime 1.32.0's Linux wheels write into the home folder when they are imported, except where CI is set:
findings/onnxruntime_telemetry_at_import.sh. OpenVINO 2026.4.1 does, too, and has a child send a message:
findings/openvino_telemetry_at_import.sh. Nothing of it through us, unless the user asked."""

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

SWITCHES = {"onnxruntime": "rdn_engine.backends.onnxruntime", "openvino": "rdn_engine.backends.openvino"}
"""Library -> what is imported before it wherever it is"""

SWITCHED_IN = {
    "onnxruntime": [ROOT / "rdn_engine" / "backends" / "onnxruntime", ROOT / "export", ROOT / "tests"],
    "openvino": [ROOT / "rdn_engine" / "backends" / "openvino"],
}
"""Folders whose own `__init__`, or conftest.py, does so"""

SWITCHED = "; import os; print(os.environ['ORT_DISABLE_TELEMETRY'])"
"""Prints the variable that ONNX Runtime reads"""

ON_CI = "CI", "TF_BUILD", "JENKINS_URL"


def run(code: str, home: Path, **variables: str) -> str:
    """The last word that some code prints, away from CI."""
    kept = {name: value for name, value in os.environ.items() if name not in (*ON_CI, "ORT_DISABLE_TELEMETRY")}
    environment = (
        kept | {"HOME": str(home), "XDG_CACHE_HOME": str(home / ".cache"), "PYTHONPATH": str(ROOT)} | variables
    )
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()[-1]


@pytest.mark.parametrize("use", USES)
def test_nothing_is_written_into_the_home_folder(use: str, tmp_path: Path) -> None:
    assert run(USES[use] + SWITCHED, tmp_path) == "1"
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_user_s_own_value_wins(tmp_path: Path) -> None:
    assert run(USES["detector"] + SWITCHED, tmp_path, ORT_DISABLE_TELEMETRY="0") == "0"


def test_a_home_that_cannot_be_written_is_no_matter(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir(mode=0o500)
    assert run(USES["detector"] + SWITCHED, home) == "1"


@pytest.mark.parametrize("backend", ["openvino", "auto"])
def test_openvino_has_nobody_to_send_for_it(backend: str, tmp_path: Path) -> None:
    code = f"""
import os, sys
forked = []
os.register_at_fork(before=lambda: forked.append(True))
import rdn_engine
rdn_engine.Detector.from_pretrained({str(ENGINES)!r}, backend={backend!r})
assert "openvino" in sys.modules
assert "openvino_telemetry" not in sys.modules
print(len(forked))
"""
    assert run(code, tmp_path) == "0"
    ours = tmp_path / ".cache" / "rdn_engine"
    assert [path for path in tmp_path.rglob("*") if path.is_file() and not path.is_relative_to(ours)] == []


USE_OPENVINO = "import rdn_engine.backends.openvino"


@pytest.mark.parametrize(
    ("before", "use", "after"),
    [
        ("import openvino_telemetry", USE_OPENVINO, "sys.modules['openvino_telemetry'] is openvino_telemetry"),
        ("sys.modules['openvino_telemetry'] = None", USE_OPENVINO, "sys.modules['openvino_telemetry'] is None"),
        ("", USE_OPENVINO, "importlib.import_module('openvino_telemetry').Telemetry is not None"),
        (
            "sys.modules['openvino'] = None",
            f"try:\n    {USE_OPENVINO}\nexcept ImportError: pass",
            "importlib.import_module('openvino_telemetry').Telemetry is not None",
        ),
    ],
    ids=["theirs", "their own hiding", "afterwards", "without openvino"],
)
def test_a_program_s_own_use_of_openvinos_telemetry_is_its_own(
    before: str, use: str, after: str, tmp_path: Path
) -> None:
    code = f"import importlib, sys\nfinders = list(sys.meta_path)\n{before}\n{use}\n"
    code += f"assert sys.meta_path == finders\nprint({after})"
    assert run(code, tmp_path, CI="true") == "True"  # on CI it sends nothing, which a test should not either


def test_another_thread_finds_openvinos_telemetry_meanwhile(tmp_path: Path) -> None:
    """`openvino` is a module here that has another thread import what is hidden from its own."""
    (tmp_path / "openvino.py").write_text(
        """
import importlib, threading
def use():
    found.append(importlib.import_module("openvino_telemetry").Telemetry is not None)
found = []
try:
    import openvino_telemetry
except ImportError:
    found.append("hidden")
other = threading.Thread(target=use)
other.start()
other.join()
"""
    )
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n{USE_OPENVINO}\n"
    code += "import openvino; print(openvino.found == ['hidden', True])"
    assert run(code, tmp_path) == "True"


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
    places = [
        ROOT / name for name in ("rdn_engine", "training", "export", "benchmarks", "scripts", "examples", "tests")
    ]
    users: dict[str, list[Path]] = {library: [] for library in SWITCHES}
    early = []
    for path in (path for place in places for path in place.rglob("*.py")):
        modules = imported(path)
        for library, switch in SWITCHES.items():
            first = next((i for i, name in enumerate(modules) if name.split(".")[0] == library), None)
            if first is None:
                continue
            users[library].append(path)
            if not any(path.is_relative_to(done) for done in SWITCHED_IN[library]) and switch not in modules[:first]:
                early.append((library, str(path)))
    assert len(users["onnxruntime"]) > 5
    assert len(users["openvino"]) > 1
    assert early == []
    assert SWITCHES["onnxruntime"] in imported(ROOT / "export" / "__init__.py")
    assert SWITCHES["onnxruntime"] in imported(ROOT / "tests" / "conftest.py")
