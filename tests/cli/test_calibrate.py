"""`rdn-engine calibrate`: from results and annotations to a bundle that says what its confidences are worth."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rdn_engine.bundle.directory import Bundle
from tests.cli.commands import ROOT, lines, run
from training.data.export_synthetic import export_synthetic
from training.data.synthetic import SyntheticVideos

ENGINES = ROOT / "models" / "rdn_tiny" / "engines"


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four short videos and the results of each."""
    folder = tmp_path_factory.mktemp("drawn")
    export_synthetic(SyntheticVideos("test", 4, 8), folder)
    options = ["--engines", ENGINES, "--threads", 1, "--quiet"]
    for video in sorted((folder / "images").iterdir()):
        assert run("predict", video, *options, "--output", folder / f"{video.name}.jsonl").exit_code == 0
    return folder


def arguments(folder: Path, output: Path, *results: Path) -> list[object]:
    files = results or sorted(folder.glob("test_*.jsonl"))
    return ["calibrate", ENGINES, *files, "--data", folder / "annotations.json", "--output", output]


def test_a_calibrated_bundle_says_so_and_is_not_calibrated_twice(drawn: Path, tmp_path: Path) -> None:
    made = tmp_path / "calibrated"
    result = run(*arguments(drawn, made), "--accept")
    assert result.exit_code == 0, result.output
    assert "on 8 frames held out of 32; AP50" in result.stdout
    test = Bundle.open(made).manifest.confidence
    assert test is not None
    assert (test.test.data, test.test.fitted_frames, test.test.tested_frames) == ("annotations.json", 24, 8)
    assert "calibrated on 24 frames of annotations.json" in " ".join(run("info", made).stdout.split())
    again = run("calibrate", made, *arguments(drawn, tmp_path / "twice")[2:])
    assert again.exit_code == 4
    assert "is calibrated already" in again.stderr
    assert not (tmp_path / "twice").exists()


def rewritten(folder: Path, tmp_path: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> list[Path]:
    paths = []
    for path in sorted(folder.glob("test_*.jsonl")):
        paths.append(tmp_path / path.name)
        paths[-1].write_text("".join(json.dumps(change(line)) + "\n" for line in lines(path)))
    return paths


def test_results_that_are_not_the_models_own_are_refused(drawn: Path, tmp_path: Path) -> None:
    def cut(line: dict[str, Any]) -> dict[str, Any]:
        return line | {"detections": [d for d in line["detections"] if d["confidence"] > 0.3]}

    def linked(line: dict[str, Any]) -> dict[str, Any]:
        return line | {"detections": [d | {"tracker_id": i} for i, d in enumerate(line["detections"])]}

    def between(line: dict[str, Any]) -> dict[str, Any]:
        return line | {"basis": "interpolated" if line["frame_index"] % 2 else "encoded"}

    def shy(line: dict[str, Any]) -> dict[str, Any]:
        return line | {"detections": [d | {"confidence": d["confidence"] / 10} for d in line["detections"]]}

    for change, code, message in (
        (cut, 3, "no confidence is below 0.3"),
        (linked, 3, "the results are linked, which changes confidences"),
        (between, 3, "frames have results of those beside them, which changes confidences; wanted them with"),
        (shy, 1, "no annotated object was found in the frames that are held out"),
    ):
        result = run(*arguments(drawn, tmp_path / "made", *rewritten(drawn, tmp_path, change)))
        assert result.exit_code == code, result.output
        assert message in result.stderr
    assert not (tmp_path / "made").exists()
