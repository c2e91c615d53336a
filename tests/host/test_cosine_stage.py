"""YOLOV's relation stage in streams: which frames take part, what is averaged, and what stands where nothing is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from rdn_engine import Detector
from rdn_engine.bundle.contract import fused_shapes, relation_arrays
from rdn_engine.config import AttachedConfig, CosineConfig, Dials, RDNConfig, RelationConfig
from rdn_engine.errors import BundleError, ConfigError, StreamClosed
from rdn_engine.host import cosine_stage
from rdn_engine.host.attached import AttachedEncoder
from rdn_engine.host.cosine_stage import CosineMemory, CosineStage
from rdn_engine.host.features import EncodedFrame, RelationOutput
from rdn_engine.host.memory import open_memory, stream_nbytes
from rdn_engine.host.model import HostModel
from rdn_engine.host.runtime import HostRuntime
from rdn_engine.input_config import InputConfig
from rdn_engine.kernels.cpu.arrays import Float
from tests.fakes import FakeGraph, random_boxes
from tests.reference_cosine import average, branch

DIM, MOST = 32, 8
CLASSES = ("cat", "dog", "fox")
DIALS = Dials(window=4, look_ahead=0, num_support=MOST, num_reference=MOST, advanced_ratio=1.0, edges="clip")
LAST = np.array([0, 0, 1, 1], np.float32)


def config_of(dials: Dials = DIALS, **cosine: Any) -> RDNConfig:
    return RDNConfig(
        CLASSES,
        input=InputConfig(fit="stretch", size=(32, 64), mean=(0, 0, 0)),
        relation=RelationConfig(DIM, 4, 0, False, attention="cosine_score"),
        cosine=CosineConfig(**cosine),
        dials=dials,
        attached=AttachedConfig(True, len(CLASSES), DIM, DIM, True),
    )


def weights_of(config: RDNConfig) -> dict[str, Float]:
    rng = np.random.default_rng(0)
    return {
        name: (rng.normal(size=shape) * shape[-1] ** -0.5).astype(np.float32)
        for name, shape in fused_shapes(config).items()
    }


def frames_of(count: int, seed: int = 1, sizes: Sequence[int] = (MOST,)) -> list[EncodedFrame]:
    """Proposals of a few objects that are seen again and again."""
    rng = np.random.default_rng(seed)
    objects, places = rng.normal(size=(5, 2 * DIM)), random_boxes(rng, 5, 30)
    found = []
    for t in range(count):
        n = sizes[t % len(sizes)]
        which = rng.integers(0, 5, n)
        scores = rng.random((n, len(CLASSES))).astype(np.float32)
        found.append(
            EncodedFrame(
                boxes=(places[which] + rng.normal(size=(n, 4))).astype(np.float32),
                objectness=rng.random(n).astype(np.float32),
                features=(objects[which] + 0.5 * rng.normal(size=(n, 2 * DIM))).astype(np.float32),
                query=np.zeros((n, 0), np.float32),
                keys=np.zeros((0, n, 0), np.float32),
                values=np.zeros((0, n, 0), np.float32),
                refine_query=np.zeros((n, 0), np.float32),
                class_scores=scores,
            )
        )
    return found


def memory_of(config: RDNConfig, capacity: Dials | None = None) -> CosineMemory:
    memory = open_memory(CosineStage(config, weights_of(config), 1), config, capacity or config.dials)
    assert isinstance(memory, CosineMemory)
    return memory


def run(memory: CosineMemory, frames: Sequence[EncodedFrame], dials: Dials) -> list[RelationOutput]:
    outputs: list[RelationOutput] = []
    for frame in frames:
        t = memory.append(frame) - dials.frames_ahead
        if t >= 0:
            outputs.append(memory.relate(t, dials, lambda stage: None)[1])
    outputs += [memory.relate(t, dials, lambda stage: None)[1] for t in range(len(outputs), len(frames))]
    return outputs


def wanted_logits(config: RDNConfig, frames: Sequence[EncodedFrame], dials: Dials) -> list[np.ndarray | None]:
    """By the definition, in float64; None where the detector's own scores stand."""
    weights, local = weights_of(config), []
    logits: list[np.ndarray | None] = []
    for t in range(len(frames)):
        window = range(max(t - dials.window, 0), min(t + dials.frames_ahead, len(frames) - 1) + 1)
        if len(window) <= (1 if dials.frames_ahead else config.cosine.least_memory):
            logits.append(None)
            continue
        order = [t, *(n for n in window if n != t)]
        parts = [_first(frames[n], dials.num_support) for n in order]
        joined = [np.concatenate(part) for part in zip(*parts, strict=True)]
        own = parts[0]
        n = len(own[0])
        if not n:
            local = [*local, (np.zeros((0, 4 * DIM)), own[4], own[2], own[3])][-max(config.cosine.local_frames, 1) :]
            logits.append(np.zeros((0, len(CLASSES))))
            continue
        out = branch(weights, *joined[:4], objectness_on_key=config.cosine.score_in_regression)["out"][:n]
        refined = out
        if not dials.frames_ahead and config.cosine.local_frames:
            if local:
                past = tuple(np.concatenate(part) for part in zip(*local, strict=True))
                refined = average(out, own[4], own[2], own[3], past)["out"]  # type: ignore[arg-type]
            local = [*local, (out, own[4], own[2], own[3])][-config.cosine.local_frames :]
        logits.append(refined @ weights["classify.weight"].T.astype(np.float64) + weights["classify.bias"])
    return logits


