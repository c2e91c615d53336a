"""`rdn-engine evaluate` on what `rdn-engine predict` wrote, and the same figures as `export/evaluate.py`."""

from __future__ import annotations

import contextlib
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from rdn_engine.detector import Detector
from rdn_engine.results import Detections
from tests.cli.commands import ROOT, lines, run
from training.data.export_synthetic import export_synthetic
from training.data.synthetic import SyntheticVideos
from training.evaluation.detect import RunDetector, evaluate
from training.evaluation.videos import from_files

ENGINES = ROOT / "models" / "rdn_tiny" / "engines"


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two short videos, and what predict makes of each."""
    folder = tmp_path_factory.mktemp("drawn")
    export_synthetic(SyntheticVideos("test", 2, 6, (96, 64)), folder)
    for video in sorted((folder / "images").iterdir()):
        arguments = ["--engines", ENGINES, "--threads", 1, "--quiet", "--look-ahead", 2, "--window", 2]
        outputs = ["--output", folder / f"{video.name}.jsonl", "--trace", folder / f"{video.name}.trace"]
        result = run("predict", video, *arguments, *outputs)
        assert result.exit_code == 0, result.output
    return folder


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob("test_*.jsonl"))


def difference(a: Any, b: Any) -> float:
    """The largest difference of numbers at the same places; infinite where anything else differs."""
    if isinstance(a, dict) and isinstance(b, dict) and a.keys() == b.keys():
        return max((difference(a[key], b[key]) for key in a), default=0.0)
    if isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        return max(map(difference, a, b), default=0.0)
    if isinstance(a, (int, float)) and isinstance(b, (int, float)):
        return abs(a - b)
    return 0.0 if a == b else float("inf")


def test_the_figures_are_those_of_the_detector_itself(drawn: Path) -> None:
    detector = Detector.from_pretrained(ENGINES, threads=1)
    dials = detector.config.dials.__class__(**{**vars(detector.config.dials), "window": 2, "look_ahead": 2})
    videos = from_files(drawn / "annotations.json", drawn / "images")
    wanted = evaluate(RunDetector(detector, dials), videos)
    output = drawn / "figures.json"
    result = run("evaluate", *files(drawn), "--data", drawn / "annotations.json", "--output", output)
    assert result.exit_code == 0, result.output
    got = json.loads(output.read_text())
    assert got.pop("results") == {"files": [str(f) for f in files(drawn)], "unannotated": 0, "missing": 0}
    wanted.pop("dials")
    assert difference(got, json.loads(json.dumps(wanted))) < 1e-6
    assert wanted["vid"]["AP50"] > 10
    assert "oLRP" in result.stdout
    assert "threshold" in result.stdout


def test_coco_records_of_the_same_results_have_the_same_ap(drawn: Path) -> None:
    result = run("evaluate", *files(drawn), "--data", drawn / "annotations.json", "--json")
    wanted = json.loads(result.stdout)["coco"]
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(drawn / "annotations.json"))
        images = {row["file_name"]: row["id"] for row in truth.dataset["images"]}
        ids = {row["name"]: row["id"] for row in truth.dataset["categories"]}
        records = []
        for line in (line for path in files(drawn) for line in lines(path)):
            one = Detections.from_dict(line)
            records += one.to_coco(images["/".join(Path(one.source_id).parts[-2:])], ids)
        evaluation = COCOeval(truth, truth.loadRes(records), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    assert [wanted["AP"], wanted["AP50"]] == pytest.approx((100 * evaluation.stats[:2]).tolist(), abs=1e-9)


def test_the_look_ahead_is_told_in_frames_where_results_quote_steps(drawn: Path, tmp_path: Path) -> None:
    shared = ["--data", drawn / "annotations.json", "--json"]
    made = []
    for path in files(drawn):
        made.append(tmp_path / path.name)
        options = ["--threads", 1, "--quiet", "--look-ahead", 2, "--window", 2, "--interval", 3]
        predicted = run("predict", drawn / "images" / path.stem, "--engines", ENGINES, *options, "--output", made[-1])
        assert predicted.exit_code == 0, predicted.output
    for results, wanted in ((files(drawn), 2), (made, 6)):
        assert json.loads(run("evaluate", *results, *shared).stdout)["delay"]["look_ahead"] == wanted


def test_a_trace_adds_what_a_viewer_gets(drawn: Path) -> None:
    traces = [one for video in files(drawn) for one in ("--trace", video.with_suffix(".trace"))]
    shared = [*files(drawn), "--data", drawn / "annotations.json", *traces]
    result = run("evaluate", *shared, "--json", "--fps", 0.01)
    assert result.exit_code == 0, result.output
    live = json.loads(result.stdout)["streaming"]
    # A frame every 100 s: each result is there right after the second next frame, and two frames old.
    assert live["frame_ms"] == pytest.approx(1e5)
    assert live["delay_ms"]["mean"] == pytest.approx(2e5, rel=0.1)
    assert live["keeps_up"]
    assert run("evaluate", *shared).exit_code == 3, "images have no times of their own"
    pushed = lines(drawn / "test_0000.trace")
    assert [push["frame_index"] for push in pushed] == [*range(6), None]
    assert [push["results"] for push in pushed] == [[], [], [0], [1], [2], [3], [4, 5]]


def test_it_needs_no_torch(drawn: Path) -> None:
    script = (
        "import sys; sys.modules['torch'] = sys.modules['onnx'] = None; sys.argv = ['rdn-engine', *sys.argv[1:]]; "
        "from rdn_engine.cli.app import main; main()"
    )
    arguments = ["evaluate", *map(str, files(drawn)), "--data", str(drawn / "annotations.json")]
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "AP50" in done.stdout


def test_what_was_cut_by_a_threshold_is_said(drawn: Path, tmp_path: Path) -> None:
    cut = []
    for path in files(drawn):
        kept = [line | {"detections": [d for d in line["detections"] if d["confidence"] > 0.3]} for line in lines(path)]
        cut.append(tmp_path / path.name)
        cut[-1].write_text("".join(json.dumps(line) + "\n" for line in kept))
    result = run("evaluate", *cut, "--data", drawn / "annotations.json")
    assert result.exit_code == 0
    assert "warning: no confidence is below 0.3" in result.stderr
    assert "predict without --threshold" in result.stderr


def test_what_does_not_fit_is_told_in_one_line(drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = ["--data", drawn / "annotations.json"]
    first = files(drawn)[0]

    def refused(code: int, message: str, *arguments: object) -> None:
        result = run("evaluate", *arguments)
        assert result.exit_code == code, result.output
        assert message in result.stderr
        assert result.stderr.count("\n") == 1

    refused(3, "6 of 12 annotated frames have no result: no line of ['test_0001']", first, *data)
    refused(3, "cannot be read: No such file", tmp_path / "none.jsonl", *data)
    refused(3, "none.json cannot be read", first, "--data", tmp_path / "none.json")
    refused(2, "--video is 'door'; wanted SOURCE=NAME", first, *data, "--video", "door")
    refused(2, "--fps is given without --trace", first, *data, "--fps", 25)
    refused(2, "fps is 0; wanted above 0", first, *data, "--fps", 0, "--trace", first)
    assert run("evaluate", first, *data, "--allow-missing").exit_code == 0
    monkeypatch.setitem(sys.modules, "faster_coco_eval", None)
    refused(5, "pip install faster-coco-eval", first, *data)


def test_outputs_of_predict_are_different_files(drawn: Path, tmp_path: Path) -> None:
    source = drawn / "images" / "test_0000"
    same = ["--engines", ENGINES, "--output", tmp_path / "a", "--trace", tmp_path / "a"]
    result = run("predict", source, *same)
    assert result.exit_code == 2
    assert "--output and --trace are both" in result.stderr
    result = run("predict", source, "--engines", ENGINES, "--trace", "-")
    assert result.exit_code == 2
    assert "--trace is -, stdout; wanted a file" in result.stderr
