"""Streaming with fake parts: order, look-ahead, edges, epochs, dials, memory."""

from __future__ import annotations

import gc
import math
import pickle
import shutil
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rdn_engine import BackendUnavailable, BundleError, ConfigError, Detections, Detector, Dials, RDNError, StreamClosed
from rdn_engine.bundle.directory import write_bundle
from rdn_engine.config import RelationConfig
from rdn_engine.frame import Frame
from rdn_engine.stream.timings import STAGES
from tests.fakes import DIALS, fake_detector, fill_bundle, image, tiny_config

ENGINES = Path(__file__).parents[1] / "models" / "rdn_tiny" / "engines"
STEPS = st.sampled_from(["push", "flush", "wide", "bad"])


def indices(results: list[Detections]) -> list[int]:
    return [r.frame_index for r in results]


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 12), st.integers(0, 4), st.data())
def test_every_frame_comes_out_once_in_order_and_on_time(frames: int, window: int, data: st.DataObject) -> None:
    look_ahead = data.draw(st.none() | st.integers(0, window))
    detector, _, relation = fake_detector()
    dials = replace(DIALS, window=window, look_ahead=look_ahead)
    stream = detector.open_stream(dials)
    delay = dials.frames_ahead
    for t in range(frames):
        assert indices(stream.push(image(t))) == ([t - delay] if t >= delay else [])
    assert indices(stream.flush()) == list(range(max(frames - delay, 0), frames))
    assert relation.levels == list(range(frames))
    for t, window_of_t in enumerate(relation.windows):
        places = [min(max(j, 0), frames - 1) for j in range(t - window, t + delay + 1)]
        assert window_of_t == {j: [places.count(j)] * 3 for j in places}


def test_a_result_says_what_it_is() -> None:
    detector, _, _ = fake_detector()
    stream = detector.open_stream(source_id="cam 3")
    [*_, first] = [r for t in range(3) for r in stream.push(image(t, 32, 48), pts=t / 25)]
    assert (first.frame_index, first.pts, first.source_id, first.epoch) == (0, 0.0, "cam 3", 0)
    assert (first.height, first.width, first.pool_fill, first.lookahead) == (32, 48, 3, 2)
    assert first.class_names == ("cat", "dog")
    assert first.tracker_id is None
    assert len(first) >= 1
    assert set(first.class_id) == {0}
    second, third = stream.flush()
    assert (second.pool_fill, third.pool_fill, third.pts) == (3, 3, 2 / 25)


def test_boxes_are_scaled_to_the_frame_per_axis() -> None:
    """The proposals of the fake are (2, 2, 9 + i, 9); 64 x 80 becomes 13 x 16, so the axes differ in scale."""
    detector, _, _ = fake_detector()
    result = detector.predict(image(0, 64, 80), threshold=0.1)
    assert isinstance(result, Detections)
    height, width = detector.config.input.network_size(64, 80)
    assert (height, width) == (13, 16)
    np.testing.assert_allclose(result.xyxy[0], [2 * 80 / 16, 2 * 64 / 13, 9 * 80 / 16, 9 * 64 / 13], rtol=1e-6)


def test_a_frame_brings_its_own_number_time_and_source() -> None:
    detector, _, _ = fake_detector()
    stream = detector.open_stream(replace(DIALS, look_ahead=0), source_id="ignored")
    [result] = stream.push(Frame(image(5), index=41, pts=1.5, source_id="a.mp4"), pts=9.0)
    assert (result.frame_index, result.pts, result.source_id) == (41, 1.5, "a.mp4")


def test_frames_without_proposals_are_results_too() -> None:
    """Frame 2 shows nothing, then no frame shows anything."""
    detector, _, relation = fake_detector(proposals=lambda level: 0 if level == 2 else 5)
    results = detector.predict([image(t) for t in range(5)])
    assert isinstance(results, list)
    assert [len(r) > 0 for r in results] == [True, True, False, True, True]
    assert 2 not in relation.windows[2]
    assert results[2].pool_fill == 5
    detector, _, relation = fake_detector(proposals=lambda level: 0)
    assert [len(r) for r in detector.predict([image(0), image(1)])] == [0, 0]
    assert relation.windows == [{}, {}]


# Epochs