def _first(frame: EncodedFrame, count: int) -> tuple[np.ndarray, ...]:
    assert frame.class_scores is not None
    features, features_reg = np.split(frame.features, 2, 1)
    parts = features, features_reg, frame.class_scores.max(1), frame.objectness, frame.boxes + LAST
    return tuple(part[:count] for part in parts)


def check(config: RDNConfig, frames: Sequence[EncodedFrame], dials: Dials, memory: CosineMemory | None = None) -> None:
    outputs = run(memory or memory_of(config), frames, dials)
    for frame, output, wanted in zip(frames, outputs, wanted_logits(config, frames, dials), strict=True):
        objectness = frame.objectness[: len(output.logits), None]
        assert output.scores is not None
        if wanted is None:
            assert frame.class_scores is not None
            own = frame.class_scores[: len(output.logits)]
            only_best = own == own.max(1, keepdims=True)
            np.testing.assert_array_equal(output.scores, np.where(only_best, own * objectness, 0))
            continue
        scale = max(float(np.abs(wanted).max(initial=0)), 1)
        np.testing.assert_allclose(output.logits, wanted, atol=2e-5 * scale, rtol=0)
        np.testing.assert_allclose(output.scores, objectness / (1 + np.exp(-wanted)), atol=1e-4)


@pytest.mark.parametrize("local", [0, 1, 3])
@pytest.mark.parametrize("window", [2, 4])
def test_a_frame_looks_at_the_last_ones(window: int, local: int) -> None:
    config = config_of(replace(DIALS, window=window), local_frames=local)
    check(config, frames_of(9), config.dials)


@pytest.mark.parametrize(("window", "ahead"), [(4, 1), (4, 4), (1, 1)])
def test_with_look_ahead_it_looks_at_those_around(window: int, ahead: int) -> None:
    config = config_of(replace(DIALS, window=window, look_ahead=ahead))
    check(config, frames_of(9), config.dials)


