"""Linking as a dial of a stream, in `Detector.predict` and on the command line."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from rdn_engine import ConfigError, Detections, Detector, Dials
from rdn_engine.cli import app as cli
from rdn_engine.config import RelationConfig
from rdn_engine.host.features import RelationOutput, SupportPool
from rdn_engine.host.runtime import HostRuntime
from rdn_engine.host.window import Window
from rdn_engine.kernels.cpu.arrays import Float
from rdn_engine.stream.linking import BoxLinker
from rdn_engine.stream.links import Linkable, Moved
from rdn_engine.stream.order import span
from tests.fakes import DIALS, FakeRelation, encoded, fake_detector, image
from training.data.synthetic import SyntheticVideos

ENGINES = Path(__file__).parents[2] / "models" / "rdn_tiny" / "engines"
LINKED = replace(DIALS, link="relations", link_delay=2)


def indices(results: list[Detections]) -> list[int]:
    return [r.frame_index for r in results]


def identities(results: list[Detections]) -> list[set[int]]:
    return [set() if r.tracker_id is None else set(r.tracker_id.tolist()) for r in results]


# The stream


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10), st.integers(0, 2), st.integers(0, 12), st.sampled_from(["relations", "boxes", "seq_nms"]))
def test_linked_results_come_in_order_d_frames_later(frames: int, look_ahead: int, delay: int, link: str) -> None:
    detector, _, _ = fake_detector()
    stream = detector.open_stream(replace(LINKED, look_ahead=look_ahead, link=link, link_delay=delay))  # type: ignore[arg-type]
    late = look_ahead + delay
    for t in range(frames):
        assert indices(stream.push(image(t))) == ([t - late] if t >= late else [])
    results = stream.flush()
    assert indices(results) == list(range(max(frames - late, 0), frames))
    assert all(r.tracker_id is not None and r.lookahead == look_ahead for r in results)


def test_an_epoch_starts_new_identities() -> None:
    """By a flush, and by another frame size, whose results come before the new epoch's."""
    detector, _, _ = fake_detector()
    stream = detector.open_stream(LINKED)
    first = [r for t in range(3) for r in stream.push(image(t))] + stream.flush()
    second = [r for t in range(3) for r in stream.push(image(t))]
    second += stream.push(image(3, 32, 32))
    third = stream.flush()
    assert [r.epoch for r in first + second + third] == [0] * 3 + [1] * 3 + [2]
    assert indices(first + second + third) == list(range(7))
    apart = [set().union(*identities(epoch)) for epoch in (first, second, third)]
    assert len(set().union(*apart)) == sum(map(len, apart)) > 0
    # The boxes of the fake do not move.
    assert identities(first)[0] == identities(first)[1] == identities(first)[2]


def test_the_dial_may_be_turned_on_a_running_stream() -> None:
    detector, _, _ = fake_detector()
    stream = detector.open_stream(replace(LINKED, link="off", look_ahead=0))
    assert [r.tracker_id for r in stream.push(image(0))] == [None]
    stream.dials = replace(stream.dials, link="boxes", link_delay=3)
    for t in range(1, 4):
        assert stream.push(image(t)) == []
    stream.dials = replace(stream.dials, link_delay=1)
    assert indices(stream.push(image(4))) == [1, 2, 3]
    stream.dials = replace(stream.dials, link="off")
    last = stream.push(image(5))
    assert [(r.frame_index, r.tracker_id is None) for r in last] == [(4, False), (5, True)]
    assert stream.flush() == []


def test_close_gives_up_what_waits_for_links() -> None:
    detector, _, _ = fake_detector()
    stream = detector.open_stream(LINKED)
    for t in range(4):
        stream.push(image(t))
    stream.close()
    assert stream.linker.nbytes == 0


def test_weak_boxes_are_linked_below_the_threshold_and_cut_after_it() -> None:
    """The fake's boxes are all at 0.982, so none is left above 0.99; a weak one is not cut before its tube lifts it."""
    detector, _, _ = fake_detector()
    assert [len(r) for r in detector.predict([image(0), image(1)], link=True, threshold=0.99)] == [0, 0]

    class Fading(FakeRelation):
        def __call__(
            self,
            boxes: Float,
            features: Float,
            query: Float,
            pool: SupportPool,
            omega_rows: tuple[int, int] | None = None,
        ) -> RelationOutput:
            output = super().__call__(boxes, features, query, pool, omega_rows)
            output.logits[:, 1] = 4 if features[0, 0] == 0 else -2  # confidence 0.119
            return output

    fading = with_relation(detector, Fading())
    plain = fading.predict([image(0), image(1)], threshold=0.5)
    lifted = fading.predict([image(0), image(1)], threshold=0.5, link=True)
    assert [len(r) > 0 for r in plain] == [True, False]
    assert [len(r) > 0 for r in lifted] == [True, True]
    assert lifted[1].confidence[0] == pytest.approx((0.982 + 0.119) / 2, abs=1e-3)