def test_a_flush_ends_the_epoch() -> None:
    detector, _, relation = fake_detector()
    stream = detector.open_stream()
    assert stream.flush() == []
    for t in range(4):
        stream.push(image(t))
    first = stream.flush()
    assert stream.flush() == []
    assert stream.epoch == 0
    assert stream.push(image(7)) == []
    second = stream.flush()
    assert ([r.epoch for r in first], [r.epoch for r in second]) == ([0, 0], [1])
    assert indices(first + second) == [2, 3, 4]
    assert relation.windows[-1] == {7: [5, 5, 5]}


def test_another_frame_size_starts_a_new_epoch() -> None:
    detector, _, relation = fake_detector()
    stream = detector.open_stream()
    for t in range(3):
        stream.push(image(t))
    old = stream.push(image(3, 32, 32))
    assert indices(old) == [1, 2]
    assert {(r.height, r.epoch) for r in old} == {(16, 0)}
    assert relation.windows[-1] == {0: [1, 1, 1], 1: [1, 1, 1], 2: [3, 3, 3]}
    [new] = stream.flush()
    assert (new.frame_index, new.height, new.epoch) == (3, 32, 1)
    assert relation.windows[-1] == {3: [5, 5, 5]}


@pytest.mark.parametrize(
    ("times", "epochs"),
    [
        ([0, 0.04, 0.08, 0.12, 5.0, 5.04], [0, 0, 0, 0, 1, 1]),  # a gap of 2 s and more at 25 fps
        ([0, 0.04, 0.08, 2.0, 2.04], [0, 0, 0, 0, 0]),  # a short stall
        ([0, 1, 2, 9, 10], [0, 0, 0, 0, 0]),  # 7 spacings at 1 fps
        ([0, 1, 2, 13, 14], [0, 0, 0, 1, 1]),  # 11 spacings
        ([0, 60, 120, 180], [0, 0, 0, 0]),  # time lapse: nothing to compare the first gap with
        ([5.0, 5.04, 0.0, 0.04], [0, 0, 1, 1]),  # back to the start
        ([1.0, 1.0, 1.0], [0, 0, 0]),  # the same time again is no jump
        ([0, 0.04, None, 9.0, 9.04], [0, 0, 0, 0, 0]),  # nothing is known across a frame without time
        ([0, 0.04, 0.08, 60, 120, 180], [0, 0, 0, 1, 1, 1]),  # a new pace after a jump is learnt afresh
    ],
)
def test_a_timestamp_jump_starts_a_new_epoch(times: list[float | None], epochs: list[int]) -> None:
    detector, _, _ = fake_detector()
    stream = detector.open_stream()
    results = [r for t, pts in enumerate(times) for r in stream.push(image(t), pts=pts)] + stream.flush()
    assert indices(results) == list(range(len(times)))
    assert [r.epoch for r in results] == epochs


# Dials


def test_dials_take_effect_from_the_next_result() -> None:
    detector, encoder, relation = fake_detector()
    capacity = Dials(window=4, num_support=3, num_reference=6, advanced_ratio=0.4)
    stream = detector.open_stream(replace(DIALS, look_ahead=0), capacity=capacity)
    for t in range(6):
        stream.push(image(t))
    assert set(relation.windows[-1]) == {3, 4, 5}
    stream.dials = replace(stream.dials, window=4)
    stream.push(image(6))
    assert set(relation.windows[-1]) == {2, 3, 4, 5, 6}, "older frames were kept for a larger window"
    stream.dials = replace(stream.dials, num_support=1, num_reference=2, advanced_ratio=1.0, edges="clip")
    stream.push(image(7))
    assert relation.windows[-1] == {j: [1] for j in range(3, 8)}
    assert relation.rows[-3:] == [4, 4, 2]
    assert encoder.asked[-1] == (3, 3), "the support role keeps its capacity"
    stream.dials = replace(stream.dials, num_support=3, num_reference=6, score_threshold=0.99)
    [result] = stream.push(image(8))
    assert relation.windows[-1] == {j: [1, 1, 1] for j in range(4, 9)}
    assert (relation.rows[-1], len(result)) == (6, 0)


