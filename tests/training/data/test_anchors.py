"""Anchors against boxes: IoU by hand, and sizes that are proposed."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rdn_engine.config import RPNConfig
from rdn_engine.errors import ConfigError, DatasetError
from rdn_engine.evaluation.coco_vid import Annotation, Category, Dataset, Frame, Video
from rdn_engine.input_config import InputConfig
from training.data.anchors import best_iou, fit_anchors, network_sides, propose_sizes, read_anchors

SQUARE = (1.0,)


def of_sides(*sides, frame=(320, 240)):
    """One frame with boxes of these widths and heights"""
    dataset = Dataset([Category(1, "cat")], [Video(1, "a")], [Frame(1, 1, 0, "a.png", *frame)])
    for i, (w, h) in enumerate(sides):
        dataset.annotations.append(Annotation(i + 1, 1, 1, (0.0, 0.0, w - 1.0, h - 1.0)))
    return dataset


def test_iou_by_hand():
    boxes = np.array([[64.0, 64], [32, 32], [64, 128], [100, 10]])
    assert best_iou(boxes, [64], SQUARE) == pytest.approx([1, 0.25, 0.5, 640 / (1000 + 4096 - 640)])
    assert best_iou(boxes, [32, 64], SQUARE)[:3] == pytest.approx([1, 1, 0.5])


def test_iou_is_that_of_the_anchors_of_the_network():
    rpn = RPNConfig(anchor_sizes=(32, 100), anchor_ratios=(0.5, 1.0, 2.0))
    anchors = rpn.cell_anchors()
    boxes = (anchors[:, 2:] - anchors[:, :2] + 1).astype(float)
    assert best_iou(boxes, rpn.anchor_sizes, rpn.anchor_ratios) == pytest.approx(np.ones(len(boxes)))


def test_sides_at_the_input_of_the_network():
    frames = InputConfig(shorter_side=480, longer_side=864)
    dataset = of_sides((10, 20), (4, 4))
    dataset.annotations.append(Annotation(9, 1, 1, (0, 0, 9, 9), ignore=True))
    assert network_sides(dataset, frames) == pytest.approx(np.array([[20, 40], [8, 8]]))


def test_small_objects_want_small_anchors():
    rng = np.random.default_rng(0)
    dataset = of_sides(*rng.uniform(6, 14, (200, 2)))
    fit = fit_anchors(dataset, InputConfig(shorter_side=240, longer_side=320), RPNConfig(anchor_sizes=(64, 128)))
    assert fit.met == 0
    assert fit.proposal_met > 0.95
    assert all(6 <= size <= 14 for size in fit.proposal)
    assert fit.sides == pytest.approx(np.sqrt([w * h for w, h in network_sides(dataset, InputConfig(240, 320))]))


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.integers(2, 500), st.integers(2, 500)), min_size=1, max_size=40), st.integers(1, 4))
def test_a_proposal_is_growing_and_no_worse_than_any_one_size(sides, count):
    boxes = np.array(sides, float)
    sizes = propose_sizes(boxes, count, SQUARE)
    assert list(sizes) == sorted(set(sizes))
    assert 1 <= len(sizes) <= count
    mean = best_iou(boxes, sizes, SQUARE).mean()
    for side in np.sqrt(boxes.prod(axis=1)):
        # Sizes are tried in steps of an eighth of an octave: half a step to either side costs up to 9% of IoU.
        assert mean >= 0.9 * best_iou(boxes, [side], SQUARE).mean()


def test_equal_boxes_want_one_size():
    assert propose_sizes(np.full((9, 2), 40.0), 4, SQUARE) == (40,)


def test_no_box_at_all():
    with pytest.raises(DatasetError, match="has no box to compare with anchors"):
        fit_anchors(of_sides(), InputConfig(), RPNConfig())


def test_configurations(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("model: {rpn: {anchor_sizes: [16, 32]}, backbone: {name: resnet18}}\ndata: {}\n")
    assert read_anchors(path) == (InputConfig(), RPNConfig(anchor_sizes=(16, 32)))
    path.write_text("input: {shorter_side: 300, longer_side: 500}\n")
    assert read_anchors(path) == (InputConfig(shorter_side=300, longer_side=500), RPNConfig())
    for text, message in [("[1]", "wanted a mapping"), ("rpn: {anchors: 3}", "unknown fields"), ("a: [", "as YAML")]:
        path.write_text(text)
        with pytest.raises(ConfigError, match=message):
            read_anchors(path)
    with pytest.raises(ConfigError, match="cannot be read as YAML"):
        read_anchors(tmp_path / "absent.yaml")