def with_relation(detector: Detector, relation: FakeRelation) -> Detector:
    return Detector(HostRuntime(replace(detector.runtime.model, relation=relation)))


# Weights of the next frame's supports


def test_rows_of_one_frame_within_the_pool() -> None:
    config, dials = RelationConfig(dim=16, heads=1), Dials(window=2, num_support=3, num_reference=5, advanced_ratio=0.4)
    window = Window(config, dials)
    sizes = [5, 2, 0, 4, 1, 3, 0, 2]
    for t, n in enumerate(sizes):
        window.append(encoded(t, n, min(n, 3), config))
        center, wanted = max(t - 1, 0), dials if t % 2 else replace(dials, num_support=2, advanced_ratio=0.5)
        pool = window.pool(center, wanted)
        frames = span(center, window.newest, wanted)
        for frame in range(t + 2):
            rows = window.support_rows(frame, center, wanted)
            if frame not in frames:
                assert rows is None
                continue
            assert rows is not None
            levels = pool.features[pool.rows[slice(*rows)], 0]
            assert levels.tolist() == [frame] * min(sizes[frame], wanted.num_support)


@pytest.mark.parametrize(
    ("look_ahead", "asked"),
    # Windows of 3 frames with look-ahead 1 hold 3 supports each; the last frame has no next one.
    [(1, [(3, 6), (6, 9), (6, 9), None]), (0, [None] * 4)],
)
def test_weights_are_asked_for_where_the_next_frame_is_in_the_window(
    look_ahead: int, asked: list[tuple[int, int] | None]
) -> None:
    seen: list[tuple[int, int] | None] = []

    class Watching(FakeRelation):
        def __call__(
            self,
            boxes: Float,
            features: Float,
            query: Float,
            pool: SupportPool,
            omega_rows: tuple[int, int] | None = None,
        ) -> RelationOutput:
            seen.append(omega_rows)
            return super().__call__(boxes, features, query, pool, omega_rows)

    detector, _, _ = fake_detector()
    watched = with_relation(detector, Watching())
    dials = replace(LINKED, window=1, look_ahead=look_ahead)
    for link in ("relations", "boxes", "off"):
        seen.clear()
        watched.predict([image(t) for t in range(4)], dials=replace(dials, link=link))  # type: ignore[arg-type]
        assert seen == (asked if link == "relations" else [None] * 4)


# A trained model


def test_both_executors_link_alike() -> None:
    frames = SyntheticVideos("demo", 1, 8)[0].frames
    results = [
        Detector.from_pretrained(ENGINES, threads=1, executor=executor).predict(frames, link=True, threshold=0.2)
        for executor in ("fused", "graph")
    ]
    longest: dict[int, int] = {}
    for one, other in zip(*results, strict=True):
        np.testing.assert_array_equal(one.tracker_id, other.tracker_id)
        np.testing.assert_allclose(one.confidence, other.confidence, atol=1e-3)
        for tracker in identities([one])[0]:
            longest[tracker] = longest.get(tracker, 0) + 1
    assert max(longest.values()) == 8


def test_predict_links_a_list_over_the_whole_video_and_an_iterator_within_the_delay() -> None:
    detector = Detector.from_pretrained(ENGINES, threads=1)
    frames = SyntheticVideos("demo", 1, 8)[0].frames
    dials = replace(detector.config.dials, link_delay=0)
    whole = detector.predict(frames, link=True, dials=dials)
    live = list(detector.predict(frames, link=True, dials=dials, stream=True))
    late = list(detector.predict(frames, link=True, dials=replace(dials, link_delay=8), stream=True))
    plain = detector.predict(frames, dials=dials)
    assert all(r.tracker_id is None for r in plain)
    for a, b in zip(whole, late, strict=True):
        np.testing.assert_array_equal(a.confidence, b.confidence)
        np.testing.assert_array_equal(a.tracker_id, b.tracker_id)
    first = [r[0].confidence for r in (whole, live, plain)]
    # Without a delay the first frame knows of no other.
    np.testing.assert_array_equal(first[1], first[2])
    assert not np.array_equal(first[0], first[2])
    # By relations, which lose no box, unless the dials say how.
    assert [len(r) for r in whole] == [len(r) for r in plain]
    seq_nms = detector.predict(frames, link=True, dials=replace(dials, link="seq_nms"))
    assert sum(map(len, seq_nms)) < sum(map(len, whole))