def test_a_lower_look_ahead_releases_what_waits_and_a_higher_one_holds_back() -> None:
    detector, _, relation = fake_detector()
    stream = detector.open_stream(replace(DIALS, window=4))
    out = [indices(stream.push(image(t))) for t in range(5)]
    stream.dials = replace(stream.dials, look_ahead=1)
    out.append(indices(stream.push(image(5))))
    stream.dials = replace(stream.dials, look_ahead=3)
    out += [indices(stream.push(image(t))) for t in range(6, 9)]
    assert out == [[], [], [], [], [0], [1, 2, 3, 4], [], [], [5]]
    assert set(relation.windows[1]) == {0, 1, 2}
    assert set(relation.windows[5]) == set(range(1, 9))
    assert indices(stream.flush()) == [6, 7, 8]


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(STEPS, st.integers(0, 4), st.integers(0, 4)), max_size=30))
def test_whatever_happens_each_accepted_frame_comes_out_once(steps: list[tuple[str, int, int]]) -> None:
    detector, _, relation = fake_detector()
    stream = detector.open_stream(capacity=replace(DIALS, window=4))
    results: list[Detections] = []
    pushed: list[int] = []
    for step, window, look_ahead in steps:
        stream.dials = replace(DIALS, window=window, look_ahead=min(look_ahead, window))
        if step == "flush":
            results += stream.flush()
        elif step == "bad":
            with pytest.raises(ValueError, match="uint8"):
                stream.push(image(0)[..., 0])
        else:
            results += stream.push(image(len(pushed), 16, 32 if step == "wide" else 16))
            pushed.append(len(pushed))
    results += stream.flush()
    assert indices(results) == relation.levels == pushed
    epochs = [r.epoch for r in results]
    assert epochs == sorted(epochs)


@pytest.mark.parametrize("name", ["window", "num_support", "num_reference"])
def test_dials_beyond_the_capacity_are_refused(name: str) -> None:
    detector, _, _ = fake_detector()
    larger = Dials(window=2, num_support=3, num_reference=9, advanced_ratio=0.5)
    limit = getattr(DIALS, name)
    if name != "num_reference":
        larger = replace(DIALS, **{name: limit + 1})
    stream = detector.open_stream()
    message = rf"{name} .* is {getattr(larger, name)}; this stream has room for {limit}.*capacity="
    with pytest.raises(ConfigError, match=message):
        stream.dials = larger
    assert stream.dials == DIALS
    with pytest.raises(ConfigError, match=name):
        detector.open_stream(larger, capacity=DIALS)


# Ends and failures


def test_a_closed_stream_says_so() -> None:
    detector, _, _ = fake_detector()
    with detector.open_stream() as stream:
        stream.push(image(0))
    stream.close()
    with pytest.raises(StreamClosed, match="closed"):
        stream.push(image(1))
    with pytest.raises(StreamClosed, match="closed"):
        stream.flush()


def test_a_stage_that_fails_costs_no_result() -> None:
    detector, _, relation = fake_detector()
    stream = detector.open_stream()
    results = [r for t in range(4) for r in stream.push(image(t))]
    relation.fail = True
    for t in (4, 5):
        with pytest.raises(MemoryError):
            stream.push(image(t))
    relation.fail = False
    # Frame 4 was taken in before its push failed, frame 5 was not.
    results += stream.push(image(6))
    results += stream.flush()
    assert relation.levels == [0, 1, 2, 3, 4, 6]
    assert indices(results) == [0, 1, 2, 3, 4, 5]


