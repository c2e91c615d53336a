"""What any encoder owes the stages behind it, and how an attached detector's outputs become proposals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from export.attach import attach
from rdn_engine import Detector
from rdn_engine.bundle.directory import Bundle
from rdn_engine.config import AttachedConfig, Dials, RDNConfig, RelationConfig, RoIConfig
from rdn_engine.errors import BackendUnavailable, BundleError, ConfigError
from rdn_engine.host import preprocess
from rdn_engine.host.attached import AttachedEncoder, DetectorScores
from rdn_engine.host.features import EncodedFrame
from rdn_engine.host.model import HostModel
from rdn_engine.host.relation import FusedRelation
from rdn_engine.host.runtime import HostRuntime
from rdn_engine.input_config import InputConfig
from rdn_engine.results import Detections
from rdn_engine.verify import verify
from tests import reference
from tests.fakes import FakeGraph, random_boxes, relation_weights
from tests.own_detectors import FAMILIES

RDN = Path(__file__).parents[2] / "models" / "rdn_tiny" / "engines"
NUM = 12


@pytest.fixture(scope="module", params=["rdn", *FAMILIES])
def engines(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if request.param == "rdn":
        return RDN
    make, options = FAMILIES[request.param]
    folder = tmp_path_factory.mktemp(request.param)
    attach(make(folder / "detector.onnx"), folder / "engines", options)
    return folder / "engines"


def encode(engines: Path, images: int, threads: int = 1, reference: int = NUM, support: int = 5) -> list[EncodedFrame]:
    detector = Detector.from_pretrained(engines, threads=threads)
    rng = np.random.default_rng(1)
    frames = [rng.integers(0, 256, (48, 80, 3), np.uint8) for _ in range(images)]
    network = np.stack([preprocess.network_input(frame, detector.config.input, 1) for frame in frames])
    laps: list[str] = []
    encoded: list[EncodedFrame] = detector.runtime.model.encoder(network, reference, support, laps.append)  # type: ignore[attr-defined]
    assert laps == ["backbone", "proposals", "roi_pool", "roi_head"]
    return encoded


def test_the_contract_of_every_encoder(engines: Path) -> None:
    config = Bundle.open(engines).config
    relation = config.relation
    (frame,) = encode(engines, 1)
    n = len(frame.boxes)
    k = min(n, 5)
    assert 5 < n <= NUM
    shapes = {
        "boxes": (n, 4),
        "objectness": (n,),
        "features": (n, relation.dim),
        "query": (n, relation.dim if relation.num_modules else 0),
        "keys": (relation.num_cached, k, relation.dim),
        "values": (relation.num_cached, k, relation.dim),
        "refine_query": (k, relation.dim if relation.advanced else 0),
    }
    for name, shape in shapes.items():
        array = getattr(frame, name)
        wanted = shape if array.size or 0 not in array.shape else array.shape
        assert (array.shape, array.dtype) == (wanted, np.float32), name
        assert np.isfinite(array).all(), name
    assert (np.diff(frame.objectness) <= 0).all()
    assert (frame.objectness >= 0).all()
    assert (frame.objectness <= 1).all()
    assert (frame.boxes[:, 2:] >= frame.boxes[:, :2] - 1).all()
    # The first proposals do not depend on how many are asked for, nor the result on threads.
    (fewer,), (same,) = encode(engines, 1, reference=6), encode(engines, 1, threads=2)
    np.testing.assert_array_equal(fewer.boxes, frame.boxes[:6])
    np.testing.assert_allclose(same.features, frame.features, atol=1e-4)


def test_frames_of_a_batch_are_encoded_as_alone(engines: Path) -> None:
    (first,) = encode(engines, 1)
    both = encode(engines, 2)
    assert len(both) == 2
    for name in ("boxes", "objectness", "features", "keys"):
        np.testing.assert_allclose(getattr(both[0], name), getattr(first, name), rtol=1e-4, atol=1e-3, err_msg=name)
    assert not np.array_equal(both[0].boxes, both[1].boxes)


def test_every_bundle_proves_itself(engines: Path) -> None:
    assert all(row.passed for row in verify(engines))


def test_streams_dials_and_linking_work_with_every_encoder(engines: Path) -> None:
    detector = Detector.from_pretrained(engines, threads=1)
    frames = [np.full((48, 80, 3), 20 * t, np.uint8) for t in range(6)]
    dials = replace(detector.config.dials, num_reference=NUM, num_support=min(NUM, detector.config.dials.num_support),
                    advanced_ratio=1.0, score_threshold=0.01)  # fmt: skip
    plain, linked = detector.predict(frames, dials=dials), detector.predict(frames, dials=dials, link=True)
    assert [r.frame_index for r in plain] == [r.frame_index for r in linked] == list(range(6))
    assert all(len(r) <= detector.config.detection.max_detections for r in plain)
    for result in linked:
        assert result.tracker_id is not None
        assert len(result.tracker_id) == len(result)
    with detector.open_streams(["a", "b"], dials) as streams:
        both = [streams.push([frame, frame]) for frame in frames]
        rest = streams.flush()
    for s in range(2):
        found = [r for results in both for r in results[s]] + rest[s]
        assert [len(r) for r in found] == [len(r) for r in plain]


# Parts, with graphs made of functions


def config_of(attached: AttachedConfig, classes: tuple[str, ...] = ("cat", "dog"), **more: Any) -> RDNConfig:
    relation = RelationConfig(len(classes), 1, num_basic=0, advanced=False)
    if attached.relations:
        relation = RelationConfig(32, 2)
    return RDNConfig(
        classes,
        input=InputConfig(fit="stretch", size=(32, 64), mean=(0, 0, 0)),
        relation=relation,
        dials=Dials(window=0, num_support=1, num_reference=8, advanced_ratio=1),
        attached=attached,
        **more,
    )


def encoder_of(config: RDNConfig, **outputs: Any) -> AttachedEncoder:
    graph = FakeGraph(("image",), tuple(outputs), lambda image: outputs)
    return AttachedEncoder(config, graph, None, 1)


def given(n: int, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {"boxes": random_boxes(rng, n)[None], "class_scores": rng.random((1, n, 2)).astype(np.float32)}


def zeros(*shape: int) -> np.ndarray:
    return np.zeros(shape, np.float32)


IMAGE = zeros(1, 3, 32, 64)


def described(pooled: np.ndarray, support: np.ndarray) -> dict[str, np.ndarray]:
    """What a graph roi_head might give."""
    assert len(pooled)
    chosen = pooled[support]
    cached = np.repeat(chosen[None], 3, 0)
    return {"features": pooled, "query": pooled, "keys": cached, "values": cached, "refine_query": chosen}


def run(encoder: AttachedEncoder, most: int = 8) -> EncodedFrame:
    (frame,) = encoder(IMAGE, most, 1, lambda stage: None)
    return frame


def test_proposals_are_the_best_that_no_better_one_of_their_class_overlaps() -> None:
    outputs = given(60)
    encoder = encoder_of(config_of(AttachedConfig(num_classes=2, nms_threshold=0.3, pre_nms_top_n=40)), **outputs)
    frame = run(encoder, 20)
    scores = outputs["class_scores"][0]
    best, label, boxes = scores.max(1), scores.argmax(1), outputs["boxes"][0].astype(np.float64)
    order = reference.best_first(best)[:40]
    kept: list[int] = []
    for i in order:
        if all(label[i] != label[j] or reference.iou(boxes[i], boxes[j]) <= 0.3 for j in kept):
            kept.append(i)
    assert len(kept) < 40
    np.testing.assert_array_equal(frame.boxes, outputs["boxes"][0][kept[:20]])
    np.testing.assert_array_equal(frame.features, scores[kept[:20]])


@pytest.mark.parametrize("box", [
    [0, np.nan, 9, 9], [0, 0, np.inf, 9], [-np.inf, 0, np.inf, 9], [5, 0, 4, 9], [0, 9, 9, 3], [5e7, 0, 5e7 - 4, 9],
    [-3e38, 0, 3e38, 9], [2e38, 0, 3e38, 9],
])  # fmt: skip
def test_a_box_whose_area_is_not_finite_or_none_is_no_proposal(box: list[float]) -> None:
    outputs = given(3)
    # Sides are x2 - x1 + 1, so that one of half a pixel is a box.
    outputs["boxes"] = np.array([[[0, 0, 9, 9], box, [20, 20, 19.5, 29]]], np.float32)
    frame = run(encoder_of(config_of(AttachedConfig(num_classes=2)), **outputs))
    assert sorted(frame.boxes.tolist()) == [[0, 0, 9, 9], [20, 20, 19.5, 29]]


def test_a_box_without_area_does_not_spoil_the_window() -> None:
    """Relations take logarithms of sides: of one box without a side, every frame around it would be no number."""
    config = config_of(AttachedConfig(True, 2, 32))
    config = replace(config, dials=replace(config.dials, window=2, num_support=4))
    # The scores of the first and the second candidate are the best.
    outputs = {**given(6), "features": np.random.default_rng(5).normal(size=(1, 6, 32)).astype(np.float32)}
    outputs["class_scores"] = outputs["class_scores"] / 2 + np.float32([[0.5]] * 2 + [[0]] * 4)
    boxes = outputs["boxes"].copy()
    boxes[0, 0, 2] = boxes[0, 0, 0] - 1

    def results(outputs: dict[str, np.ndarray]) -> list[Detections]:
        encoder = AttachedEncoder(
            config,
            FakeGraph(("image",), tuple(outputs), lambda image: outputs),
            FakeGraph(("pooled", "support"), ("features", "query", "keys", "values", "refine_query"), described),
            1,
        )
        detector = Detector(
            HostRuntime(HostModel(config, encoder, FusedRelation(config, relation_weights(config), 1), 1))
        )
        return detector.predict([np.zeros((32, 64, 3), np.uint8)] * 4)

    found = results({**outputs, "boxes": boxes})
    rest = results({name: values[:, 1:] for name, values in outputs.items()})
    for got, wanted in zip(found, rest, strict=True):
        assert len(wanted) > 0
        np.testing.assert_array_equal(got.xyxy, wanted.xyxy)
        np.testing.assert_array_equal(got.confidence, wanted.confidence)


NOTHING = {
    "none": {"boxes": np.zeros((1, 0, 4), np.float32), "class_scores": np.zeros((1, 0, 2), np.float32)},
    "no number": {**given(4), "boxes": np.full((1, 4, 4), np.nan, np.float32)},
}


@pytest.mark.parametrize("empty", NOTHING.values(), ids=NOTHING)
@pytest.mark.parametrize("always", [True, False])
def test_frames_without_proposals_come_out_empty(empty: dict[str, np.ndarray], always: bool) -> None:
    config, calls = config_of(AttachedConfig(num_classes=2)), iter(range(100))
    far = {**given(4), "boxes": np.float32([[[0, 0, 9, 9], [20, 0, 29, 9], [0, 20, 9, 29], [20, 20, 29, 29]]])}

    def graph(image: np.ndarray) -> dict[str, np.ndarray]:
        return empty if always or next(calls) == 1 else far

    encoder = AttachedEncoder(config, FakeGraph(("image",), ("boxes", "class_scores"), graph), None, 1)
    detector = Detector(HostRuntime(HostModel(config, encoder, DetectorScores(), 1)))
    results = detector.predict([np.zeros((32, 64, 3), np.uint8)] * 3, link=True)
    assert [len(r) > 0 for r in results] == ([False] * 3 if always else [True, False, True])


@pytest.mark.parametrize("always", [True, False])
def test_frames_without_proposals_have_no_relations_either(always: bool) -> None:
    config = config_of(AttachedConfig(True, 2, 32))
    config = replace(config, dials=replace(config.dials, window=2, num_support=4))
    calls = iter(range(100))

    def graph(image: np.ndarray) -> dict[str, np.ndarray]:
        outputs = {**given(6), "features": zeros(1, 6, 32) + 1}
        return outputs | ({"boxes": zeros(1, 6, 4) + np.float32(np.nan)} if always or next(calls) == 1 else {})

    names = ("features", "query", "keys", "values", "refine_query")
    encoder = AttachedEncoder(
        config,
        FakeGraph(("image",), ("boxes", "class_scores", "features"), graph),
        FakeGraph(("pooled", "support"), names, described),
        1,
    )
    relation = FusedRelation(config, relation_weights(config), 1)
    detector = Detector(HostRuntime(HostModel(config, encoder, relation, 1)))
    results = detector.predict([np.zeros((32, 64, 3), np.uint8)] * 4, link=True)
    assert [len(r) > 0 for r in results] == ([False] * 4 if always else [True, False, True, True])


def test_cells_share_their_features_among_their_boxes() -> None:
    outputs = given(12)
    outputs["features"] = np.arange(4 * 32, dtype=np.float32).reshape(1, 4, 32)
    config = config_of(AttachedConfig(True, 2, 32, boxes_per_feature=3, nms_threshold=1.0))
    encoder = encoder_with_head(config, outputs)
    (found,) = encoder.candidates(IMAGE)
    np.testing.assert_array_equal(encoder.pool(found, np.array([11, 0, 5])), outputs["features"][0, [3, 0, 1]])


def encoder_with_head(config: RDNConfig, outputs: dict[str, np.ndarray]) -> AttachedEncoder:
    graph = FakeGraph(("image",), tuple(outputs), lambda image: outputs)
    names = ("features", "query", "keys", "values", "refine_query")
    return AttachedEncoder(config, graph, FakeGraph(("pooled", "support"), names, dict), 1)


def test_a_map_is_pooled_at_the_boxes() -> None:
    rng = np.random.default_rng(3)
    outputs = given(5)
    outputs["boxes"] = random_boxes(rng, 5, 30)[None]
    outputs["feature_map"] = rng.normal(size=(1, 4, 8, 6)).astype(np.float32)
    attached = AttachedConfig(True, 2, features=24, map_stride=8)
    encoder = encoder_with_head(config_of(attached, roi=RoIConfig(size=2, reduce_channels=None)), outputs)
    (found,) = encoder.candidates(IMAGE)
    pooled = encoder.pool(found, np.arange(5))
    assert pooled.shape == (5, 24)
    for row, box in zip(pooled, outputs["boxes"][0], strict=True):
        wanted = reference.roi_align(outputs["feature_map"][0], box, 1 / 8, 2)
        np.testing.assert_allclose(row.reshape(2, 2, 6), wanted, atol=1e-5)


WRONG: dict[str, tuple[dict[str, np.ndarray], str]] = {
    "rank": ({"boxes": zeros(3, 4)}, r"gave boxes float32 \[3, 4\]; wanted float32 \[1, any, 4\]"),
    "type": ({"boxes": np.zeros((1, 3, 4))}, r"gave boxes float64 \[1, 3, 4\]; wanted float32"),
    "classes": ({"class_scores": zeros(1, 3, 5)}, r"class_scores .*\[1, 3, 5\]; wanted float32 \[1, 3, 2\]"),
    "rows": ({"class_scores": zeros(1, 4, 2)}, r"class_scores .*\[1, 4, 2\]; wanted float32 \[1, 3, 2\]"),
    "batch": ({"boxes": zeros(2, 3, 4)}, r"boxes float32 \[2, 3, 4\]; wanted float32 \[1, any, 4\]"),
    "above": ({"class_scores": zeros(1, 3, 2) + 1.5}, r"class_scores in 1.5..1.5; wanted scores in 0..1"),
    "below": ({"class_scores": zeros(1, 3, 2) - 0.5}, r"class_scores in -0.5..-0.5"),
    "no number": ({"class_scores": zeros(1, 3, 2) + np.float32(np.nan)}, r"class_scores in nan"),
    "features": ({"features": zeros(1, 3, 16)}, r"features .*\[1, 3, 16\]; wanted float32 \[1, 3, 32\]"),
}


@pytest.mark.parametrize(("change", "message"), WRONG.values(), ids=WRONG)
def test_a_graph_that_breaks_the_contract_is_named(change: dict[str, np.ndarray], message: str) -> None:
    outputs = {**given(3), "features": zeros(1, 3, 32)}
    config = config_of(AttachedConfig(True, 2, 32))
    encoder_with_head(config, outputs).candidates(IMAGE)
    with pytest.raises(BundleError, match=message):
        encoder_with_head(config, outputs | change).candidates(IMAGE)


def test_a_graph_without_an_output_is_refused_when_it_is_opened() -> None:
    with pytest.raises(BundleError, match=r"encoder has outputs \['boxes'\]; .* wants \['boxes', 'class_scores'\]"):
        encoder_of(config_of(AttachedConfig(num_classes=2)), boxes=given(1)["boxes"])
    with pytest.raises(BundleError, match=r"wants \['boxes', 'class_scores', 'features'\]"):
        encoder_with_head(config_of(AttachedConfig(True, 2, 32)), given(1))
    with pytest.raises(BundleError, match="no attached detector"):
        AttachedEncoder(RDNConfig(("cat",)), FakeGraph(("image",), ("boxes",), dict), None, 1)


CONFIGS: dict[str, tuple[Callable[[], object], str]] = {
    "classes": (lambda: config_of(AttachedConfig(num_classes=3)), "attached.num_classes is 3; wanted 2"),
    "dim": (lambda: RDNConfig(("cat",), relation=RelationConfig(2, 1, 0, False), attached=AttachedConfig()),
            "relation is .*; wanted no modules and dim 1"),
    "modules": (lambda: RDNConfig(("cat",), attached=AttachedConfig()), "wanted no modules and dim 1"),
    "features": (lambda: RDNConfig(("cat",), attached=AttachedConfig(True)), "attached.features is 0; wanted 1"),
    "heads": (lambda: RelationConfig(40, 3), "relation.dim / relation.heads is .40, 3."),
    "narrow": (lambda: RDNConfig(("cat",), relation=RelationConfig(2, 1, 0, False)), "heads of a multiple of 16"),
    "size": (lambda: InputConfig(fit="letterbox"), r"input.size is None; wanted \(height, width\) for letterbox"),
    "no size": (lambda: InputConfig(size=(3, 4)), r"input.size is \(3, 4\); wanted none for shorter_side"),
    "sides": (lambda: InputConfig(fit="stretch", size=(3, 4, 5)), r"input.size is \(3, 4, 5\)"),
    "padding": (lambda: InputConfig(padding=256), "input.padding is 256.0; wanted 0..255"),
}  # fmt: skip


@pytest.mark.parametrize(("make", "message"), CONFIGS.values(), ids=CONFIGS)
def test_configurations_that_cannot_be_are_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()


def test_the_fastest_backend_is_measured_on_the_detector(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    make, options = FAMILIES["yolox"]
    attach(make(tmp_path / "detector.onnx"), tmp_path / "engines", options)
    assert len(Detector.from_pretrained(tmp_path / "engines", backend="auto", threads=1).predict(
        [np.zeros((32, 64, 3), np.uint8)])) == 1  # fmt: skip


def test_the_device_refuses_an_attached_detector(tmp_path: Path) -> None:
    from rdn_engine.device.runtime import DeviceRuntime
    from tests.emulated_gpu import EmulatedGpu

    make, options = FAMILIES["yolox"]
    attach(make(tmp_path / "detector.onnx"), tmp_path / "engines", options)
    bundle = Bundle.open(tmp_path / "engines")
    with pytest.raises(BackendUnavailable, match="runs on device 'cpu' only"):
        DeviceRuntime.load(bundle, None, EmulatedGpu(), precision="float32", threads=1)  # type: ignore[arg-type]
