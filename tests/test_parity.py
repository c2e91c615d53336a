"""Imported public checkpoints give the public implementation's results: every row of `tests/parity_table.py`.

And no tolerance there is wide enough for a wrong formula: each of MUTATIONS is seen.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor

from rdn_engine.config import Dials
from tests.parity_table import Row, bundle_detections, detection_rows, stage_rows, torch_rows
from tests.parity_truth import (
    CONFIG,
    DATA,
    DETECTION,
    ENCODER,
    NUM_FRAMES,
    RELATION,
    Detected,
    Truth,
    frames,
    stage_values,
    stored_detections,
)
from training.model import boxes as box_ops
from training.model import relation
from training.model.inference import FrameResult, detect_video
from training.model.rdn import RDN

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def stages(parity_model: RDN, truth: Truth) -> list[dict[str, Tensor]]:
    return [stage_values(parity_model, truth.expected, t) for t in range(NUM_FRAMES)]


@pytest.fixture(scope="module")
def results(parity_model: RDN) -> list[FrameResult]:
    return detect_video(parity_model, frames())


@pytest.fixture(scope="module")
def bundle(parity_checkpoint: Path) -> Path:
    from export.build_engines import build

    directory = parity_checkpoint.parent / "bundle"
    build(parity_checkpoint, directory, config=CONFIG, golden=DATA / "frames")
    return directory


@pytest.fixture(scope="module")
def fused(bundle: Path) -> list[Detected]:
    return bundle_detections(bundle, "fused")


def _assert_all(rows: list[Row], stages: set[str]) -> None:
    assert {row.stage for row in rows} == stages
    assert set(Counter((row.stage, row.measure) for row in rows).values()) == {NUM_FRAMES}
    assert [row for row in rows if not (row.stored_passed and row.ours_passed)] == []


def test_torch_stage_by_stage_from_the_stored_inputs(truth: Truth, stages: list[dict[str, Tensor]]) -> None:
    _assert_all(list(stage_rows(truth, stages)), {*RELATION, "fc2_key"})


def test_torch_from_the_frames_alone(truth: Truth, results: list[FrameResult]) -> None:
    _assert_all(list(torch_rows(truth, results)), {*ENCODER, *RELATION, *DETECTION})


def test_the_exported_bundle_from_the_frames_alone(bundle: Path, fused: list[Detected], truth: Truth) -> None:
    for found in (fused, bundle_detections(bundle, "graph")):
        _assert_all(list(detection_rows("bundle", truth, found)), set(DETECTION))


@pytest.mark.parametrize("fault", ["moved", "rescored", "relabelled", "dropped", "reordered"])
def test_the_comparison_of_detections_sees_a_fault(fault: str, truth: Truth) -> None:
    found = [stored_detections(truth.expected, t) for t in range(NUM_FRAMES)]
    assert all(row.ours_passed for row in detection_rows("stored", truth, found))
    boxes, scores, labels = found[0]
    if fault == "moved":
        boxes = boxes + 0.5
    elif fault == "rescored":
        scores = scores * 0.9
    elif fault == "relabelled":
        labels = labels + 1
    elif fault == "dropped":
        boxes, scores, labels = boxes[3:], scores[3:], labels[3:]
    else:
        boxes, scores, labels = boxes[::-1], scores[::-1], labels[::-1]
    rows = list(detection_rows(fault, truth, [(boxes, scores, labels), *found[1:]]))
    assert {row.frame for row in rows if not row.ours_passed} == {0}


Mutation = Callable[[RDN, pytest.MonkeyPatch], None]


def _without_one(boxes: Tensor) -> Tensor:
    return boxes - boxes.new_tensor([0, 0, 1, 1])


def _geometry_without_one(_: RDN, patch: pytest.MonkeyPatch) -> None:
    embed = relation.embed
    patch.setattr(relation, "embed", lambda boxes, support: embed(_without_one(boxes), _without_one(support)))


def _decode_without_one(_: RDN, patch: pytest.MonkeyPatch) -> None:
    centre_form = box_ops._centre_form
    patch.setattr(box_ops, "_centre_form", lambda boxes: centre_form(_without_one(boxes)))


def _nms_without_one(_: RDN, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(box_ops, "_open_sides", lambda boxes: boxes)


def _embedding(change: Callable[[Tensor], Tensor]) -> Mutation:
    """change: [n, S, 4 terms, sine or cosine, 8 frequencies] -> the same shape."""

    def mutate(_: RDN, patch: pytest.MonkeyPatch) -> None:
        embed = relation.embed
        patch.setattr(relation, "embed", lambda *boxes: change(embed(*boxes).unflatten(-1, (4, 2, 8))).flatten(-3))

    return mutate


def _dropped(frequency: int) -> Mutation:
    kept = torch.arange(8) != frequency
    return _embedding(lambda e: e * kept)


def _constant(name: str, value: float) -> Mutation:
    return lambda _, patch: patch.setattr(relation, name, value)


def _no_bias(part: str, index: int) -> Mutation:
    def mutate(model: RDN, _: pytest.MonkeyPatch) -> None:
        getattr(model.relation.rel[index], part).bias.data.zero_()

    return mutate


def _scale(_: RDN, patch: pytest.MonkeyPatch) -> None:
    """1 / sqrt(1024) for 1 / sqrt(64)."""
    attend = relation.RelationModule.attend
    patch.setattr(relation.RelationModule, "attend", lambda self, query, *rest: attend(self, query / 4, *rest))


def _no_advanced_fc(model: RDN, _: pytest.MonkeyPatch) -> None:
    model.relation.advanced_fc = None


def _aligned(_: RDN, patch: pytest.MonkeyPatch) -> None:
    roi_align = torchvision.ops.roi_align
    patch.setattr(torchvision.ops, "roi_align", lambda *a, **k: roi_align(*a, **{**k, "aligned": True}))


def _eps(model: RDN, _: pytest.MonkeyPatch) -> None:
    for module in model.modules():
        if isinstance(module, torchvision.ops.FrozenBatchNorm2d):
            module.eps = 1e-5


def _dials(**changes: Any) -> Mutation:
    def mutate(model: RDN, _: pytest.MonkeyPatch) -> None:
        dials: Dials = replace(model.config.dials, **changes)
        model.config = replace(model.config, dials=dials)

    return mutate


def _box_weights(model: RDN, _: pytest.MonkeyPatch) -> None:
    detection = replace(model.config.detection, box_weights=(10, 10, 10, 10))
    model.config = replace(model.config, detection=detection)


EVERYWHERE = frozenset({"stage", "torch", "bundle"})
FROM_FRAMES = frozenset({"torch", "bundle"})
"""The encoder and the selection of detections are behind no stored input."""

MUTATIONS: dict[str, tuple[Mutation, frozenset[str]]] = {
    "geometry without the +1 of sides": (_geometry_without_one, EVERYWHERE),
    "decode without the +1 of sides": (_decode_without_one, FROM_FRAMES),
    "NMS without the +1 of sides": (_nms_without_one, FROM_FRAMES),
    **{f"frequency {k} dropped": (_dropped(k), EVERYWHERE) for k in range(8)},
    "sines and cosines swapped": (_embedding(lambda e: e.flip(-2)), EVERYWHERE),
    "across and down swapped": (_embedding(lambda e: e[..., [1, 0, 3, 2], :, :]), EVERYWHERE),
    "1e-3 left out": (_constant("LEAST_OFFSET", 0.0), EVERYWHERE),
    "1e-3 twice": (_constant("LEAST_OFFSET", 2e-3), EVERYWHERE),
    "1e-6 a thousandfold": (_constant("LEAST_GEOMETRY", 1e-3), EVERYWHERE),
    **{f"value bias of module {i} left out": (_no_bias("value", i), EVERYWHERE) for i in range(4)},
    **{f"query bias of module {i} left out": (_no_bias("query", i), EVERYWHERE) for i in range(4)},
    # A constant of a row's logits: the softmax is the same.
    "key bias left out": (_no_bias("key", 0), frozenset()),
    "nothing": (lambda *_: None, frozenset()),
    "softmax scale of all heads": (_scale, EVERYWHERE),
    "no layer behind the refinement": (_no_advanced_fc, EVERYWHERE),
    "one refined proposal a frame too many": (_dials(advanced_ratio=0.3), EVERYWHERE),
    "one refined proposal a frame too few": (_dials(advanced_ratio=0.1), EVERYWHERE),
    "window clipped at the ends": (_dials(edges="clip"), EVERYWHERE),
    "half-pixel RoIAlign": (_aligned, FROM_FRAMES),
    "weights of boxes": (_box_weights, FROM_FRAMES),
    "eps of norms": (_eps, FROM_FRAMES),
}


@pytest.fixture(params=MUTATIONS)
def mutation(
    request: pytest.FixtureRequest, parity_model: RDN, monkeypatch: pytest.MonkeyPatch
) -> tuple[str, RDN, frozenset[str]]:
    """Its name, float64 with it, and which comparisons must see it."""
    mutate, seen = MUTATIONS[request.param]
    mutated = copy.deepcopy(parity_model).double()
    mutate(mutated, monkeypatch)
    return request.param, mutated, seen


def test_a_wrong_formula_is_seen(
    mutation: tuple[str, RDN, frozenset[str]],
    truth: Truth,
    stages: list[dict[str, Tensor]],
    results: list[FrameResult],
    fused: list[Detected],
) -> None:
    """Float64 with a wrong formula is compared with the stored results and with ours, which have the right one.

    Tolerances are those of the right formulas. Were the model itself wrong, float64 and ours would be alike: so the
    stored results must see it too.
    """
    name, mutated, wanted = mutation
    if name != "eps of norms":  # all others are behind the body
        maps = iter(truth.maps)
        mutated.encode_map = lambda _: next(maps)  # type: ignore[method-assign]
    # The window of the first frame looks no further than the third.
    exact = detect_video(mutated, frames()[:3])[:1]
    rows = {
        "stage": list(stage_rows(truth, stages, [stage_values(mutated, truth.expected, 0)])),
        "torch": list(torch_rows(truth, results, exact)),
        "bundle": list(detection_rows("bundle", truth, fused, exact)),
    }
    assert {kind for kind, part in rows.items() if not all(row.ours_passed for row in part)} == wanted
    assert {kind for kind, part in rows.items() if not all(row.stored_passed for row in part)} == wanted