@pytest.mark.parametrize("sizes", [(MOST,), (3, 0, 8, 1)])
@pytest.mark.parametrize("ahead", [1, 3])
def test_relations_link_to_the_next_frame(sizes: tuple[int, ...], ahead: int) -> None:
    """The weights are those of B, columns of the next frame's first K proposals; where none comes, there are none."""
    dials = replace(DIALS, look_ahead=ahead, link="relations", num_support=6)
    config, frames = config_of(dials), frames_of(9, sizes=sizes)
    outputs = run(memory_of(config), frames, dials)
    for t, output in enumerate(outputs[:-1]):
        window = range(max(t - dials.window, 0), min(t + ahead, len(frames) - 1) + 1)
        parts = [_first(frames[n], dials.num_support) for n in window]
        joined = [np.concatenate(part) for part in zip(*parts, strict=True)]
        found = branch(weights_of(config), *joined[:4])
        counts = [len(part[0]) for part in parts]
        rows, columns = (
            slice(sum(counts[:place]), sum(counts[: place + 1])) for place in (window.index(t), window.index(t + 1))
        )
        wanted = (found["attn_cls"] + found["attn_reg"]).mean(0)[rows, columns] / 2
        assert output.omega is not None
        assert output.omega.shape == wanted.shape
        np.testing.assert_allclose(output.omega, wanted, rtol=1e-4, atol=1e-7)
    assert outputs[-1].omega is None
    for other in (replace(dials, link="boxes"), replace(dials, look_ahead=0)):
        assert all(output.omega is None for output in run(memory_of(config), frames, other))


def test_the_switch_of_the_box_branch_is_in_the_configuration() -> None:
    config = config_of(score_in_regression=False)
    check(config, frames_of(6), config.dials)
    other = run(memory_of(config_of()), frames_of(6), DIALS)[5]
    assert np.abs(other.logits - run(memory_of(config), frames_of(6), DIALS)[5].logits).max() > 1e-3


def test_dials_turn_in_a_memory_of_larger_ones() -> None:
    config = config_of()
    memory = memory_of(config, replace(DIALS, window=6))
    for window, support in ((2, 5), (6, 8), (3, 1)):
        dials = replace(DIALS, window=window, num_support=support)
        check(config, frames_of(9), dials, memory)
        memory.reset()


@pytest.mark.parametrize("sizes", [(0,), (3, 0, 8, 0), (0, 0, 0, 5), (8, 1)])
@pytest.mark.parametrize("ahead", [0, 2])
def test_frames_without_proposals_take_no_part(sizes: tuple[int, ...], ahead: int) -> None:
    config = config_of(replace(DIALS, look_ahead=ahead))
    check(config, frames_of(9, sizes=sizes), config.dials)


def test_a_box_that_overlaps_nothing_of_the_past_keeps_its_own() -> None:
    config, frames = config_of(), frames_of(6)
    moved = replace(frames[5], boxes=frames[5].boxes.copy())
    moved.boxes[0] = [5000, 5000, 5050, 5050]
    with_local = run(memory_of(config), [*frames[:5], moved], DIALS)[5]
    alone = run(memory_of(config_of(local_frames=0)), [*frames[:5], moved], DIALS)[5]
    assert np.isfinite(with_local.logits).all()
    np.testing.assert_allclose(with_local.logits[0], alone.logits[0], atol=1e-5)
    assert np.abs(with_local.logits[1:] - alone.logits[1:]).max() > 1e-2


def test_memory_is_known_before_and_never_grows() -> None:
    for config in (config_of(), config_of(local_frames=0), config_of(replace(DIALS, window=7))):
        memory = memory_of(config)
        before = memory.nbytes
        assert before == stream_nbytes(config, config.dials)
        run(memory, frames_of(12), config.dials)
        assert memory.nbytes == before


def test_a_reset_forgets_everything() -> None:
    config, frames = config_of(), frames_of(6)
    memory = memory_of(config)
    run(memory, frames_of(6, seed=9), DIALS)
    memory.reset()
    for a, b in zip(run(memory, frames, DIALS), run(memory_of(config), frames, DIALS), strict=True):
        np.testing.assert_allclose(a.logits, b.logits, atol=1e-6)