# The command line


@pytest.fixture
def clip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    from rdn_engine.media.writer import VideoWriter

    monkeypatch.setattr(Detector, "from_pretrained", lambda *_, **__: fake_detector()[0])
    with VideoWriter(tmp_path / "a.mp4", fps=10.0) as writer:
        for t in range(6):
            writer.write(image(20 * t, 32, 32))
    return tmp_path / "a.mp4"


def test_predict_link_writes_and_draws_identities(clip: Path, tmp_path: Path) -> None:
    out, drawn, plain = tmp_path / "out.jsonl", tmp_path / "out.mp4", tmp_path / "plain.jsonl"
    common = ["predict", str(clip), "--engines", str(tmp_path), "--quiet"]
    linked = ["--output", str(out), "--save-video", str(drawn), "--link", "--link-delay", "1"]
    assert CliRunner().invoke(cli.app, common + linked).exit_code == 0
    assert CliRunner().invoke(cli.app, [*common, "--output", str(plain)]).exit_code == 0
    results = [Detections.from_dict(json.loads(line)) for line in out.read_text().splitlines()]
    assert indices(results) == list(range(6))
    assert len(identities(results)[0]) > 0
    assert all(ids == identities(results)[0] for ids in identities(results))
    assert all(Detections.from_dict(json.loads(line)).tracker_id is None for line in plain.read_text().splitlines())
    assert drawn.stat().st_size > 0


def test_predict_keeps_identities_over_gaps(clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The detector finds nothing in the third and fourth frame."""

    class Blinking(FakeRelation):
        def __call__(
            self,
            boxes: Float,
            features: Float,
            query: Float,
            pool: SupportPool,
            omega_rows: tuple[int, int] | None = None,
        ) -> RelationOutput:
            output = super().__call__(boxes, features, query, pool, omega_rows)
            output.logits[:, 1] = -20 if 30 < features[0, 0] < 70 else 4
            return output

    blinking = with_relation(fake_detector()[0], Blinking())
    monkeypatch.setattr(Detector, "from_pretrained", lambda *_, **__: blinking)
    shown = {}
    for gap in (0, 1, 2):
        out = tmp_path / f"{gap}.jsonl"
        options = ["--link", "--link-gap", str(gap), "--threshold", "0.5", "--output", str(out), "--quiet"]
        result = CliRunner().invoke(cli.app, ["predict", str(clip), "--engines", str(tmp_path), *options])
        assert result.exit_code == 0, result.output
        shown[gap] = identities([Detections.from_dict(json.loads(line)) for line in out.read_text().splitlines()])
    for gap, ids in shown.items():
        assert [len(one) > 0 for one in ids] == [True, True, False, False, True, True]
        assert (ids[1] == ids[4]) == (gap == 2)


def test_features_go_along_where_they_are_wanted() -> None:
    """Of the boxes' proposals as the encoder gave them; the fake's are the level of their frame."""
    detector, _, _ = fake_detector()
    seen: list[Linkable] = []

    class Watching(BoxLinker):
        def push(self, frame: Linkable, dials: Dials, moved: Moved | None = None) -> list[Detections]:
            seen.append(frame)
            return super().push(frame, dials, moved)

    for dials in (replace(LINKED, link_gap=4), LINKED, replace(LINKED, link="off", link_gap=4)):
        seen.clear()
        with detector.open_stream(dials) as stream:
            stream.linker = Watching()
            for t in range(3):
                stream.push(image(t))
            stream.flush()
        assert len(seen) == 3
        for t, frame in enumerate(seen):
            if not dials.over_gaps:
                assert frame.features is None
                continue
            assert frame.features is not None
            assert len(frame.features) == len(frame.found) > 0
            assert (frame.features[:, 0] == t).all()


@pytest.mark.parametrize(
    "option",
    [["--link-by", "boxes"], ["--link-delay", "3"], ["--link-gap", "3"], ["--link", "--link-delay", "-1"],
     ["--link", "--link-gap", "-1"]],
)  # fmt: skip
def test_linking_options_that_make_no_sense_are_refused(clip: Path, tmp_path: Path, option: list[str]) -> None:
    result = CliRunner().invoke(cli.app, ["predict", str(clip), "--engines", str(tmp_path), *option])
    assert result.exit_code == 2
    assert "link" in result.output


def test_dials_of_linking_are_checked() -> None:
    with pytest.raises(ConfigError, match="link_delay"):
        Dials(link_delay=-1)
    with pytest.raises(ConfigError, match="link_gap"):
        Dials(link_gap=-1)
    with pytest.raises(ConfigError, match="link"):
        Dials(link="tubes")  # type: ignore[arg-type]
