"""The installed thing: a wheel in a fresh environment that has no torch, away from the checkout."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import venv
import zipfile
from email.message import Message
from email.parser import Parser
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ENGINES = ROOT / "models" / "rdn_tiny" / "engines"


def _run(*command: str | Path, cwd: Path, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(c) for c in command],
        cwd=cwd,
        env={**os.environ, **(env or {})},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    built = _run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, ROOT, cwd=folder)
    assert built.returncode == 0, built.stderr
    [wheel] = folder.glob("rdn_engine-*.whl")
    return wheel


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin directory of an environment that holds the wheel and what it declares, nothing else."""
    folder = tmp_path_factory.mktemp("install")
    venv.create(folder / "env", with_pip=True)
    bin_dir = folder / "env" / "bin"
    done = _run(bin_dir / "pip", "install", "--quiet", wheel, cwd=folder)
    assert done.returncode == 0, done.stderr
    return bin_dir


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    """A build folder may hold modules that have moved since: `make wheel` builds from the sdist, where none do."""
    names = [Path(name) for name in zipfile.ZipFile(wheel).namelist()]
    package = [name for name in names if not name.parts[0].endswith(".dist-info")]
    assert {name.parts[0] for name in package} == {"rdn_engine"}
    page = {name for name in package if name.match("rdn_engine/service/page/*")}
    assert {name.suffix for name in page} == {".py", ".html", ".css", ".js", ".svg"}, "it is served as it is"
    assert {name.suffix for name in set(package) - page} <= {".py", ".pyi", ".typed", ".so"}
    modules = {path.relative_to(ROOT) for path in (ROOT / "rdn_engine").rglob("*.py")}
    [stub] = (ROOT / "rdn_engine").rglob("_C.pyi")
    assert modules | {Path("rdn_engine/py.typed"), stub.relative_to(ROOT)} <= set(names)
    assert [name for name in package if name.parent == stub.parent.relative_to(ROOT) and name.match("_C.*.so")]


def _metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        [name] = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        return Parser().parsestr(archive.read(name).decode(), headersonly=True)


def test_the_metadata_asks_for_what_the_runtime_imports(wheel: Path) -> None:
    metadata = _metadata(wheel)
    required = {line for line in metadata.get_all("Requires-Dist", []) if "extra ==" not in line}
    names = {re.split(r"[^\w-]", line)[0] for line in required}
    assert names == {"numpy", "onnxruntime", "av", "rich", "typer", "pillow"}
    versions = [c.rpartition(" ")[2] for c in metadata.get_all("Classifier", []) if ":: Python :: 3." in c]
    assert versions == ["3.11", "3.12", "3.13"]
    assert metadata["Requires-Python"] == ">=3.11"


def test_the_runtime_needs_no_torch(installed: Path, tmp_path: Path) -> None:
    script = f"""
import importlib.util, sys
import numpy as np
import rdn_engine
assert importlib.util.find_spec("torch") is None
assert "site-packages" in rdn_engine.__file__
detector = rdn_engine.Detector.from_pretrained({str(ENGINES)!r})
frames = np.random.default_rng(0).integers(0, 256, (3, 128, 192, 3), dtype=np.uint8)
results = detector.predict(frames)
print([r.frame_index for r in results])
"""
    done = _run(installed / "python", "-c", script, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[0, 1, 2]"


def test_importing_loads_neither_torch_nor_engines(tmp_path: Path) -> None:
    """In this environment, which has torch: `import rdn_engine` must leave the slow libraries alone."""
    script = "import sys, rdn_engine; print([m for m in ('torch', 'onnxruntime', 'av', 'PIL') if m in sys.modules])"
    done = _run(sys.executable, "-c", script, cwd=ROOT)
    assert done.stdout.strip() == "[]", done.stderr


def test_the_console_script_verifies_a_bundle(installed: Path, tmp_path: Path) -> None:
    done = _run(installed / "rdn-engine", "verify", ENGINES, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(("value", "message"), [("maybe", "auto, on, off"), ("on", "CUDA")])
def test_a_cuda_build_that_cannot_be_had_fails_loudly(value: str, message: str, tmp_path: Path) -> None:
    done = _run(
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--no-deps",
        "--wheel-dir",
        tmp_path,
        ROOT,
        cwd=tmp_path,
        env={"RDN_CUDA": value, "CUDACXX": "/nowhere/nvcc"},
    )
    assert done.returncode != 0
    assert message in done.stdout + done.stderr