@pytest.mark.parametrize("least", [3, 600])
def test_the_shuffled_order_outlives_other_look_aheads(least: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each order forgets frames that the other one would look at."""
    monkeypatch.setattr(cosine_stage, "KEPT", least)
    config = config_of(memory_order="shuffled")
    memory = memory_of(config)
    turns = [DIALS, replace(DIALS, look_ahead=2), DIALS, replace(DIALS, look_ahead=4), replace(DIALS, look_ahead=1)]
    done = 0
    for number, frame in enumerate(frames_of(40, sizes=(8, 0, 3))):
        dials = turns[number // 6 % len(turns)]
        memory.append(frame)
        while done <= number - dials.frames_ahead:
            assert memory.relate(done, dials, lambda stage: None)[1].scores is not None
            done += 1
    assert done > 30


def test_a_stream_through_the_detector() -> None:
    config, frames = config_of(), iter(frames_of(8))
    names = ("boxes", "class_scores", "objectness", "features", "features_reg")

    def graph(image: np.ndarray) -> dict[str, np.ndarray]:
        frame = next(frames)
        features, features_reg = np.split(frame.features, 2, 1)
        parts = frame.boxes, frame.class_scores, frame.objectness, features, features_reg
        return {name: np.ascontiguousarray(part)[None] for name, part in zip(names, parts, strict=True)}  # type: ignore[index]

    encoder = AttachedEncoder(config, FakeGraph(("image",), names, graph), None, 1)
    detector = Detector(HostRuntime(HostModel(config, encoder, CosineStage(config, weights_of(config), 1), 1)))
    with detector.open_stream() as stream:
        nbytes = stream.nbytes
        results = [r for _ in range(8) for r in stream.push(np.zeros((32, 64, 3), np.uint8))]
        assert stream.nbytes == nbytes
    assert [r.pool_fill for r in results] == [1, 2, 3, 4, 5, 5, 5, 5]
    assert all(len(r) for r in results)
    with pytest.raises(StreamClosed):
        stream.push(np.zeros((32, 64, 3), np.uint8))


def test_proposals_enter_by_objectness_and_are_ordered_by_score() -> None:
    config = config_of()
    assert config.attached is not None
    config = replace(config, attached=replace(config.attached, pre_nms_top_n=3, nms_threshold=0.5))
    far = np.float32([[40 * i, 0, 40 * i + 9, 9] for i in range(5)])
    outputs = {
        "boxes": far[None],
        "class_scores": np.float32([[[0.2, 0, 0], [0.9, 0, 0], [1, 0, 0], [0, 0.8, 0], [0, 0.1, 0]]]),
        "objectness": np.float32([[0.9, 0.5, 0.1, 0.6, 0.2]]),
        "features": np.arange(5 * DIM, dtype=np.float32).reshape(1, 5, DIM),
        "features_reg": -np.arange(5 * DIM, dtype=np.float32).reshape(1, 5, DIM),
    }
    encoder = AttachedEncoder(config, FakeGraph(("image",), tuple(outputs), lambda image: outputs), None, 1)
    (frame,) = encoder(np.zeros((1, 3, 32, 64), np.float32), 8, 8, lambda stage: None)
    # By objectness 0, 3, 1; by product 3 (0.48), 1 (0.45), 0 (0.18).
    np.testing.assert_array_equal(frame.boxes, far[[3, 1, 0]])
    np.testing.assert_array_equal(frame.objectness, np.float32([0.6, 0.5, 0.9]))
    np.testing.assert_array_equal(frame.features[:, 0], [3 * DIM, DIM, 0])
    np.testing.assert_array_equal(frame.features[:, DIM], [-3 * DIM, -DIM, 0])
    np.testing.assert_array_equal(frame.class_scores, outputs["class_scores"][0, [3, 1, 0]])


BROKEN = {
    "objectness above": ({"objectness": np.ones((1, 3), np.float32) * 2}, "objectness in 2..2; wanted 0..1"),
    "objectness rank": ({"objectness": np.ones((1, 3, 1), np.float32)}, r"objectness float32 \[1, 3, 1\]; wanted"),
    "second feature": ({"features_reg": np.ones((1, 3, 8), np.float32)}, r"features_reg float32 \[1, 3, 8\]; wanted"),
}


@pytest.mark.parametrize(("change", "message"), BROKEN.values(), ids=BROKEN)
def test_a_graph_that_breaks_the_contract_is_named(change: dict[str, np.ndarray], message: str) -> None:
    one = np.ones((1, 3), np.float32)
    outputs = {
        "boxes": random_boxes(np.random.default_rng(0), 3)[None],
        "class_scores": np.ones((1, 3, len(CLASSES)), np.float32),
        "objectness": one,
        "features": np.ones((1, 3, DIM), np.float32),
        "features_reg": np.ones((1, 3, DIM), np.float32),
    }
    for given, wrong in ((outputs, None), (outputs | change, message)):
        encoder = AttachedEncoder(config_of(), FakeGraph(("image",), tuple(given), lambda image, g=given: g), None, 1)
        if wrong is None:
            encoder.candidates(np.zeros((1, 3, 32, 64), np.float32))
            continue
        with pytest.raises(BundleError, match=wrong):
            encoder.candidates(np.zeros((1, 3, 32, 64), np.float32))
    del outputs["objectness"]
    with pytest.raises(BundleError, match=r"wants \['boxes', 'class_scores', 'features', 'objectness'"):
        AttachedEncoder(config_of(), FakeGraph(("image",), tuple(outputs), dict), None, 1)


def test_weights_and_graphs_that_are_not_the_models_are_refused() -> None:
    config = config_of()
    weights = weights_of(config)
    with pytest.raises(BundleError, match=r"weight linear1.bias has shape \(3,\); .* wants \(64,\)"):
        relation_arrays(config, {**weights, "linear1.bias": np.zeros(3, np.float32)})
    with pytest.raises(BundleError, match=r"graph relation has inputs \['features'\]"):
        CosineStage(config, weights, 1, FakeGraph(("features",), ("out",), dict))


CONFIGS: dict[str, tuple[dict[str, Any], str]] = {
    "modules": ({"relation": {"attention": "cosine_score", "dim": 32, "heads": 4}}, "0 and no advanced stage"),
    "alone": ({"attached": {"relations": False, "num_classes": 3}}, "no modules and dim 3"),
    "features": ({"attached": {"features": 16}}, r"wanted a detector with features and features_reg of relation.dim"),
    "objectness": ({"attached": {"objectness": False}}, "and an objectness, row by row"),
    "classes": ({"attached": {"num_classes": 4}}, "attached.num_classes is 4; wanted 3"),
    "no detector": ({"attached": None}, "is None; wanted a detector with features"),
    "similarity": ({"cosine": {"similarity": 1.0}}, "cosine.similarity is 1.0; wanted less than 1"),
    "order": ({"cosine": {"memory_order": "random"}}, "cosine.memory_order"),
    "heads": ({"relation": {"dim": 30}}, r"relation.dim / relation.heads is \(30, 4\)"),
}


@pytest.mark.parametrize(("change", "message"), CONFIGS.values(), ids=CONFIGS)
def test_configurations_that_cannot_be_are_refused(change: dict[str, Any], message: str) -> None:
    told = config_of().to_dict()
    assert RDNConfig.from_dict(told) == config_of()
    for section, fields in change.items():
        told[section] = fields if fields is None or "attention" in fields else {**told[section], **fields}
    with pytest.raises(ConfigError, match=message):
        RDNConfig.from_dict(told)


def test_rdns_modules_take_no_objectness() -> None:
    with pytest.raises(ConfigError, match="no features_reg and no objectness for relation"):
        replace(config_of(), relation=RelationConfig(DIM, 2))


@pytest.mark.parametrize("order", ["time", "shuffled"])
def test_a_frame_that_is_tried_again_is_remembered_once(order: str) -> None:
    config = config_of(memory_order=order)
    frames = frames_of(9)
    once, twice = memory_of(config), memory_of(config)
    for t, frame in enumerate(frames):
        once.append(frame)
        twice.append(frame)
        wanted = once.relate(t, DIALS, lambda stage: None)[1]
        twice.relate(t, DIALS, lambda stage: None)
        again = twice.relate(t, DIALS, lambda stage: None)[1]
        np.testing.assert_array_equal(again.logits, wanted.logits)
