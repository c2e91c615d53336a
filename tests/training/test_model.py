"""The torch model: architecture, initialisation, the relation stage against the float64 reference, windows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st

from rdn_engine.config import BackboneConfig, Dials, RDNConfig, RelationConfig, RoIConfig, RPNConfig
from rdn_engine.errors import ConfigError
from tests.reference_relation import relation_stage
from training.model import boxes as box_ops
from training.model.backbone import Backbone
from training.model.inference import advanced_rows, detect_video, window_indices
from training.model.rdn import RDN
from training.model.relation import RelationStage


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "resnet101", "resnext101_64x4d"])
def test_backbone_has_torchvisions_parameters(name: str) -> None:
    with torch.device("meta"):
        ours = Backbone(BackboneConfig(name, norm="batch", norm_eps=1e-5, stride_in_1x1=False))
        theirs = getattr(torchvision.models, name)(weights=None)
    wanted = {k: v.shape for k, v in theirs.state_dict().items() if not k.startswith("fc.")}
    assert {k: v.shape for k, v in ours.state_dict().items()} == wanted


def test_conv4_is_torchvisions_and_conv5_is_dilated_at_stride_16() -> None:
    torch.manual_seed(0)
    ours = Backbone(BackboneConfig("resnet50", norm="batch", norm_eps=1e-5, stride_in_1x1=False)).eval()
    theirs = torchvision.models.resnet50(weights=None).eval()
    theirs.load_state_dict({**theirs.state_dict(), **ours.state_dict()})
    x = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        c4, c5 = ours(x)
        y = theirs.layer2(theirs.layer1(theirs.maxpool(theirs.relu(theirs.bn1(theirs.conv1(x))))))
        torch.testing.assert_close(c4, theirs.layer3(y))
    assert c5.shape == (1, 2048, 4, 6)
    dilated = [m for m in ours.layer4.modules() if getattr(m, "kernel_size", None) == (3, 3)]
    assert len(dilated) == 3
    assert all(m.stride == (1, 1) and m.dilation == (2, 2) for m in dilated)


def test_public_stride_stands_in_the_first_1x1() -> None:
    with torch.device("meta"):
        block = Backbone(BackboneConfig("resnet50")).layer2[0]
    assert block.conv1.stride == (2, 2)
    assert block.conv2.stride == (1, 1)


def _boxes(rng: np.random.Generator, n: int) -> torch.Tensor:
    corner, size = rng.uniform(0, 150, (n, 2)), rng.uniform(1, 90, (n, 2))
    return torch.from_numpy(np.concatenate([corner, corner + size], 1)).float()


@pytest.mark.parametrize(
    "config",
    [
        RelationConfig(64, 2),
        RelationConfig(64, 4, num_basic=1),
        RelationConfig(32, 2, num_basic=4, advanced_fc=False),
        RelationConfig(64, 2, num_basic=2, advanced=False),
        RelationConfig(32, 1, num_basic=0),
    ],
    ids=["paper", "one_basic", "four_basic_no_fc", "basic_only", "advanced_only"],
)
def test_relation_stage_is_the_written_definition(config: RelationConfig) -> None:
    torch.manual_seed(1)
    rng = np.random.default_rng(1)
    stage = RelationStage(config, 5)
    for p in stage.parameters():
        torch.nn.init.normal_(p, std=p.shape[-1] ** -0.5)
    n, s, a = 6, 14, torch.tensor([0, 1, 5, 9])
    x, support = torch.randn(n, config.dim), torch.randn(s, config.dim)
    boxes, support_boxes = _boxes(rng, n), _boxes(rng, s)
    with torch.no_grad():
        out = stage.double()(x.double(), boxes.double(), support.double(), support_boxes.double(), a)
    weights = {k: v.numpy() for k, v in stage.state_dict().items()}
    arrays = (t.numpy() for t in (x, boxes, support, support_boxes))
    wanted = relation_stage(weights, config, *arrays, advanced=a.numpy())
    np.testing.assert_allclose(out.logits.numpy(), wanted["logits"], rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(out.deltas.numpy(), wanted["deltas"], rtol=1e-6, atol=1e-8)
    if config.num_basic:
        np.testing.assert_allclose(out.omega.numpy(), wanted["omega"], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("num_basic", [0, 1, 2, 4])
def test_a_new_relation_stage_changes_nothing(num_basic: int) -> None:
    torch.manual_seed(num_basic)
    rng = np.random.default_rng(num_basic)
    stage = RelationStage(RelationConfig(256, 4, num_basic=num_basic), 5)
    x, support = torch.randn(6, 256).relu(), torch.randn(14, 256).relu()
    with torch.no_grad():
        out = stage(x, _boxes(rng, 6), support, _boxes(rng, 14), torch.tensor([0, 1, 5, 9]))
        untouched = stage.classify(x)
    torch.testing.assert_close(out.logits, untouched)


@given(st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=25)
def test_encode_is_the_inverse_of_decode(seed: int) -> None:
    rng = np.random.default_rng(seed)
    boxes, targets = _boxes(rng, 7).double(), _boxes(rng, 7).double()
    deltas = box_ops.encode(targets, boxes, (10, 10, 5, 5))
    torch.testing.assert_close(box_ops.decode(deltas, boxes, (10, 10, 5, 5)), targets, rtol=1e-9, atol=1e-9)


def test_nms_counts_sides_with_one_pixel_more() -> None:
    # 10 x 10 and 10 x 5 pixels: IoU exactly 1/2 with +1 sides, 4/9 without.
    boxes = torch.tensor([[0.0, 0, 9, 9], [0, 0, 9, 4]])
    scores = torch.tensor([0.9, 0.8])
    assert box_ops.nms(boxes, scores, 0.5).tolist() == [0, 1]
    assert box_ops.nms(boxes, scores, 0.499).tolist() == [0]


def test_windows_at_the_edges() -> None:
    clip = Dials(window=2, edges="clip")
    assert window_indices(0, 5, clip) == [0, 1, 2]
    assert window_indices(4, 5, clip) == [2, 3, 4]
    repeat = Dials(window=2)
    assert window_indices(0, 5, repeat) == [0, 0, 0, 1, 2]
    assert window_indices(4, 5, repeat) == [2, 3, 4, 4, 4]
    assert window_indices(3, 5, Dials(window=2, look_ahead=0)) == [1, 2, 3]


def test_advanced_sampling_per_frame_never_misaligns_short_frames() -> None:
    objectness = [torch.tensor([0.9, 0.8]), torch.tensor([0.7]), torch.tensor([0.95, 0.1, 0.05, 0.01])]
    per_frame = Dials(num_support=4, num_reference=4, advanced_ratio=0.5)
    assert advanced_rows(objectness, per_frame).tolist() == [0, 1, 2, 3, 4]
    top = Dials(num_support=4, num_reference=4, advanced_ratio=0.5, sampling="global")
    assert advanced_rows(objectness, top).tolist() == [0, 1, 3]
    assert advanced_rows([torch.tensor([0.3, 0.5])], Dials(advanced_ratio=0.2, sampling="global")).tolist() == [1]


@pytest.mark.parametrize("pooling", ["align", "max"])
def test_a_video_runs_through_every_choice(pooling: str) -> None:
    torch.manual_seed(0)
    config = RDNConfig(
        class_names=("a", "b"),
        backbone=BackboneConfig("resnet18", 0.125, "group", 1e-5, False),
        rpn=RPNConfig((32, 64)),
        roi=RoIConfig(pooling, 3, None),
        relation=RelationConfig(32, 2),
        dials=Dials(window=1, num_support=5, num_reference=8),
    )
    model = RDN(config).eval()
    rng = np.random.default_rng(0)
    frames = list(rng.integers(0, 256, (3, 48, 80, 3), dtype=np.uint8))
    results = detect_video(model, frames, config.dials)
    assert [len(r.support_boxes) for r in results] == [15, 15, 15]
    for r in results:
        assert torch.isfinite(r.logits).all()
        assert (r.xyxy[:, 2] < 80).all()
        assert (r.confidence.diff() <= 0).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"relation": {"dim": 100, "heads": 16}}, "multiple of 16"),
        ({"relation": {"head": 16}}, r"unknown fields \['head'\]"),
        ({"backbone": {"name": "resnet34"}}, "resnet34"),
        ({"backbone": {"name": "resnet50", "width": 0.5}}, "1 for resnet50"),
        ({"input": {"shorter_side": "600"}}, "'600'"),
        ({"class_names": ["a", "a"]}, "distinct"),
        ({"relation": {"heads": 0}}, r"relation.heads is 0; wanted 1\.\.1024"),
        ({"relation": {"num_basic": 10**8}}, r"0\.\.16"),
        ({"rpn": {"stride": 0}}, "rpn.stride is 0"),
        ({"rpn": {"nms_threshold": float("nan")}}, "finite number"),
        ({"rpn": {"anchor_sizes": []}}, "at least one of each"),
        ({"roi": {"size": 0}}, r"roi.size is 0; wanted 1\.\.64"),
        ({"input": {"shorter_side": float("inf")}}, "inf; wanted a whole number"),
        ({"input": {"mean": [1, 2]}}, "three numbers each"),
        ({"detection": {"max_detections": 0}}, "detection.max_detections is 0"),
        ({1: 2, "x": 3}, r"unknown fields \['1', 'x'\]"),
        ({"class_names": "ab"}, "wanted a list"),
        ({"dials": {"window": -1}}, r"dials.window is -1; wanted 0\.\.4096"),
        ({"dials": {"window": 2.5}}, "2.5; wanted a whole number"),
        ({"dials": {"look_ahead": True}}, "True; wanted a whole number"),
        ({"dials": {"score_threshold": "a"}}, "'a'; wanted a finite number"),
        ({"dials": {"sampling": ["global"]}}, "per_frame"),
        ({"dials": {"look_ahead": 19}}, r"0\.\.18"),
        ({"dials": {"num_support": 301}}, "at least num_support = 301"),
        ({"dials": {"advanced_ratio": 0.0}}, r"\(0, 1\]"),
        ({"dials": {"advanced_ratio": 0.01}}, "1/75"),
    ],
)
def test_configurations_out_of_range_are_refused(change: dict[Any, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        RDNConfig.from_dict({"class_names": ["a"], **change})


def test_a_configuration_survives_its_plain_form() -> None:
    config = RDNConfig(("a",), roi=RoIConfig(reduce_channels=None), dials=Dials(look_ahead=3))
    assert RDNConfig.from_dict(config.to_dict()) == config


@pytest.mark.parametrize("wrong", [{"window": 2.5}, {"window": "3"}, {"num_support": 1.5}, {"advanced_ratio": None}])
def test_dials_made_by_hand_are_checked_too(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        Dials(**wrong)


def test_numpy_numbers_are_numbers() -> None:
    dials = Dials(window=np.int64(3), score_threshold=np.float32(0.5))
    assert (dials.window, dials.score_threshold) == (3, 0.5)
    assert type(dials.window) is int
