"""What is handed out: the files of the source distribution, and the Pythons that `make wheel` finds for the wheels."""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import tomllib
from pathlib import Path

import pytest

from scripts.make_wheels import VERSIONS, find_python

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the source distribution unpacks to."""
    folder = tmp_path_factory.mktemp("sdist")
    done = subprocess.run(
        [sys.executable, "-m", "build", "--sdist", "--outdir", folder, ROOT],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    [archive] = folder.glob("rdn_engine-*.tar.gz")
    with tarfile.open(archive) as opened:
        opened.extractall(folder, filter="data")
    return folder / archive.name.removesuffix(".tar.gz")


def _files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_the_sdist_holds_what_a_build_needs_and_nothing_else(sdist: Path) -> None:
    kinds = (".py", ".pyi", "py.typed", ".html", ".css", ".js", ".svg")
    package = {f"rdn_engine/{p}" for p in _files(ROOT / "rdn_engine") if p.endswith(kinds)}
    kernels = {f"csrc/{p}" for p in _files(ROOT / "csrc") if not p.startswith("emulator/")}
    top = {"CHANGELOG.md", "CMakeLists.txt", "LICENSE", "MANIFEST.in", "README.md", "pyproject.toml", "setup.py"}
    written = {"PKG-INFO", "setup.cfg"}
    found = {path for path in _files(sdist) if not path.startswith("rdn_engine.egg-info/")}
    assert found == package | kernels | top | written
    assert {"csrc/cpu/relation.cpp", "csrc/cuda/relation.cu", "csrc/tensorrt/relation_plugin.cpp"} <= found


def test_the_sdist_holds_every_source_that_its_sources_name(sdist: Path) -> None:
    """Only the emulator, which no build of the package asks for, is named and left out."""
    sources = [path for path in (sdist / "csrc").rglob("*") if path.suffix in (".h", ".cuh", ".cpp", ".cu")]
    missing = set()
    for source in sources:
        for name in re.findall(r'^#include "(.+)"', source.read_text(), re.MULTILINE):
            places = (source.parent, sdist / "csrc", sdist / "csrc" / "include")
            if not any((place / name).is_file() for place in places):
                missing.add(name)
    assert missing == {"emulator/emulator.h"}
    listed = re.findall(r"\bcsrc/\S+\.(?:cpp|cmake)\b", (sdist / "CMakeLists.txt").read_text())
    assert len(listed) > 10
    assert [name for name in listed if not (sdist / name).is_file()] == []


def _python(folder: Path, name: str, answer: str) -> Path:
    """A Python that answers every question so."""
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\n{answer}\n")
    path.chmod(0o755)
    return path


def _answer(version: str, executable: Path, headers: bool) -> str:
    return f"""echo '["{version}", "{executable}", {str(headers).lower()}]'"""


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """Two folders, all that PATH holds; no pyenv."""
    folders = tmp_path / "first", tmp_path / "second"
    monkeypatch.setenv("PATH", f"{folders[0]}:{folders[1]}:/bin")
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path / "pyenv"))
    return folders


def test_a_python_that_does_not_start_or_has_no_headers_is_passed_over(places: tuple[Path, Path]) -> None:
    _python(places[0], "python3.12", "echo 'pyenv: python3.12: command not found' >&2; exit 127")
    good = _python(places[1], "python3.12", _answer("3.12", places[1] / "python3.12", True))
    assert find_python("3.12") == (str(good), f"Python 3.12: {good}")
    bare = _python(places[0], "python3.12", _answer("3.12", places[0] / "python3.12", False))
    assert find_python("3.12")[0] == str(good)
    good.unlink()
    python, text = find_python("3.12")
    assert python is None
    assert str(bare) in text
    assert "Python.h" in text


def test_a_python_of_pyenv_is_found(places: tuple[Path, Path], tmp_path: Path) -> None:
    folder = tmp_path / "pyenv" / "versions" / "3.13.4" / "bin"
    folder.mkdir(parents=True)
    python = _python(folder, "python", _answer("3.13", folder / "python", True))
    assert find_python("3.13")[0] == str(python)


def test_a_python_may_be_named_by_its_path(places: tuple[Path, Path]) -> None:
    good = _python(places[0], "mine", _answer("3.11", places[0] / "mine", True))
    assert find_python(str(good))[0] == str(good)
    old = _python(places[0], "old", _answer("3.10", places[0] / "old", True))
    python, text = find_python(str(old))
    assert python is None
    assert "Python 3.10" in text
    assert "3.11, 3.12, 3.13" in text


def test_a_python_that_is_not_there_is_said_to_be_missing(places: tuple[Path, Path]) -> None:
    assert find_python("3.12") == (None, "Python 3.12: not found on this machine")


def test_wheels_are_made_for_the_versions_that_the_metadata_names() -> None:
    named = re.findall(r'"Programming Language :: Python :: (3\.\d+)"', (ROOT / "pyproject.toml").read_text())
    assert tuple(named) == VERSIONS


def test_messages_advise_packages_that_there_are() -> None:
    """Nothing of ours is published, so none of them is ours; each is one that an extra names."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = project["dependencies"] + [one for extra in project["optional-dependencies"].values() for one in extra]
    known = {re.match(r"[\w-]+", requirement)[0] for requirement in wanted} - {project["name"]}  # type: ignore[index]
    advised = set()
    for path in (ROOT / "rdn_engine").rglob("*.py"):
        for command in re.findall(r"pip install ([^,;\n\"]+)", path.read_text(encoding="utf-8")):
            advised |= {re.sub(r"\[.*|'", "", package) for package in command.replace(r"\"", "").split()}
    assert advised - known == {"nvidia-cublas"}, "which no extra names"
    assert {"cupy-cuda13x", "torch", "onnx", "supervision", "tensorrt-rtx-cu13-libs"} <= advised
