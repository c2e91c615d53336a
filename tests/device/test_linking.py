"""Boxes of a device's streams are linked as those of the CPU's: the weights of the relations come along."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from rdn_engine.config import Dials, RelationConfig
from rdn_engine.device.relation import DevicePrecision
from rdn_engine.device.stream import DeviceStream
from rdn_engine.results import Detections
from rdn_engine.stream.base import Stream
from tests.device_models import DIALS, Model, assert_same, frames, small_config, small_model

BASIC = RelationConfig(32, 2, num_basic=2, advanced=False)
LINKED = replace(DIALS, link="relations", link_delay=2, score_threshold=0.02)


def both(gpu: Any, dials: Dials, relation: RelationConfig = BASIC) -> tuple[Model, DeviceStream, Stream]:
    model = small_model(small_config(relation, dials))
    return model, model.on(gpu).open_stream(), model.on_cpu().open_stream()


def assert_equal(got: list[Detections], wanted: list[Detections]) -> list[Detections]:
    assert len(got) == len(wanted)
    for one, other in zip(got, wanted, strict=True):
        assert_same(one, other)
    return got


@pytest.mark.parametrize(
    "dials",
    [
        LINKED,
        replace(LINKED, edges="clip"),
        replace(LINKED, look_ahead=0),
        replace(LINKED, link="seq_nms"),
        replace(LINKED, link_gap=3),
    ],
    ids=["relations", "clip", "no frame ahead", "seq_nms", "over gaps"],
)
def test_tubes_are_those_of_the_cpu(gpu: Any, dials: Dials) -> None:
    _, there, here = both(gpu, dials)
    results = []
    for frame in frames(6):
        results += assert_equal(there.push(frame), here.push(frame))
    results += assert_equal(there.flush(), here.flush())
    assert len(results) == 6
    ids = [set(result.tracker_id.tolist()) for result in results if result.tracker_id is not None]
    assert set.intersection(*ids)


@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-5), ("float16", 5e-3)])
def test_weights_are_those_of_the_cpu(
    gpu: Any, precision: DevicePrecision, tolerance: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not only the tubes, which small differences do not change. Past the proposals that there are, they are 0."""
    seen: dict[str, list[Any]] = {"there": [], "here": []}
    model, _, here = both(gpu, LINKED)
    there = model.on(gpu, precision).open_stream()
    for name, stream in (("there", there), ("here", here)):
        linker, kept = stream.linker, seen[name]  # type: ignore[attr-defined]
        push = linker.push
        monkeypatch.setattr(
            linker, "push", lambda frame, *rest, push=push, kept=kept: kept.append(frame) or push(frame, *rest)
        )
    for frame in frames(5):
        there.push(frame), here.push(frame)
    there.flush(), here.flush()
    for got, wanted in zip(seen["there"], seen["here"], strict=True):
        assert (got.omega is None) == (wanted.omega is None)
        if wanted.omega is not None:
            rows, columns = wanted.omega.shape
            np.testing.assert_allclose(got.omega[:rows, :columns], wanted.omega, atol=tolerance)
            assert not got.omega[:rows, columns:].any()
    assert [frame.omega is None for frame in seen["there"]] == [False] * 4 + [True]


@pytest.mark.parametrize(
    ("relation", "precision", "tolerance"),
    [
        (BASIC, "float32", 1e-5),
        (BASIC, "float16", 5e-3),
        (RelationConfig(32, 2), "float32", 1e-5),
        (RelationConfig(32, 2, num_basic=0, advanced=False), "float32", 1e-5),
    ],
    ids=["basic", "float16", "advanced", "single frame"],
)
def test_features_are_those_of_the_cpu(
    gpu: Any,
    relation: RelationConfig,
    precision: DevicePrecision,
    tolerance: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As the encoder gave them, of the boxes' proposals, best first; none where the dial is 0."""
    model, _, here = both(gpu, replace(LINKED, link_gap=3), relation)
    there = model.on(gpu, precision).open_stream()
    seen: dict[str, list[Any]] = {"there": [], "here": []}
    for name, stream in (("there", there), ("here", here)):
        linker, kept = stream.linker, seen[name]  # type: ignore[attr-defined]
        push = linker.push
        monkeypatch.setattr(
            linker, "push", lambda frame, *rest, push=push, kept=kept: kept.append(frame) or push(frame, *rest)
        )
    for t, frame in enumerate(frames(6)):
        if t == 5:
            there.dials = here.dials = replace(here.dials, link_gap=0)
        there.push(frame), here.push(frame)
    there.flush(), here.flush()
    assert [frame.features is None for frame in seen["there"]] == [frame.features is None for frame in seen["here"]]
    assert sum(frame.features is None for frame in seen["here"]) == 2  # with one frame ahead
    for got, wanted in zip(seen["there"], seen["here"], strict=True):
        if wanted.features is None:
            continue
        assert wanted.features.any()
        # In half precision boxes of almost one confidence may change places.
        order, its = (np.lexsort(f.found.xyxy.round(1).T) for f in (got, wanted))
        assert got.features.shape == wanted.features.shape
        np.testing.assert_allclose(got.features[order], wanted.features[its], atol=tolerance)


def test_linking_goes_on_and_off_and_epochs_end_tubes(gpu: Any) -> None:
    _, there, here = both(gpu, LINKED)
    video, other = frames(9), frames(2, 60, 50)
    moves: dict[int, Any] = {3: {"link": "off"}, 5: {"link": "boxes"}, 6: {"link": "relations", "num_support": 2}}
    for t, frame in enumerate([*video, *other]):
        if t in moves:
            there.dials = here.dials = replace(here.dials, **moves[t])
        assert_equal(there.push(frame), here.push(frame))
    assert_equal(there.flush(), here.flush())


def test_a_video_is_predicted_with_links(gpu: Any) -> None:
    model, _, _ = both(gpu, DIALS, RelationConfig(32, 2, num_basic=1))
    video = frames(4)
    assert_equal(model.on(gpu).predict(video, link=True), model.on_cpu().predict(video, link=True))


def test_a_batch_is_linked_stream_by_stream(gpu: Any) -> None:
    model, _, _ = both(gpu, LINKED)
    batch, alone = model.on(gpu).open_streams(["a", "b"]), [model.on_cpu().open_stream(source_id=n) for n in "ab"]
    for now in zip(frames(4), frames(4, seed=1), strict=True):
        for got, stream, frame in zip(batch.push(now), alone, now, strict=True):
            assert_equal(got, stream.push(frame))
    for got, stream in zip(batch.flush(), alone, strict=True):
        assert_equal(got, stream.flush())
