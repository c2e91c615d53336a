"""Empty arguments, as a shell makes of a variable that is not set."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import typer

from rdn_engine.cli.app import app
from rdn_engine.cli.exits import USAGE
from tests.cli.commands import ROOT, run

ENGINES = ROOT / "models" / "rdn_tiny" / "engines"


def refused(*arguments: object) -> str:
    """What is said of them, without the frame that is drawn around it."""
    result = run(*arguments)
    assert result.exit_code == USAGE, arguments
    return " ".join(re.sub(r"[│╭╰╮╯─]+", " ", result.output).split())


def test_no_option_takes_an_empty_value(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it is a path, the current folder would be it: an engine directory, or full of results."""
    for path in ENGINES.iterdir():
        (tmp_path / path.name).symlink_to(path)
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.iterdir())
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    given = [(name, option) for name, one in commands.items() for param in one.params for option in param.opts]
    options = [(name, option) for name, option in given if option.startswith("--")]
    assert ("predict", "--output") in options
    assert ("tune", "--data") in options
    for name, option in options:
        for empty in ((option, ""), (f"{option}=",)):
            assert f"what stands behind {option} is empty" in refused(name, ".", *empty)
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("command", ["predict", "evaluate", "tune", "run", "export-triton", "info", "verify", "build"])
def test_no_argument_may_be_empty(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ENGINES)
    assert "an argument is empty" in refused(command, "", "--output", tmp_path / "new")
    assert not (tmp_path / "new").exists()
    assert "an argument is empty" in refused("")


def test_an_option_that_has_its_value_is_not_blamed() -> None:
    assert "an argument is empty" in refused("predict", "--threshold=0.3", "")
    assert "an argument is empty" in refused("predict", "--threshold", "0.3", "--", "")
    assert "--of= does not exist" in run("predict", "--engines", ENGINES, "--", "--of=").output
