"""Losses and targets against numbers worked out by hand."""

import math

import pytest
import torch

from training import losses

NOTHING = torch.zeros(0, 4)


def generator():
    return torch.Generator().manual_seed(0)


def test_anchor_targets():
    truth = torch.tensor([[0.0, 0, 9, 9], [50, 50, 99, 99]])
    anchors = torch.tensor([
        [0.0, 0, 9, 9],  # IoU 1: positive
        [0, 0, 9, 4],  # 0.5: neither
        [0, 0, 9, 1],  # 0.2: negative
        [50, 50, 74, 74],  # 0.25, and the best of the second object: positive
    ])  # fmt: skip
    objectness, matched = losses.anchor_targets(anchors, truth, NOTHING)
    assert objectness.tolist() == [1, -1, 0, 1]
    assert matched[[0, 3]].tolist() == [0, 1]


def test_anchors_in_ignored_regions_are_no_background():
    region = torch.tensor([[0.0, 0, 99, 9]])
    anchors = torch.tensor([
        [0.0, 0, 9, 9],  # inside
        [20, 5, 29, 14],  # half inside
        [20, 6, 29, 15],  # four tenths inside
        [60, 0, 69, 9],  # inside, and an object
    ])  # fmt: skip
    objectness, _ = losses.anchor_targets(anchors, anchors[3:], region)
    assert objectness.tolist() == [-1, -1, 0, 1]
    objectness, _ = losses.anchor_targets(anchors, NOTHING, region)
    assert objectness.tolist() == [-1, -1, 0, -1]


def test_without_objects_every_anchor_is_negative():
    anchors = torch.tensor([[0.0, 0, 9, 9], [5, 5, 20, 20]])
    objectness, _ = losses.anchor_targets(anchors, NOTHING, NOTHING)
    assert objectness.tolist() == [0, 0]
    classification, regression = losses.rpn_loss(
        torch.zeros(2), torch.zeros(2, 4), anchors, NOTHING, NOTHING, generator()
    )
    assert classification.item() == pytest.approx(math.log(2))
    assert regression.item() == 0


def test_an_image_that_is_ignored_as_a_whole_has_no_loss():
    anchors = torch.tensor([[0.0, 0, 9, 9], [5, 5, 20, 20]])
    everywhere = torch.tensor([[0.0, 0, 99, 99]])
    logits, deltas = torch.ones(2, requires_grad=True), torch.ones(2, 4, requires_grad=True)
    classification, regression = losses.rpn_loss(logits, deltas, anchors, NOTHING, everywhere, generator())
    sample = losses.sample_rois(anchors, NOTHING, torch.zeros(0, dtype=torch.long), everywhere, generator())
    assert len(sample.labels) == 0
    parts = losses.roi_loss(torch.ones(0, 3, requires_grad=True), torch.ones(0, 12), sample, (10, 10, 5, 5))
    assert [classification.item(), regression.item(), *(p.item() for p in parts)] == [0, 0, 0, 0]
    (classification + regression + sum(parts)).backward()
    assert not logits.grad.any()


def test_rpn_loss():
    anchors = torch.tensor([[0.0, 0, 9, 9], [40, 40, 49, 49]])
    truth = torch.tensor([[1.0, 0, 10, 9]])  # dx = 0.1 of the first anchor, the rest 0
    deltas = torch.zeros(2, 4)
    deltas[0, 1] = 0.5
    classification, regression = losses.rpn_loss(torch.tensor([0.0, 2.0]), deltas, anchors, truth, NOTHING, generator())
    assert classification.item() == pytest.approx((math.log(2) + math.log(1 + math.exp(2))) / 2)
    # smooth L1, beta 1/9: 0.1 lies below it (0.5 x^2 / beta), 0.5 above (x - beta / 2); two anchors were drawn
    assert regression.item() == pytest.approx((0.5 * 0.01 * 9 + 0.5 - 1 / 18) / 2, rel=1e-5)


def test_rpn_draws_at_most_half_positives():
    anchors = torch.tensor([[0.0, 0, 9, 9]]).repeat(10, 1)
    logits = torch.full((10,), 3.0)
    anchors[5:] += 50
    classification, _ = losses.rpn_loss(logits, torch.zeros(10, 4), anchors, anchors[:1], NOTHING, generator(), count=4)
    assert classification.item() == pytest.approx((math.log(1 + math.exp(-3)) + math.log(1 + math.exp(3))) / 2)


def test_roi_sample():
    truth = torch.tensor([[0.0, 0, 19, 19]])
    near = torch.tensor([[0.0, 0, 19, 9]]).repeat(6, 1)  # IoU 0.5
    far = torch.tensor([[0.0, 0, 19, 8]]).repeat(20, 1)  # 0.45
    label, none = torch.tensor([5]), torch.zeros(0, dtype=torch.long)
    sample = losses.sample_rois(torch.cat([near, far]), truth, label, NOTHING, generator(), count=8)
    assert sample.labels.tolist() == [5, 5, 0, 0, 0, 0, 0, 0]
    assert sample.truth[0].tolist() == truth[0].tolist()
    assert torch.equal(sample.boxes[2:], far[:6])
    only_truth = losses.sample_rois(far[:0], truth, label, NOTHING, generator())
    assert only_truth.boxes.tolist() == truth.tolist(), "objects join the proposals"
    background = losses.sample_rois(far, truth[:0], none, NOTHING, generator(), count=8)
    assert background.labels.tolist() == [0] * 8


def test_rois_in_ignored_regions_are_no_background():
    truth, label = torch.tensor([[0.0, 0, 19, 19]]), torch.tensor([5])
    boxes = torch.tensor([[0.0, 0, 19, 19], [100, 0, 119, 19], [200, 0, 219, 19]])
    region = torch.tensor([[0.0, 0, 150, 50]])
    sample = losses.sample_rois(boxes, truth, label, region, generator())
    found = sorted(zip(sample.labels.tolist(), sample.boxes[:, 0].tolist(), strict=True))
    assert found == [(0, 200), (5, 0), (5, 0)], "an object in the region stays an object"


def test_roi_loss():
    box = torch.tensor([[0.0, 0, 9, 9]])
    sample = losses.RoISample(
        box.repeat(2, 1), torch.tensor([2, 0]), torch.tensor([[1.0, 0, 10, 9], [0, 0, 9, 9]]), torch.arange(2)
    )
    deltas = torch.zeros(2, 12)
    deltas[0, 8:] = torch.tensor([0.4, 0, 0, 3])
    deltas[0, :8] = deltas[1] = 100  # other classes and the background have no part in it
    classification, regression = losses.roi_loss(torch.zeros(2, 3), deltas, sample, (10, 10, 5, 5))
    assert classification.item() == pytest.approx(math.log(3))
    assert regression.item() == pytest.approx((0.5 * 0.6**2 + 3 - 0.5) / 2, rel=1e-5)
