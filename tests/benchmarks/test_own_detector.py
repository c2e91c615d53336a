"""The detector that is measured, and models measured side by side."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks.frame import side_by_side
from benchmarks.frame.yolox import CLASSES, STRIDES, YOLOXS

TINY = str(Path(__file__).parents[2] / "models" / "rdn_tiny" / "engines")


def test_it_has_the_size_of_yolox_s() -> None:
    """The paper's table: 9.0 M parameters."""
    model = YOLOXS().eval()
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(9.0e6, rel=0.01)
    with torch.no_grad():
        found = model(torch.zeros(1, 3, 64, 96))
    assert found.shape == (1, sum((64 // s) * (96 // s) for s in STRIDES), 5 + CLASSES)
    assert ((found[..., 4:] >= 0) & (found[..., 4:] <= 1)).all()


def test_models_take_turns_at_their_own_dials(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    pushed = side_by_side.Detector.from_pretrained

    def watched(path: str, **options: object) -> object:
        asked.append(path)
        return pushed(path, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(side_by_side.Detector, "from_pretrained", watched)
    [row] = side_by_side.measure([TINY], 4)
    assert asked == [TINY]
    assert row["dials"] == {"window": 8, "num_support": 24, "num_reference": 64, "advanced_ratio": 0.25}
    assert len(row["rounds"]) == 4
    assert row["over_first"]["p50"] == 1
    assert row["detections"] > 0
    assert row["stages_ms"]["backbone"] > 0
