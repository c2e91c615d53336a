"""What the public implementation computed, ours and float64, against each other: stage by stage, and from the frames.

    python tests/parity_table.py && python benchmarks/report/report.py

writes benchmarks/results/parity.json and from it the table of docs/parity.md; `tests/test_parity.py` asserts every row.
How far each may be from float64, and why: `tests/parity_truth.py`.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from export.build_engines import build
from rdn_engine import Detector
from tests.parity_truth import (
    CONFIG,
    DATA,
    NUM_FRAMES,
    PRIOR,
    ROOT,
    Detected,
    Distances,
    Measure,
    Truth,
    Values,
    all_distances,
    detection_distances,
    expected_results,
    find_truth,
    frames,
    load_model,
    result_detections,
    result_frame,
    stage_values,
    stored_detections,
    stored_frame,
    write_checkpoint,
)
from training.model.inference import FrameResult, detect_video
from training.provenance import environment

Unit = Literal["relative", "absolute", "px", "count"]
UNITS: Mapping[str, Unit] = {"prop_key": "px", "boxes": "px", "without counterpart": "count"}


@dataclass(frozen=True)
class Row:
    what: str
    stage: str
    measure: Measure
    frame: int
    stored: float
    """The stored result's distance from float64"""
    ours: float
    """Our distance from float64"""
    apart: float
    """Our distance from the stored result, where both pass at most the two others together"""
    stored_tolerance: float
    tolerance: float
    """Of ours"""
    unit: Unit

    @property
    def stored_passed(self) -> bool:
        """The formulas of the model are those of the public implementation."""
        return self.stored <= self.stored_tolerance

    @property
    def ours_passed(self) -> bool:
        return self.ours <= self.tolerance


def _three_ways(stored: Values, ours: Values, exact: Values) -> tuple[Distances, Distances, Distances]:
    """The stored values from float64, ours from float64, ours from the stored ones."""
    return all_distances(stored, exact), all_distances(ours, exact), all_distances(ours, {s: stored[s] for s in exact})


def stage_rows(truth: Truth, ours: Sequence[Values], exact: Sequence[Values] | None = None) -> Iterator[Row]:
    """(i) Each stage from the stored result of the one before.

    exact: a mutated float64 of the first frames, here and below.
    """
    for t, wanted in enumerate(exact or truth.stages):
        stored = stored_frame(truth.expected, t)
        scale = {s: float(stored[s].abs().max()) for s in wanted}
        far = _three_ways(stored, ours[t], wanted)
        for s, m in far[0]:
            values = [part[s, m] / scale[s] for part in far]
            yield Row("torch, stage", s, m, t, *values, PRIOR[m], truth.stage_tolerances[s, m], "relative")


def torch_rows(truth: Truth, ours: Sequence[FrameResult], exact: Sequence[FrameResult] | None = None) -> Iterator[Row]:
    """(ii) The torch model from the frames alone."""
    what = "torch, from the frames"
    for t, (found, result) in enumerate(zip(ours, exact or truth.results, strict=False)):
        stored, wanted, values = stored_frame(truth.expected, t), result_frame(result), result_frame(found)
        far = _three_ways(stored, values, wanted)
        for s, m in far[0]:
            apart = [part[s, m] for part in far]
            limits = truth.stored_tolerances[s, m], truth.tolerances[s, m]
            yield Row(what, s, m, t, *apart, *limits, UNITS.get(s, "absolute"))
    found = [result_detections(result) for result in ours]
    yield from detection_rows(what, truth, found, exact)


def detection_rows(
    what: str, truth: Truth, ours: Sequence[Detected], exact: Sequence[FrameResult] | None = None
) -> Iterator[Row]:
    """ours: of each frame, best first."""
    for t, (found, result) in enumerate(zip(ours, exact or truth.results, strict=False)):
        stored, wanted = stored_detections(truth.expected, t), result_detections(result)
        both = {key: d + truth.stored_tolerances[key] for key, d in truth.tolerances.items()}
        far = (
            detection_distances(stored, wanted, truth.stored_tolerances),
            detection_distances(found, wanted, truth.tolerances),
            detection_distances(found, stored, both),
        )
        for s, m in far[0]:
            apart = [part[s, m] for part in far]
            limits = truth.stored_tolerances[s, m], truth.tolerances[s, m]
            yield Row(what, s, m, t, *apart, *limits, UNITS.get(s, "absolute"))


def bundle_detections(directory: Path, executor: Literal["fused", "graph"]) -> list[Detected]:
    """(iii) The exported bundle through the runtime, from the frames alone."""
    detector = Detector.from_pretrained(directory, executor=executor, threads=1)
    found = []
    for result in detector.predict(frames(), stream=True):
        height, width = detector.config.input.network_size(result.height, result.width)
        scale = np.array([width / result.width, height / result.height] * 2, np.float32)
        found.append((result.xyxy * scale, result.confidence, result.class_id))
    return found


def worst(rows: Sequence[Row]) -> list[Row]:
    """Of each stage and measure the row of the frame where ours differs most from float64."""
    found: dict[tuple[str, str, str], Row] = {}
    for row in rows:
        key = row.what, row.stage, row.measure
        if key not in found or row.ours > found[key].ours:
            found[key] = row
    return list(found.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results" / "parity.json")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    expected = expected_results()
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = write_checkpoint(Path(folder) / "rdn_parity.pth")
        model = load_model(checkpoint)
        truth = find_truth(model, expected)
        rows = list(stage_rows(truth, [stage_values(model, expected, t) for t in range(NUM_FRAMES)]))
        rows += torch_rows(truth, detect_video(model, frames()))
        build(checkpoint, Path(folder) / "bundle", config=CONFIG, golden=DATA / "frames")
        for executor in ("fused", "graph"):
            rows += detection_rows(f"bundle, {executor}", truth, bundle_detections(Path(folder) / "bundle", executor))
    result = {"rows": [asdict(row) for row in worst(rows)], **environment()}
    arguments.output.write_text(json.dumps(result, indent=2) + "\n")
    for row in worst(rows):
        print(
            f"{row.what:24} {row.stage:20} {row.measure:14} {row.frame} stored {row.stored:8.2g} of "
            f"{row.stored_tolerance:8.2g} ours {row.ours:8.2g} of {row.tolerance:8.2g} apart {row.apart:8.2g} "
            f"{row.unit}{'' if row.stored_passed and row.ours_passed else ' FAILED'}"
        )


if __name__ == "__main__":
    main()
