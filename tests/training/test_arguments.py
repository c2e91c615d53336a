"""Empty arguments of the scripts, as a shell makes of a variable that is not set."""

from __future__ import annotations

import argparse
import ast
import subprocess
import sys
from pathlib import Path

import pytest

from training.arguments import given_path

ROOT = Path(__file__).parents[2]
FOLDERS = ("training", "export", "benchmarks", "examples")


def test_an_empty_path_is_not_the_current_folder() -> None:
    assert given_path("a/b") == Path("a/b")
    assert given_path(".") == Path()
    with pytest.raises(argparse.ArgumentTypeError, match="is empty; wanted a path"):
        given_path("")


def types_of_arguments(tree: ast.Module) -> set[str]:
    """What stands behind `type=` in calls of `add_argument`, where it is a name."""
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    given = [call for call in calls if getattr(call.func, "attr", "") == "add_argument"]
    types = [keyword.value for call in given for keyword in call.keywords if keyword.arg == "type"]
    return {one.id for one in types if isinstance(one, ast.Name)}


def test_every_path_of_every_script_is_taken_this_way() -> None:
    found = {
        str(path.relative_to(ROOT)): types_of_arguments(ast.parse(path.read_text(encoding="utf-8")))
        for folder in FOLDERS
        for path in sorted((ROOT / folder).rglob("*.py"))
    }
    assert [name for name, types in found.items() if "Path" in types] == []
    takers = {name for name, types in found.items() if "given_path" in types}
    assert {name.split("/")[0] for name in takers} == set(FOLDERS)
    assert len(takers) > 50


@pytest.mark.parametrize(
    ("script", "option"),
    [
        ("export/attach.py", "--output"),
        ("training/data/convert.py", "--images"),
        ("benchmarks/report/report.py", "file"),
        ("examples/own_detector.py", "--output"),
    ],
)
def test_a_script_says_which_path_is_empty(script: str, option: str, tmp_path: Path) -> None:
    given = [option, ""] if option.startswith("--") else [""]
    done = subprocess.run(
        [sys.executable, ROOT / script, *given], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert f"error: argument {option}: is empty; wanted a path" in done.stderr
    assert list(tmp_path.iterdir()) == []
