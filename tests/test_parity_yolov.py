"""Imported YOLOV checkpoints give the public implementation's results: every row of `tests/parity_yolov_table.py`.

And its comparisons see wrong readings of the formulas: each of MUTATIONS.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from rdn_engine.host.runtime import Executor
from tests import parity_yolov
from tests.parity_yolov import (
    Detections,
    Row,
    Rows,
    clip_dials,
    expected,
    load,
    stored_proposals,
    write_checkpoint,
)
from tests.parity_yolov_table import build, bundle_fed_rows, bundle_rows, stage_rows, torch_rows
from training.model import yolov, yolox
from training.model.yolov import YOLOV
from training.model.yolov_inference import detect_video, joined_rows

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("yolov") / "yolov_s.pth")


@pytest.fixture(scope="module")
def bundle(checkpoint: Path) -> Path:
    return build(checkpoint, checkpoint.parent)


def _assert_all(rows: list[Row], stages: set[str]) -> None:
    assert {row.stage for row in rows} == stages
    assert [row for row in rows if not row.passed] == []


RELATION = {"qkv", "attn", "x_cls", "lin1", "sim", "weights2", "out", "logits", "online out", "online logits"}
DETECTIONS = {"detection boxes", "detection scores", "detections without counterpart"}
ENCODER = {"all_boxes", "all_obj", "all_cls", "features"}


def test_torch_fed_what_is_stored(checkpoint: Path) -> None:
    _assert_all(stage_rows(*load(checkpoint)), {*ENCODER, *RELATION, *DETECTIONS, "local_out"})


@pytest.mark.long
def test_torch_from_the_frames_alone(checkpoint: Path) -> None:
    # In float64: through the whole network float32 rounds by as much as is allowed, and on each processor otherwise
    # (oneDNN of torch 2.14 with AVX512-BF16 and AMX: 4.4e-4 of the attention, where 1.8e-4 are left in float64).
    model, config = load(checkpoint)
    rows = torch_rows(model.double(), config)
    _assert_all(rows, {*ENCODER, *RELATION, *DETECTIONS, "fpn", "proposals of the other side alone"})


@pytest.mark.long
@pytest.mark.parametrize("executor", ["fused", "graph"])
def test_the_exported_bundle(bundle: Path, executor: Executor) -> None:
    _assert_all(bundle_fed_rows(bundle, executor), {"logits", "online logits"})
    _assert_all(bundle_rows(bundle, executor), DETECTIONS)


def _detections(change: Callable[[Detections], Detections]) -> list[Row]:
    rows = Rows("stored", fed=False)
    stored = expected()["clip5/det0"]
    rows.detections(change((stored[:, :4], stored[:, 4] * stored[:, 5], stored[:, 6].astype(np.int64))), "clip5/det0")
    return [row for row in rows.rows() if not row.passed]


FAULTS: dict[str, Callable[[Detections], Detections]] = {
    "moved": lambda d: (d[0] + 0.02, d[1], d[2]),
    "rescored": lambda d: (d[0], d[1] + 3e-4, d[2]),
    "relabelled": lambda d: (d[0], d[1], (d[2] + 1) % 30),
    "dropped": lambda d: (d[0][1:], d[1][1:], d[2][1:]),
    "added": lambda d: (np.concatenate([d[0], d[0][:1] + 30]), np.append(d[1], 0.5), np.append(d[2], 7)),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_the_comparison_of_detections_sees_a_fault(fault: str) -> None:
    assert _detections(lambda found: found) == []
    assert _detections(FAULTS[fault])


def test_a_near_tie_is_named_and_no_more_than_that() -> None:
    boxes = np.array([[10.0, 10, 50, 50], [12, 10, 52, 50]])
    labels = np.zeros(1, np.int64)

    def matched(score: float, other: float, shift: float = 0.0) -> tuple[int, list[str]]:
        ours, theirs = (boxes[:1] + shift, np.array([score]), labels), (boxes[1:], np.array([other]), labels)
        found = parity_yolov._matched(ours, theirs)
        return found.alone, found.ties

    alone, ties = matched(0.3, 0.3001)
    assert alone == 0
    assert "0.300000 and 0.300100 exchanged, 2 detections" in ties[0]
    assert matched(0.3, 0.301) == (2, [])
    assert matched(0.3, 0.3001, shift=60.0) == (2, [])
    assert matched(0.001001, 0.000999, shift=60.0)[0] == 0


Mutation = Callable[[pytest.MonkeyPatch, YOLOV], None]


def _constant(name: str, value: float) -> Mutation:
    return lambda patch, model: patch.setattr(yolov, name, value)


def _setting(**changes: float | bool) -> Mutation:
    def mutate(patch: pytest.MonkeyPatch, model: YOLOV) -> None:
        model.config = replace(model.config, **changes)  # type: ignore[arg-type]

    return mutate


def _heads(change: Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]) -> Mutation:
    heads = yolov._heads
    return lambda patch, model: patch.setattr(yolov, "_heads", lambda rows: change(*heads(rows)))


def _interleaved(rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    query, key, value = rows.unflatten(1, (3, -1, yolov.HEADS)).permute(1, 3, 0, 2)
    return query, key, value


MUTATIONS: dict[str, Mutation] = {
    "1/sqrt(d)": _constant("SHARPNESS", 32**-0.5),
    "no score": lambda patch, model: patch.setattr(model, "keyed", lambda rows: rows.objectness * rows.confidence),
    "no objectness": _setting(score_in_regression=False),
    "threshold": _setting(similarity=0.8),
    "query and key": _heads(lambda q, k, v: (k, q, v)),
    "normalised value": _heads(lambda q, k, v: (q, k, yolov._unit(v))),
    "interleaved": lambda patch, model: patch.setattr(yolov, "_heads", _interleaved),
}


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_wrong_reading_is_seen(name: str, checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, _ = load(checkpoint)
    rows = joined_rows([stored_proposals(t) for t in expected()["clip5/frames"]])

    def apart() -> float:
        with torch.no_grad():
            got = model.classify(model.relate(rows).out)
        wanted = expected()["clip5/logits"].reshape(len(got), -1)[:, :-1]
        return float((got - torch.from_numpy(wanted)).abs().max())

    assert apart() < 1e-4
    MUTATIONS[name](monkeypatch, model)
    assert apart() > 0.1


def test_a_wrong_order_of_phases_or_eps_is_seen(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = torch.from_numpy(expected()["input_u8"][:1]).float()
    wanted = torch.from_numpy(expected()["t0/fpn0"])
    right, _ = load(checkpoint)
    monkeypatch.setattr(yolox, "NORM_EPS", 1e-5)
    other, _ = load(checkpoint)
    with torch.no_grad():
        assert (right.backbone(image)[0][0] - wanted).abs().max() < 1e-3
        assert (other.backbone(image)[0][0] - wanted).abs().max() > 1e-2
        assert (right.backbone(image.flip(1))[0][0] - wanted).abs().max() > 1e-2


def test_the_window_of_a_clip_is_all_of_it(checkpoint: Path) -> None:
    # The result does not depend on the order of the frames.
    model, config = load(checkpoint)
    frames = [stored_proposals(t) for t in range(4)]
    dials = clip_dials(config, 4)
    forward = detect_video(model, config, frames, dials)
    backward = detect_video(model, config, frames[::-1], dials)[::-1]
    for a, b in zip(forward, backward, strict=True):
        torch.testing.assert_close(a.logits, b.logits, atol=1e-4, rtol=0)
