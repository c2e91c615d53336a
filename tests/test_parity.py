"""Imported public checkpoints give the public implementation's results: every row of `tests/parity_table.py`."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import torch

from tests.parity_table import (
    CONFIG,
    DATA,
    NUM_FRAMES,
    Expected,
    Row,
    bundle_rows,
    detection_rows,
    double_detections,
    expected_results,
    load_model,
    stage_rows,
    stored_detections,
    stored_rows,
    torch_rows,
    write_checkpoint,
)
from training.model.rdn import RDN

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def expected() -> Expected:
    return expected_results()


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("parity") / "rdn_parity.pth")


@pytest.fixture(scope="session")
def model(checkpoint: Path) -> RDN:
    return load_model(checkpoint)


@pytest.fixture(scope="session")
def bundle(checkpoint: Path) -> Path:
    from export.build_engines import build

    directory = checkpoint.parent / "bundle"
    build(checkpoint, directory, config=CONFIG, golden=DATA / "frames")
    return directory


def _assert_all(rows: list[Row]) -> None:
    assert {row.frame for row in rows} == set(range(NUM_FRAMES))
    assert [row for row in rows if not row.difference <= row.tolerance] == []


def test_torch_stage_by_stage_from_the_stored_inputs(model: RDN, expected: Expected) -> None:
    rows = list(stage_rows(model, expected))
    assert set(Counter(row.stage for row in rows)) == {"rel0", "rel1", "rel2", "fc2_key", "rel3", "logits", "deltas"}
    _assert_all(rows)


def test_torch_from_the_frames_alone(model: RDN, expected: Expected) -> None:
    _assert_all(list(torch_rows(model, expected)))


def test_the_exported_bundle_from_the_frames_alone(bundle: Path, model: RDN, expected: Expected) -> None:
    double = double_detections(model)
    _assert_all(list(stored_rows(expected, double)))
    for executor in ("fused", "engine"):
        _assert_all(list(bundle_rows(bundle, executor, expected, double)))


@pytest.mark.parametrize("fault", ["moved", "rescored", "relabelled", "dropped", "reordered"])
def test_the_comparison_sees_a_fault(fault: str, expected: Expected) -> None:
    wanted = stored_detections(expected, 0)
    boxes, scores, labels = (array[wanted[1].argsort()[::-1]] for array in wanted)
    if fault == "moved":
        boxes = boxes + 0.5
    elif fault == "rescored":
        scores = scores * 0.9
    elif fault == "relabelled":
        labels = labels + 1
    elif fault == "dropped":
        boxes, scores, labels = boxes[2:], scores[2:], labels[2:]
    else:
        boxes, scores, labels = boxes[::-1], scores[::-1], labels[::-1]
    rows = list(detection_rows(fault, 0, (boxes, scores, labels), wanted, 1))
    assert any(row.difference > row.tolerance for row in rows)