def test_streams_of_one_detector_do_not_mix() -> None:
    detector, _, _ = fake_detector()
    found: dict[int, list[Detections]] = {}

    def run(first: int) -> None:
        stream = detector.open_stream(source_id=str(first))
        found[first] = [r for t in range(40) for r in stream.push(image(first + t))] + stream.flush()

    threads = [threading.Thread(target=run, args=(i,)) for i in (0, 50, 100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for first, results in found.items():
        assert indices(results) == list(range(40))
        assert {r.source_id for r in results} == {str(first)}


def test_memory_is_flat_over_2000_frames() -> None:
    detector, encoder, relation = fake_detector()
    relation.watch = False
    stream = detector.open_stream()
    picture = image(3)
    nbytes = stream.nbytes
    assert nbytes > 0

    def blocks_after(frames: int) -> int:
        for _ in range(frames):
            stream.push(picture, pts=stream.accepted / 25)
        encoder.asked.clear()
        gc.collect()
        return sys.getallocatedblocks()

    before = blocks_after(100)
    after = blocks_after(2000)
    assert stream.nbytes == nbytes
    assert after - before < 500, "one object kept a frame would be 2000 blocks"


def test_timings_cover_every_stage() -> None:
    detector, _, _ = fake_detector()
    stream = detector.open_stream()
    for t in range(5):
        stream.push(image(t))
    assert stream.timings.frames == 5
    assert tuple(stream.timings.seconds) == STAGES
    seconds = dict(stream.timings.seconds)
    assert seconds.pop("still") == 0  # nobody asked
    assert all(s > 0 and math.isfinite(s) for s in seconds.values())


def test_a_detector_without_relation_runs() -> None:
    relation = RelationConfig(dim=32, heads=2, num_basic=0, advanced=False)
    detector, _, seen = fake_detector(tiny_config(relation, replace(DIALS, window=0)))
    assert indices(detector.predict([image(t) for t in range(3)])) == [0, 1, 2]
    assert seen.rows == [4, 4, 4]


def test_importing_the_package_leaves_slow_libraries_alone() -> None:
    script = "import sys, rdn_engine; print([m for m in ('torch', 'onnxruntime', 'av') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_from_pretrained_checks_before_it_loads(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="threads is 0"):
        Detector.from_pretrained(tmp_path, threads=0)
    with pytest.raises(ConfigError, match="executor 'graph' wants 'float32'"):
        Detector.from_pretrained(tmp_path, executor="graph", relation_precision="bfloat16")
    with pytest.raises(ConfigError, match="ring_precision is 'bfloat16'; wanted 'float32' or 'float16'"):
        Detector.from_pretrained(tmp_path, ring_precision="bfloat16")  # type: ignore[call-overload]
    with pytest.raises(ConfigError, match="ring_precision is 'float16', which streams of device 'cpu' have"):
        Detector.from_pretrained(tmp_path, device="cuda", ring_precision="float16")
    with pytest.raises(ConfigError, match="executor is 'fast'"):
        Detector.from_pretrained(tmp_path, executor="fast")  # type: ignore[arg-type]
    with pytest.raises(BackendUnavailable):
        Detector.from_pretrained(tmp_path, device="cuda")
    with write_bundle(tmp_path / "engines") as staging:
        fill_bundle(staging, tiny_config())
    with pytest.raises(BundleError, match=r"cannot load roi_head.onnx"):
        Detector.from_pretrained(tmp_path / "engines", threads=1)
    (tmp_path / "engines" / "relation.npz").write_bytes(b"changed")
    with pytest.raises(BundleError, match=r"'relation.npz' has 7 bytes"):
        Detector.from_pretrained(tmp_path / "engines", threads=1)


def test_a_detector_is_opened_again_where_it_is_unpickled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(ENGINES, tmp_path / "engines")
    monkeypatch.chdir(tmp_path)
    detector = Detector.from_pretrained("engines", threads=1, executor="graph", ring_precision="float16")
    pickled = pickle.dumps(detector)
    assert len(pickled) < 1000, "a directory and options, no weights"
    monkeypatch.chdir("/")
    again = pickle.loads(pickled)
    frames = [image(t, 64, 64) for t in range(2)]
    for ours, theirs in zip(detector.predict(frames), again.predict(frames), strict=True):
        np.testing.assert_array_equal(ours.xyxy, theirs.xyxy)
    assert (again.threads, type(again.runtime.model.relation)) == (1, type(detector.runtime.model.relation))
    assert again.open_stream().nbytes == detector.open_stream().nbytes
    assert pickle.dumps(again) == pickled
    (tmp_path / "engines" / "backbone.onnx").write_bytes(b"other")
    with pytest.raises(BundleError, match="has 5 bytes"):
        pickle.loads(pickled)


def test_what_cannot_be_pickled_says_so() -> None:
    detector, _, _ = fake_detector()
    for thing, message in (
        (detector, "a Detector of a HostRuntime has no directory"),
        (detector.open_stream(), "a stream cannot be pickled: .* open one where it is to run"),
        (detector.open_streams(["a"]), "streams cannot be pickled: .* open them where they are to run"),
    ):
        with pytest.raises(RDNError, match=message):
            pickle.dumps(thing)
