"""The benchmarks' baseline computes what the public implementation computed, and what the torch model computes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from benchmarks.frame import baseline, planar
from benchmarks.frame.baseline import BaselineRelation, BaselineVideo, detect_video
from benchmarks.frame.models import draw_relation
from benchmarks.frame.planar import PlanarRelation
from rdn_engine.config import Dials, RelationConfig
from tests.parity_table import detection_rows
from tests.parity_truth import NUM_FRAMES, Truth, frames, result_detections
from training.model import inference
from training.model.rdn import RDN
from training.model.relation import RelationStage
from training.model.relation import embed as model_embed

torch.set_num_threads(1)


def random_boxes(count: int, generator: torch.Generator) -> torch.Tensor:
    """[count, 4] in a 1000 x 600 image."""
    corner, side = (torch.rand(count, 2, generator=generator, dtype=torch.float64) for _ in range(2))
    corner = corner * torch.tensor([700, 400])
    return torch.cat([corner, corner + 1 + side * 200], 1)


def test_detections_are_the_public_implementation_s(parity_model: RDN, truth: Truth) -> None:
    results = detect_video(parity_model, frames())
    assert len(results) == NUM_FRAMES
    rows = list(detection_rows("baseline", truth, [result_detections(result) for result in results]))
    assert [row for row in rows if not row.ours_passed] == []


@pytest.mark.parametrize(
    "dials",
    [
        Dials(window=2, look_ahead=1, num_support=4, num_reference=12, advanced_ratio=0.5, edges="clip"),
        Dials(window=1, look_ahead=0, num_support=6, num_reference=6, advanced_ratio=0.3, sampling="global"),
    ],
)
def test_other_dials_as_the_torch_model(dials: Dials, parity_model: RDN) -> None:
    """Look-ahead, both edge rules, both sampling rules."""
    pushed = frames()[:4]
    video = BaselineVideo(parity_model, dials)
    ready = [video.push(frame) for frame in pushed]
    assert [len(r) for r in ready] == [int(t >= dials.frames_ahead) for t in range(4)]
    results = [r for rs in ready for r in rs] + video.flush()
    for got, wanted in zip(results, inference.detect_video(parity_model, pushed, dials), strict=True):
        assert torch.equal(got.class_id, wanted.class_id)
        torch.testing.assert_close(got.xyxy, wanted.xyxy, rtol=0, atol=0.05)
        torch.testing.assert_close(got.confidence, wanted.confidence, rtol=0, atol=1e-3)


@pytest.mark.parametrize("embed", [baseline.embed, planar.embed])
def test_embedding_is_the_model_s_channels_first(embed: Callable[..., torch.Tensor]) -> None:
    generator = torch.Generator().manual_seed(0)
    boxes, support_boxes = random_boxes(5, generator), random_boxes(9, generator)
    got = embed(boxes, support_boxes)[0].permute(1, 2, 0)
    torch.testing.assert_close(got, model_embed(boxes, support_boxes), rtol=0, atol=1e-11)


@pytest.mark.parametrize(
    ("num_basic", "advanced", "advanced_fc"),
    [(2, True, True), (1, True, False), (3, False, False), (0, True, True), (0, False, False)],
)
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("relation", [BaselineRelation, PlanarRelation])
def test_relation_stage_is_the_model_s(
    relation: type[BaselineRelation], num_basic: int, advanced: bool, advanced_fc: bool, seed: int
) -> None:
    """In float64, where the order of sums does not show."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    stage = RelationStage(RelationConfig(64, 4, num_basic, advanced, advanced_fc), 6).double()
    draw_relation(stage)
    for module in stage.rel:
        torch.nn.init.normal_(module.geometry.weight, std=0.2)
        torch.nn.init.normal_(module.value.bias)
    torch.nn.init.normal_(stage.classify.weight)
    torch.nn.init.normal_(stage.regress.weight)
    n, s, rows = 13, 37, torch.tensor([0, 1, 7, 8, 30])
    features, support = (torch.randn(k, 64, generator=generator, dtype=torch.float64).relu() for k in (n, s))
    boxes, support_boxes = random_boxes(n, generator), random_boxes(s, generator)
    logits, deltas = relation(stage)(features, boxes, support, support_boxes, rows)
    with torch.no_grad():
        wanted = stage(features, boxes, support, support_boxes, rows)
    torch.testing.assert_close(logits, wanted.logits, rtol=0, atol=1e-9)
    torch.testing.assert_close(deltas, wanted.deltas, rtol=0, atol=1e-9)
