"""The detector that is measured, and models measured side by side."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.frame import side_by_side, yolox
from training.data.synthetic import Video
from training.model.yolox import STRIDES

TINY = str(Path(__file__).parents[2] / "models" / "rdn_tiny" / "engines")


def test_it_has_the_size_of_yolox_s() -> None:
    """The paper's table: 9.0 M parameters."""
    model = yolox.YOLOXS().eval()
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(9.0e6, rel=0.01)
    with torch.no_grad():
        found = model(torch.zeros(1, 3, 64, 96))
    assert found.shape == (1, sum((64 // s) * (96 // s) for s in STRIDES), 5 + yolox.SIZE.classes)
    assert ((found[..., 4:] >= 0) & (found[..., 4:] <= 1)).all()


def test_cells_near_the_middle_belong_to_an_object_of_their_level() -> None:
    places, strides = yolox.cells(128, 192)
    small, large = [20.0, 20.0, 44.0, 40.0], [64.0, 32.0, 128.0, 96.0]
    owner = yolox.assigned(torch.tensor([small, large]), places, strides)
    for row, (stride, box) in enumerate(((8, small), (32, large))):
        of = owner == row
        assert of.any()
        assert (strides[of] == stride).all()
        middle = torch.tensor([(box[0] + box[2]) / 2, (box[1] + box[3]) / 2])
        assert (((places[of] + 0.5) * stride - middle).abs() < 1.5 * stride).all()
    assert (owner == -1).sum() == len(owner) - (owner == 0).sum() - (owner == 1).sum()
    assert (yolox.assigned(torch.zeros(0, 4), places, strides) == -1).all()


def test_of_two_objects_in_one_place_the_smaller_owns_the_cells() -> None:
    places, strides = yolox.cells(64, 64)
    owner = yolox.assigned(torch.tensor([[16.0, 16.0, 46.0, 46.0], [24.0, 24.0, 40.0, 40.0]]), places, strides)
    assert (owner[(places == 3).all(1) & (strides == 8)] == 1).all()


def test_the_loss_is_least_where_cells_say_what_is_there() -> None:
    places, strides = yolox.cells(64, 64)
    truth, label = torch.tensor([[20.0, 20.0, 44.0, 40.0]]), torch.tensor([2])
    rows = torch.full((1, len(strides), 5 + yolox.SIZE.classes), -12.0)
    rows[..., :2] = (torch.tensor([32.0, 30.0]) / strides[:, None]) - places
    rows[..., 2:4] = (torch.tensor([24.0, 20.0]) / strides[:, None]).log()
    of = yolox.assigned(truth, places, strides) == 0
    rows[0, of, 4] = rows[0, of, 7] = 12.0
    least = yolox.loss(rows, [truth], [label], places, strides)
    assert least < 0.01
    for column in (0, 3, 4, 7):
        other = rows.clone()
        other[0, of, column] -= 2.0 if column < 4 else 24.0
        assert yolox.loss(other, [truth], [label], places, strides) > least + 0.5


def test_mirrored_boxes_stay_on_their_objects() -> None:
    class Videos:
        num_frames = 1

        def __len__(self) -> int:
            return 1

        def __getitem__(self, index: int) -> Video:
            frame = np.zeros((1, 32, 64, 3), np.uint8)
            frame[0, 4:12, 6:20] = 255
            box = np.array([[6, 4, 19, 11]], np.float32)
            return Video(frame, [box], [np.array([1])], [np.array([0])], np.zeros(1, np.float32))

    images, truths, labels = yolox.batch(Videos(), 0)  # type: ignore[arg-type]
    assert len({tuple(truth[0].tolist()) for truth in truths}) == 2, "some are mirrored, some are not"
    for image, truth in zip(images, truths, strict=True):
        left, top, right, bottom = (int(edge) for edge in truth[0])
        assert (image[:, top:bottom, left:right] == 255).all()
        assert image.sum() == image[:, top:bottom, left:right].sum()
    assert all(label.tolist() == [1] for label in labels)


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
