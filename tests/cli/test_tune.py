"""`rdn-engine tune`: a real small run, what it refuses, and that `predict` and `run` take what it writes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from rdn_engine.cli import tune as command
from rdn_engine.cli.tables import tables_text
from rdn_engine.cli.tune import milliseconds
from rdn_engine.config import Dials
from rdn_engine.dials_file import read_dials_file
from rdn_engine.errors import ConfigError
from rdn_engine.tuning import costs, tune
from rdn_engine.tuning.costs import Effort
from rdn_engine.tuning.space import Options
from tests.cli.commands import ROOT, lines, run, write_video
from training.data.export_synthetic import export_synthetic
from training.data.synthetic import SyntheticVideos

ENGINES = ROOT / "models" / "rdn_tiny" / "engines"


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few rounds, one thread: what is measured does not matter here."""
    monkeypatch.setattr(command, "available_cpus", lambda: 1)
    monkeypatch.setattr(costs, "SCAN", Effort(1, 1, 1.0))
    monkeypatch.setattr(tune, "PROOF", Effort(2, 2, 1.0))


@pytest.mark.usefixtures("short")
def test_what_is_proposed_runs(tmp_path: Path) -> None:
    export_synthetic(SyntheticVideos("test", 2, 6), tmp_path)
    out = tmp_path / "dials.json"
    data = ["--data", tmp_path / "annotations.json", "--images", tmp_path / "images"]
    result = run("tune", ENGINES, "--budget", "60s", *data, "--streams", 2, "--frames", 6, "--output", out)
    assert result.exit_code == 0, result.output
    assert "* meets 60000 ms with 2 streams" in result.stdout
    assert "AP50" in result.stdout
    assert "!" not in result.stdout
    found = read_dials_file(out)
    assert found.precision == "float32"
    assert found.backend in ("onnxruntime", "openvino")
    assert (found.measured["frames"], found.measured["streams"]) == (6, 2)
    assert 0 < found.measured["AP50"] <= 100
    assert 0 < found.measured["p50_ms"] <= found.measured["p99_ms"] <= 60000

    predicted = tmp_path / "out.jsonl"
    clip = write_video(tmp_path / "a.mp4")
    arguments = ["predict", clip, "--engines", ENGINES, "--output", predicted, "--json", "--dials", out]
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["backend"] == found.backend
    assert {line["lookahead"] for line in lines(predicted)} == {found.dials["look_ahead"]}
    assert run(*arguments, "--window", 3, "--look-ahead", 1, "--backend", "onnxruntime").exit_code == 0
    assert {line["lookahead"] for line in lines(predicted)} == {1}, "what is given goes before the file"

    settings = tmp_path / "streams.yaml"
    settings.write_text(f"engines: {ENGINES}\ndials_file: {out}\nstreams:\n  a: {{source: {clip}}}\n")
    assert run("run", settings, "--check").exit_code == 0


@pytest.mark.usefixtures("short")
def test_without_annotations_the_models_own_dials_are_kept_where_they_fit(tmp_path: Path) -> None:
    out = tmp_path / "dials.json"
    clip = write_video(tmp_path / "a.mp4")
    result = run("tune", ENGINES, "--budget", "1m", "--video", clip, "--output", out)
    assert result.exit_code == 2
    result = run("tune", ENGINES, "--budget", "60s", "--video", clip, "--wait", 2, "--output", out)
    assert result.exit_code == 0, result.output
    found = read_dials_file(out)
    assert found.dials == {
        "window": 8, "look_ahead": 2, "num_support": 24, "num_reference": 64, "advanced_ratio": 0.25, "interval": 1,
    }  # fmt: skip
    assert found.measured["AP50"] is None


@pytest.mark.usefixtures("short")
def test_a_budget_that_nothing_meets_writes_nothing(tmp_path: Path) -> None:
    out = tmp_path / "dials.json"
    result = run("tune", ENGINES, "--budget", "0.001ms", "--video", write_video(tmp_path / "a.mp4"), "--output", out)
    assert result.exit_code == 2
    assert "the budget is 0.001 ms; wanted" in result.stderr
    assert not out.exists()


