"""Detectors of torchvision, with random weights, attached: what their graphs say is what torchvision says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import torch
from torchvision.models.detection.faster_rcnn import FasterRCNN
from torchvision.models.detection.image_list import ImageList

from export.attach import Options, attach
from export.families import Given
from export.torchvision_detector import build, export, kept_columns, main
from rdn_engine.errors import AttachError, CheckpointError

CLASSES = ("cat", "dog")
SIZE = (64, 96)


@pytest.mark.long
@pytest.mark.parametrize("name", ["fcos_resnet50_fpn", "retinanet_resnet50_fpn", "ssdlite320_mobilenet_v3_large"])
def test_boxes_scores_and_features_are_torchvision_s(tmp_path: Path, name: str) -> None:
    torch.manual_seed(0)
    size = (320, 320) if name.startswith("ssd") else SIZE
    model = build(name, None, len(CLASSES) + 1)
    assert not isinstance(model, FasterRCNN)
    # As they are made, random heads are sure of nothing, and an SSD without training passes no signal on.
    for part, module in model.named_modules():
        if isinstance(module, torch.nn.Conv2d) and (name.startswith("ssd") or "head" in part):
            torch.nn.init.kaiming_normal_(module.weight)
    features = export(model, size, [1, 2], tmp_path / "detector.onnx")
    image = torch.rand(1, 3, *size) * 2 - 1
    session = ort.InferenceSession(tmp_path / "detector.onnx", providers=["CPUExecutionProvider"])
    got = dict(zip(("boxes", "class_scores", "features"), session.run(None, {"image": image.numpy()}), strict=True))
    with torch.no_grad():
        maps = list(model.backbone(image).values())
        found = model.head(maps)
        (anchors,) = model.anchor_generator(ImageList(image, [size]), maps)
        if name.startswith("ssd"):
            boxes = model.box_coder.decode_single(found["bbox_regression"][0], anchors)
            scores = found["cls_logits"].softmax(-1)
            wanted = maps[0]
        else:
            head = model.head
            towers = [torch.cat([head.classification_head.conv(m), head.regression_head.conv(m)], 1) for m in maps]
            wanted = torch.cat([tower[0].flatten(1).T for tower in towers])[None]
            if name.startswith("fcos"):
                boxes = model.box_coder.decode(found["bbox_regression"][0], anchors)
                scores = (found["cls_logits"].sigmoid() * found["bbox_ctrness"].sigmoid()).sqrt()
            else:
                boxes = model.box_coder.decode_single(found["bbox_regression"][0], anchors)
                scores = found["cls_logits"].sigmoid()
    # Untrained deltas grow boxes a hundredfold, and float32's rounding with them.
    np.testing.assert_allclose(got["boxes"][0], boxes, rtol=1e-3, atol=0.2)
    np.testing.assert_allclose(got["class_scores"], scores[..., 1:], atol=1e-4)
    np.testing.assert_allclose(got["features"], wanted, atol=1e-4 * float(wanted.abs().max()))
    assert float(scores.std()) > 1e-4

    given = Given(feature_map=features) if features == "feature_map" else Given()
    done = attach(tmp_path / "detector.onnx", tmp_path / "engines", Options("torchvision", CLASSES, given))
    assert done.config.attached is not None
    assert done.config.attached.features == wanted.shape[1 if features == "feature_map" else 2]
    assert done.config.attached.boxes_per_feature == (9 if name.startswith("retina") else 1)
    assert all(row.passed for row in done.stages)


@pytest.mark.long
def test_a_two_stage_detector_gives_what_torchvision_s_stages_give(tmp_path: Path) -> None:
    """Its proposals, their features, scores, and of its boxes those of the best class."""
    torch.manual_seed(0)
    model = build("fasterrcnn_mobilenet_v3_large_320_fpn", None, len(CLASSES) + 1)
    assert isinstance(model, FasterRCNN)
    for module in model.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight)
    for layer, deviation in (
        (model.rpn.head.cls_logits, 0.01),
        (model.rpn.head.bbox_pred, 0.01),
        (model.roi_heads.box_predictor.cls_score, 0.05),
        (model.roi_heads.box_predictor.bbox_pred, 0.05),
    ):
        torch.nn.init.normal_(layer.weight, std=deviation)
    count, size = 40, (128, 192)
    assert export(model, size, [1, 2], tmp_path / "detector.onnx", count) == "features"
    image = torch.rand(1, 3, *size) * 2 - 1
    session = ort.InferenceSession(tmp_path / "detector.onnx", providers=["CPUExecutionProvider"])
    boxes, scores, features = (a[0] for a in session.run(None, {"image": image.numpy()}))
    assert (len(boxes), scores.shape, features.shape) == (count, (count, 2), (count, 1024))

    heads = model.roi_heads
    model.rpn._post_nms_top_n["testing"] = count
    with torch.no_grad():
        maps = model.backbone(image)
        proposals, _ = model.rpn(ImageList(image, [size]), maps)
        wanted = heads.box_head(heads.box_roi_pool(maps, proposals, [size]))
        logits, shifts = heads.box_predictor(wanted)
        chances = logits.softmax(-1)[:, 1:]
        every = heads.box_coder.decode(shifts, proposals)
    best = every[torch.arange(len(chances)), chances.argmax(1) + 1]
    best[:, 0::2].clamp_(0, size[1])
    best[:, 1::2].clamp_(0, size[0])
    there = len(proposals[0])
    assert 10 < there <= count
    assert np.isfinite(boxes[:there]).all()
    assert not np.isfinite(boxes[there:]).any(), "what is missing is no candidate"
    np.testing.assert_allclose(features[:there], wanted, atol=1e-3 * float(wanted.abs().max()))
    np.testing.assert_allclose(scores[:there], chances, atol=1e-3)
    np.testing.assert_allclose(boxes[:there], best, atol=0.1)
    assert float(chances.std()) > 1e-3

    done = attach(tmp_path / "detector.onnx", tmp_path / "engines", Options("torchvision", CLASSES))
    assert done.config.attached is not None
    assert (done.config.attached.features, done.config.attached.boxes_per_feature) == (1024, 1)
    assert all(row.passed for row in done.stages)


def test_columns_of_coco_without_a_name_are_left_out() -> None:
    assert len(kept_columns(91)) == 80
    assert kept_columns(4) == [1, 2, 3]


def test_what_cannot_be_exported_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(AttachError, match=r"--model is 'resnet18'; torchvision .* has"):
        build("resnet18", None, 3)
    torch.save({"a": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match=r"other.pth does not hold the weights of fcos_resnet50_fpn"):
        build("fcos_resnet50_fpn", tmp_path / "other.pth", 3)
    command = ["--model", "resnet18", "--size", "64", "96", "--output", str(tmp_path / "d.onnx")]
    assert main(command) == 1
    assert "AttachError: --model is 'resnet18'" in capsys.readouterr().err
