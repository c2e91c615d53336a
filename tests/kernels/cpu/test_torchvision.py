"""roi_pool and NMS beside torchvision's own operators."""

import numpy as np
import pytest
import torch
import torchvision

from rdn_engine.config import RoIConfig, RPNConfig
from rdn_engine.kernels import cpu
from tests import reference

pytestmark = pytest.mark.isa


@pytest.mark.parametrize("scale", [1 / 16, 0.3])
@pytest.mark.parametrize("size", [1, 7])
@pytest.mark.parametrize("pooling", ["align", "max"])
def test_pooling_equals_torchvision(pooling, size, scale):
    rng = np.random.default_rng(size)
    feature_map = rng.standard_normal((2, 19, 31, 40)).astype(np.float32)
    corner, sides = rng.uniform(-100, 500, (200, 2)), rng.exponential(150, (200, 2)) - 10
    boxes = np.concatenate([corner, corner + sides], 1).astype(np.float32)
    images = rng.integers(0, 2, 200)
    got = cpu.roi_pool(feature_map, boxes, images, config=RoIConfig(pooling, size), scale=scale)
    channels_first = torch.from_numpy(feature_map).permute(0, 3, 1, 2).contiguous()
    rois = torch.from_numpy(np.concatenate([images[:, None], boxes], 1).astype(np.float32))
    if pooling == "align":
        wanted = torchvision.ops.roi_align(channels_first, rois, size, scale, sampling_ratio=-1, aligned=False)
    else:
        wanted = torchvision.ops.roi_pool(channels_first, rois, size, scale)
    tolerance = 2e-5 if pooling == "align" else 0
    cells = reference.cells(got, size, 40)
    np.testing.assert_allclose(cells, wanted.permute(0, 2, 3, 1).numpy(), rtol=0, atol=tolerance)


def test_suppression_equals_torchvision_once_sides_gain_a_pixel():
    rng = np.random.default_rng(0)
    corner, sides = rng.integers(0, 200, (400, 2)), rng.integers(1, 120, (400, 2))
    anchors = np.concatenate([corner, corner + sides], 1).astype(np.float32)
    scores = rng.permutation(400).astype(np.float32)
    still = np.zeros((1, 400, 4), np.float32)
    config = RPNConfig(pre_nms_top_n=400, nms_threshold=0.5)
    got = cpu.propose(
        scores[None], still, grid=(1, 1), network_size=(400, 400), cell_anchors=anchors, config=config,
        max_proposals=400,
    )  # fmt: skip
    grown = torch.from_numpy(anchors) + torch.tensor([0, 0, 1, 1])
    kept = torchvision.ops.nms(grown, torch.from_numpy(scores), 0.5).numpy()
    np.testing.assert_array_equal(got.boxes[0, : got.counts[0]], anchors[kept])
