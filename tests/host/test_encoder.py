"""The encoder between its graphs: batches, stages, frames without proposals."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from rdn_engine import BundleError
from rdn_engine.config import RDNConfig
from rdn_engine.host.encoder import Encoder
from rdn_engine.kernels import cpu
from rdn_engine.kernels.cpu.arrays import Float
from tests.fakes import FakeGraph, tiny_config


def fake_graphs(config: RDNConfig) -> tuple[FakeGraph, FakeGraph]:
    """Objectness that is the grey level of a cell's image, features that are the pooled mean."""
    r, anchors = config.relation, config.rpn.num_anchors

    def backbone(image: Float) -> dict[str, NDArray[Any]]:
        b, _, h, w = image.shape
        grid = image[:, :1, : h // 16 * 16 : 16, : w // 16 * 16 : 16].transpose(0, 2, 3, 1)
        level = grid.repeat(anchors, 3).reshape(b, -1)
        deltas = np.zeros((*level.shape, 4), np.float32)
        return {"objectness": level, "deltas": deltas, "feature_map": grid.repeat(4, 3)}

    def roi_head(pooled: Float, support: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
        features = np.repeat(pooled.mean(1)[:, None], r.dim, 1)
        cached = np.stack([features[support] + i for i in range(r.num_cached)])
        rows = {"features": features, "query": -features, "refine_query": features[support]}
        return rows | {"keys": cached, "values": -cached}

    return (
        FakeGraph(("image",), ("objectness", "deltas", "feature_map"), backbone),
        FakeGraph(("pooled", "support"), ("features", "query", "keys", "values", "refine_query"), roi_head),
    )


def test_frames_of_one_batch_are_those_of_single_passes() -> None:
    config = tiny_config()
    encoder = Encoder(config, *fake_graphs(config), threads=1)
    rng = np.random.default_rng(0)
    images = rng.random((3, 3, 64, 48)).astype(np.float32)
    together = encoder(images, 9, 4, lambda stage: None)
    for i, frame in enumerate(together):
        [alone] = encoder(images[i : i + 1], 9, 4, lambda stage: None)
        for name, array in vars(alone).items():
            np.testing.assert_array_equal(getattr(frame, name), array, err_msg=name)
        n = len(frame.boxes)
        k = min(n, 4)
        assert 4 < n <= 9
        assert (frame.features.shape, frame.query.shape) == ((n, 32), (n, 32))
        assert (frame.keys.shape, frame.values.shape, frame.refine_query.shape) == ((3, k, 32), (3, k, 32), (k, 32))
        assert (np.diff(frame.objectness) <= 0).all()
        np.testing.assert_array_equal(frame.keys[2], frame.features[:k] + 2)
        np.testing.assert_array_equal(frame.query, -frame.features)


def test_laps_follow_the_stages() -> None:
    config = tiny_config()
    laps: list[str] = []
    Encoder(config, *fake_graphs(config), threads=1)(np.zeros((1, 3, 32, 32), np.float32), 4, 2, laps.append)
    assert laps == ["backbone", "proposals", "roi_pool", "roi_head"]


@pytest.mark.parametrize("counts", [[0, 0], [0, 3], [3, 0]])
def test_a_frame_may_have_no_proposals(counts: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny_config()
    boxes = np.zeros((2, 3, 4), np.float32)
    boxes[..., 2:] = 15
    proposals = cpu.Proposals(boxes, np.ones((2, 3), np.float32), np.array(counts))
    monkeypatch.setattr(cpu, "propose", lambda *_, **__: proposals)
    backbone, roi_head = fake_graphs(config)

    def run(pooled: Float, support: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
        assert len(pooled) > 0, "zero rows never reach the graph"
        return roi_head({"pooled": pooled, "support": support})

    encoder = Encoder(config, backbone, FakeGraph(roi_head.inputs, roi_head.outputs, run), threads=1)
    frames = encoder(np.zeros((2, 3, 32, 32), np.float32), 4, 2, lambda stage: None)
    for frame, n in zip(frames, counts, strict=True):
        k = min(n, 2)
        assert (frame.boxes.shape, frame.features.shape, frame.objectness.shape) == ((n, 4), (n, 32), (n,))
        assert (frame.keys.shape, frame.values.shape, frame.refine_query.shape) == ((3, k, 32), (3, k, 32), (k, 32))


def test_graphs_that_do_not_fit_the_model_are_refused() -> None:
    config = tiny_config()
    backbone, roi_head = fake_graphs(config)
    with pytest.raises(BundleError, match=r"graph backbone has inputs \['pooled', 'support'\]"):
        Encoder(config, roi_head, roi_head, threads=1)
    with pytest.raises(BundleError, match="graph roi_head has outputs"):
        Encoder(config, backbone, FakeGraph(("pooled", "support"), ("features",), dict), threads=1)