@pytest.mark.usefixtures("short")
def test_settings_above_the_budget_are_marked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is told to be a little dearer is measured too, and stays in the table where it is no better in time."""
    own = Options(0, "onnxruntime", 1)
    dear, fits = tune.Row(own, Dials(interval=1), 61.0, 50.0), tune.Row(own, Dials(interval=2), 39.0, 49.0)
    fits = replace(fits, measured=costs.Measured((39.0,), {}))
    monkeypatch.setattr(tune, "tune", lambda *_: tune.Proposal([dear, fits], fits))
    given = ["--budget", "40ms", "--video", write_video(tmp_path / "a.mp4"), "--output", tmp_path / "dials.json"]
    result = run("tune", ENGINES, *given)
    assert result.exit_code == 0, result.output
    assert [line.split()[:2] for line in result.stdout.splitlines() if line[:1] in ("!", "*")] == [
        ["!", "61.0"], ["*", "39.0"], ["*", "meets"], ["!", "takes"],
    ]  # fmt: skip


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize(("busy", "said"), [(0.79, False), (0.8, True), (1.264, True)])
def test_what_others_took_of_the_machine_is_said(
    busy: float, said: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the time in which it was measured, whether a setting meets the budget or none does."""
    own = tune.Row(Options(0, "onnxruntime", 1), Dials(), 9.0, None, costs.Measured((9.0,), {}))
    measured: list[float] = []

    class Busy:
        of = 16

        def __init__(self) -> None:
            self.before = len(measured)

        def busy(self) -> float:
            return busy * (len(measured) - self.before)

    def find(*arguments: object) -> tune.Proposal:
        budget_ms = arguments[3]
        assert isinstance(budget_ms, float)
        measured.append(budget_ms)
        if budget_ms < 9:
            raise ConfigError("none meets the budget")
        return tune.Proposal([own], own)

    monkeypatch.setattr(command, "Others", Busy)
    monkeypatch.setattr(tune, "tune", find)
    clip, out = write_video(tmp_path / "a.mp4"), tmp_path / "dials.json"
    for budget, code in (("40ms", 0), ("1ms", 2)):
        result = run("tune", ENGINES, "--budget", budget, "--video", clip, "--output", out)
        assert result.exit_code == code, result.output
        assert ("none meets the budget" in result.stderr) == (code == 2)
        assert (f"meanwhile others kept {busy:.1f} of 16 CPUs busy" in result.output) == said
    assert read_dials_file(out).measured["others"] == {"busy_cpus": round(busy, 2), "of": 16}


@pytest.mark.usefixtures("short")
def test_a_model_of_few_support_proposals_without_an_advanced_stage(tmp_path: Path) -> None:
    """A quarter of rdn_mini's 12 is 3, of which its r would leave none; it has no use for r."""
    out = tmp_path / "dials.json"
    mini, clip = ROOT / "models" / "rdn_mini" / "engines", write_video(tmp_path / "a.mp4")
    result = run("tune", mini, "--budget", "60s", "--video", clip, "--output", out)
    assert result.exit_code == 0, result.output
    assert read_dials_file(out).dials["num_support"] == 12


def test_what_is_wrong_is_refused_before_anything_is_measured(tmp_path: Path) -> None:
    for arguments, code, message in (
        ([ENGINES, "--budget", "100"], 2, "--budget is '100'; wanted 100ms"),
        ([ENGINES, "--budget", "1s", "--streams", 0], 2, "--streams is 0; wanted 1 or more"),
        ([ENGINES, "--budget", "1s", "--wait", -1], 2, "--wait is -1; wanted 0 or more"),
        ([tmp_path, "--budget", "1s"], 4, "manifest.json"),
        ([ENGINES, "--budget", "1s", "--data", tmp_path / "none.json"], 3, "cannot be read"),
        ([ENGINES, "--budget", "1s", "--video", tmp_path / "none.mp4"], 3, "none.mp4"),
    ):
        result = run("tune", *arguments, "--output", tmp_path / "dials.json")
        assert result.exit_code == code, result.output
        assert message in result.stderr
        assert result.stderr.startswith("rdn-engine: "), "no empty line where no spinner was shown"
    export_synthetic(SyntheticVideos("test", 1, 2), tmp_path)
    annotations = tmp_path / "annotations.json"
    annotations.write_text(annotations.read_text().replace("checked star", "box"))
    given = ["--budget", "0.001ms", "--data", annotations, "--images", tmp_path / "images"]
    result = run("tune", ENGINES, *given, "--output", tmp_path / "dials.json")
    assert result.exit_code == 3, result.output
    assert "only the data set ['box']" in result.stderr
    for output in (tmp_path, tmp_path / "none" / "dials.json"):
        result = run("tune", ENGINES, "--budget", "1s", "--output", output)
        assert result.exit_code == 2, result.output
        assert f"--output is {output}; wanted a file" in result.stderr
    assert not (tmp_path / "dials.json").exists()


def test_times_as_people_write_them() -> None:
    assert [milliseconds(text) for text in ("100ms", "0.04s", " 2 s ", ".5ms", "33.3 ms")] == [100, 40, 2000, 0.5, 33.3]
    for text in ("", "100", "0ms", "-5ms", "1e3ms", "ms", "nan s", "2h", "4000s"):
        with pytest.raises(ConfigError, match="--budget is"):
            milliseconds(text)


def test_a_setting_is_one_line_of_80_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    dials = Dials(window=18, look_ahead=18, num_support=75, num_reference=300, advanced_ratio=0.25, interval=4)
    slow = tune.Row(Options(0, "onnxruntime", 16, "bfloat16"), dials, 1234.5, 88.9)
    fast = tune.Row(Options(1, "openvino", 1), replace(dials, look_ahead=0), 123.45, None)
    faster = replace(fast, told_ms=9.0)
    table = command._table(tune.Proposal([slow, fast, faster], fast), ["float32", "int8"], 123.45)
    text = tables_text(table)
    assert [" ".join(line.split()) for line in text.splitlines()[2:] if line.strip()] == [
        "! 1234.5 88.9 75 18 18 75 300 0.25 4 float32 + bf16, onnxruntime x16",
        "* 123.5 - 0 18 0 75 300 0.25 4 int8, openvino x1",
        "9.0 - 0 18 0 75 300 0.25 4 int8, openvino x1",
    ]
